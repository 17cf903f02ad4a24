//! The `curia` binary: nothing but the command line.

use std::process::ExitCode;

use engine::cli::{self, AgentConfig};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), start_agent)
}

/// Takes the place of the server until it is connected here.
fn start_agent(config: AgentConfig) -> Result<(), String> {
    cli::logger::start(config.log_level);
    for warning in &config.warnings {
        log::warn!(target: "agent", "{warning}");
    }
    Err(format!(
        "this build has no server yet; it would have listened on {}",
        config.server_bind
    ))
}
