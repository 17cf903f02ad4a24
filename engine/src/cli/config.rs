//! How do flags and files become one checked [`AgentConfig`]?
//!
//! Files in the order given, then `-set`, then flags; what comes later wins. Then defaults, and
//! every rule between values. Each error names where the value came from and what to do.

mod hcl;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use wire::{
    Uuid,
    limits::{COMMAND_BYTES_MAX, KEY_BYTES_MAX, MEMBERS_MAX, SHARDS_MAX, VALUE_BYTES_MAX},
};

use super::{
    config_file::{Layer, Sourced},
    flags::AgentFlags,
    interfaces::private_ipv4,
    logger::parse_level,
};
use crate::server::{
    config::{
        AgentConfig, BootstrapMode, DataDir, EXECUTORS_MAX, LogCompletion, LogOptions, RaftOptions,
    },
    http::{HttpLimits, go_text::parse_duration},
};

/// Why there is no configuration. Its text names flag, or file and key, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConfigError(pub(super) String);

fn err<T>(text: String) -> Result<T, ConfigError> {
    Err(ConfigError(text))
}

/// Makes a configuration of the flags and the files that they name.
/// Reads a document in HCL, as configuration files are read.
pub(super) fn parse_hcl(text: &str) -> Result<serde_json::Value, String> {
    hcl::parse(text)
}

pub(super) fn build(flags: AgentFlags) -> Result<AgentConfig, ConfigError> {
    let mut layer = Layer::default();
    for file in &flags.config_file {
        layer.read_file("-config-file", Path::new(file))?;
    }
    for dir in &flags.config_dir {
        for file in json_files(Path::new(dir))? {
            layer.read_file("-config-dir", &file)?;
        }
    }
    for pair in &flags.set {
        layer.set_pair(pair)?;
    }
    take_flags(&mut layer, flags)?;
    check(layer)
}

fn json_files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let wrong = |error| {
        ConfigError(format!(
            "-config-dir={}: cannot read the directory: {error}",
            dir.display()
        ))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn take_flags(layer: &mut Layer, flags: AgentFlags) -> Result<(), ConfigError> {
    fn set<T>(field: &mut Option<Sourced<T>>, origin: &str, value: Option<T>) {
        if let Some(value) = value {
            *field = Some(Sourced {
                value,
                origin: origin.to_string(),
            });
        }
    }
    fn number(
        field: &mut Option<Sourced<i64>>,
        origin: &str,
        text: Option<String>,
    ) -> Result<(), ConfigError> {
        let value = match text.map(|text| text.parse().map_err(|_| text)).transpose() {
            Ok(value) => value,
            Err(text) => return err(format!("{origin}={text}: must be a whole number")),
        };
        set(field, origin, value);
        Ok(())
    }

    set(&mut layer.dev, "-dev", flags.dev);
    set(&mut layer.server, "-server", flags.server);
    set(&mut layer.bootstrap, "-bootstrap", flags.bootstrap);
    number(
        &mut layer.bootstrap_expect,
        "-bootstrap-expect",
        flags.bootstrap_expect,
    )?;
    let joined = |value| Sourced {
        value,
        origin: "-retry-join".to_string(),
    };
    layer
        .retry_join
        .extend(flags.retry_join.into_iter().map(joined));
    if let Some(text) = flags.retry_interval {
        let Some(nanos) = parse_duration(&text) else {
            return err(format!(
                "-retry-interval={text}: must be a duration such as 30s"
            ));
        };
        set(&mut layer.retry_interval, "-retry-interval", Some(nanos));
    }
    set(&mut layer.node_name, "-node", flags.node);
    set(&mut layer.node_id, "-node-id", flags.node_id);
    set(&mut layer.bind, "-bind", flags.bind);
    set(&mut layer.advertise, "-advertise", flags.advertise);
    if flags.client.is_some() {
        layer.http_ip = None;
    }
    set(&mut layer.client, "-client", flags.client);
    number(&mut layer.http_port, "-http-port", flags.http_port)?;
    number(&mut layer.server_port, "-server-port", flags.server_port)?;
    set(&mut layer.data_dir, "-data-dir", flags.data_dir);
    set(&mut layer.datacenter, "-datacenter", flags.datacenter);
    set(&mut layer.log_level, "-log-level", flags.log_level);
    number(&mut layer.executors, "-executors", flags.executors)?;
    number(&mut layer.shards, "-shards", flags.shards)?;
    set(&mut layer.pid_file, "-pid-file", flags.pid_file);
    Ok(())
}

fn check(layer: Layer) -> Result<AgentConfig, ConfigError> {
    let dev = layer.dev.as_ref().is_some_and(|dev| dev.value);
    check_role(&layer, dev)?;
    let mut warnings = layer.warnings.clone();
    let server_port = port(&layer.server_port, "-server-port", 8300, 1)?;
    let bind_ip = match &layer.bind {
        Some(bind) => ip(bind)?,
        None if dev => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let server_bind = SocketAddr::new(bind_ip, server_port as u16);
    let server_advertise = SocketAddr::new(advertise(&layer, bind_ip)?, server_port as u16);
    let http_address = http_address(&layer)?;
    if http_address == Some(server_bind) {
        return err(format!(
            "-http-port and -server-port are both {server_bind}: give them different ports"
        ));
    }
    let (executors, executors_chosen) = executors(&layer)?;
    let config = AgentConfig {
        dev,
        bootstrap: bootstrap(&layer, dev, &mut warnings)?,
        retry_join: retry_join(&layer, server_port as u16)?,
        retry_interval: duration(
            &layer.retry_interval,
            Duration::from_secs(30),
            Duration::from_millis(1),
        )?,
        node_name: node_name(&layer)?,
        node_id: node_id(&layer)?,
        datacenter: datacenter(&layer)?,
        server_bind,
        server_advertise,
        http_address,
        data_dir: data_dir(&layer, dev)?,
        executors,
        executors_chosen,
        shards: range(&layer.shards, 1, SHARDS_MAX as i64)?.map(|shards| shards as u16),
        log: LogOptions {
            completion: completion(&layer)?,
            require_direct: layer
                .log_require_direct
                .as_ref()
                .is_some_and(|direct| direct.value),
            segment_bytes: range(&layer.log_segment_mb, 1, 1024)?.unwrap_or(64) as u64
                * 1024
                * 1024,
        },
        raft: RaftOptions {
            multiplier: multiplier(&layer)?,
            snapshot_threshold: range(&layer.snapshot_threshold, 1, i64::MAX)?.unwrap_or(16_384)
                as u64,
            snapshot_interval: duration(
                &layer.snapshot_interval,
                Duration::from_secs(30),
                Duration::from_millis(10),
            )?,
            trailing_logs: range(&layer.trailing_logs, 0, i64::MAX)?.unwrap_or(10_240) as u64,
        },
        rpc_hold_timeout: duration(
            &layer.rpc_hold_timeout,
            Duration::from_secs(7),
            Duration::from_millis(1),
        )?,
        http: HttpLimits {
            value_bytes_max: range(
                &layer.kv_max_value_size,
                1,
                (COMMAND_BYTES_MAX - KEY_BYTES_MAX - COMMAND_OVERHEAD_BYTES) as i64,
            )?
            .map_or(VALUE_BYTES_MAX, |bytes| bytes as usize),
            ..HttpLimits::default()
        },
        pid_file: layer
            .pid_file
            .as_ref()
            .map(|path| PathBuf::from(&path.value)),
        log_level: log_level(&layer)?,
        warnings,
    };
    Ok(config)
}

/// Room in a command for what is neither key nor value, bytes.
const COMMAND_OVERHEAD_BYTES: usize = 1024;

/// What kind of agent this is, and what that excludes.
fn check_role(layer: &Layer, dev: bool) -> Result<(), ConfigError> {
    match &layer.server {
        Some(server) if !server.value && dev => err(format!(
            "-dev runs a server, but {} is false: remove one of them",
            server.origin
        )),
        None if dev => Ok(()),
        Some(server) if server.value => Ok(()),
        _ => err(
            "-server is missing: curia has no client agents. Add -server, or -dev to try it out"
                .into(),
        ),
    }?;
    if !dev {
        return Ok(());
    }
    if let Some(dir) = &layer.data_dir {
        return err(format!(
            "-dev and {} exclude each other: -dev keeps its data in a temporary directory. For one \
             server with lasting data: curia agent -server -bootstrap -data-dir={} -bind=127.0.0.1",
            dir.origin, dir.value
        ));
    }
    if let Some(expect) = layer
        .bootstrap_expect
        .as_ref()
        .filter(|expect| expect.value > 1)
    {
        return err(format!(
            "-dev and {} exclude each other: -dev is a cluster of one server",
            expect.origin
        ));
    }
    if let Some(join) = layer.retry_join.first() {
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
    let alone = layer.bootstrap.as_ref().filter(|bootstrap| bootstrap.value);
    let expect = range(&layer.bootstrap_expect, 0, MEMBERS_MAX as i64)?.unwrap_or(0) as u16;
    if let (Some(alone), Some(many)) = (alone, layer.bootstrap_expect.as_ref())
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

fn range(value: &Option<Sourced<i64>>, min: i64, max: i64) -> Result<Option<i64>, ConfigError> {
    match value {
        Some(Sourced { value, origin }) if *value < min || *value > max => err(match max {
            i64::MAX => format!("{origin}: {value} is too small: it must be at least {min}"),
            _ => format!("{origin}: {value} is not between {min} and {max}"),
        }),
        value => Ok(value.as_ref().map(|value| value.value)),
    }
}

fn multiplier(layer: &Layer) -> Result<u8, ConfigError> {
    match &layer.raft_multiplier {
        Some(multiplier) if !(1..=10).contains(&multiplier.value) => err(format!(
            "{}: performance.raft_multiplier cannot be {}. Must be between 1 and 10",
            multiplier.origin, multiplier.value
        )),
        // Ours of 1 is Consul's of 1: what it recommends for production, and what a LAN bears.
        multiplier => Ok(multiplier
            .as_ref()
            .map_or(1, |multiplier| multiplier.value as u8)),
    }
}

fn duration(
    value: &Option<Sourced<i64>>,
    default: Duration,
    min: Duration,
) -> Result<Duration, ConfigError> {
    match value {
        Some(Sourced { value, origin }) if *value < min.as_nanos() as i64 => err(format!(
            "{origin}: too short: it must be at least {}",
            humantime::format_duration(min)
        )),
        value => Ok(value
            .as_ref()
            .map_or(default, |value| Duration::from_nanos(value.value as u64))),
    }
}

/// A port number, or `-1` where `min` allows it.
fn port(
    value: &Option<Sourced<i64>>,
    flag: &str,
    default: i64,
    min: i64,
) -> Result<i64, ConfigError> {
    match value {
        Some(Sourced { value, origin }) if *value < min || *value > 65_535 => err(match min {
            -1 => format!("{origin}: {value} is not a port: choose -1 (none) to 65535 with {flag}"),
            _ => format!("{origin}: {value} is not a port: choose 1 to 65535 with {flag}"),
        }),
        value => Ok(value.as_ref().map_or(default, |value| value.value)),
    }
}

fn ip(text: &Sourced<String>) -> Result<IpAddr, ConfigError> {
    match text.value.parse() {
        Ok(ip) => Ok(ip),
        Err(_) => err(format!(
            "{}: {:?} is not an IP address: give one such as 10.0.0.1, without a port",
            text.origin, text.value
        )),
    }
}

/// The address that other servers are told: a concrete one.
fn advertise(layer: &Layer, bind: IpAddr) -> Result<IpAddr, ConfigError> {
    if let Some(text) = &layer.advertise {
        let ip = ip(text)?;
        if ip.is_unspecified() {
            return err(format!(
                "{}: {ip} cannot be reached by other servers: give one address of this machine",
                text.origin
            ));
        }
        return Ok(ip);
    }
    if !bind.is_unspecified() {
        return Ok(bind);
    }
    let found = private_ipv4();
    match found[..] {
        [ip] => Ok(IpAddr::V4(ip)),
        [] => err(format!(
            "-bind={bind}: other servers need one address to reach this one, and this machine has no \
             private IPv4 address: choose one with -bind=IP or -advertise=IP"
        )),
        _ => {
            let found: Vec<String> = found.iter().map(Ipv4Addr::to_string).collect();
            err(format!(
                "-bind={bind}: other servers need one address to reach this one, and this machine has \
                 several: choose one of {} with -bind=IP or -advertise=IP",
                found.join(", ")
            ))
        }
    }
}

fn http_address(layer: &Layer) -> Result<Option<SocketAddr>, ConfigError> {
    let port = port(&layer.http_port, "-http-port", 8500, -1)?;
    let ip = match layer.http_ip.as_ref().or(layer.client.as_ref()) {
        Some(text) => ip(text)?,
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Ok((port >= 0).then(|| SocketAddr::new(ip, port as u16)))
}

fn retry_join(layer: &Layer, default_port: u16) -> Result<Vec<String>, ConfigError> {
    let mut addresses: Vec<String> = Vec::new();
    for Sourced { value, origin } in &layer.retry_join {
        for address in value.split(',').map(str::trim) {
            let address = match with_port(address, default_port) {
                Some(address) => address,
                None if address.contains("provider=") => {
                    return err(format!(
                        "{origin}: {address:?}: cloud auto-join is not supported: give HOST or HOST:PORT"
                    ));
                }
                None => {
                    return err(format!(
                        "{origin}: {address:?} is not an address: give HOST or HOST:PORT, several \
                         separated by commas"
                    ));
                }
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

/// `host:port` with the port filled in; `None` for what is neither.
fn with_port(address: &str, default_port: u16) -> Option<String> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, default_port).to_string());
    }
    if let Ok(address) = address.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| address.to_string());
    }
    let (host, port) = match address.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (address, default_port),
    };
    let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.bytes().all(plausible)).then(|| format!("{host}:{port}"))
}

fn node_name(layer: &Layer) -> Result<String, ConfigError> {
    let Some(Sourced { value, origin }) = &layer.node_name else {
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
    Ok(value.clone())
}

fn node_id(layer: &Layer) -> Result<Option<Uuid>, ConfigError> {
    let Some(Sourced { value, origin }) = &layer.node_id else {
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

fn datacenter(layer: &Layer) -> Result<String, ConfigError> {
    let Some(Sourced { value, origin }) = &layer.datacenter else {
        return Ok("dc1".into());
    };
    let name = value.to_lowercase();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || !name.bytes().all(fine) {
        return err(format!(
            "{origin}: {value:?} is not a datacenter name: use letters, digits, '-' and '_'"
        ));
    }
    Ok(name)
}

fn data_dir(layer: &Layer, dev: bool) -> Result<DataDir, ConfigError> {
    match &layer.data_dir {
        _ if dev => Ok(DataDir::Temporary),
        Some(Sourced { value, origin }) if value.is_empty() => {
            err(format!("{origin}: data_dir cannot be empty: name a directory"))
        }
        Some(Sourced { value, origin }) => {
            let path = PathBuf::from(value);
            if path.exists() && !path.is_dir() {
                return err(format!("{origin}: {value} is a file: name a directory"));
            }
            Ok(DataDir::At(path))
        }
        None => err(
            "-data-dir is missing: name a directory for this server's data, or use -dev to try curia \
             out with temporary data"
                .into(),
        ),
    }
}

fn executors(layer: &Layer) -> Result<(u16, bool), ConfigError> {
    match range(&layer.executors, 1, EXECUTORS_MAX.into())? {
        Some(executors) => Ok((executors as u16, true)),
        None => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((processors.min(EXECUTORS_MAX.into()) as u16, false))
        }
    }
}

fn completion(layer: &Layer) -> Result<LogCompletion, ConfigError> {
    match layer
        .log_completion
        .as_ref()
        .map(|text| (&*text.value, &text.origin))
    {
        None | Some(("eventfd", _)) => Ok(LogCompletion::Eventfd),
        Some(("poll", _)) => Ok(LogCompletion::Poll),
        Some((text, origin)) => err(format!(
            "{origin}: {text:?} is not known: use eventfd or poll"
        )),
    }
}

fn log_level(layer: &Layer) -> Result<log::LevelFilter, ConfigError> {
    match &layer.log_level {
        None => Ok(log::LevelFilter::Info),
        Some(Sourced { value, origin }) => match parse_level(value) {
            Some(level) => Ok(level),
            None => err(format!(
                "{origin}: {value:?} is not a log level: use trace, debug, info, warn or err"
            )),
        },
    }
}
