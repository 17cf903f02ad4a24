//! How do Consul's command lines become ones that clap reads?
//!
//! Consul's flags are Go's: one dash or two, `-flag=value` or `-flag value` whatever the value
//! looks like, and the first argument that is not a flag ends them, so that
//! `curia kv put key -5` writes "-5". Every flag is rewritten to `--flag=value`, and a `--` is put
//! before the arguments. Switches take Go's booleans, `-flag=f` and `-flag=TRUE`. A flag that
//! nobody knows is refused here, by name.

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
        let takes = takes(name, &path, command)?;
        out.push(match (value, takes) {
            (Some(value), Takes::Nothing) => match go_bool(name, value)? {
                true => format!("--{name}").into(),
                false => continue,
            },
            (Some(value), Takes::Bool) => format!("--{name}={}", go_bool(name, value)?).into(),
            (Some(value), Takes::Value) => format!("--{name}={value}").into(),
            (None, Takes::Nothing | Takes::Bool) => format!("--{name}").into(),
            (None, Takes::Value) => {
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

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Nothing: it is off unless given.
    Nothing,
    /// A boolean, behind an equals sign only.
    Bool,
    /// A value, behind an equals sign or as the next argument.
    Value,
}

fn takes(name: &str, path: &str, command: &Command) -> Result<Takes, String> {
    let flags = || {
        command
            .get_arguments()
            .filter_map(|arg| Some((arg.get_long()?, arg)))
    };
    let is = |arg: &clap::Arg| arg.get_all_aliases().is_some_and(|all| all.contains(&name));
    match flags().find(|(long, arg)| *long == name || is(arg)) {
        Some((_, flag)) if flag.is_require_equals_set() => Ok(Takes::Bool),
        Some((_, flag)) => match flag.get_action() {
            ArgAction::Set | ArgAction::Append => Ok(Takes::Value),
            _ => Ok(Takes::Nothing),
        },
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

/// A boolean as Go's `strconv.ParseBool` reads it.
fn go_bool(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("Error: -{name}={value}: must be true or false")),
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
