//! What happens when a server is told to read its configuration again?
//!
//! The command line knows how to read it (`source`); what can change while the server runs is
//! taken over, and the log says what did and what waits for a restart (see [`Changes`]). A
//! configuration with a mistake changes nothing. Reading files blocks, so it is done on a thread
//! that is not an executor's; the lock is held for one reload and nowhere else.

use std::sync::{Arc, Mutex};

use super::{
    config::{AgentConfig, Changes},
    monitor,
};

/// Reads the command line's files again. The error is for the operator.
pub type Source = Box<dyn Fn() -> Result<AgentConfig, String> + Send + Sync>;

/// The configuration in force, and where it comes from.
pub struct Reload {
    source: Source,
    in_force: Mutex<InForce>,
}

/// A configuration that is in force until a later one is.
#[derive(Clone, Debug)]
pub struct InForce {
    /// How many were in force before.
    pub generation: u64,
    /// What it says.
    pub config: AgentConfig,
}

impl Reload {
    /// `config` is what the server started with.
    pub fn new(config: AgentConfig, source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            in_force: Mutex::new(InForce {
                generation: 0,
                config,
            }),
        })
    }

    /// Reads the configuration again. Blocks. What is given back is in force from now on; the
    /// caller has it carried out wherever nothing later was.
    ///
    /// # Errors
    /// When the new configuration has a mistake; everything is as before.
    pub fn read_again(&self) -> Result<Arc<InForce>, String> {
        self.carried_out().inspect_err(|why| {
            log::error!(target: "agent", "configuration not reloaded, nothing has changed: {why}");
        })
    }

    fn carried_out(&self) -> Result<Arc<InForce>, String> {
        let new = (self.source)()?;
        for warning in &new.warnings {
            log::warn!(target: "agent", "{warning}");
        }
        let mut in_force = self
            .in_force
            .lock()
            .map_err(|_| "an earlier reload has failed: restart the server".to_owned())?;
        let changes = in_force.config.reload(new);
        in_force.generation += 1;
        monitor::set_level(in_force.config.log_level);
        say(&changes);
        Ok(Arc::new(in_force.clone()))
    }
}

fn say(changes: &Changes) {
    if changes.is_empty() {
        log::info!(target: "agent", "configuration reloaded: nothing has changed");
    }
    if !changes.applied.is_empty() {
        log::info!(target: "agent", "configuration reloaded: changed={}", changes.applied.join(", "));
    }
    if !changes.restart.is_empty() {
        log::warn!(
            target: "agent",
            "configuration reloaded: these have changed and wait for a restart: {}",
            changes.restart.join(", ")
        );
    }
}
