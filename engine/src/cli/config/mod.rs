//! How do files and flags become one checked [`AgentConfig`]?
//!
//! ```text
//! sources      which files, in which order, in which language
//!   hcl          HCL as the same tree as JSON
//! layer        what all of them say together: later wins, lists grow, each value knows its origin
//!   keys         which keys there are
//! check        defaults, and every rule of and between values
//!   addresses    where to listen, whom to join        definitions  services and checks
//!   options      acl, autopilot, telemetry, …           fields       of one definition
//! ```
//! Files in the order given, then `-hcl`, then `-set`, then flags. Each error names where the value
//! came from and what to do, and all are told at once.

mod addresses;
mod check;
mod definitions;
mod fields;
mod hcl;
mod interfaces;
mod keys;
mod layer;
mod options;
mod sources;

use std::path::{Path, PathBuf};

use super::{agent_flags::FOREIGN_FLAGS, flags::AgentFlags};
use crate::server::config::AgentConfig;
use check::{Purpose, check};
use keys::{KEYS, Kind};
use layer::Layer;
use sources::Format;
pub(super) use sources::Named;

/// A mistake. Its text names flag, or file and key, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConfigError(pub(super) String);

/// Reads a document in HCL, as configuration files are read.
pub(super) fn parse_hcl(text: &str) -> Result<serde_json::Value, String> {
    hcl::parse(text)
}

/// Makes a configuration of the flags and the files that they name, or says all that is wrong.
pub(super) fn build(flags: &AgentFlags) -> Result<AgentConfig, Vec<ConfigError>> {
    let mut layer = Layer::default();
    let format = format(flags.sources.config_format.as_deref(), &mut layer);
    read(&flags.sources.named, format, &mut layer);
    for text in &flags.hcl {
        match sources::parse(text, Format::Hcl) {
            Ok(tree) => layer.set_all(tree, &|key| format!("-hcl: {key}")),
            Err(why) => layer.errors.push(ConfigError(format!("-hcl: {why}"))),
        }
    }
    for pair in &flags.set {
        layer.set_pair(pair);
    }
    take_flags(&mut layer, flags);
    check(layer, Purpose::Run)
}

/// Checks files and directories for themselves: what a flag may still say is not missed, except for
/// the data directory, as in Consul. Gives back the warnings.
pub(super) fn validate(
    paths: &[PathBuf],
    config_format: Option<&str>,
) -> Result<Vec<String>, Vec<ConfigError>> {
    let mut layer = Layer::default();
    let format = format(config_format, &mut layer);
    let named: Vec<Named> = paths
        .iter()
        .map(|path| Named {
            flag: "",
            path: path.clone(),
        })
        .collect();
    read(&named, format, &mut layer);
    check(layer, Purpose::Validate).map(|config| config.warnings)
}

/// Checks the text of one file for itself.
#[cfg(feature = "fuzzing")]
pub(super) fn of_text(text: &str, hcl: bool) -> Result<Vec<String>, Vec<ConfigError>> {
    let mut layer = Layer::default();
    let format = if hcl { Format::Hcl } else { Format::Json };
    match sources::parse(text, format) {
        Ok(tree) if tree.is_object() => layer.set_all(tree, &|key| format!("file: {key}")),
        Ok(_) => layer.errors.push(ConfigError("must be an object".into())),
        Err(why) => layer.errors.push(ConfigError(why)),
    }
    check(layer, Purpose::Validate).map(|config| config.warnings)
}

fn format(text: Option<&str>, layer: &mut Layer) -> Option<Format> {
    match Format::parse(text?) {
        Ok(format) => Some(format),
        Err(error) => {
            layer.errors.push(error);
            None
        }
    }
}

fn read(named: &[Named], format: Option<Format>, layer: &mut Layer) {
    for named in named {
        let mut warnings = Vec::new();
        let errors = sources::read(named, format, &mut warnings, |path: &Path, tree| {
            layer.set_all(tree, &|key| format!("{}: {key}", path.display()));
        });
        layer.warnings.extend(warnings);
        layer.errors.extend(errors);
    }
}

fn take_flags(layer: &mut Layer, flags: &AgentFlags) {
    layer.dev = flags.dev.unwrap_or(false);
    if flags.client.is_some() {
        layer.forget("addresses.http");
    }
    let shown = |flag: &Option<bool>| flag.map(|flag| flag.to_string());
    let given: [(&'static str, &str, Option<String>); 17] = [
        ("server", "-server", shown(&flags.server)),
        ("bootstrap", "-bootstrap", shown(&flags.bootstrap)),
        (
            "bootstrap_expect",
            "-bootstrap-expect",
            flags.bootstrap_expect.clone(),
        ),
        (
            "retry_interval",
            "-retry-interval",
            flags.retry_interval.clone(),
        ),
        ("node_name", "-node", flags.node.clone()),
        ("node_id", "-node-id", flags.node_id.clone()),
        ("bind_addr", "-bind", flags.bind.clone()),
        ("advertise_addr", "-advertise", flags.advertise.clone()),
        ("client_addr", "-client", flags.client.clone()),
        ("ports.http", "-http-port", flags.http_port.clone()),
        ("ports.server", "-server-port", flags.server_port.clone()),
        ("data_dir", "-data-dir", flags.data_dir.clone()),
        ("datacenter", "-datacenter", flags.datacenter.clone()),
        ("log_level", "-log-level", flags.log_level.clone()),
        ("executors", "-executors", flags.executors.clone()),
        ("shards", "-shards", flags.shards.clone()),
        ("pid_file", "-pid-file", flags.pid_file.clone()),
    ];
    for (key, flag, text) in given {
        if let Some(text) = text {
            layer.set_flag(key, flag, text);
        }
    }
    let lists = [
        ("retry_join", "-retry-join", &flags.retry_join),
        ("node_meta", "-node-meta", &flags.node_meta),
    ];
    for (key, flag, texts) in lists {
        for text in texts {
            layer.set_flag(key, flag, text.clone());
        }
    }
    for (at, text) in &flags.foreign.0 {
        let (flag, key, _) = FOREIGN_FLAGS[*at];
        layer.set_flag(key, &format!("-{flag}"), text.clone());
    }
}

/// The keys of configuration files, for `curia agent -help`: those that are read.
pub(super) fn keys_read() -> impl Iterator<Item = &'static str> {
    let is_read = |kind: &Kind| {
        !matches!(
            kind,
            Kind::Object | Kind::Ignored | Kind::Protection | Kind::Old(_)
        )
    };
    KEYS.iter()
        .filter(move |(_, kind)| is_read(kind))
        .map(|(key, _)| *key)
}

/// Whether the table has this key.
#[cfg(test)]
pub(super) fn is_key(key: &str) -> bool {
    keys::find(key).is_some()
}
