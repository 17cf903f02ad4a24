//! `curia monitor`: a server's log, as it is written.
//!
//! Ends when it is told to, with exit code 0, or with the server's end of the stream, with 1, as
//! Consul's.

use std::{
    io::{BufRead, BufReader, Read},
    process::ExitCode,
    sync::mpsc::{self, Sender},
    thread,
};

use clap::Args;

use super::{
    CliError,
    child::{self, Event},
    client::{Client, pair},
    flags::ClientFlags,
    output::{say, write_out},
    rows::none,
};

/// Shows the log of a server while it is written.
///
///   curia monitor
///   curia monitor -log-level=debug
///   curia monitor -log-json | jq
///
/// It may show finer lines than the server's own log has. A reader that is too slow is told how
/// many lines it missed.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct MonitorFlags {
    /// Finest level to show: trace, debug, info, warn or err
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// One JSON object a line
    #[arg(long)]
    log_json: bool,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

const ENDED: &str = "\nRemote side ended the monitor! This usually means that the\n\
                     remote side has exited or crashed.";

pub(super) fn run(flags: &MonitorFlags) -> Result<ExitCode, CliError> {
    none(&flags.args)?;
    let starting = |CliError(why)| CliError(format!("Error starting monitor: {why}"));
    let mut query = vec![pair("loglevel", &flags.log_level)];
    if flags.log_json {
        query.push("logjson".into());
    }
    let (events, news) = mpsc::channel();
    child::take_signals(events.clone())?;
    let lines = Client::new(&flags.client)?
        .stream("/v1/agent/monitor", &query)
        .map_err(starting)?;
    thread::spawn(move || read(lines, &events));
    loop {
        match news.recv() {
            Ok(Event::News(Some(line))) => write_out(&line)?,
            Ok(Event::Signal(signal)) if child::ends(signal) => return Ok(ExitCode::SUCCESS),
            Ok(Event::News(None)) | Err(_) => {
                say(ENDED)?;
                return Ok(ExitCode::FAILURE);
            }
            Ok(_) => {}
        }
    }
}

/// Tells each line, and `None` at the end, however it comes.
fn read(lines: impl Read, tell: &Sender<Event<Option<Vec<u8>>>>) {
    let mut lines = BufReader::new(lines);
    loop {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line);
        let over = line.is_empty() || read.is_err();
        let news = (!over).then_some(line);
        if tell.send(Event::News(news)).is_err() || over {
            return;
        }
    }
}
