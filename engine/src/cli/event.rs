//! `curia event`: fires a user event.

use clap::Args;
use serde::Deserialize;

use super::{
    CliError,
    client::{Client, pair, path_of},
    flags::ClientFlags,
    output::say,
};

/// Fires an event, which `curia watch -type=event` and others hear.
///
///   curia event -name=deploy 1.2.3
///   curia event -name=restart -service=web -tag=canary
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct EventFlags {
    /// Name of the event
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Regular expression that names of nodes must match
    #[arg(long, value_name = "REGEXP")]
    node: Option<String>,
    /// Regular expression that names of services must match
    #[arg(long, value_name = "REGEXP")]
    service: Option<String>,
    /// Regular expression that tags of the service must match; needs -service
    #[arg(long, value_name = "REGEXP")]
    tag: Option<String>,
    /// What to send along
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Deserialize)]
struct Fired {
    #[serde(rename = "ID")]
    id: String,
}

pub(super) fn run(flags: &EventFlags) -> Result<(), CliError> {
    let wrong = |text: &str| Err(CliError(text.into()));
    if flags.name.is_empty() {
        return wrong("Event name must be specified; see curia event -help");
    }
    for (what, pattern) in [
        ("node", &flags.node),
        ("service", &flags.service),
        ("tag", &flags.tag),
    ] {
        if let Some(Err(error)) = pattern.as_ref().map(|pattern| regex::Regex::new(pattern)) {
            return Err(CliError(format!(
                "Error parsing {what} filter regexp: {error}"
            )));
        }
    }
    if flags.tag.is_some() && flags.service.is_none() {
        return wrong("Cannot provide tag filter without service filter.");
    }
    let payload = match &flags.args[..] {
        [] => "",
        [payload] => payload,
        _ => return wrong("Too many command line arguments."),
    };
    let query: Vec<String> = [
        ("node", &flags.node),
        ("service", &flags.service),
        ("tag", &flags.tag),
    ]
    .into_iter()
    .filter_map(|(name, pattern)| Some(pair(name, pattern.as_ref()?)))
    .collect();
    let fired: Fired = Client::new(&flags.client)?
        .put(
            &path_of("/v1/event/fire", &flags.name),
            &query,
            payload.as_bytes(),
        )
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error firing event: {why}")))?;
    say(format!("Event ID: {}", fired.id))
}
