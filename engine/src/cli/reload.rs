//! `curia reload`: has a running server read its configuration again.

use super::{CliError, client::Client, flags::ReloadFlags};

pub(super) fn reload(flags: &ReloadFlags) -> Result<(), CliError> {
    Client::new(&flags.client)?
        .put("/v1/agent/reload", &[], b"")
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error reloading: {why}")))?;
    println!("Configuration reload triggered");
    Ok(())
}
