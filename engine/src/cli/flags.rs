//! Which commands and flags are there? One declaration, from which parsing and help are made.
//!
//! Names are Consul's. All flags take one dash or two, `-flag=value` or `-flag value`, and come
//! before the arguments, as Consul's do (see `args`).

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::agent_flags::{ForeignFlags, Sources};

/// A Raft-replicated, Consul-API-compatible coordination store.
///
/// A cluster of 1 to 9 servers keeps keys and values (configuration, locks, leader election)
/// on a majority of its disks before it acknowledges a write. Clients speak Consul's HTTP API.
///
/// Start a server to try it out:      curia agent -dev
/// Write a key and read it back:      curia kv put colour blue; curia kv get colour
///
/// Flags take one dash or two, `-flag=value` or `-flag value`, and come before the arguments.
#[derive(Debug, Parser)]
#[command(
    name = "curia",
    bin_name = "curia",
    version = env!("CARGO_PKG_VERSION"),
    max_term_width = 100,
    verbatim_doc_comment,
    next_line_help = true,
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub(super) struct Curia {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Agent(Box<AgentFlags>),
    Validate(ValidateFlags),
    Reload(ReloadFlags),
    /// Reads and writes keys of a running cluster.
    #[command(subcommand)]
    Kv(super::kv::KvCommand),
    Lock(super::lock::LockFlags),
    Watch(super::watch::WatchFlags),
    #[command(subcommand)]
    Acl(super::acl::AclCommand),
    #[command(subcommand)]
    Session(super::session::SessionCommand),
    #[command(subcommand)]
    Catalog(super::catalog::CatalogCommand),
    #[command(subcommand)]
    Services(super::services::ServicesCommand),
    Event(super::event::EventFlags),
    Maint(super::maint::MaintFlags),
    /// Reads and writes config entries.
    #[command(subcommand)]
    Config(super::config_entries::ConfigCommand),
    Members(super::members::MembersFlags),
    Monitor(super::monitor::MonitorFlags),
    Info(super::members::InfoFlags),
    /// Looks into the cluster itself.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Inspects and repairs the log of a stopped server.
    #[command(subcommand)]
    Log(LogCommand),
    /// Prints the version.
    Version,
}

/// Runs a server.
///
/// A server needs -data-dir and a way into a cluster. One on its own:
///
///   curia agent -server -bootstrap -data-dir=/var/lib/curia -bind=10.0.0.1
///
/// Three that find each other (the same on each, with its own -bind and -node):
///
///   curia agent -server -bootstrap-expect=3 -data-dir=/var/lib/curia
///         -bind=10.0.0.1 -node=s1 -retry-join=10.0.0.1,10.0.0.2,10.0.0.3
///
/// A stopped or killed server restarts from its data directory alone. SIGINT and SIGTERM
/// shut it down cleanly; SIGHUP and `curia reload` have it read its configuration files again.
#[derive(Args, Clone, Debug, Default)]
#[command(verbatim_doc_comment, after_long_help = super::agent_flags::keys_help())]
pub(super) struct AgentFlags {
    /// One server for trying things out: ready at once, data in a temporary directory that goes
    /// with it, on 127.0.0.1.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(super) dev: Option<bool>,
    /// Runs as a server. Required, except with -dev: curia has no client agents.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(super) server: Option<bool>,
    /// Forms a cluster of this one server if it has no data yet. Start at most one server of a
    /// cluster with it.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(super) bootstrap: Option<bool>,
    /// Forms a cluster as soon as N servers without data have found each other, all with the
    /// same N. Excludes -bootstrap.
    #[arg(long, value_name = "N")]
    pub(super) bootstrap_expect: Option<String>,
    /// Address of another server, HOST or HOST:PORT, tried until it answers. Repeatable, and
    /// comma-separated. The port defaults to this server's -server-port.
    #[arg(long, value_name = "ADDR", action = ArgAction::Append)]
    pub(super) retry_join: Vec<String>,
    /// Time between two complaints of an address that cannot be resolved. Servers are tried several
    /// times a second until a cluster was found [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(super) retry_interval: Option<String>,
    /// Name of this server, unique in its cluster [default: host name]
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Id of this server, a UUID [default: made at the first start and kept in the data directory]
    #[arg(long, value_name = "UUID")]
    pub(super) node_id: Option<String>,
    /// IP address to listen on for other servers and native clients, and to reach other servers
    /// from [default: 0.0.0.0; with -dev 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(super) bind: Option<String>,
    /// IP address at which other servers reach this one [default: -bind, or with 0.0.0.0 the only
    /// private IPv4 address of this machine]
    #[arg(long, value_name = "IP")]
    pub(super) advertise: Option<String>,
    /// IP address to serve HTTP on [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(super) client: Option<String>,
    /// Port to serve HTTP on; -1 for no HTTP [default: 8500]
    #[arg(long, value_name = "PORT")]
    pub(super) http_port: Option<String>,
    /// Port for other servers and native clients; -1 for none, which only a server on its own can
    /// do without [default: 8300]
    #[arg(long, value_name = "PORT")]
    pub(super) server_port: Option<String>,
    /// Directory for the log, images and identity of this server. Required, except with -dev.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Name of the datacenter [default: dc1]
    #[arg(long, value_name = "NAME")]
    pub(super) datacenter: Option<String>,
    #[command(flatten)]
    pub(super) sources: Sources,
    /// A piece of configuration in HCL, such as 'log_level = "debug"'. Repeatable.
    #[arg(long, value_name = "HCL", action = ArgAction::Append)]
    pub(super) hcl: Vec<String>,
    /// Sets any key of a configuration file, such as performance.raft_multiplier=1. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(super) set: Vec<String>,
    /// How much to log: trace, debug, info, warn or err [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
    /// Number of executors (threads that own shards and connections) [default: one per
    /// processor, pinned to it]
    #[arg(long, value_name = "N")]
    pub(super) executors: Option<String>,
    /// Number of shards, fixed when the cluster is formed. More than 1 is experimental [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) shards: Option<String>,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<String>,
    /// Metadata of this server's node. Repeatable.
    #[arg(long, value_name = "KEY:VALUE", action = ArgAction::Append)]
    pub(super) node_meta: Vec<String>,
    #[command(flatten)]
    pub(super) foreign: ForeignFlags,
}

/// Checks configuration files without starting anything.
///
///   curia validate /etc/curia.d
///   curia validate -config-format=hcl curia.conf
///
/// Prints "Configuration is valid!", or all that is wrong.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ValidateFlags {
    /// Prints errors only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(super) quiet: bool,
    /// Reads all files as json or hcl, whatever their endings
    #[arg(long, value_name = "FORMAT")]
    pub(super) config_format: Option<String>,
    /// Files and directories, as the agent's -config-file and -config-dir
    #[arg(value_name = "FILE_OR_DIR")]
    pub(super) paths: Vec<PathBuf>,
}

/// Has a running server read its configuration files again.
///
/// The log says what has changed, and what waits for a restart.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ReloadFlags {
    #[command(flatten)]
    pub(super) client: ClientFlags,
}

/// Where and how to reach a running server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client flags")]
pub(super) struct ClientFlags {
    /// Address of a server's HTTP API: HOST:PORT, http://HOST:PORT or unix://PATH
    #[arg(
        long,
        value_name = "ADDR",
        env = "CONSUL_HTTP_ADDR",
        default_value = "127.0.0.1:8500"
    )]
    pub(super) http_addr: String,
    /// Token to send with the request
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CONSUL_HTTP_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
    /// File that holds the token to send; wins over -token
    #[arg(long, value_name = "FILE", env = "CONSUL_HTTP_TOKEN_FILE")]
    pub(super) token_file: Option<String>,
    /// Name of the datacenter to ask [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub(super) datacenter: Option<String>,
    /// Any server may answer, from what it has, also without a leader
    #[arg(long)]
    pub(super) stale: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Looks at the raft peer set.
    #[command(subcommand)]
    Raft(RaftCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum RaftCommand {
    /// Lists the servers of the peer set and who leads.
    ListPeers(ListPeers),
}

#[derive(Args, Debug, Default)]
pub(super) struct ListPeers {
    #[command(flatten)]
    pub(super) client: ClientFlags,
}

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Prints and verifies a log, changing nothing.
    Inspect(LogInspect),
    /// Last resort for a lone server that refuses to start because it cannot decide whether the
    /// end of its log is torn or corrupt.
    Repair(LogRepair),
}

#[derive(Args, Debug)]
pub(super) struct LogInspect {
    /// Directory of the log, in the server's data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct LogRepair {
    /// Cuts the log where it cannot be decided. Entries that were acknowledged may be lost; the
    /// bytes that are cut are kept beside the log.
    #[arg(long)]
    pub(super) cut_tail: bool,
    /// Directory of the log, in the server's data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}
