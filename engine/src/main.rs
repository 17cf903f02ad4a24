//! The `curia` binary: nothing but the command line.

use std::process::ExitCode;

use engine::{
    cli::{self, AgentConfig, Source, signals::SignalFd},
    server::{Signals, run_agent},
};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), start_agent)
}

/// Starts a server and runs it until it is signalled.
fn start_agent(config: AgentConfig, source: Source) -> Result<(), String> {
    cli::logger::start(config.log_level);
    for warning in &config.warnings {
        log::warn!(target: "agent", "{warning}");
    }
    abort_on_panic();
    // Before any thread is started: threads inherit what is blocked.
    let cannot = |error| format!("cannot take signals: {error}");
    let taken = SignalFd::new().map_err(cannot)?;
    let signals = Signals {
        stop: taken.reader().map_err(cannot)?,
        reload: taken.hangups().map_err(cannot)?,
    };
    run_agent(config, signals, source)
}

/// A panic in a task would end its executor and leave a process that serves nothing.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
