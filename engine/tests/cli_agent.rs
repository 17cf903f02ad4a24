//! `curia agent`: which command lines and files make which configuration, and what each mistake
//! is told.

use std::{ffi::OsString, fs, path::PathBuf, time::Duration};

use engine::{
    cli::{AgentConfig, parse_agent},
    server::config::{BootstrapMode, DataDir, EXECUTORS_MAX, LogCompletion},
};
use tempfile::TempDir;

fn parse(args: &[&str]) -> Result<AgentConfig, String> {
    let args = ["curia", "agent"].iter().chain(args).map(OsString::from);
    parse_agent(args).map_err(|error| error.to_string())
}

fn parsed(args: &[&str]) -> AgentConfig {
    parse(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// A server's flags, and more.
fn server(more: &[&str]) -> Result<AgentConfig, String> {
    let mut args = vec!["-server", "-data-dir=/nonexistent/curia", "-bind=10.1.2.3"];
    args.extend(more);
    parse(&args)
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn dev_needs_nothing_else() {
    let config = parsed(&["-dev"]);
    assert!(config.dev);
    assert_eq!(config.bootstrap, BootstrapMode::Alone);
    assert_eq!(config.data_dir, DataDir::Temporary);
    assert_eq!(config.server_bind, "127.0.0.1:8300".parse().unwrap());
    assert_eq!(config.server_advertise, config.server_bind);
    assert_eq!(
        config.http_address(),
        Some("127.0.0.1:8500".parse().unwrap())
    );
    assert_eq!(config.datacenter, "dc1");
    assert!(!config.node_name.is_empty());
    assert_eq!(config.shards, None);
    assert!(config.executors >= 1 && !config.executors_chosen);
    assert_eq!(config.log_level, log::LevelFilter::Info);
    assert_eq!(config.raft.multiplier, 1);
    assert_eq!(config.raft.snapshot_threshold, 16_384);
    assert_eq!(config.watch_history_bytes, 16 << 20);
    assert_eq!(config.log.segment_bytes, 8 << 20, "it begins sooner");
    assert_eq!(config.rpc_hold_timeout, Duration::from_secs(7));
    assert_eq!(config.http.value_bytes_max, 512 * 1024);
    assert!(config.warnings.is_empty());
}

#[test]
fn one_dash_or_two_equals_or_space() {
    for args in [
        &["-dev", "-node=a", "-http-port=1"][..],
        &["--dev", "--node", "a", "--http-port", "1"],
        &["-dev=true", "-node", "a", "-http-port", "1"],
        &["--dev", "-node=a", "--http-port=1"],
    ] {
        let config = parsed(args);
        assert_eq!(config.node_name, "a");
        assert_eq!(config.http_address(), Some("127.0.0.1:1".parse().unwrap()));
    }
    assert!(
        parse(&["-dev=false"])
            .unwrap_err()
            .contains("-server is missing")
    );
    assert_eq!(parsed(&["-dev", "-http-port", "-1"]).http_addresses, []);
}

#[test]
fn a_server_of_three_is_described() {
    let config = server(&[
        "-bootstrap-expect=3",
        "-retry-join=10.1.2.4,10.1.2.5:8400",
        "-retry-join",
        "s4.example",
        "-retry-join=10.1.2.4:8301",
        "-node=s1",
        "-client=0.0.0.0",
        "-server-port=8301",
        "-datacenter=East-1",
        "-log-level=DEBUG",
        "-executors=4",
        "--shards",
        "2",
        "-pid-file=/run/curia.pid",
    ])
    .unwrap();
    assert_eq!(config.bootstrap, BootstrapMode::Expect(3));
    assert_eq!(
        config.retry_join,
        ["10.1.2.4:8301", "10.1.2.5:8400", "s4.example:8301"]
    );
    assert_eq!(config.server_bind, "10.1.2.3:8301".parse().unwrap());
    assert_eq!(config.http_address(), Some("0.0.0.0:8500".parse().unwrap()));
    assert_eq!(config.datacenter, "east-1");
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    assert_eq!((config.executors, config.executors_chosen), (4, true));
    assert_eq!(config.shards, Some(2));
    assert_eq!(config.pid_file, Some("/run/curia.pid".into()));
    assert_eq!(config.data_dir, DataDir::At("/nonexistent/curia".into()));
}

#[test]
fn bootstrap_modes() {
    for (flags, mode, warning) in [
        (&[][..], BootstrapMode::None, ""),
        (&["-bootstrap"], BootstrapMode::Alone, ""),
        (&["-bootstrap-expect=1"], BootstrapMode::Alone, ""),
        (&["-bootstrap-expect=0"], BootstrapMode::None, ""),
        (
            &["-bootstrap-expect=2"],
            BootstrapMode::Expect(2),
            "no failure tolerance",
        ),
        (&["-bootstrap-expect=3"], BootstrapMode::Expect(3), ""),
        (
            &["-bootstrap-expect=4"],
            BootstrapMode::Expect(4),
            "even number",
        ),
        (
            &["-bootstrap=false", "-bootstrap-expect=3"],
            BootstrapMode::Expect(3),
            "",
        ),
    ] {
        let config = server(flags).unwrap();
        assert_eq!(config.bootstrap, mode);
        assert_eq!(config.warnings.is_empty(), warning.is_empty(), "{flags:?}");
        assert!(config.warnings.iter().all(|text| text.contains(warning)));
    }
}

#[test]
fn advertise_is_always_one_concrete_address() {
    assert_eq!(
        server(&["-advertise=192.0.2.7"]).unwrap().server_advertise,
        "192.0.2.7:8300".parse().unwrap()
    );
    let any = parse(&[
        "-server",
        "-data-dir=/nonexistent/d",
        "-advertise=192.0.2.7",
    ])
    .unwrap();
    assert_eq!(any.server_bind, "0.0.0.0:8300".parse().unwrap());
    // How many private addresses this machine has decides, but never is it 0.0.0.0.
    match parse(&["-server", "-data-dir=/nonexistent/d"]) {
        Ok(config) => assert!(!config.server_advertise.ip().is_unspecified()),
        Err(error) => assert!(error.contains("-bind=IP or -advertise=IP"), "{error}"),
    }
    assert_eq!(
        server(&["-advertise=0.0.0.0"]).unwrap_err(),
        "Error: -advertise: 0.0.0.0 cannot be reached by other servers: give one address of this machine"
    );
}

#[test]
fn every_mistake_is_told_what_is_wrong_and_what_to_do() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["-bnid=1.2.3.4"],
            "unknown flag -bnid of `curia agent` (did you mean -bind?); see curia agent -help",
        ),
        (
            &["--zzz"],
            "unknown flag -zzz of `curia agent`; see curia agent -help",
        ),
        (
            &["-node"],
            "flag -node needs a value: -node=VALUE; see curia agent -help",
        ),
        (
            &[],
            "-server is missing: curia has no client agents. Add -server, or -dev to try it out",
        ),
        (
            &["-server", "-bind=10.0.0.1"],
            "-data-dir is missing: name a directory for this server's data, or use -dev to try curia out with temporary data",
        ),
        (
            &["-server", "-bind=10.0.0.1", "-data-dir="],
            "-data-dir: data_dir cannot be empty: name a directory",
        ),
        (
            &["-server", "-bind=10.0.0.1", "-data-dir=/dev/null"],
            "-data-dir: /dev/null is a file: name a directory",
        ),
        (
            &["-dev", "-bootstrap-expect=3"],
            "-dev and -bootstrap-expect exclude each other: -dev is a cluster of one server",
        ),
        (
            &["-dev", "-retry-join=a"],
            "-dev and -retry-join exclude each other: -dev is a cluster of one server and joins no other",
        ),
        (
            &["-dev", "-server=false"],
            "-dev runs a server, but -server is false: remove one of them",
        ),
        (
            &["-dev", "-bind=host"],
            "-bind: \"host\" is not an IP address: give one such as 10.0.0.1, without a port",
        ),
        (
            &["-dev", "-bind=10.0.0.1:80"],
            "-bind: \"10.0.0.1:80\" is not an IP address: give one such as 10.0.0.1, without a port",
        ),
        (
            &["-dev", "-client=x"],
            "-client: \"x\" is not an IP address: give one such as 10.0.0.1, without a port",
        ),
        (
            &["-dev", "-http-port=http"],
            "-http-port=http: must be a whole number",
        ),
        (
            &["-dev", "-http-port=70000"],
            "-http-port: 70000 is not a port: choose -1 (none) to 65535 with -http-port",
        ),
        (
            &["-dev", "-server-port=0"],
            "-server-port: 0 is not a port: choose 1 to 65535 with -server-port, or -1 for none",
        ),
        (
            &["-dev", "-http-port=8300"],
            "-http-port and -server-port are both 127.0.0.1:8300: give them different ports",
        ),
        (
            &["-dev", "-executors=0"],
            "-executors: 0 is not between 1 and 256",
        ),
        (
            &["-dev", "-shards=65"],
            "-shards: 65 is not between 1 and 64",
        ),
        (
            &["-dev", "-log-level=loud"],
            "-log-level: \"loud\" is not a log level: use trace, debug, info, warn or err",
        ),
        (
            &["-dev", "-node="],
            "-node: \"\" is not a node name: give 1 to 255 bytes without white space",
        ),
        (
            &["-dev", "-node=a b"],
            "-node: \"a b\" is not a node name: give 1 to 255 bytes without white space",
        ),
        (
            &["-dev", "-node-id=1"],
            "-node-id: \"1\" is not a node id: give a UUID of 36 characters, or leave it out to have one made",
        ),
        (
            &["-dev", "-datacenter=a.b"],
            "-datacenter: \"a.b\" is not a datacenter name: use letters, digits, '-' and '_'",
        ),
        (
            &["-dev", "-retry-interval=5"],
            "-retry-interval=5: must be a duration such as 30s",
        ),
        (
            &["-dev", "-set=a"],
            "-set=a: must be KEY=VALUE, such as performance.raft_multiplier=1",
        ),
        (
            &["-dev", "-set=performance.raft_multiplier=11"],
            "-set performance.raft_multiplier: performance.raft_multiplier cannot be 11. Must be between 1 and 10",
        ),
        (
            &["-dev", "-set=log.completion=fast"],
            "-set log.completion: \"fast\" is not known: use eventfd or poll",
        ),
        (
            &["-dev", "-set=log.segment_mb=0"],
            "-set log.segment_mb: 0 is not between 1 and 1024",
        ),
        (
            &["-dev", "-set=log.direct=1"],
            "-set log.direct: unknown key",
        ),
        (
            &["-dev", "-set=raft_snapshot_threshold=0"],
            "-set raft_snapshot_threshold: 0 is too small: it must be at least 1",
        ),
        (
            &["-dev", "-set=limits.watch_history_bytes=1048575"],
            "-set limits.watch_history_bytes: 1048575 is too small: it must be at least 1048576, or 0 for no watches",
        ),
        (
            &["-dev", "-set=raft_snapshot_interval=1us"],
            "-set raft_snapshot_interval: too short: it must be at least 10ms",
        ),
        (
            &["-dev", "-config-file=/nonexistent.json"],
            "-config-file=/nonexistent.json: cannot read the file: No such file or directory (os error 2)",
        ),
        (
            &["-dev", "-config-dir=/nonexistent"],
            "-config-dir=/nonexistent: cannot read the directory: No such file or directory (os error 2)",
        ),
        (
            &["-dev", "-config-format=toml"],
            "-config-format=toml: must be hcl or json",
        ),
        (
            &["-dev", "-hcl=ports { htp = 1 }"],
            "-hcl: ports.htp: unknown key (did you mean ports.http?)",
        ),
        (&["-dev", "-node-meta=a"], "-node-meta=a: must be KEY:VALUE"),
        (
            &["-dev", "-encrypt=cg8StVXbQJ0gPvMd9o7yrg=="],
            "-encrypt: curia cannot do this yet, and without it the server would be less protected than this file asks for: remove the key to run it so anyway",
        ),
        (
            &["-dev", "-set=session_ttl_min=25h"],
            "-set session_ttl_min: no session could live so long: choose at most 24h",
        ),
        (
            &["-dev", "-log-level=loud", "-executors=0", "-bind=x"],
            "-bind: \"x\" is not an IP address: give one such as 10.0.0.1, without a port\nError: -executors: 0 is not between 1 and 256\nError: -log-level: \"loud\" is not a log level: use trace, debug, info, warn or err",
        ),
    ];
    for (args, text) in cases {
        assert_eq!(
            parse(args).unwrap_err(),
            format!("Error: {text}"),
            "{args:?}"
        );
    }
    let cases: &[(&[&str], &str)] = &[
        (
            &["-bootstrap", "-bootstrap-expect=3"],
            "-bootstrap and -bootstrap-expect exclude each other: the first forms a cluster of this one server, the second one of 3; remove one of them",
        ),
        (
            &["-bootstrap-expect=10"],
            "-bootstrap-expect: 10 is not between 0 and 9",
        ),
        (
            &["-bootstrap-expect=-1"],
            "-bootstrap-expect: -1 is not between 0 and 9",
        ),
        (
            &["-bootstrap-expect=three"],
            "-bootstrap-expect=three: must be a whole number",
        ),
        (
            &["-server-port=-1"],
            "-server-port: -1 leaves other servers no way to this one: only a server on its own (-dev, -bootstrap) can do without",
        ),
        (
            &["-retry-join=a,,b"],
            "-retry-join: \"\" is not an address: give HOST or HOST:PORT, several separated by commas",
        ),
        (
            &["-retry-join=a:0"],
            "-retry-join: \"a:0\" is not an address: give HOST or HOST:PORT, several separated by commas",
        ),
        (
            &["-retry-join=a b"],
            "-retry-join: \"a b\" is not an address: give HOST or HOST:PORT, several separated by commas",
        ),
        (
            &["-retry-join=provider=aws tag_key=x"],
            "-retry-join: \"provider=aws tag_key=x\": cloud auto-join is not supported: give HOST or HOST:PORT",
        ),
    ];
    for (args, text) in cases {
        assert_eq!(
            server(args).unwrap_err(),
            format!("Error: {text}"),
            "{args:?}"
        );
    }
    let extra = parse(&["-dev", "surplus"]).unwrap_err();
    assert!(extra.contains("unexpected argument 'surplus'"), "{extra}");
}

#[test]
fn executors_max_is_reached() {
    let most = EXECUTORS_MAX.to_string();
    assert_eq!(
        parsed(&["-dev", "-executors", &most]).executors,
        EXECUTORS_MAX
    );
    let over = (EXECUTORS_MAX + 1).to_string();
    assert!(parse(&["-dev", "-executors", &over]).is_err());
}

#[test]
fn files_speak_consuls_keys_and_flags_win() {
    let dir = TempDir::new().unwrap();
    let first = file(
        &dir,
        "1.json",
        r#"{
            "server": true,
            "bootstrap_expect": 3,
            "retry_join": ["10.0.0.2", "10.0.0.3"],
            "retry_interval": "2s",
            "node_name": "from-file",
            "bind_addr": "10.0.0.1",
            "client_addr": "10.0.0.9",
            "data_dir": "/nonexistent/data",
            "datacenter": "east",
            "ports": {"http": 9500, "server": 9300},
            "performance": {"raft_multiplier": 5, "rpc_hold_timeout": "1500ms"},
            "raft_snapshot_threshold": 100,
            "raft_trailing_logs": 10,
            "limits": {"kv_max_value_size": 1024, "watch_history_bytes": 2097152},
            "log": {"completion": "poll", "require_direct": true, "segment_mb": 16}
        }"#,
    );
    let second = file(
        &dir,
        "2.json",
        r#"{"datacenter": "west", "retry_join": ["10.0.0.4"]}"#,
    );
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let config = parsed(&[
        "-config-file",
        first,
        "-config-file",
        second,
        "-node=flag",
        "-retry-join=10.0.0.5",
    ]);
    assert_eq!(config.node_name, "flag");
    assert_eq!(config.datacenter, "west");
    assert_eq!(config.bootstrap, BootstrapMode::Expect(3));
    assert_eq!(
        config.retry_join,
        [
            "10.0.0.2:9300",
            "10.0.0.3:9300",
            "10.0.0.4:9300",
            "10.0.0.5:9300"
        ]
    );
    assert_eq!(config.retry_interval, Duration::from_secs(2));
    assert_eq!(config.server_bind, "10.0.0.1:9300".parse().unwrap());
    assert_eq!(
        config.http_address(),
        Some("10.0.0.9:9500".parse().unwrap())
    );
    assert_eq!(config.raft.multiplier, 5);
    assert_eq!(config.raft.snapshot_threshold, 100);
    assert_eq!(config.raft.trailing_logs, 10);
    assert_eq!(config.rpc_hold_timeout, Duration::from_millis(1500));
    assert_eq!(config.http.value_bytes_max, 1024);
    assert_eq!(config.watch_history_bytes, 2 << 20);
    assert_eq!(config.log.completion, LogCompletion::Poll);
    assert!(config.log.require_direct);
    assert_eq!(config.log.segment_bytes, 16 << 20);

    let by_dir = parsed(&[
        "-config-dir",
        dir.path().to_str().unwrap(),
        "-set",
        "log.completion=eventfd",
    ]);
    assert_eq!(by_dir.datacenter, "west");
    assert_eq!(by_dir.log.completion, LogCompletion::Eventfd);
}

#[test]
fn mistakes_in_files_name_file_and_key() {
    let dir = TempDir::new().unwrap();
    for (text, error) in [
        (
            r#"{"bootstrap_expct": 3}"#,
            "FILE: bootstrap_expct: unknown key (did you mean bootstrap_expect?)",
        ),
        (
            r#"{"ports": {"htp": 1}}"#,
            "FILE: ports.htp: unknown key (did you mean ports.http?)",
        ),
        (
            r#"{"server": "yes"}"#,
            "FILE: server: must be true or false, not \"yes\"",
        ),
        (
            r#"{"ports": 8500}"#,
            "FILE: ports: must be an object, not 8500",
        ),
        (
            r#"{"bootstrap_expect": "3"}"#,
            "FILE: bootstrap_expect: must be a whole number, not \"3\"",
        ),
        (
            r#"{"retry_join": [1]}"#,
            "FILE: retry_join: must be a list of texts, not [1]",
        ),
        (
            r#"{"retry_interval": 30}"#,
            "FILE: retry_interval: must be a duration such as \"30s\" or \"500ms\", not 30",
        ),
        (
            r#"{"bind_addr": "x"}"#,
            "FILE: bind_addr: \"x\" is not an IP address: give one such as 10.0.0.1, without a port",
        ),
        (
            r#"{"performance": {"raft_multiplier": 0}}"#,
            "FILE: performance.raft_multiplier: performance.raft_multiplier cannot be 0. Must be between 1 and 10",
        ),
        (
            r#"{"limits": {"kv_max_value_size": 100000000}}"#,
            "FILE: limits.kv_max_value_size: 100000000 is not between 1 and 777216",
        ),
        (
            r#"[]"#,
            "-config-file=FILE: must be a JSON object {\"key\": …}",
        ),
        (
            "server = true",
            "-config-file=FILE: not JSON: expected value at line 1 column 1; it is HCL: give it the ending .hcl, or -config-format=hcl",
        ),
        (
            r#"{"verify_incoming": true}"#,
            "FILE: verify_incoming: curia cannot do this yet, and without it the server would be less protected than this file asks for: remove the key to run it so anyway",
        ),
    ] {
        let path = file(&dir, "bad.json", text);
        let path = path.to_str().unwrap();
        let expected = format!("Error: {}", error.replace("FILE", path));
        assert_eq!(
            parse(&["-dev", "-config-file", path]).unwrap_err(),
            expected
        );
    }
}

#[test]
fn consuls_keys_without_meaning_here_are_accepted_with_one_warning_each() {
    let dir = TempDir::new().unwrap();
    let text = r#"{
        "ui": true,
        "telemetry": {"statsd_address": "127.0.0.1:8125"},
        "acl": {"enabled": false, "tokens": {"dns": "x"}},
        "verify_incoming": false,
        "connect": {"enabled": true}
    }"#;
    let path = file(&dir, "consul.json", text);
    let path = path.to_str().unwrap();
    let config = parsed(&["-dev", "-config-file", path, "-config-file", path]);
    let expected: Vec<String> = [
        "acl.tokens.dns",
        "connect",
        "telemetry.statsd_address",
        "ui",
    ]
    .iter()
    .map(|key| format!("{path}: {key}: has no effect on a curia server"))
    .collect();
    let mut warnings = config.warnings;
    warnings.sort();
    assert_eq!(warnings, expected);
}

#[test]
fn a_reload_takes_over_what_can_change_and_names_both() {
    let start = ["-dev", "-node=a"];
    let mut config = parsed(&start);
    assert!(config.reload(parsed(&start)).is_empty());
    let new = [
        "-dev",
        "-node=b",
        "-log-level=debug",
        "-set=raft_trailing_logs=1",
        "-set=performance.raft_multiplier=5",
        "-set=limits.kv_max_value_size=7",
        "-allow-write-http-from=10.0.0.0/8",
        "-hcl=service { name = \"s\" }",
        "-http-port=1",
    ];
    let changes = config.reload(parsed(&new));
    assert_eq!(
        changes.applied,
        [
            "raft_snapshot_threshold, raft_snapshot_interval, raft_trailing_logs",
            "log_level",
            "limits",
            "http_config",
            "services"
        ]
    );
    let restart = [
        "node_name",
        "client_addr, addresses.http, ports.http",
        "performance.raft_multiplier",
    ];
    assert_eq!(changes.restart, restart);
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    assert_eq!(config.http.value_bytes_max, 7);
    assert_eq!((config.raft.trailing_logs, config.raft.multiplier), (1, 1));
    assert_eq!(config.http_rules.allow_write_http_from.len(), 1);
    assert_eq!(config.node_name, "a", "until the restart");
    // What waits for a restart is said again; what was taken over is not.
    let again = config.reload(parsed(&new));
    assert_eq!(again.applied, [""; 0]);
    assert_eq!(again.restart, restart);
}

#[test]
fn files_and_directories_count_in_the_order_given() {
    let dir = TempDir::new().unwrap();
    let one = file(
        &dir,
        "one.hcl",
        "datacenter = \"one\"\nretry_join = [\"a\"]\n",
    );
    let sub = dir.path().join("more");
    fs::create_dir(&sub).unwrap();
    fs::write(
        sub.join("two.json"),
        r#"{"datacenter": "two", "retry_join": ["b"]}"#,
    )
    .unwrap();
    let (one, sub) = (one.to_str().unwrap(), sub.to_str().unwrap());
    let config = server(&["-config-file", one, "-config-dir", sub]).unwrap();
    assert_eq!(
        (&*config.datacenter, &*config.retry_join[0]),
        ("two", "a:8300")
    );
    let config = server(&["-config-dir", sub, "-config-file", one]).unwrap();
    assert_eq!(
        (&*config.datacenter, &*config.retry_join[0]),
        ("one", "b:8300")
    );
    assert_eq!(config.retry_join, ["b:8300", "a:8300"]);
}

#[test]
fn consuls_flags_are_taken_as_their_keys() {
    let config = parsed(&[
        "-dev",
        "-enable-script-checks",
        "-ui",
        "-dns-port=-1",
        "-grpc-port",
        "8502",
        "-node-meta=rack:r1",
        "-node-meta",
        "zone:z:1",
        "-rejoin=true",
    ]);
    let meta: Vec<_> = config.node_meta.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(meta, [("rack", "r1"), ("zone", "z:1")]);
    let expected = ["-enable-script-checks", "-grpc-port", "-rejoin", "-ui"]
        .map(|flag| format!("{flag}: has no effect on a curia server"));
    assert_eq!(config.warnings, expected);
    let joined = server(&["-join=10.0.0.9"]).unwrap();
    assert_eq!(joined.retry_join, ["10.0.0.9:8300"]);
}
