//! `curia watch`: waits for changes with blocking queries, and hands them to a command.
//!
//! One thread asks; it asks again only when the handler has ended, so that handlers run one after
//! the other and always see the newest state rather than each one in between.

mod plan;
mod source;

use std::{
    io::Write,
    process::{ExitCode, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use clap::{ArgAction, Args};
use signal_hook::consts::SIGTERM;

use self::{
    plan::{Answer, Mark, Plan},
    source::Source,
};
use super::{
    CliError,
    child::{self, Child, Event},
    client::Client,
    flags::ClientFlags,
    output::{indented, say},
};

/// Waits for changes, and runs a command for each.
///
///   curia watch -type=key -key=app/colour 'cat > colour.json'
///   curia watch -type=keyprefix -prefix=app/ ./reload.sh
///   curia watch -type=service -service=web -passingonly -shell=false ./balance --now
///   curia watch -type=nodes                   (prints the nodes once, and ends)
///
/// Types: key (-key), keyprefix (-prefix), services, nodes, service (-service, -tag,
/// -passingonly), checks (-service or -state), event (-name), agent_service (-service, an id).
///
/// The command gets the present state on its standard input as JSON, once at the start and
/// then after every change; what does not exist is null. CONSUL_INDEX holds the index. Changes
/// that come while the command runs are handed over together when it has ended. A command that
/// fails ends the watch with exit code 1.
///
/// A server that does not answer is asked again after 5s, 20s, 45s and so on up to 3m.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct WatchFlags {
    /// What to watch
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    /// The key, with -type=key
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    key: String,
    /// What keys start with, with -type=keyprefix
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// Name of the service, with -type=service or checks; its id with -type=agent_service
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// Tag that the service has, with -type=service. Repeatable.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Leaves out what is not passing, with -type=service
    #[arg(long)]
    passingonly: bool,
    /// State of the checks, with -type=checks: any, passing, warning or critical
    #[arg(
        long,
        value_name = "STATE",
        default_value = "",
        hide_default_value = true
    )]
    state: String,
    /// Name of the event, with -type=event [default: all]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Filter expression, with types that list catalog or health
    #[arg(
        long,
        value_name = "EXPRESSION",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Runs the command in a shell: $SHELL, or /bin/sh
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, value_name = "BOOL")]
    shell: bool,
    /// The command
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(flags: &WatchFlags) -> Result<ExitCode, CliError> {
    let source = Source::new(flags)?;
    let client = Client::new(&flags.client)?;
    let querying = |CliError(why)| CliError(format!("Error querying curia agent: {why}"));
    // A first question at once: who is mistaken about the server is to hear of it.
    let first = source.ask(&client, None).map_err(querying)?;
    if flags.args.is_empty() {
        say(indented(&first.text, "    "))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (events, news) = mpsc::channel();
    child::take_signals(events.clone())?;
    let (ask_again, wanted) = mpsc::channel();
    let telling = events.clone();
    thread::spawn(move || follow(&source, &client, first, &telling, &wanted));
    loop {
        match news.recv() {
            Ok(Event::News(answer)) => {
                if let Some(ended) = handle(flags, &answer, &events, &news)? {
                    return Ok(ended);
                }
                let _ = ask_again.send(());
            }
            Ok(Event::Signal(signal)) if child::ends(signal) => return Ok(ExitCode::SUCCESS),
            Ok(_) => {}
            Err(_) => return Ok(ExitCode::FAILURE),
        }
    }
}

/// Asks without end; each piece of news is told, and the next question waits for `wanted`.
fn follow(
    source: &Source,
    client: &Client,
    first: Answer,
    tell: &Sender<Event<Answer>>,
    wanted: &Receiver<()>,
) {
    let mut plan = Plan::default();
    let mut next = Ok(first);
    loop {
        match next {
            Ok(answer) => {
                let news = plan.answered(&answer);
                if news && (tell.send(Event::News(answer)).is_err() || wanted.recv().is_err()) {
                    return;
                }
            }
            Err(CliError(why)) => {
                let retry = plan.failed();
                eprintln!("Watch errored: {why}; next try in {} s", retry.as_secs());
                thread::sleep(retry);
            }
        }
        next = source.ask(client, plan.mark());
    }
}

/// Runs the handler; the exit code with which the watch ends, if it does.
fn handle(
    flags: &WatchFlags,
    answer: &Answer,
    events: &Sender<Event<Answer>>,
    news: &Receiver<Event<Answer>>,
) -> Result<Option<ExitCode>, CliError> {
    let mut command = child::command(&flags.args, flags.shell);
    if let Mark::Index(index) | Mark::Event(index) = answer.mark {
        command.env("CONSUL_INDEX", index.to_string());
    }
    command.stdin(Stdio::piped());
    let mut child = Child::start(command, false, events.clone())
        .map_err(|error| CliError(format!("Error executing handler: {error}")))?;
    if let Some(mut input) = child.take_stdin() {
        let text = format!("{}\n", answer.text);
        // On a thread of its own: a handler may leave its input unread, and still be signalled.
        thread::spawn(move || input.write_all(text.as_bytes()));
    }
    let mut stopping = false;
    loop {
        match news.recv().unwrap_or(Event::Signal(SIGTERM)) {
            Event::ChildEnded => break,
            Event::Signal(signal) => {
                stopping |= child::ends(signal);
                let _ = child.signal(signal);
            }
            Event::News(_) => {}
        }
    }
    match child.reap() {
        _ if stopping => Ok(Some(ExitCode::SUCCESS)),
        Ok(status) if status.success() => Ok(None),
        Ok(status) => Err(CliError(format!("Error executing handler: {status}"))),
        Err(error) => Err(CliError(format!("Error executing handler: {error}"))),
    }
}
