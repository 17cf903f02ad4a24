//! Do the values hold, each for itself and all together?
//!
//! Defaults are filled in here, and every rule between values is looked at, to the last one:
//! whoever has made three mistakes is told of three.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use wire::{
    Uuid,
    limits::{COMMAND_BYTES_MAX, KEY_BYTES_MAX, MEMBERS_MAX, SHARDS_MAX, VALUE_BYTES_MAX},
};

use super::{
    ConfigError,
    addresses::{advertise, http_addresses, ip, port, retry_join, unix_sockets},
    definitions::{Findings, check_meta, definitions},
    layer::{Layer, Sourced},
    options::{acl, autopilot, http_rules, telemetry},
};
use crate::server::{
    config::{
        AgentConfig, BootstrapMode, DataDir, EXECUTORS_MAX, HttpAddress, LogCompletion, LogOptions,
        RaftOptions, SESSION_TTL_MIN, SESSION_TTL_MIN_LEAST, WATCH_HISTORY_BYTES_MIN,
    },
    http::{HttpLimits, TXN_BODY_BYTES_MAX},
    monitor::parse_level,
};
use crate::shard::HISTORY_BYTES_DEFAULT;

/// What a configuration is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A server is to run on it.
    Run,
    /// Files are checked; flags may complete them.
    Validate,
}

/// Room in a command for what is neither key nor value, bytes.
const COMMAND_OVERHEAD_BYTES: usize = 1024;
/// Longest body of a transaction that can be allowed, bytes: its command in Base64 and JSON.
const TXN_BYTES_LIMIT_MAX: usize = 2 * COMMAND_BYTES_MAX;
/// Longest TTL of a session, Consul's.
const SESSION_TTL_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn err<T>(text: String) -> Result<T, ConfigError> {
    Err(ConfigError(text))
}

impl Findings {
    /// The value; after an error `fallback`, so that the rest can be looked at too.
    pub(super) fn or<T>(&mut self, found: Result<T, ConfigError>, fallback: T) -> T {
        found.unwrap_or_else(|error| {
            self.errors.push(error);
            fallback
        })
    }
}

/// Makes a configuration of what was said, or says all that is wrong with it.
pub(super) fn check(mut layer: Layer, purpose: Purpose) -> Result<AgentConfig, Vec<ConfigError>> {
    let mut out = Findings {
        errors: std::mem::take(&mut layer.errors),
        warnings: std::mem::take(&mut layer.warnings),
    };
    let config = complete(&layer, purpose, &mut out);
    match out.errors.is_empty() {
        true => Ok(AgentConfig {
            warnings: out.warnings,
            ..config
        }),
        false => Err(out.errors),
    }
}

fn complete(layer: &Layer, purpose: Purpose, out: &mut Findings) -> AgentConfig {
    let dev = layer.dev;
    // What kind of server it is decides what else it needs: without that, no more is said.
    let role = check_role(layer, purpose);
    let role_known = role.is_ok();
    out.or(role, ());
    let bootstrap = bootstrap(layer, dev, &mut out.warnings);
    let bootstrap = out.or(bootstrap, BootstrapMode::Alone);
    let server_port = server_port(layer, bootstrap, purpose);
    let server_port = out.or(server_port, 8300);
    let bind_ip = match layer.text("bind_addr") {
        Some(bind) => out.or(ip(&bind), Ipv4Addr::LOCALHOST.into()),
        None if dev => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let told = match purpose {
        Purpose::Run if role_known => advertise(layer, bind_ip),
        // Another machine may have another address.
        _ => Ok(bind_ip),
    };
    let told = out.or(told, bind_ip);
    let server_bind = SocketAddr::new(bind_ip, server_port);
    let http_addresses = http_addresses(layer);
    let http_addresses = out.or(http_addresses, Vec::new());
    if server_port != 0 && http_addresses.contains(&HttpAddress::Tcp(server_bind)) {
        out.error(format!(
            "-http-port and -server-port are both {server_bind}: give them different ports"
        ));
    }
    let datacenter = out.or(datacenter(layer), "dc1".into());
    let (executors, executors_chosen) = out.or(executors(layer), (1, false));
    let data_dir = match role_known {
        true => data_dir(layer, dev, purpose, &mut out.warnings),
        false => Ok(DataDir::Temporary),
    };
    let definitions = definitions(layer, out);
    AgentConfig {
        dev,
        bootstrap,
        retry_join: out.or(retry_join(layer, server_port.max(1)), Vec::new()),
        retry_interval: out.or(
            duration(
                layer.number("retry_interval"),
                Duration::from_secs(30),
                Duration::from_millis(1),
            ),
            Duration::ZERO,
        ),
        node_name: out.or(node_name(layer), String::new()),
        node_id: out.or(node_id(layer), None),
        node_meta: node_meta(layer, out),
        primary_datacenter: primary_datacenter(layer, &datacenter, out),
        datacenter,
        server_bind,
        server_advertise: SocketAddr::new(told, server_port),
        http_addresses,
        unix_sockets: out.or(unix_sockets(layer), Default::default()),
        data_dir: out.or(data_dir, DataDir::Temporary),
        executors,
        executors_chosen,
        shards: out
            .or(range(layer.number("shards"), 1, SHARDS_MAX as i64), None)
            .map(|shards| shards as u16),
        log: log_options(layer, out),
        raft: raft_options(layer, out),
        rpc_hold_timeout: out.or(
            duration(
                layer.number("performance.rpc_hold_timeout"),
                Duration::from_secs(7),
                Duration::from_millis(1),
            ),
            Duration::ZERO,
        ),
        watch_history_bytes: watch_history_bytes(layer, out),
        http: limits(layer, out),
        http_rules: http_rules(layer, out),
        services: definitions.services,
        checks: definitions.checks,
        acl: acl(layer, out),
        autopilot: autopilot(layer, out),
        telemetry: telemetry(layer, out),
        pid_file: layer.text("pid_file").map(|path| PathBuf::from(path.value)),
        log_level: out.or(log_level(layer), log::LevelFilter::Info),
        warnings: Vec::new(),
    }
}

/// What kind of agent this is, and what that excludes.
fn check_role(layer: &Layer, purpose: Purpose) -> Result<(), ConfigError> {
    let dev = layer.dev;
    match layer.flag("server") {
        Some(server) if !server.value && dev => err(format!(
            "-dev runs a server, but {} is false: remove one of them",
            server.origin
        )),
        Some(server) if !server.value && purpose == Purpose::Validate => err(format!(
            "{}: curia has no client agents: it must be true",
            server.origin
        )),
        None if dev || purpose == Purpose::Validate => Ok(()),
        Some(server) if server.value => Ok(()),
        _ => err(
            "-server is missing: curia has no client agents. Add -server, or -dev to try it out"
                .into(),
        ),
    }?;
    if !dev {
        return Ok(());
    }
    if let Some(expect) = layer
        .number("bootstrap_expect")
        .filter(|expect| expect.value > 1)
    {
        return err(format!(
            "-dev and {} exclude each other: -dev is a cluster of one server",
            expect.origin
        ));
    }
    if let Some(join) = layer.texts("retry_join").first() {
        return err(format!(
            "-dev and {} exclude each other: -dev is a cluster of one server and joins no other",
            join.origin
        ));
    }
    Ok(())
}

fn bootstrap(
    layer: &Layer,
    dev: bool,
    warnings: &mut Vec<String>,
) -> Result<BootstrapMode, ConfigError> {
    let alone = layer.flag("bootstrap").filter(|bootstrap| bootstrap.value);
    let many = layer.number("bootstrap_expect");
    let expect = range(many.clone(), 0, MEMBERS_MAX as i64)?.unwrap_or(0) as u16;
    if let (Some(alone), Some(many)) = (&alone, many)
        && expect > 0
    {
        return err(format!(
            "{} and {} exclude each other: the first forms a cluster of this one server, the second \
             one of {expect}; remove one of them",
            alone.origin, many.origin
        ));
    }
    if expect == 2 {
        warnings.push(
            "bootstrap_expect = 2: A cluster with 2 servers will provide no failure tolerance. See \
             the deployment table in the README"
                .into(),
        );
    } else if expect > 2 && expect.is_multiple_of(2) {
        warnings.push(
            "bootstrap_expect is even number: A cluster with an even number of servers does not \
             achieve optimum fault tolerance. See the deployment table in the README"
                .into(),
        );
    }
    Ok(match expect {
        0 if dev || alone.is_some() => BootstrapMode::Alone,
        0 => BootstrapMode::None,
        1 => BootstrapMode::Alone,
        expect => BootstrapMode::Expect(expect),
    })
}

/// The port for servers; 0 for none, which only a server on its own can bear.
fn server_port(
    layer: &Layer,
    bootstrap: BootstrapMode,
    purpose: Purpose,
) -> Result<u16, ConfigError> {
    let given = layer.number("ports.server");
    match port(given.clone(), "-server-port", 8300, false)? {
        -1 if bootstrap == BootstrapMode::Alone || purpose == Purpose::Validate => Ok(0),
        -1 => err(format!(
            "{}: -1 leaves other servers no way to this one: only a server on its own (-dev, \
             -bootstrap) can do without",
            given.map(|given| given.origin).unwrap_or_default()
        )),
        port => Ok(port as u16),
    }
}

pub(super) fn range(
    value: Option<Sourced<i64>>,
    min: i64,
    max: i64,
) -> Result<Option<i64>, ConfigError> {
    match value {
        Some(Sourced { value, origin }) if value < min || value > max => err(match max {
            i64::MAX => format!("{origin}: {value} is too small: it must be at least {min}"),
            _ => format!("{origin}: {value} is not between {min} and {max}"),
        }),
        value => Ok(value.map(|value| value.value)),
    }
}

pub(super) fn duration(
    value: Option<Sourced<i64>>,
    default: Duration,
    min: Duration,
) -> Result<Duration, ConfigError> {
    match value {
        Some(Sourced { value, origin }) if value < min.as_nanos() as i64 => err(format!(
            "{origin}: too short: it must be at least {}",
            humantime::format_duration(min)
        )),
        value => Ok(value.map_or(default, |value| Duration::from_nanos(value.value as u64))),
    }
}

fn raft_options(layer: &Layer, out: &mut Findings) -> RaftOptions {
    let whole =
        |key, min, out: &mut Findings| out.or(range(layer.number(key), min, i64::MAX), None);
    RaftOptions {
        multiplier: out.or(multiplier(layer), 1),
        snapshot_threshold: whole("raft_snapshot_threshold", 1, out).unwrap_or(16_384) as u64,
        snapshot_interval: out.or(
            duration(
                layer.number("raft_snapshot_interval"),
                Duration::from_secs(30),
                Duration::from_millis(10),
            ),
            Duration::ZERO,
        ),
        trailing_logs: whole("raft_trailing_logs", 0, out).unwrap_or(10_240) as u64,
    }
}

fn multiplier(layer: &Layer) -> Result<u8, ConfigError> {
    match layer.number("performance.raft_multiplier") {
        Some(multiplier) if !(1..=10).contains(&multiplier.value) => err(format!(
            "{}: performance.raft_multiplier cannot be {}. Must be between 1 and 10",
            multiplier.origin, multiplier.value
        )),
        // Ours of 1 is Consul's of 1: what it recommends for production, and what a LAN bears.
        multiplier => Ok(multiplier.map_or(1, |multiplier| multiplier.value as u8)),
    }
}

/// `log.segment_mb` unless given.
const SEGMENT_MB: i64 = 64;

/// The same with `-dev`, MiB: what is written first and read back at each start, since nothing is kept.
const SEGMENT_MB_DEV: i64 = 8;

fn log_options(layer: &Layer, out: &mut Findings) -> LogOptions {
    let segment_mb = out.or(range(layer.number("log.segment_mb"), 1, 1024), None);
    let unless_given = match layer.dev {
        true => SEGMENT_MB_DEV,
        false => SEGMENT_MB,
    };
    LogOptions {
        completion: out.or(completion(layer), LogCompletion::default()),
        require_direct: layer.is_on("log.require_direct"),
        segment_bytes: segment_mb.unwrap_or(unless_given) as u64 * 1024 * 1024,
    }
}

fn completion(layer: &Layer) -> Result<LogCompletion, ConfigError> {
    match layer.text("log.completion") {
        None => Ok(LogCompletion::default()),
        Some(Sourced { value, origin }) => match value {
            "eventfd" => Ok(LogCompletion::Eventfd),
            "poll" => Ok(LogCompletion::Poll),
            _ => err(format!(
                "{origin}: {value:?} is not known: use eventfd or poll"
            )),
        },
    }
}

/// 0 switches watches off.
fn watch_history_bytes(layer: &Layer, out: &mut Findings) -> usize {
    let found = match layer.number("limits.watch_history_bytes") {
        None => Ok(HISTORY_BYTES_DEFAULT),
        Some(Sourced { value, .. }) if value == 0 || value >= WATCH_HISTORY_BYTES_MIN as i64 => {
            Ok(value as usize)
        }
        Some(Sourced { value, origin }) => err(format!(
            "{origin}: {value} is too small: it must be at least {WATCH_HISTORY_BYTES_MIN}, or 0 for no watches"
        )),
    };
    out.or(found, HISTORY_BYTES_DEFAULT)
}

fn limits(layer: &Layer, out: &mut Findings) -> HttpLimits {
    let mut bytes = |key, max: usize| {
        let found = out.or(range(layer.number(key), 1, max as i64), None);
        found.map(|bytes| bytes as usize)
    };
    let value = bytes(
        "limits.kv_max_value_size",
        COMMAND_BYTES_MAX - KEY_BYTES_MAX - COMMAND_OVERHEAD_BYTES,
    );
    let txn = bytes("limits.txn_max_req_len", TXN_BYTES_LIMIT_MAX);
    let clients = layer.number("limits.http_max_conns_per_client");
    HttpLimits {
        value_bytes_max: value.unwrap_or(VALUE_BYTES_MAX),
        // As in Consul: a value that may be put may be put in a transaction.
        txn_bytes_max: txn.unwrap_or(TXN_BODY_BYTES_MAX.max(value.unwrap_or(0))),
        client_connections_max: match out.or(range(clients, 0, i64::MAX), None) {
            None | Some(0) => usize::MAX,
            Some(most) => most as usize,
        },
        session_ttl_min: out.or(session_ttl_min(layer), SESSION_TTL_MIN),
        ..HttpLimits::default()
    }
}

/// 0 is the default, as in Consul.
fn session_ttl_min(layer: &Layer) -> Result<Duration, ConfigError> {
    let given = layer.number("session_ttl_min").filter(|ttl| ttl.value != 0);
    let origin = given.as_ref().map(|ttl| ttl.origin.clone());
    let ttl = duration(given, SESSION_TTL_MIN, SESSION_TTL_MIN_LEAST)?;
    if ttl > SESSION_TTL_MAX {
        return err(format!(
            "{}: no session could live so long: choose at most 24h",
            origin.unwrap_or_default()
        ));
    }
    Ok(ttl)
}

fn node_name(layer: &Layer) -> Result<String, ConfigError> {
    let Some(Sourced { value, origin }) = layer.text("node_name") else {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        return match name.trim() {
            "" => err("-node is missing and this machine has no host name: give -node=NAME".into()),
            name => Ok(name.to_string()),
        };
    };
    let fine = |c: char| !c.is_control() && !c.is_whitespace();
    if value.is_empty() || value.len() > 255 || !value.chars().all(fine) {
        return err(format!(
            "{origin}: {value:?} is not a node name: give 1 to 255 bytes without white space"
        ));
    }
    Ok(value.to_string())
}

fn node_id(layer: &Layer) -> Result<Option<Uuid>, ConfigError> {
    let Some(Sourced { value, origin }) = layer.text("node_id") else {
        return Ok(None);
    };
    match Uuid::parse(value).filter(|id| !id.is_nil()) {
        Some(id) => Ok(Some(id)),
        None => err(format!(
            "{origin}: {value:?} is not a node id: give a UUID of 36 characters, or leave it out to \
             have one made"
        )),
    }
}

fn node_meta(layer: &Layer, out: &mut Findings) -> BTreeMap<String, String> {
    let meta: BTreeMap<String, String> = layer
        .map("node_meta")
        .map(|(key, value)| (key.clone(), value.value.clone()))
        .collect();
    if let Err(why) = check_meta(meta.iter()) {
        // The last one that was given stands for all of them.
        let origin = layer
            .map("node_meta")
            .last()
            .map(|(_, value)| &value.origin);
        let origin = origin.map_or("node_meta", |origin| origin);
        out.error(format!("{origin}: node_meta is invalid: {why}"));
    }
    meta
}

fn name_of_datacenter(given: &Sourced<&str>) -> Result<String, ConfigError> {
    let Sourced { value, origin } = given;
    let name = value.to_lowercase();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || !name.bytes().all(fine) {
        return err(format!(
            "{origin}: {value:?} is not a datacenter name: use letters, digits, '-' and '_'"
        ));
    }
    Ok(name)
}

fn datacenter(layer: &Layer) -> Result<String, ConfigError> {
    layer
        .text("datacenter")
        .map_or(Ok("dc1".into()), |given| name_of_datacenter(&given))
}

/// `primary_datacenter`, or the old `acl_datacenter`, or this one.
fn primary_datacenter(layer: &Layer, own: &str, out: &mut Findings) -> String {
    if let Some(old) = layer.text("acl_datacenter") {
        out.warnings.push(format!(
            "{}: The 'acl_datacenter' field is deprecated. Use the 'primary_datacenter' field instead.",
            old.origin
        ));
    }
    let given = layer
        .text("primary_datacenter")
        .filter(|given| !given.value.is_empty())
        .or_else(|| layer.text("acl_datacenter"));
    let Some(given) = given else {
        return own.to_string();
    };
    let name = out.or(name_of_datacenter(&given), own.to_string());
    if name != own {
        out.warnings.push(format!(
            "{}: {name:?} is another datacenter than this one, {own:?}: curia keeps each for itself",
            given.origin
        ));
    }
    name
}

fn data_dir(
    layer: &Layer,
    dev: bool,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<DataDir, ConfigError> {
    match layer.text("data_dir") {
        // As in Consul, whose images give -dev a data directory that it keeps nothing in.
        Some(Sourced { value, origin }) if dev => {
            if PathBuf::from(value).join("identity.json").exists() {
                return err(format!(
                    "-dev and {origin} exclude each other: {value} has the data of a server, and -dev \
                     keeps its own in a temporary directory. To serve that data: curia agent -server \
                     -bootstrap -data-dir={value} -bind=127.0.0.1"
                ));
            }
            warnings.push(format!(
                "{origin}: nothing is kept in {value}: -dev has a temporary directory, removed at its end"
            ));
            Ok(DataDir::Temporary)
        }
        None if dev => Ok(DataDir::Temporary),
        Some(Sourced { value: "", origin }) => {
            err(format!("{origin}: data_dir cannot be empty: name a directory"))
        }
        Some(Sourced { value, origin }) => {
            let path = PathBuf::from(value);
            if path.exists() && !path.is_dir() {
                return err(format!("{origin}: {value} is a file: name a directory"));
            }
            Ok(DataDir::At(path))
        }
        None if purpose == Purpose::Validate => err("data_dir cannot be empty".into()),
        None => err(
            "-data-dir is missing: name a directory for this server's data, or use -dev to try curia \
             out with temporary data"
                .into(),
        ),
    }
}

fn executors(layer: &Layer) -> Result<(u16, bool), ConfigError> {
    match range(layer.number("executors"), 1, EXECUTORS_MAX.into())? {
        Some(executors) => Ok((executors as u16, true)),
        None => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((processors.min(EXECUTORS_MAX.into()) as u16, false))
        }
    }
}

fn log_level(layer: &Layer) -> Result<log::LevelFilter, ConfigError> {
    match layer.text("log_level") {
        None => Ok(log::LevelFilter::Info),
        Some(Sourced { value, origin }) => match parse_level(value) {
            Some(level) => Ok(level),
            None => err(format!(
                "{origin}: {value:?} is not a log level: use trace, debug, info, warn or err"
            )),
        },
    }
}
