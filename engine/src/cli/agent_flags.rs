//! Flags of `curia agent` that clap's derive cannot describe.
//!
//! `-config-file` and `-config-dir` are one list: which came first decides what wins. And Consul's
//! flags for what curia has not (or has as a key only) are taken as their keys, so that a start
//! script runs on unchanged, with the key's warning. They are left out of the help.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use super::config::{Named, keys_read};

/// `-config-file`, `-config-dir` and `-config-format`.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// In the order given.
    pub(super) named: Vec<Named>,
    pub(super) config_format: Option<String>,
}

impl Args for Sources {
    fn augment_args(command: Command) -> Command {
        let named = |long: &'static str, value, help| {
            Arg::new(long)
                .long(long)
                .value_name(value)
                .action(ArgAction::Append)
                .help(help)
        };
        command
            .arg(named(
                "config-file",
                "FILE",
                "Configuration file: JSON or HCL by its ending, with Consul's keys. Repeatable: later \
                 values win, lists grow, and flags win over files",
            ))
            .arg(named(
                "config-dir",
                "DIR",
                "Directory of configuration files: all *.json and *.hcl in it, in name order. \
                 Repeatable",
            ))
            .arg(
                Arg::new("config-format")
                    .long("config-format")
                    .value_name("FORMAT")
                    .help("Reads all files as json or hcl, whatever their endings"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Sources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut named = Vec::new();
        for (long, flag) in [
            ("config-file", "-config-file"),
            ("config-dir", "-config-dir"),
        ] {
            let places = matches.indices_of(long).into_iter().flatten();
            let paths = matches.get_many::<String>(long).into_iter().flatten();
            for (place, path) in places.zip(paths) {
                let path = PathBuf::from(path);
                named.push((place, Named { flag, path }));
            }
        }
        named.sort_by_key(|(place, _)| *place);
        Ok(Self {
            named: named.into_iter().map(|(_, named)| named).collect(),
            config_format: matches.get_one::<String>("config-format").cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Consul's flags that are taken as keys: flag, key, and whether the flag needs no value.
pub(super) const FOREIGN_FLAGS: &[(&str, &str, bool)] = &[
    ("advertise-wan", "advertise_addr_wan", false),
    (
        "allow-write-http-from",
        "http_config.allow_write_http_from",
        false,
    ),
    ("alt-domain", "alt_domain", false),
    ("auto-reload-config", "auto_reload_config", true),
    ("check_output_max_size", "check_output_max_size", false),
    ("default-query-time", "default_query_time", false),
    ("disable-host-node-id", "disable_host_node_id", true),
    ("disable-keyring-file", "disable_keyring_file", true),
    ("dns-port", "ports.dns", false),
    ("domain", "domain", false),
    (
        "enable-local-script-checks",
        "enable_local_script_checks",
        true,
    ),
    ("enable-script-checks", "enable_script_checks", true),
    ("encrypt", "encrypt", false),
    ("grpc-port", "ports.grpc", false),
    ("grpc-tls-port", "ports.grpc_tls", false),
    ("https-port", "ports.https", false),
    ("join", "start_join", false),
    ("join-wan", "start_join_wan", false),
    ("log-file", "log_file", false),
    ("log-json", "log_json", true),
    ("log-rotate-bytes", "log_rotate_bytes", false),
    ("log-rotate-duration", "log_rotate_duration", false),
    ("log-rotate-max-files", "log_rotate_max_files", false),
    ("max-query-time", "max_query_time", false),
    ("non-voting-server", "non_voting_server", true),
    ("primary-gateway", "primary_gateways", false),
    ("protocol", "protocol", false),
    ("raft-protocol", "raft_protocol", false),
    ("read-replica", "read_replica", true),
    ("recursor", "recursors", false),
    ("rejoin", "rejoin_after_leave", true),
    ("retry-interval-wan", "retry_interval_wan", false),
    ("retry-join-wan", "retry_join_wan", false),
    ("retry-max", "retry_max", false),
    ("retry-max-wan", "retry_max_wan", false),
    ("segment", "segment", false),
    ("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", false),
    ("serf-lan-bind", "serf_lan", false),
    ("serf-lan-port", "ports.serf_lan", false),
    ("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", false),
    ("serf-wan-bind", "serf_wan", false),
    ("serf-wan-port", "ports.serf_wan", false),
    ("syslog", "enable_syslog", true),
    ("ui", "ui", true),
    ("ui-content-path", "ui_content_path", false),
    ("ui-dir", "ui_dir", false),
];

/// Columns of the list of keys in the help.
const HELP_WIDTH: usize = 90;

/// Those that were given: which of the table, and the value.
#[derive(Clone, Debug, Default)]
pub(super) struct ForeignFlags(pub(super) Vec<(usize, String)>);

impl Args for ForeignFlags {
    fn augment_args(command: Command) -> Command {
        FOREIGN_FLAGS
            .iter()
            .fold(command, |command, (flag, _, bare)| {
                let arg = Arg::new(*flag)
                    .long(*flag)
                    .hide(true)
                    .action(ArgAction::Append);
                command.arg(match bare {
                    true => arg
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true"),
                    false => arg,
                })
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ForeignFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |(at, (flag, ..)): (usize, &(&str, _, _))| {
            let values = matches.get_many::<String>(flag).into_iter().flatten();
            values.map(|value| (at, value.clone())).collect::<Vec<_>>()
        };
        Ok(Self(
            FOREIGN_FLAGS.iter().enumerate().flat_map(given).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The end of the help: which keys of configuration files are read.
pub(super) fn keys_help() -> String {
    let mut text = String::from("Keys of configuration files that curia reads:");
    let mut room = 0;
    for key in keys_read() {
        let needed = key.len() + 2;
        if needed > room {
            text.push_str("\n ");
            room = HELP_WIDTH;
        }
        room -= needed;
        text.push(' ');
        text.push_str(key);
        text.push(',');
    }
    text.pop();
    text.push_str(
        "\n\nConsul's other keys are accepted with a warning, and its other flags as their keys.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{super::config::is_key, *};

    #[test]
    fn every_flag_of_consuls_has_a_key() {
        for (flag, key, _) in FOREIGN_FLAGS {
            assert!(is_key(key), "-{flag}: {key}");
        }
    }
}
