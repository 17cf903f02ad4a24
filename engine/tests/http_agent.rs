//! What a server says of itself and its cluster.

mod http_support;

use http_support::{Server, fake::NODE_ID, fake::failure};
use serde_json::json;
use wire::FailureKind;

#[test]
fn status_names_leader_and_peers() {
    let server = Server::start();
    let leader = server.get("/v1/status/leader");
    assert_eq!(leader.outcome(), (200, "\"127.0.0.2:8300\""));
    assert_eq!(leader.header("Content-Type"), Some("application/json"));
    assert_eq!(leader.header("X-Consul-Index"), None);
    assert_eq!(
        server.get("/v1/status/peers").text(),
        r#"["127.0.0.2:8300","127.0.0.3:8300","127.0.0.4:8300"]"#
    );
}

#[test]
fn gotcha_18_without_a_leader_status_is_an_empty_text_and_200() {
    let server = Server::start();
    {
        let mut state = server.state();
        state.failure = Some(failure(FailureKind::NoLeader, ""));
        state.status.leader.clear();
    }
    assert_eq!(server.get("/v1/status/leader").outcome(), (200, "\"\""));
    assert_eq!(server.get("/v1/status/peers").status, 200);
    assert_eq!(
        server.get("/v1/operator/raft/configuration").outcome(),
        (500, "No cluster leader")
    );
    assert_eq!(
        server.get("/v1/operator/raft/configuration?stale").status,
        200
    );
}

#[test]
fn the_raft_configuration_lists_the_servers() {
    let server = Server::start();
    let configuration = server.get("/v1/operator/raft/configuration");
    assert_eq!(configuration.header("X-Consul-Index"), None);
    let text = configuration.text();
    let first = format!(
        r#"{{"Servers":[{{"ID":"{NODE_ID}","Node":"s1","Address":"127.0.0.2:8300","Leader":true,"ProtocolVersion":"3","Voter":true}},"#
    );
    assert!(text.starts_with(&first), "{text}");
    assert!(text.ends_with(r#""Voter":false}],"Index":0}"#), "{text}");
}

#[test]
fn agent_self_tells_client_libraries_what_they_ask_for() {
    let server = Server::start();
    let this = server.get("/v1/agent/self").json();
    assert_eq!(
        this["Config"],
        json!({
            "Datacenter": "dc1",
            "PrimaryDatacenter": "dc1",
            "NodeName": "s1",
            "NodeID": NODE_ID,
            "Revision": "abc123",
            "Server": true,
            "Version": "0.1.0",
        })
    );
    assert_eq!(this["Member"]["Addr"], "127.0.0.2");
    assert_eq!(this["Member"]["Port"], 8300);
    assert_eq!(this["Stats"]["raft"]["state"], "Leader");
    assert_eq!(this["Stats"]["raft"]["applied_index"], "41");
    assert_eq!(this["Stats"]["raft"]["num_peers"], "1");
    assert_eq!(
        server.get("/v1/agent/version").text(),
        r#"{"SHA":"abc123","HumanVersion":"0.1.0","FIPS":""}"#
    );
}

#[test]
fn metrics_are_gauges_in_consuls_shape() {
    let server = Server::start();
    let metrics = server.get("/v1/agent/metrics").json();
    assert!(
        metrics["Timestamp"]
            .as_str()
            .unwrap()
            .ends_with(" +0000 UTC")
    );
    for list in ["Points", "Counters", "Samples"] {
        assert_eq!(metrics[list], json!([]));
    }
    let gauges = metrics["Gauges"].as_array().unwrap();
    assert!(gauges.contains(&json!({"Name": "curia.log.batches", "Value": 7.5, "Labels": {}})));
    assert_eq!(server.metric("curia.http.requests"), 2.0);
}

#[test]
fn the_root_says_what_this_is() {
    assert_eq!(Server::start().get("/").outcome(), (200, "curia agent\n"));
}
