//! The command line: what does `curia …` do?
//!
//! [`run`] is a table of commands. `agent` ends in a checked [`AgentConfig`] for the server;
//! every other command is a client of a running server's HTTP API, or a tool for files at rest.
//! Errors name the flag, file or address and what to do, and end in exit code 1.

mod acl;
mod agent_flags;
mod args;
mod catalog;
mod child;
mod client;
mod config;
mod config_entries;
mod document_file;
#[cfg(feature = "fuzzing")]
pub mod doors;
mod durations;
mod event;
mod flags;
mod kv;
mod lock;
mod log_tools;
pub mod logger;
mod maint;
mod members;
mod monitor;
mod operator;
mod output;
mod reload;
mod rows;
mod services;
mod session;
pub mod signals;
mod validate;
mod watch;

use std::{ffi::OsString, fmt::Display, process::ExitCode};

use clap::Parser;

pub use crate::server::{config::AgentConfig, reload::Source};
use flags::{Command, Curia, LogCommand, OperatorCommand, RaftCommand};

/// A command's error: what to print, one or more lines. Its exit code is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CliError(pub String);

impl From<String> for CliError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Version and, where the build knows it, revision: `curia v0.1.0`.
pub fn version() -> String {
    match revision() {
        "" => format!("curia v{}", env!("CARGO_PKG_VERSION")),
        revision => format!("curia v{}\nRevision {revision}", env!("CARGO_PKG_VERSION")),
    }
}

/// Commit this build was made from (`CURIA_REVISION` at build time); empty where unknown.
pub fn revision() -> &'static str {
    option_env!("CURIA_REVISION").unwrap_or_default()
}

/// Runs one command line, the program's name first. `start_agent` serves until it is told to stop;
/// it is given what reads the configuration again.
pub fn run<E: Display>(
    args: impl IntoIterator<Item = OsString>,
    start_agent: impl FnOnce(AgentConfig, Source) -> Result<(), E>,
) -> ExitCode {
    let parsed = match parse(args) {
        Ok(parsed) => parsed,
        Err(Stop::Shown(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Wrong(text)) => {
            eprintln!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let done = match parsed.command {
        Command::Agent(flags) => agent_config(&flags).and_then(|config| {
            let source: Source =
                Box::new(move || agent_config(&flags).map_err(|error| error.to_string()));
            start_agent(config, source).map_err(|error| CliError(format!("Error: {error}")))
        }),
        Command::Validate(validate) => validate::validate(&validate),
        Command::Reload(reload) => reload::reload(&reload),
        Command::Lock(lock) => return ended(lock::run(&lock)),
        Command::Watch(watch) => return ended(watch::run(&watch)),
        Command::Monitor(monitor) => return ended(monitor::run(&monitor)),
        Command::Members(members) => return ended(members::members(&members)),
        Command::Info(info) => members::info(&info),
        Command::Acl(command) => acl::run(&command),
        Command::Session(command) => session::run(&command),
        Command::Catalog(command) => catalog::run(&command),
        Command::Services(command) => services::run(&command),
        Command::Event(event) => event::run(&event),
        Command::Maint(maint) => maint::run(&maint),
        Command::Config(command) => config_entries::run(&command),
        Command::Kv(command) => kv::run(&command),
        Command::Operator(OperatorCommand::Raft(RaftCommand::ListPeers(peers))) => {
            operator::list_peers(peers)
        }
        Command::Log(LogCommand::Inspect(inspect)) => log_tools::inspect(&inspect.dir),
        Command::Log(LogCommand::Repair(repair)) => log_tools::repair(&repair),
        Command::Version => {
            println!("{}", version());
            Ok(())
        }
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

/// The exit code of a command, whose error is printed.
fn ended(done: Result<ExitCode, CliError>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(CliError(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line of `curia agent`, without starting anything. For tests and tools.
pub fn parse_agent(args: impl IntoIterator<Item = OsString>) -> Result<AgentConfig, CliError> {
    match parse(args) {
        Ok(Curia {
            command: Command::Agent(flags),
        }) => agent_config(&flags),
        Ok(_) => Err(CliError("Error: not a `curia agent` command line".into())),
        Err(Stop::Shown(text) | Stop::Wrong(text)) => Err(CliError(text)),
    }
}

fn agent_config(flags: &flags::AgentFlags) -> Result<AgentConfig, CliError> {
    config::build(flags).map_err(|errors| {
        let lines: Vec<String> = errors
            .iter()
            .map(|error| format!("Error: {error}"))
            .collect();
        CliError(lines.join("\n"))
    })
}

/// Why there is nothing to run.
enum Stop {
    /// Help was asked for and is to be shown.
    Shown(String),
    /// The command line is wrong.
    Wrong(String),
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Curia, Stop> {
    let args =
        args::normalise(args, &<Curia as clap::CommandFactory>::command()).map_err(Stop::Wrong)?;
    Curia::try_parse_from(args).map_err(|error| match error.exit_code() {
        0 => Stop::Shown(error.to_string()),
        _ => Stop::Wrong(error.to_string().trim_end().to_string()),
    })
}
