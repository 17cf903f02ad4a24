//! Do servers start as the test suites of Consul's client libraries start them?
//!
//! The command lines and configuration files are those of python-consul's, py-consul's and
//! node-consul's own suites, with real processes: started in a directory of files, or with flags,
//! several side by side; asked until there is a leader; stopped with SIGINT or SIGTERM. And what only
//! a running server shows of its configuration: sockets, rules, limits, reloads.

mod cluster;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use cluster::{PATIENCE, check, group::Group, http::Http, wait_for};

/// A process in a directory of its own.
struct Agent {
    child: Option<Child>,
    log: PathBuf,
}

impl Agent {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let log = dir.join("output");
        let output = fs::File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_curia"))
            .args(args)
            .current_dir(dir)
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self {
            child: Some(child),
            log,
        }
    }

    fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id() as i32
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Signals it, and waits for a clean end.
    fn end(mut self, signal: i32) {
        self.signal(signal);
        let mut child = self.child.take().expect("it runs");
        let status = wait_for("the end of a server", || {
            child.try_wait().unwrap().ok_or("it runs on".to_owned())
        });
        assert!(status.success(), "{status}: {}", self.output());
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_output(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || {
            check(self.output().contains(text), || self.output())
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.output());
        }
    }
}

fn dir() -> TempDir {
    TempDir::with_prefix_in("starts-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn write(dir: &Path, name: &str, text: impl ToString) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text.to_string()).unwrap();
    path
}

/// As the suites choose them: ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn http(port: u16) -> Http {
    Http::new(SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)
}

/// Polls `/v1/status/leader` as the suites do.
fn wait_for_leader(http: &Http) -> String {
    wait_for("a leader", || {
        let answer = http
            .get("/v1/status/leader")
            .map_err(|error| format!("{error:?}"))?;
        match answer.text().trim() {
            "\"\"" => Err("none yet".to_owned()),
            leader => Ok(leader.to_owned()),
        }
    })
}

fn writes_and_reads(http: &Http) {
    assert!(http.put("/v1/kv/a", b"1").unwrap().is_true());
    assert_eq!(http.get("/v1/kv/a?raw").unwrap().text(), "1");
}

fn curia(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_curia"))
        .args(args)
        .output()
        .unwrap()
}

/// Exit code, standard output and standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn python_consuls_dev_server_in_a_directory_of_configuration_files() {
    let dir = dir();
    let [http_port, rpc, serf_lan, serf_wan, server] = free_ports();
    let config = json!({"ports": {
        "http": http_port, "rpc": rpc, "serf_lan": serf_lan, "serf_wan": serf_wan,
        "server": server, "dns": -1,
    }});
    write(dir.path(), "config.json", config);
    let args = ["agent", "-dev", "-bind=127.0.0.1", "-config-dir=."];
    let agent = Agent::start(dir.path(), &args);
    let http = http(http_port);
    let leader = wait_for_leader(&http);
    assert_eq!(leader, format!("\"127.0.0.1:{server}\""));
    writes_and_reads(&http);
    agent.end(libc::SIGINT);
    wait_for("the end of its port", || {
        let answer = http.get("/v1/status/leader");
        check(answer.is_err(), || format!("{answer:?}"))
    });
}

#[test]
fn py_consuls_dev_server_with_more_keys_ended_by_sigterm() {
    let dir = dir();
    let [http_port, serf_lan, serf_wan, server] = free_ports();
    let config = json!({
        "ports": {
            "http": http_port, "serf_lan": serf_lan, "serf_wan": serf_wan, "server": server, "dns": -1,
            "grpc": -1, "https": -1,
        },
        "performance": {"raft_multiplier": 1},
        "enable_script_checks": true,
    });
    write(dir.path(), "config.json", config);
    let args = ["agent", "-dev", "-bind=127.0.0.1", "-config-dir=."];
    let agent = Agent::start(dir.path(), &args);
    let http = http(http_port);
    wait_for_leader(&http);
    writes_and_reads(&http);
    // Nothing that is read stays without an effect, here.
    assert!(
        !agent.output().contains("in this build"),
        "{}",
        agent.output()
    );
    // One warning for each key that means nothing here, and none for what is not wanted.
    let warned = agent
        .output()
        .matches("has no effect on a curia server")
        .count();
    assert_eq!(warned, 3, "{}", agent.output());
    agent.end(libc::SIGTERM);
}

#[test]
fn node_consuls_servers_four_side_by_side() {
    let dir = dir();
    let group = Group::empty();
    let agents: Vec<_> = (0..4)
        .map(|at| {
            let (name, ip) = (format!("node{at}"), group.ip(at).to_string());
            let own = dir.path().join(&name);
            fs::create_dir(&own).unwrap();
            let config = json!({
                "primary_datacenter": "dc1", "acl": {"enabled": false}, "enable_script_checks": true,
            });
            let config = write(&own, "config.json", config);
            let (data, pid) = (own.join(&name).join("data"), own.join(&name).join("pid"));
            let args = [
                "agent", "-node", &name, "-datacenter", "dc1", "-bind", &ip, "-client", &ip,
                "-bootstrap", "-server", "-config-file", config.to_str().unwrap(), "-data-dir",
                data.to_str().unwrap(), "-pid-file", pid.to_str().unwrap(),
            ];
            (Agent::start(&own, &args), ip, pid, name)
        })
        .collect();
    for (agent, ip, pid, name) in &agents {
        let http = Http::new(format!("{ip}:8500").parse().unwrap(), PATIENCE);
        assert_eq!(wait_for_leader(&http), format!("\"{ip}:8300\""));
        writes_and_reads(&http);
        let this = http.get("/v1/agent/self").unwrap().json();
        assert_eq!(this["Config"]["NodeName"], Value::from(name.as_str()));
        let written = fs::read_to_string(pid).unwrap();
        assert_eq!(written.trim(), agent.pid().to_string());
    }
    for (agent, ip, pid, _) in agents {
        agent.end(libc::SIGINT);
        assert!(!pid.exists(), "the pid file goes with the server");
        // The kernel takes a dead process's rings apart in the background, and its sockets with them.
        wait_for("the end of its port", || {
            let connected = TcpStream::connect(format!("{ip}:8500"));
            check(connected.is_err(), || "somebody listens".into())
        });
    }
}

/// One request over a socket of the file system: status line, headers and body.
fn over(socket: &Path, request: &str) -> Result<String, String> {
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    stream
        .write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|error| error.to_string())?;
    Ok(answer)
}

#[test]
fn http_on_a_socket_of_the_file_system_and_on_no_port() {
    let dir = dir();
    let [http_port] = free_ports();
    // The path of a socket has a hundred bytes, so it is relative.
    let config = format!(
        "# Neither port for HTTP nor for servers.\n\
         ports {{\n  http = -1\n  server = -1\n}}\n\
         addresses {{\n  http = \"unix://http.sock 127.0.0.1\"\n}}\n\
         unix_sockets {{\n  mode = \"0600\"\n}}\n\
         node_meta {{\n  \"rack\" = \"r{http_port}\"\n}}\n"
    );
    write(dir.path(), "curia.hcl", config);
    let agent = Agent::start(dir.path(), &["agent", "-dev", "-config-file", "curia.hcl"]);
    let socket = dir.path().join("http.sock");
    wait_for("a leader", || {
        let answer = over(&socket, "GET /v1/status/leader HTTP/1.1")?;
        check(answer.contains("127.0.0.1"), || answer)
    });
    let this = over(&socket, "GET /v1/agent/self HTTP/1.1").unwrap();
    assert!(
        this.contains(&format!("\"rack\": \"r{http_port}\"")),
        "{this}"
    );
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        agent.output().contains("http=unix://http.sock"),
        "{}",
        agent.output()
    );
    agent.end(libc::SIGINT);
    assert!(!socket.exists(), "the socket goes with the server");
}

#[test]
fn a_killed_servers_socket_is_replaced() {
    let dir = dir();
    write(
        dir.path(),
        "c.json",
        json!({"addresses": {"http": "unix://http.sock"}, "ports": {"server": -1}}),
    );
    let socket = dir.path().join("http.sock");
    let serves = || {
        wait_for("an answer", || {
            let answer = over(&socket, "GET /v1/status/leader HTTP/1.1")?;
            check(answer.starts_with("HTTP/1.1 200"), || answer)
        });
    };
    let args = ["agent", "-dev", "-config-dir", "."];
    let agent = Agent::start(dir.path(), &args);
    serves();
    drop(agent);
    assert!(socket.exists(), "nobody was left to remove it");
    let agent = Agent::start(dir.path(), &args);
    serves();
    agent.end(libc::SIGINT);
}

#[test]
fn a_reload_changes_what_can_change_and_names_the_rest() {
    let dir = dir();
    let [http_port, server] = free_ports();
    let config = |level: &str, value: u32, datacenter: &str, header: &str| {
        let text = json!({
            "ports": {"http": http_port, "server": server},
            "log_level": level,
            "datacenter": datacenter,
            "limits": {"kv_max_value_size": value, "txn_max_req_len": 300},
            "http_config": {"response_headers": {"X-Site": header}},
        });
        write(dir.path(), "config.json", text);
    };
    config("info", 10, "dc1", "a");
    let agent = Agent::start(
        dir.path(),
        &[
            "agent",
            "-dev",
            "-executors=2",
            "-config-file",
            "config.json",
        ],
    );
    let http = http(http_port);
    wait_for_leader(&http);
    let too_large = |bytes: usize| http.put("/v1/kv/a", &vec![b'x'; bytes]).unwrap().status == 413;
    assert!(too_large(11) && !too_large(10));
    let txn = |bytes: usize| http.put("/v1/txn", &vec![b' '; bytes]).unwrap().status;
    assert_eq!((txn(301), txn(300) == 413), (413, false));

    config("debug", 20, "dc1", "b");
    agent.signal(libc::SIGHUP);
    agent.wait_for_output("configuration reloaded: changed=log_level, limits, http_config");
    // Connections are handed round: every executor has heard of it.
    for _ in 0..4 {
        wait_for("the new limit and header", || {
            let answer = http
                .get("/v1/status/leader")
                .map_err(|e| format!("{e:?}"))?;
            check(answer.header("x-site") == "b", || "the old header".into())
        });
    }
    wait_for("the new limit", || {
        check(!too_large(20) && !too_large(20), || "the old limit".into())
    });
    assert!(too_large(21));

    let address = format!("-http-addr=127.0.0.1:{http_port}");
    let (code, out, _) = said(&curia(&["reload", &address]));
    assert_eq!((code, &*out), (Some(0), "Configuration reload triggered\n"));
    agent.wait_for_output("configuration reloaded: nothing has changed");

    config("info", 20, "dc2", "b");
    assert_eq!(curia(&["reload", &address]).status.code(), Some(0));
    agent.wait_for_output("these have changed and wait for a restart: datacenter");
    let this = http.get("/v1/agent/self").unwrap().json();
    assert_eq!(
        this["Config"]["Datacenter"], "dc1",
        "it takes effect with a restart"
    );

    write(dir.path(), "config.json", "{\"log_levl\": \"info\"}");
    let (code, _, error) = said(&curia(&["reload", &address]));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("Unexpected response code: 500")
            && error.contains("config.json: log_levl: unknown key (did you mean log_level?)"),
        "{error}"
    );
    agent.wait_for_output("configuration not reloaded, nothing has changed");
    assert!(too_large(21) && !too_large(20));
    let answer = http.get("/v1/agent/reload").unwrap();
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, "OPTIONS,PUT")
    );
    agent.end(libc::SIGINT);
}

#[test]
fn a_reload_brings_other_bounds_for_compaction() {
    let dir = dir();
    let [http_port, server] = free_ports();
    let ports = json!({"http": http_port, "server": server});
    write(dir.path(), "config.json", json!({"ports": ports}));
    let args = ["agent", "-dev", "-executors=2", "-config-dir", "."];
    let agent = Agent::start(dir.path(), &args);
    let http = http(http_port);
    wait_for_leader(&http);
    for at in 0..20 {
        let path = format!("/v1/kv/{at}");
        assert!(http.put(&path, &[b'x'; 1000]).unwrap().is_true());
    }
    let images = || -> usize {
        let homes = fs::read_dir(dir.path()).unwrap().flatten();
        let images = homes.filter_map(|home| fs::read_dir(home.path().join("images")).ok());
        images.flatten().count()
    };
    assert_eq!(images(), 0, "20 entries are no reason for an image");
    let keys = json!({
        "ports": ports, "raft_snapshot_threshold": 5, "raft_snapshot_interval": "10ms",
        "raft_trailing_logs": 3,
    });
    write(dir.path(), "config.json", keys);
    agent.signal(libc::SIGHUP);
    agent.wait_for_output(
        "changed=raft_snapshot_threshold, raft_snapshot_interval, raft_trailing_logs",
    );
    wait_for("an image", || check(images() > 0, || "none".into()));
    agent.end(libc::SIGINT);
}

#[test]
fn http_config_holds_for_every_request() {
    let dir = dir();
    let [http_port, server] = free_ports();
    let config = json!({
        "ports": {"http": http_port, "server": server},
        "http_config": {
            "response_headers": {"Access-Control-Allow-Origin": "*"},
            "block_endpoints": ["/v1/operator/"],
            "allow_write_http_from": ["10.0.0.0/8"],
        },
    });
    write(dir.path(), "config.json", config);
    let agent = Agent::start(dir.path(), &["agent", "-dev", "-config-dir=."]);
    let http = http(http_port);
    wait_for_leader(&http);
    let blocked = http.get("/v1/operator/raft/configuration").unwrap();
    assert_eq!(
        (blocked.status, &*blocked.text()),
        (403, "Endpoint is blocked by agent configuration")
    );
    let refused = http.put("/v1/kv/a", b"1").unwrap();
    assert_eq!(
        (refused.status, &*refused.text()),
        (403, "Access is restricted")
    );
    let missing = http.get("/v1/kv/a").unwrap();
    assert_eq!(missing.status, 404);
    for answer in [blocked, refused, missing] {
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    agent.end(libc::SIGINT);
}

#[test]
fn http_max_conns_per_client_is_reached_and_given_back() {
    let dir = dir();
    let [http_port, server] = free_ports();
    let config = json!({
        "ports": {"http": http_port, "server": server},
        "limits": {"http_max_conns_per_client": 3},
    });
    write(dir.path(), "config.json", config);
    let agent = Agent::start(
        dir.path(),
        &["agent", "-dev", "-executors=2", "-config-dir=."],
    );
    wait_for_leader(&http(http_port));
    let ask = |stream: &mut TcpStream| -> String {
        let request = "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n";
        if stream.write_all(request.as_bytes()).is_err() {
            return String::new();
        }
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap_or_default();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let connect = || {
        let mut stream = TcpStream::connect(("127.0.0.1", http_port)).unwrap();
        let answer = ask(&mut stream);
        (stream, answer)
    };
    // Those of the question for a leader may be on their way out still.
    let mut held: Vec<TcpStream> = Vec::new();
    while held.len() < 3 {
        let (stream, answer) = connect();
        if answer.starts_with("HTTP/1.1 200") {
            held.push(stream);
        }
    }
    let (_, answer) = connect();
    assert!(
        answer.starts_with("HTTP/1.1 429 Too Many Requests")
            && answer.contains("Your IP is issuing too many concurrent connections"),
        "{answer}"
    );
    for stream in &mut held {
        assert!(ask(stream).starts_with("HTTP/1.1 200"));
    }
    held.pop();
    wait_for("room for one more", || {
        let (_, answer) = connect();
        check(answer.starts_with("HTTP/1.1 200"), || answer)
    });
    agent.end(libc::SIGINT);
}

#[test]
fn access_control_by_its_old_names_is_enforced() {
    let dir = dir();
    let [http_port, server] = free_ports();
    let master = "e95b599e-166e-4d80-88ad-aee76e7ddf19";
    let config = json!({
        "ports": {"http": http_port, "server": server},
        "acl_datacenter": "dc1",
        "acl_default_policy": "deny",
        "acl_master_token": master,
    });
    let config = write(dir.path(), "config.json", config);
    let agent = Agent::start(
        dir.path(),
        &["agent", "-dev", "-config-file", config.to_str().unwrap()],
    );
    let http = http(http_port);
    wait_for_leader(&http);
    wait_for("the initial management token", || {
        let own = http.get(&format!("/v1/acl/token/self?token={master}"));
        let own = own.map_err(|why| format!("{why:?}"))?;
        check(own.status == 200, || own.text())
    });
    assert_eq!(http.get("/v1/kv/a").expect("an answer").status, 403);
    let allowed = http.get(&format!("/v1/kv/a?token={master}"));
    assert_eq!(allowed.expect("an answer").status, 404);
    agent.end(libc::SIGINT);
}

#[test]
fn dev_leaves_data_alone_that_a_server_needs() {
    let dir = dir();
    let [http_port] = free_ports();
    let data = dir.path().join("data");
    let port = format!("-http-port={http_port}");
    let flag = format!("-data-dir={}", data.display());
    // As Consul's container image starts it: with a data directory that -dev does not need.
    let agent = Agent::start(
        dir.path(),
        &["agent", "-dev", &flag, &port, "-server-port=-1"],
    );
    wait_for_leader(&http(http_port));
    assert!(
        agent.output().contains("nothing is kept in"),
        "{}",
        agent.output()
    );
    agent.end(libc::SIGINT);
    assert!(!data.exists());

    fs::create_dir(&data).unwrap();
    fs::write(data.join("identity.json"), "{}").unwrap();
    let (code, _, error) = said(&curia(&["agent", "-dev", &flag]));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("-dev and -data-dir exclude each other"),
        "{error}"
    );
}

#[test]
fn validate_says_valid_or_all_that_is_wrong() {
    let dir = dir();
    let good = write(
        dir.path(),
        "good.hcl",
        "data_dir = \"/nonexistent\"\nserver = true\nui = true\nservice {\n  name = \"web\"\n}\n",
    );
    let good = good.to_str().unwrap();
    let (code, out, error) = said(&curia(&["validate", good]));
    assert_eq!((code, &*out), (Some(0), "Configuration is valid!\n"));
    assert_eq!(
        error,
        format!("{good}: ui: has no effect on a curia server\n")
    );
    let (code, out, error) = said(&curia(&["validate", "-quiet", good]));
    assert_eq!((code, &*out, &*error), (Some(0), "", ""));

    write(
        dir.path(),
        "worse.json",
        "{\"ports\": {\"htp\": 1}, \"service\": {\"port\": -1}}",
    );
    write(dir.path(), "worst.json", "{");
    let (code, out, error) = said(&curia(&["validate", dir.path().to_str().unwrap()]));
    assert_eq!((code, &*out), (Some(1), ""));
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(
        error,
        format!(
            "Config validation failed: 4 errors:\n  \
             * {}: ports.htp: unknown key (did you mean ports.http?)\n  \
             * {}: not JSON: EOF while parsing an object at line 1 column 1\n  \
             * {}: service.port: must be a whole number from 0 to 65535\n  \
             * {}: service: a service needs a name\n",
            at("worse.json"),
            at("worst.json"),
            at("worse.json"),
            at("worse.json"),
        )
    );
    let bare = write(dir.path(), "bare.conf", "server = true");
    let args = ["validate", "-config-format=hcl", bare.to_str().unwrap()];
    let (code, _, error) = said(&curia(&args));
    assert_eq!(
        (code, &*error),
        (
            Some(1),
            "Config validation failed: data_dir cannot be empty\n"
        )
    );
    let (code, _, error) = said(&curia(&["validate"]));
    assert_eq!(
        (code, &*error),
        (
            Some(1),
            "Must specify at least one config file or directory\n"
        )
    );
}
