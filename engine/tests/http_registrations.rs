//! `/v1/agent/…` over HTTP: registering services and checks, word for word as Consul answers.

mod http_support;

use engine::server::agent::local::{CHECKS_MAX, SERVICES_MAX};
use http_support::{Response, Server, eventually};
use serde_json::{Value, json};

const EMPTY: (u16, &str) = (200, "");

fn register(server: &Server, body: Value) {
    let response = server.put("/v1/agent/service/register", body.to_string());
    assert_eq!(response.outcome(), EMPTY);
}

fn web(server: &Server) {
    register(
        server,
        json!({
            "ID": "web/1", "Name": "web", "Tags": ["a"], "Port": 80, "Address": "10.1.2.3",
            "Meta": {"v": "1"}, "Check": {"TTL": "10s", "Notes": "n"},
        }),
    );
}

fn check(server: &Server, id: &str) -> Value {
    server.get("/v1/agent/checks").json()[id].clone()
}

#[test]
fn a_registered_service_is_shown_as_consul_shows_it() {
    let server = Server::start();
    assert_eq!(server.get("/v1/agent/services").outcome(), (200, "{}"));
    assert_eq!(server.get("/v1/agent/checks").outcome(), (200, "{}"));
    web(&server);
    assert_eq!(
        server.get("/v1/agent/services").text(),
        concat!(
            r#"{"web/1":{"ID":"web/1","Service":"web","Tags":["a"],"Meta":{"v":"1"},"Port":80,"#,
            r#""Address":"10.1.2.3","TaggedAddresses":{"lan_ipv4":{"Address":"10.1.2.3","Port":80},"#,
            r#""wan_ipv4":{"Address":"10.1.2.3","Port":80}},"Weights":{"Passing":1,"Warning":1},"#,
            r#""EnableTagOverride":false,"Datacenter":"dc1"}}"#
        )
    );
    assert_eq!(
        server.get("/v1/agent/checks").text(),
        concat!(
            r#"{"service:web/1":{"Node":"s1","CheckID":"service:web/1","Name":"Service 'web' check","#,
            r#""Status":"critical","Notes":"n","Output":"","ServiceID":"web/1","ServiceName":"web","#,
            r#""ServiceTags":["a"],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"#,
            r#""Definition":{},"CreateIndex":0,"ModifyIndex":0}}"#
        )
    );
    let one = server.get("/v1/agent/service/web/1");
    let hash = one.header("X-Consul-Contenthash").unwrap().to_owned();
    assert_eq!(one.json()["ContentHash"], hash);
    assert_eq!(
        server.get("/v1/agent/service/web").outcome(),
        (404, "unknown service ID: web")
    );
    assert_eq!(
        server
            .put("/v1/agent/service/deregister/web/1", "")
            .outcome(),
        EMPTY
    );
    assert_eq!(server.get("/v1/agent/checks").outcome(), (200, "{}"));
}

#[test]
fn refusals_are_consuls() {
    let server = Server::start();
    web(&server);
    for (path, body, outcome) in [
        ("service/register", "", (400, "Request decode failed: EOF")),
        ("service/register", "{}", (400, "Missing service name")),
        ("service/deregister/", "", (400, "Missing service ID")),
        (
            "service/deregister/x",
            "",
            (
                404,
                "Unknown service ID \"x\". Ensure that the service ID is passed, not the service name.",
            ),
        ),
        ("service/maintenance/", "", (400, "Missing service ID")),
        (
            "service/maintenance/web/1",
            "",
            (400, "Missing value for enable"),
        ),
        (
            "service/maintenance/web/1?enable=perhaps",
            "",
            (400, "Invalid value for enable: \"perhaps\""),
        ),
        (
            "service/maintenance/x?enable=true",
            "",
            (
                404,
                "Unknown service ID \"x\". Ensure that the service ID is passed, not the service name.",
            ),
        ),
        ("maintenance", "", (400, "Missing value for enable")),
        ("check/register", "{}", (400, "Missing check name")),
        (
            "check/register",
            r#"{"Name": "c", "ServiceID": "x", "TTL": "1s"}"#,
            (404, "ServiceID \"x\" does not exist"),
        ),
        (
            "check/register",
            r#"{"Name": "c"}"#,
            (400, "Invalid check: TTL must be > 0 for TTL checks"),
        ),
        (
            "check/deregister/x",
            "",
            (
                404,
                "Unknown check ID \"x\". Ensure that the check ID is passed, not the check name.",
            ),
        ),
        (
            "check/pass/x",
            "",
            (
                404,
                "Unknown check ID \"x\". Ensure that the check ID is passed, not the check name.",
            ),
        ),
        (
            "check/update/service:web/1",
            r#"{"Status": "fine"}"#,
            (400, "Invalid check status: 'fine'"),
        ),
        (
            "check/register",
            r#"{"Name": "c", "Args": ["true"], "Interval": "1s"}"#,
            (
                400,
                "Invalid check: script checks are not supported: this agent runs TTL, HTTP and TCP checks",
            ),
        ),
        (
            "join/10.0.0.1",
            "",
            (
                501,
                "join is not supported yet: the servers of a cluster are those it was formed with (-bootstrap-expect, -retry-join)",
            ),
        ),
        ("token/default", "{}", (401, "ACL support disabled")),
        (
            "nothing",
            "",
            (
                404,
                "Invalid URL path: not a recognized HTTP API endpoint\n",
            ),
        ),
    ] {
        let response = server.put(&format!("/v1/agent/{path}"), body);
        assert_eq!(response.outcome(), outcome, "{path} {body}");
    }
    let tcp = r#"{"Name": "t", "TCP": "127.0.0.1:1", "Interval": "1h"}"#;
    assert_eq!(server.put("/v1/agent/check/register", tcp).outcome(), EMPTY);
    assert_eq!(
        server.put("/v1/agent/check/pass/t", "").outcome(),
        (500, "CheckID \"t\" does not have associated TTL")
    );
    let post = server
        .client()
        .request("POST", "/v1/agent/service/register", &[], b"{}");
    assert_eq!(post.outcome(), (405, "method POST not allowed"));
    assert_eq!(post.header("Allow"), Some("OPTIONS,PUT"));
    assert_eq!(server.put("/v1/agent/services", "").status, 405);
}

#[test]
fn ttl_checks_are_told_their_status() {
    let server = Server::start();
    web(&server);
    let id = "service:web/1";
    for (path, status, output) in [
        ("pass/service:web/1?note=well", "passing", "well"),
        ("warn/service:web/1?note=slow", "warning", "slow"),
        ("fail/service:web/1", "critical", ""),
    ] {
        assert_eq!(
            server.put(&format!("/v1/agent/check/{path}"), "").outcome(),
            EMPTY
        );
        let check = check(&server, id);
        assert_eq!(
            (&check["Status"], &check["Output"]),
            (&json!(status), &json!(output))
        );
    }
    let update = r#"{"status": "passing", "Output": "o"}"#;
    let path = format!("/v1/agent/check/update/{id}");
    assert_eq!(server.put(&path, update).outcome(), EMPTY);
    assert_eq!(check(&server, id)["Output"], "o");
    server.state().local.expire(10_000);
    assert_eq!(
        check(&server, id)["Output"],
        "TTL expired (last output before timeout follows): o"
    );
}

fn health(server: &Server, path: &str) -> (Response, Response) {
    let path = format!("/v1/agent/health/service/{path}");
    (
        server.get(&path),
        server.get(&format!("{path}?format=text")),
    )
}

#[test]
fn health_is_told_by_status_document_and_word() {
    let server = Server::start();
    let (document, text) = health(&server, "id/web/1");
    assert_eq!(
        document.outcome(),
        (
            404,
            r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#
        )
    );
    assert_eq!(text.outcome(), (404, "ServiceId web/1 not found"));
    let (document, text) = health(&server, "name/web");
    assert_eq!(document.outcome(), (404, "[]"));
    assert_eq!(text.outcome(), (404, "ServiceName web Not Found"));
    web(&server);
    register(&server, json!({"ID": "web2", "Name": "web"}));
    for (status, code, word) in [
        ("fail", 503, "critical"),
        ("warn", 429, "warning"),
        ("pass", 200, "passing"),
    ] {
        server.put(&format!("/v1/agent/check/{status}/service:web/1"), "");
        for path in ["id/web/1", "name/web"] {
            let (document, text) = health(&server, path);
            assert_eq!(text.outcome(), (code, word), "{path}");
            assert_eq!(document.status, code);
        }
    }
    assert_eq!(health(&server, "id/web2").1.outcome(), (200, "passing"));
    let maintenance = "/v1/agent/maintenance?enable=true&reason=upgrade";
    assert_eq!(server.put(maintenance, "").outcome(), EMPTY);
    let (document, text) = health(&server, "id/web2");
    assert_eq!(text.outcome(), (503, "maintenance"));
    let document: Value = serde_json::from_str(document.text()).unwrap();
    let checks = &document["Checks"];
    assert_eq!(checks[0]["CheckID"], "_node_maintenance");
    assert_eq!(checks[0]["Notes"], "upgrade");
    assert_eq!(
        server
            .put("/v1/agent/maintenance?enable=false", "")
            .outcome(),
        EMPTY
    );
    let one = "/v1/agent/service/maintenance/web/1?enable=";
    assert_eq!(server.put(&format!("{one}true"), "").outcome(), EMPTY);
    assert_eq!(
        health(&server, "id/web/1").1.outcome(),
        (503, "maintenance")
    );
    assert_eq!(health(&server, "id/web2").1.outcome(), (200, "passing"));
    let notes = check(&server, "_service_maintenance:web/1")["Notes"].clone();
    assert_eq!(
        notes,
        "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
    );
    assert_eq!(server.put(&format!("{one}false"), "").outcome(), EMPTY);
    assert_eq!(health(&server, "id/web/1").1.outcome(), (200, "passing"));
}

#[test]
fn listings_are_filtered() {
    let server = Server::start();
    web(&server);
    register(&server, json!({"Name": "db", "Tags": ["b"]}));
    let names = |path: &str| {
        let rows = server.get(path).json();
        rows.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/agent/services?filter=b+in+Tags"), ["db"]);
    assert_eq!(names("/v1/agent/services?filter=Meta.v==1"), ["web/1"]);
    assert_eq!(names("/v1/agent/checks?filter=Status!=critical"), [""; 0]);
    assert_eq!(
        names("/v1/agent/checks?filter=ServiceName==web"),
        ["service:web/1"]
    );
    let bad = server.get("/v1/agent/services?filter=Nothing==1");
    assert_eq!(bad.status, 500);
    assert!(
        bad.text()
            .starts_with("Failed to create boolean expression evaluator: ")
    );
    let member = server.get("/v1/agent/members?filter=Name==s2").json();
    assert_eq!(member.as_array().unwrap().len(), 1);
}

#[test]
fn replacing_checks_is_asked_for() {
    let server = Server::start();
    let body = |checks: &[&str]| {
        let checks: Vec<Value> = checks
            .iter()
            .map(|id| json!({"CheckID": id, "TTL": "1s"}))
            .collect();
        json!({"Name": "a", "Checks": checks}).to_string()
    };
    let ids = || {
        let checks = server.get("/v1/agent/checks").json();
        checks
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    server.put("/v1/agent/service/register", body(&["x", "y"]));
    server.put("/v1/agent/service/register", body(&["y", "z"]));
    assert_eq!(ids(), ["x", "y", "z"]);
    server.put(
        "/v1/agent/service/register?replace-existing-checks=false",
        body(&["y"]),
    );
    assert_eq!(ids(), ["x", "y", "z"]);
    server.put(
        "/v1/agent/service/register?replace-existing-checks",
        body(&["y"]),
    );
    assert_eq!(ids(), ["y"]);
}

#[test]
fn a_service_is_waited_for_by_its_hash() {
    let server = Server::start();
    web(&server);
    let path = "/v1/agent/service/web/1";
    let hash = server
        .get(path)
        .header("X-Consul-Contenthash")
        .unwrap()
        .to_owned();
    let other = server.get(&format!("{path}?hash=other"));
    assert_eq!(other.header("X-Consul-Contenthash"), Some(&*hash));
    let same = server.get(&format!("{path}?hash={hash}&wait=5ms"));
    assert_eq!(same.header("X-Consul-Contenthash"), Some(&*hash));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get(&format!("{path}?hash={hash}&wait=10m")));
        eventually("it waits", || {
            server.metric("curia.http.requests_waiting") == 1.0
        });
        register(&server, json!({"ID": "web/1", "Name": "web", "Port": 81}));
        waiting.join().unwrap()
    });
    assert_eq!(waiting.json()["Port"], 81);
}

#[test]
fn what_is_full_or_not_on_disk_is_said() {
    let server = Server::start();
    server.state().not_kept = Some("No space left on device".into());
    let response = server.put("/v1/agent/service/register", r#"{"Name": "a"}"#);
    assert_eq!(
        response.outcome(),
        (
            500,
            "done, but not kept through a restart of this server: No space left on device; it is tried again"
        )
    );
    server.state().not_kept = None;
    let mut client = server.client();
    for n in 1..SERVICES_MAX {
        let checks = [json!({"TTL": "1s"}), json!({"TTL": "1s"})];
        let body = json!({"Name": format!("s{n}"), "Checks": checks}).to_string();
        assert_eq!(
            client.put("/v1/agent/service/register", body).outcome(),
            EMPTY
        );
    }
    let full = client.put("/v1/agent/service/register", r#"{"Name": "one more"}"#);
    let text = format!("this agent has {SERVICES_MAX} services already, the most that it takes");
    assert_eq!(full.outcome(), (507, &*text));
    assert_eq!(server.state().local.checks().len(), CHECKS_MAX - 2);
}

#[test]
fn the_server_tells_of_itself() {
    let server = Server::start();
    web(&server);
    let stats = server.get("/v1/agent/self").json()["Stats"]["agent"].clone();
    assert_eq!(
        stats,
        json!({"check_monitors": "0", "check_ttls": "1", "checks": "1", "services": "1"})
    );
    let members = server.get("/v1/agent/members").json();
    assert_eq!(members[1]["Name"], "s2");
    assert_eq!(members[1]["Addr"], "127.0.0.3");
    assert_eq!(members[1]["Status"], 1);
    assert_eq!(members[1]["Tags"]["role"], "consul");
    assert_eq!(members[1]["Tags"]["dc"], "dc1");
    let host = server.get("/v1/agent/host").json();
    assert!(host["Memory"]["total"].as_u64().unwrap() > 0);
    assert_eq!(
        server.get("/v1/agent/metrics?format=prometheus").outcome(),
        (
            415,
            "Prometheus is not enabled since its retention time is not positive"
        )
    );
}

#[test]
fn metrics_are_given_to_prometheus_when_it_is_on() {
    let server = Server::with(Default::default(), |state| {
        let telemetry = &mut state.info.telemetry;
        telemetry.prometheus_retention_time = std::time::Duration::from_secs(60);
        telemetry.disable_hostname = true;
    });
    let metrics = server.get("/v1/agent/metrics?format=prometheus");
    assert_eq!(
        metrics.header("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = metrics.text();
    assert!(
        text.contains("# TYPE curia_log_batches gauge\ncuria_log_batches 7.5\n"),
        "{text}"
    );
}

#[test]
fn events_are_fired_listed_and_waited_for() {
    let server = Server::start();
    let none = server.get("/v1/event/list");
    assert_eq!(none.outcome(), (200, "[]"));
    assert_eq!(none.header("X-Consul-Index"), Some("1"));
    let fired = server.put("/v1/event/fire/deploy?node=s1", "payload");
    let event: Value = fired.json();
    assert_eq!(event["Name"], "deploy");
    assert_eq!(event["Payload"], "cGF5bG9hZA==");
    assert_eq!(event["NodeFilter"], "s1");
    assert_eq!(event["Version"], 1);
    server.put("/v1/event/fire/elsewhere?node=s9", "");
    server.put("/v1/event/fire/other", "");
    let names = |path: &str| {
        let list = server.get(path).json();
        let rows = list.as_array().unwrap().iter();
        rows.map(|row| row["Name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/event/list"), ["deploy", "other"]);
    assert_eq!(names("/v1/event/list?name=deploy"), ["deploy"]);
    let one = server.get("/v1/event/list?name=deploy");
    let index = one.header("X-Consul-Index").unwrap();
    assert_eq!(
        server
            .get(&format!(
                "/v1/event/list?name=deploy&index={index}&wait=5ms"
            ))
            .status,
        200
    );
    for (path, outcome) in [
        ("fire/", (400, "Missing name")),
        (
            "fire/e?tag=t",
            (400, "Cannot provide tag filter without service filter"),
        ),
    ] {
        assert_eq!(
            server.put(&format!("/v1/event/{path}"), "").outcome(),
            outcome
        );
    }
    assert_eq!(
        server.get("/v1/event/list?index=x").outcome(),
        (400, "Invalid index")
    );
    assert_eq!(server.get("/v1/event/fire/e").status, 405);
}
