//! What goes on until somebody leaves: the log and the metrics of a real server, read along.

mod cluster;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use cluster::{
    PATIENCE,
    acl::{ROOT, anonymous_lacks, bearer, delete, get, guarded, said},
    check,
    group::Group,
    server::Server,
    wait_for,
};
use serde_json::Value;

/// An answer that goes on.
struct Following {
    status: u16,
    head: String,
    body: BufReader<TcpStream>,
}

impl Following {
    fn of(server: &Server, target: &str) -> Self {
        let mut socket = TcpStream::connect(server.http_address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: s\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut body = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(body.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let status = head[9..12].parse().unwrap();
        Self { status, head, body }
    }

    /// The next chunk; `None` behind the last one.
    fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        assert_ne!(self.body.read_line(&mut size).unwrap(), 0, "cut off");
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.body.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    /// Reads on until there is a line with this text.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let chunk = self
                .chunk()
                .unwrap_or_else(|| panic!("no line with {text}"));
            if let Some(line) = chunk.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
        }
    }
}

fn fire(server: &Server, name: &str) {
    let fired = server.http().put(&format!("/v1/event/fire/{name}"), b"");
    assert_eq!(fired.unwrap().status, 200);
}

fn wait_until_nobody_follows(server: &Server) {
    wait_for("they are forgotten", || {
        let left = server.metric("curia.http.watches");
        check(left == 0.0, || left.to_string())
    });
}

#[test]
fn the_log_is_read_along_more_finely_than_the_server_keeps_it() {
    let group = Group::formed(1, &["-executors=2", "-log-level=info"]);
    let server = &group[0];
    let mut coarse = Following::of(server, "/v1/agent/monitor?loglevel=warn");
    let mut json = Following::of(server, "/v1/agent/monitor?loglevel=DEBUG&logjson");
    let mut fine = Following::of(server, "/v1/agent/monitor?loglevel=debug");
    assert_eq!(fine.status, 200, "{}", fine.head);
    fire(server, "first");
    let line = fine.line_with("event_name=first");
    assert!(line.contains(" [DEBUG] agent: new user event: "), "{line}");
    let line = json.line_with("event_name=first");
    let line: Value = serde_json::from_str(&line).expect("one object a line");
    assert_eq!(
        (&line["@level"], &line["@module"]),
        (&"debug".into(), &"agent".into())
    );
    assert!(
        !server.log_text().contains("event_name=first"),
        "it keeps info"
    );
    // Once they have gone, no such line is made any more; the one who stays is told nothing of it.
    drop((fine, json));
    fire(server, "second");
    server.signal(libc::SIGHUP);
    server.wait_for_log("configuration reloaded");
    assert!(!server.log_text().contains("event_name="));
    server.signal(libc::SIGTERM);
    let mut told = String::new();
    while let Some(chunk) = coarse.chunk() {
        told += &chunk;
    }
    assert!(
        !told.contains("[DEBUG]") && !told.contains("[INFO]"),
        "{told}"
    );
}

#[test]
fn requests_for_the_log_that_make_no_sense_are_refused() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let answer = server
        .http()
        .get("/v1/agent/monitor?loglevel=loud")
        .unwrap();
    assert_eq!(said(&answer), (400, "Unknown log level: loud".into()));
    let answer = server.http().put("/v1/agent/monitor", b"").unwrap();
    assert_eq!(said(&answer), (405, "method PUT not allowed".into()));
    wait_until_nobody_follows(server);
}

#[test]
fn who_may_not_read_the_agent_reads_no_log_and_no_longer_once_it_may_not() {
    let group = guarded(1, serde_json::json!({}));
    let server = &group.servers[0];
    for path in ["/v1/agent/monitor", "/v1/agent/metrics/stream"] {
        assert_eq!(
            said(&get(server, path, "")),
            anonymous_lacks("'agent:read' on \"s1\"")
        );
    }
    let reader = bearer(server, "reader", "agent \"s1\" { policy = \"read\" }");
    let path = format!("/v1/agent/monitor?loglevel=debug&token={reader}");
    let mut log = Following::of(server, &path);
    fire_as(server, "first");
    log.line_with("event_name=first");
    let id = cluster::acl::accessor(server, &reader);
    assert!(delete(server, &format!("/v1/acl/token/{id}"), ROOT).is_true());
    fire_as(server, "second");
    while let Some(chunk) = log.chunk() {
        assert!(!chunk.contains("event_name=second"), "{chunk}");
    }
    wait_for("they are forgotten", || {
        let metrics = get(server, "/v1/agent/metrics", ROOT).text();
        let none = "\"Name\":\"curia.http.watches\",\"Value\":0.0";
        check(metrics.contains(none), || metrics)
    });
}

fn fire_as(server: &Server, name: &str) {
    let fired = cluster::acl::put(server, &format!("/v1/event/fire/{name}"), ROOT, "");
    assert_eq!(fired.status, 200);
}

#[test]
fn metrics_are_told_a_line_each_interval_with_what_was_done_in_it() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let mut metrics = Following::of(server, "/v1/agent/metrics/stream");
    let first: Value = serde_json::from_str(&metrics.chunk().unwrap()).unwrap();
    assert!(
        first["Gauges"]
            .as_array()
            .is_some_and(|gauges| gauges.len() > 20)
    );
    for at in 0..3 {
        let put = server.http().put(&format!("/v1/kv/{at}"), b"1");
        assert!(put.unwrap().is_true());
    }
    // The interval may have ended between two of them.
    let mut counted = 0;
    while counted < 3 {
        let line = metrics.chunk().expect("it goes on");
        assert!(line.ends_with('\n'));
        let line: Value = serde_json::from_str(&line).unwrap();
        let samples = line["Samples"].as_array().unwrap();
        let applied = samples.iter().find(|row| row["Name"] == "consul.kvs.apply");
        counted += applied.map_or(0, |row| row["Count"].as_u64().unwrap());
    }
    assert_eq!(counted, 3);
    drop(metrics);
    wait_until_nobody_follows(server);
}

/// A stop waits for those who have not had their last answer, and for the log; it says so in the
/// log when it does not wait any longer. With blocked clients, streams and a check that hangs, it
/// never comes to that.
#[test]
fn a_stop_uses_up_no_grace_however_many_wait() {
    let mut group = Group::formed(1, &["-executors=2"]);
    let server = &group[0];
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let body = format!(
        "{{\"Name\":\"hangs\",\"HTTP\":\"http://127.0.0.1:{port}/\",\"Interval\":\"1s\",\"Timeout\":\"60s\"}}"
    );
    let put = server
        .http()
        .put("/v1/agent/check/register", body.as_bytes());
    assert_eq!(put.unwrap().status, 200);
    let _in_flight = silent.accept().unwrap();
    let waiters: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = TcpStream::connect(server.http_address()).unwrap();
            let request = "GET /v1/kv/none?index=1000000&wait=60s HTTP/1.1\r\nHost: s\r\n\r\n";
            socket.write_all(request.as_bytes()).unwrap();
            socket
        })
        .collect();
    let mut log = Following::of(server, "/v1/agent/monitor");
    let _metrics = Following::of(server, "/v1/agent/metrics/stream");
    wait_for("all wait", || {
        let waiting = server.metric("curia.waiters");
        check(waiting == 100.0, || waiting.to_string())
    });
    server.signal(libc::SIGINT);
    log.line_with("Gracefully shutting down agent...");
    while log.chunk().is_some() {}
    assert!(group[0].wait_for_exit().success());
    let text = group[0].log_text();
    assert!(text.contains("shutdown complete"), "{text}");
    for given_up in [
        "without waiting for the log",
        "had not taken their last answers",
    ] {
        assert!(!text.contains(given_up), "{text}");
    }
    for mut waiter in waiters {
        let mut answer = String::new();
        waiter.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
    }
}
