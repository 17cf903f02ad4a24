//! How do Consul's command lines become ones that clap reads?
//!
//! Consul's flags are Go's: one dash or two, `-flag=value` or `-flag value` whatever the value
//! looks like, and the first argument that is not a flag ends them, so that
//! `curia kv put key -5` writes "-5". Every flag is rewritten to `--flag=value`, and a `--` is put
//! before the arguments. A flag that nobody knows is refused here, by name.

use std::ffi::OsString;

use clap::{ArgAction, Command};

use crate::server::nearest::nearest;

/// Rewrites a command line, the program's name first.
pub(super) fn normalise(
    args: impl IntoIterator<Item = OsString>,
    curia: &Command,
) -> Result<Vec<OsString>, String> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut command = curia;
    let mut path = String::from("curia");
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else {
            return Err(format!("Error: argument {arg:?} is not UTF-8"));
        };
        if text == "--" || !text.starts_with('-') || text == "-" {
            if let Some(next) = command.find_subcommand(text) {
                path.push(' ');
                path.push_str(text);
                out.push(arg);
                command = next;
                continue;
            }
            if command.has_subcommands() {
                return Err(unknown_command(text, &path, command));
            }
            out.push("--".into());
            out.extend((text != "--").then_some(arg));
            out.extend(args);
            break;
        }
        let name_value = text.trim_start_matches('-');
        let (name, value) = match name_value.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name_value, None),
        };
        if matches!(name, "h" | "help") {
            out.push(if name == "h" { "-h" } else { "--help" }.into());
            continue;
        }
        if command.get_name() == "curia" && matches!(name, "v" | "V" | "version") {
            return Ok(vec![out[0].clone(), "version".into()]);
        }
        let takes_value = takes_value(name, &path, command)?;
        out.push(match (value, takes_value) {
            (Some(value), _) => format!("--{name}={value}").into(),
            (None, false) => format!("--{name}").into(),
            (None, true) => {
                let value = args.next().ok_or_else(|| {
                    format!("Error: flag -{name} needs a value: -{name}=VALUE; see {path} -help")
                })?;
                let mut joined = OsString::from(format!("--{name}="));
                joined.push(value);
                joined
            }
        });
    }
    Ok(out)
}

/// Whether a flag of the command takes the next argument as its value.
fn takes_value(name: &str, path: &str, command: &Command) -> Result<bool, String> {
    let flags = || {
        command
            .get_arguments()
            .filter_map(|arg| Some((arg.get_long()?, arg)))
    };
    match flags().find(|(long, _)| *long == name) {
        Some((_, flag)) => Ok(!flag.is_require_equals_set()
            && matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)),
        None => {
            let hint = match nearest(name, flags().map(|(long, _)| long)) {
                Some(known) => format!(" (did you mean -{known}?)"),
                None => String::new(),
            };
            Err(format!(
                "Error: unknown flag -{name} of `{path}`{hint}; see {path} -help"
            ))
        }
    }
}

fn unknown_command(name: &str, path: &str, command: &Command) -> String {
    let names = || command.get_subcommands().map(Command::get_name);
    let hint = match nearest(name, names()) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("Error: unknown command {name:?} of `{path}`: {hint}; see {path} -help")
}
