//! `curia validate`: are these configuration files right?
//!
//! Consul's texts and exit codes. Warnings go to standard error, so that the answer stays one line.

use super::{CliError, config, flags::ValidateFlags};

pub(super) fn validate(flags: &ValidateFlags) -> Result<(), CliError> {
    if flags.paths.is_empty() {
        return Err(CliError(
            "Must specify at least one config file or directory".into(),
        ));
    }
    match config::validate(&flags.paths, flags.config_format.as_deref()) {
        Ok(warnings) => {
            if !flags.quiet {
                for warning in warnings {
                    eprintln!("{warning}");
                }
                println!("Configuration is valid!");
            }
            Ok(())
        }
        Err(errors) => {
            let texts: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
            Err(CliError(match &texts[..] {
                [one] => format!("Config validation failed: {one}"),
                several => format!(
                    "Config validation failed: {} errors:\n  * {}",
                    several.len(),
                    several.join("\n  * ")
                ),
            }))
        }
    }
}
