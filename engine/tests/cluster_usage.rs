//! `/v1/operator/usage` and the gauges beside it, on real servers.

mod cluster;

use std::thread;

use cluster::{
    PATIENCE,
    acl::{ROOT, anonymous_lacks, bearer, configured, delete, get, guarded, put, said},
    check,
    http::{Answer, Http},
    server::Server,
    wait_for,
};
use serde_json::{Value, json};

fn register(server: &Server, service: Value) {
    let body = json!({"Node": "n1", "Address": "10.0.0.1", "Service": service});
    let done = put(server, "/v1/catalog/register", ROOT, body.to_string());
    assert!(done.is_true(), "{}", done.text());
}

fn index(answer: &Answer) -> u64 {
    let index = answer.header("x-consul-index").parse();
    index.unwrap_or_else(|why| panic!("no index: {why}: {}", answer.text()))
}

/// Waits until the leader has put the servers into the catalog.
fn wait_for_servers(server: &Server, count: usize) {
    wait_for("the servers are in the catalog", || {
        let found = get(server, "/v1/catalog/service/consul", "").json();
        let found = found.as_array().map_or(0, Vec::len);
        check(found == count, || found.to_string())
    });
}

#[test]
fn what_is_registered_is_counted() {
    let config = json!({"telemetry": {
        "prometheus_retention_time": "1m",
        "disable_hostname": true,
    }});
    let group = configured(3, &config);
    let server = &group[0];
    wait_for_servers(server, 3);
    register(server, json!({"ID": "w1", "Service": "web"}));
    register(
        server,
        json!({"ID": "w2", "Service": "web", "Connect": {"Native": true}}),
    );
    let proxy = |kind: &str| {
        json!({
            "ID": "p", "Service": "web-proxy", "Kind": kind, "Port": 1,
            "Proxy": {"DestinationServiceName": "web"},
        })
    };
    register(server, proxy("mesh-gateway"));
    register(server, proxy("connect-proxy"));
    let entry = json!({"Kind": "service-defaults", "Name": "web"}).to_string();
    assert!(put(server, "/v1/config", "", entry).is_true());
    assert!(put(server, "/v1/kv/a", "", "1").is_true());
    let usage = json!({"dc1": {
        "Services": 3,
        "ServiceInstances": 6,
        "ConnectServiceInstances": {
            "api-gateway": 0, "connect-native": 1, "connect-proxy": 1, "ingress-gateway": 0,
            "mesh-gateway": 0, "terminating-gateway": 0,
        },
        "BillableServiceInstances": 2,
        "Nodes": 4,
    }});
    for server in &group.servers {
        for (mode, level) in [
            ("", "leader"),
            ("?consistent", "consistent"),
            ("?stale&global", "stale"),
        ] {
            let path = format!("/v1/operator/usage{mode}");
            let mut answer = get(server, &path, "");
            wait_for("a follower hears of it", || {
                answer = get(server, &path, "");
                check(answer.json()["Usage"] == usage, || answer.text())
            });
            let json = answer.json();
            assert_eq!(json["ConsistencyLevel"], level);
            assert_eq!(json["Index"].as_u64(), Some(index(&answer)));
            assert_eq!(json["ResultsFilteredByACLs"], false);
            assert_eq!(answer.header("x-consul-effective-consistency"), level);
        }
        wait_for("the gauges follow", || {
            let found = server.metric("consul.state.services");
            check(found == 3.0, || found.to_string())
        });
        for (name, value) in [
            ("consul.state.service_instances", 6.0),
            ("consul.state.billable_service_instances", 2.0),
            ("consul.state.nodes", 4.0),
            ("consul.state.kv_entries", 1.0),
        ] {
            wait_for(name, || {
                let found = server.metric(name);
                check(found == value, || found.to_string())
            });
        }
        let metrics = get(server, "/v1/agent/metrics", "").json();
        let labelled = |name: &str, kind: &str| {
            let gauges = metrics["Gauges"].as_array().expect("a list").iter();
            let mut named = gauges.filter(|gauge| gauge["Name"] == name);
            let found = named.find(|gauge| gauge["Labels"] == json!({ "kind": kind }));
            found.map(|gauge| gauge["Value"].as_f64())
        };
        let connect = "consul.state.connect_instances";
        assert_eq!(labelled(connect, "connect-proxy"), Some(Some(1.0)));
        assert_eq!(labelled(connect, "mesh-gateway"), Some(Some(0.0)));
        let entries = "consul.state.config_entries";
        assert_eq!(labelled(entries, "service-defaults"), Some(Some(1.0)));
        assert_eq!(labelled(entries, "mesh"), Some(Some(0.0)));
        let text = get(server, "/v1/agent/metrics?format=prometheus", "").text();
        for line in [
            "consul_state_connect_instances{kind=\"connect-proxy\"} 1\n",
            "consul_state_config_entries{kind=\"mesh\"} 0\n",
            "# TYPE consul_state_services gauge\nconsul_state_services 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(
            text.matches("# TYPE consul_state_connect_instances ")
                .count(),
            1
        );
    }
    let gone = json!({"Node": "n1"}).to_string();
    assert!(put(server, "/v1/catalog/deregister", "", gone).is_true());
    assert_eq!(
        delete(server, "/v1/config/service-defaults/web", "").status,
        200
    );
    let now = get(server, "/v1/operator/usage", "").json();
    let now = &now["Usage"]["dc1"];
    assert_eq!((&now["Services"], &now["Nodes"]), (&json!(1), &json!(3)));
    assert_eq!(now["ConnectServiceInstances"]["connect-proxy"], 0);
    assert_eq!(now["BillableServiceInstances"], 0);
}

/// A change of a count wakes who waits for it; keys, and a service that is written anew, do not.
#[test]
fn counts_are_waited_for() {
    let group = cluster::group::Group::formed(1, &[]);
    let server = &group[0];
    wait_for_servers(server, 1);
    register(server, json!({"ID": "w1", "Service": "web", "Port": 1}));
    let before = index(&get(server, "/v1/operator/usage", ""));
    let http = Http::new(server.http_address(), PATIENCE);
    let path = format!("/v1/operator/usage?index={before}");
    let waiter = thread::spawn(move || http.get(&path).expect("an answer"));
    wait_for("the waiter", || {
        check(server.metric("curia.waiters") == 1.0, || {
            "nobody waits".into()
        })
    });
    let woken = server.metric("curia.waiters_woken");
    assert!(put(server, "/v1/kv/a", "", "1").is_true());
    register(server, json!({"ID": "w1", "Service": "web", "Port": 2}));
    assert_eq!(index(&get(server, "/v1/operator/usage", "")), before);
    wait_for("the gauges are newer", || {
        let found = server.metric("consul.state.kv_entries");
        check(found == 1.0, || found.to_string())
    });
    assert_eq!(server.metric("curia.waiters_woken"), woken);
    register(server, json!({"ID": "w2", "Service": "web"}));
    let heard = waiter.join().expect("the client ends with an answer");
    assert!(index(&heard) > before);
    assert_eq!(heard.json()["Usage"]["dc1"]["BillableServiceInstances"], 2);
}

#[test]
fn counts_are_for_operators() {
    let group = guarded(1, json!({}));
    let server = &group[0];
    let path = "/v1/operator/usage";
    let operator = bearer(server, "operator", "operator = \"read\"");
    assert_eq!(get(server, path, &operator).status, 200);
    assert_eq!(
        said(&get(server, path, "")),
        anonymous_lacks("'operator:read'")
    );
    let answer = put(server, path, ROOT, "");
    assert_eq!(said(&answer), (405, "method PUT not allowed".into()));
    assert_eq!(
        said(&get(
            server,
            "/v1/operator/usage?stale&consistent",
            &operator
        )),
        (
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.".into()
        )
    );
}
