//! The catalog over HTTP, on real servers: registering, asking, waiting, and being refused.

mod cluster;

use std::thread::{self, JoinHandle};

use cluster::{
    PATIENCE, check,
    group::Group,
    http::{Answer, Http},
    server::Server,
    wait_for,
};
use serde_json::{Value, json};

fn put(server: &Server, path: &str, body: &Value) -> Answer {
    server
        .http()
        .put(path, body.to_string().as_bytes())
        .expect("an answer")
}

fn register(server: &Server, body: Value) {
    let answer = put(server, "/v1/catalog/register", &body);
    assert!(answer.is_true(), "{body}: {}", answer.text());
}

fn get(server: &Server, path: &str) -> Answer {
    let answer = server.http().get(path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

fn index(answer: &Answer) -> u64 {
    let index = answer.header("x-consul-index").parse();
    index.unwrap_or_else(|why| panic!("no index: {why}: {}", answer.text()))
}

/// Node, service and check of one name, the check in this state.
fn instance(name: &str, status: &str) -> Value {
    json!({
        "Node": format!("{name}-node"),
        "Address": "10.0.0.1",
        "NodeMeta": {"rack": "7"},
        "Service": {"ID": format!("{name}-1"), "Service": name, "Tags": ["v1"], "Port": 80},
        "Check": {"CheckID": format!("{name}-alive"), "ServiceID": format!("{name}-1"), "Status": status},
    })
}

fn nodes_of(answer: &Answer) -> Vec<String> {
    let rows = answer.json();
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| {
        let node = row["Node"].as_str().or(row["Node"]["Node"].as_str());
        node.expect("a name").to_owned()
    })
    .collect()
}

/// A blocking query under way.
struct Waiter(JoinHandle<Answer>);

impl Waiter {
    fn start(server: &Server, path: &str) -> Self {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}index={}", index(&get(server, path)));
        let http = Http::new(server.http_address(), PATIENCE);
        Self(thread::spawn(move || {
            http.get(&path)
                .unwrap_or_else(|why| panic!("{path}: {why:?}"))
        }))
    }

    fn answer(self) -> Answer {
        self.0.join().expect("the client ends with an answer")
    }
}

fn wait_for_waiters(server: &Server, count: usize) {
    wait_for(&format!("{count} waiters"), || {
        let found = server.metric("curia.waiters");
        check(found == count as f64, || format!("{found} wait"))
    });
}

/// What is registered at one server is found at each, in each mode, with Consul's headers.
#[test]
fn every_server_answers_in_every_mode() {
    let group = Group::formed(3, &[]);
    for (at, server) in group.servers.iter().enumerate() {
        register(server, instance(&format!("s{at}"), "passing"));
    }
    for server in &group.servers {
        for (mode, level) in [
            ("", "leader"),
            ("?consistent", "consistent"),
            ("?stale", "stale"),
        ] {
            let path = format!("/v1/catalog/services{mode}");
            let mut answer = get(server, &path);
            wait_for("a follower hears of it", || {
                answer = get(server, &path);
                let names = answer.json();
                let all = ["s0", "s1", "s2"]
                    .iter()
                    .all(|name| names.get(name).is_some());
                check(all, || names.to_string())
            });
            assert_eq!(answer.header("x-consul-effective-consistency"), level);
            assert_eq!(answer.header("x-consul-knownleader"), "true");
            assert!(answer.header("x-consul-lastcontact").parse::<u64>().is_ok());
            assert_eq!(answer.header("content-type"), "application/json");
            assert!(index(&answer) > 1);
        }
    }
    let server = &group[1];
    let answer = get(server, "/v1/catalog/datacenters");
    assert_eq!(answer.text(), "[\"dc1\"]");
    assert_eq!(answer.header("x-consul-index"), "");
    assert!(nodes_of(&get(server, "/v1/catalog/nodes?node-meta=rack:7")).len() == 3);
    assert_eq!(
        get(server, "/v1/catalog/nodes?node-meta=rack:8").text(),
        "[]"
    );
    let pretty = get(server, "/v1/catalog/service/s1?pretty").text();
    assert!(
        pretty.starts_with("[\n    {\n        \"ID\": \"\",\n"),
        "{pretty}"
    );
}

/// Lists are never null, a node that is not there is.
#[test]
fn gotcha_01_every_endpoint_shows_what_is_registered() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    register(server, instance("web", "passing"));
    register(server, instance("db", "critical"));
    for (path, nodes) in [
        (
            "/v1/catalog/nodes?filter=%22rack%22+in+Meta+and+Node+matches+%60%5Eweb%60",
            &["web-node"][..],
        ),
        ("/v1/catalog/service/web", &["web-node"]),
        ("/v1/catalog/service/WEB?tag=v1", &["web-node"]),
        ("/v1/catalog/service/web?tag=v1&tag=v2", &[]),
        ("/v1/catalog/service/nothing", &[]),
        ("/v1/catalog/connect/web", &[]),
        ("/v1/health/service/web", &["web-node"]),
        ("/v1/health/service/web?passing", &["web-node"]),
        ("/v1/health/service/db?passing=1", &[]),
        ("/v1/health/service/db?passing=false", &["db-node"]),
        ("/v1/health/connect/web", &[]),
        ("/v1/health/node/web-node", &["web-node"]),
        ("/v1/health/node/nobody", &[]),
        ("/v1/health/checks/db", &["db-node"]),
        ("/v1/health/state/critical", &["db-node"]),
        ("/v1/health/state/warning", &[]),
        (
            "/v1/health/state/any?node-meta=rack:7&near=_agent",
            &["db-node", "web-node"],
        ),
    ] {
        let answer = get(server, path);
        assert_eq!(nodes_of(&answer), nodes, "{path}: {}", answer.text());
    }
    let node = get(server, "/v1/catalog/node/web-node").json();
    assert_eq!(node["Node"]["Meta"], json!({"rack": "7"}));
    assert_eq!(node["Services"]["web-1"]["Port"], 80);
    let list = get(server, "/v1/catalog/node-services/web-node").json();
    assert_eq!(list["Services"][0]["ID"], "web-1");
    assert_eq!(get(server, "/v1/catalog/node/nobody").text(), "null");
    let gone = put(
        server,
        "/v1/catalog/deregister",
        &json!({"Node": "web-node", "ServiceID": "web-1"}),
    );
    assert!(gone.is_true());
    assert_eq!(get(server, "/v1/health/service/web").text(), "[]");
    assert_eq!(get(server, "/v1/health/checks/web").text(), "[]");
    let node = get(server, "/v1/catalog/node/web-node").json();
    assert_eq!(node["Services"], json!({}));
}

#[test]
fn refusals_have_consuls_statuses_and_texts() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let register = "/v1/catalog/register";
    for (body, status, text) in [
        (json!({}), 500, "Must provide node"),
        (
            json!({"Node": "n"}),
            500,
            "Must provide address if SkipNodeUpdate is not set",
        ),
        (
            json!({"Node": "n", "Address": "a", "ID": "x"}),
            500,
            "Bad node ID: uuid string is wrong length",
        ),
        (
            json!({"Node": "n", "Address": "a", "Service": {"ID": "x"}}),
            500,
            "Must provide service name (Service.Service) when service ID is provided",
        ),
        (
            json!({"Node": "n", "Address": "a", "Check": {"CheckID": "c", "ServiceID": "x"}}),
            500,
            "failed inserting check: Missing service registration on node \"n\"",
        ),
        (
            json!({"Node": "n", "Address": "a", "Datacenter": "dc9"}),
            500,
            "No path to datacenter",
        ),
    ] {
        let answer = put(server, register, &body);
        assert_eq!((answer.status, &*answer.text()), (status, text), "{body}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let answer = put(server, register, &json!([]));
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().starts_with("Request decode failed: "),
        "{}",
        answer.text()
    );
    let answer = put(server, "/v1/catalog/deregister", &json!({"ServiceID": "x"}));
    assert_eq!((answer.status, &*answer.text()), (500, "Must provide node"));
    for (path, status, text) in [
        ("/v1/catalog/service/", 400, "Missing service name"),
        ("/v1/catalog/connect/", 400, "Missing service name"),
        ("/v1/catalog/node/", 400, "Missing node name"),
        ("/v1/catalog/node-services/", 400, "Missing node name"),
        ("/v1/health/service/", 400, "Missing service name"),
        ("/v1/health/checks/", 400, "Missing service name"),
        ("/v1/health/node/", 400, "Missing node name"),
        ("/v1/health/state/", 400, "Missing check state"),
        (
            "/v1/health/service/web?passing=maybe",
            400,
            "Invalid value for ?passing",
        ),
        ("/v1/catalog/nodes?index=x", 400, "Invalid index"),
        ("/v1/catalog/nodes?wait=x", 400, "Invalid wait time"),
        (
            "/v1/catalog/nodes?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("/v1/catalog/nodes?dc=other", 500, "No path to datacenter"),
        (
            "/v1/catalog/nodes?filter=Nope%3D%3D1",
            500,
            "Failed to create boolean expression evaluator: Selector \"Nope\" is not valid",
        ),
        (
            "/v1/catalog/unknown",
            404,
            "Invalid URL path: not a recognized HTTP API endpoint\n",
        ),
    ] {
        let answer = server.http().get(path).expect("an answer");
        assert_eq!((answer.status, &*answer.text()), (status, text), "{path}");
    }
    let answer = put(server, "/v1/health/service/web", &json!({}));
    assert_eq!(
        (answer.status, &*answer.text()),
        (405, "method PUT not allowed")
    );
    let answer = server.http().get(register).expect("an answer");
    assert_eq!(
        (answer.status, &*answer.text()),
        (405, "method GET not allowed")
    );
}

/// A change wakes those whose answer it changes, and nobody else.
#[test]
fn a_change_wakes_those_whose_result_it_changes() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    register(server, instance("web", "passing"));
    register(server, instance("db", "passing"));
    let woken = || server.metric("curia.waiters_woken");
    let sleeping = [
        "/v1/catalog/service/db",
        "/v1/health/service/db",
        "/v1/health/service/missing",
        "/v1/catalog/node/db-node",
        "/v1/health/node/db-node",
        "/v1/health/checks/db",
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/node/web-node",
    ]
    .map(|path| (path, Waiter::start(server, path)));
    let waking = [
        "/v1/health/service/web",
        "/v1/health/service/web?passing",
        "/v1/catalog/service/web",
        "/v1/health/node/web-node",
        "/v1/health/checks/web",
        "/v1/health/state/passing",
        "/v1/health/state/critical",
        "/v1/health/state/any",
    ]
    .map(|path| (path, Waiter::start(server, path)));
    wait_for_waiters(server, sleeping.len() + waking.len());
    let before = index(&get(server, "/v1/health/service/web"));
    register(server, instance("web", "passing"));
    assert_eq!(
        index(&get(server, "/v1/health/service/web")),
        before,
        "the same again"
    );
    assert_eq!(woken(), 0.0);
    register(server, instance("web", "critical"));
    for (path, waiter) in waking {
        let answer = waiter.answer();
        assert_eq!(answer.status, 200, "{path}");
        assert!(index(&answer) > before, "{path}");
    }
    wait_for_waiters(server, sleeping.len());
    assert_eq!(woken(), 8.0);

    // What was missing comes, and a node goes.
    register(server, instance("missing", "passing"));
    let gone = json!({"Node": "db-node"});
    assert!(put(server, "/v1/catalog/deregister", &gone).is_true());
    for (path, waiter) in sleeping {
        if path != "/v1/catalog/node/web-node" {
            let answer = waiter.answer();
            assert_eq!(answer.status, 200, "{path}");
            let missing = path.ends_with("missing");
            if missing {
                assert_eq!(nodes_of(&answer), ["missing-node"]);
            }
        } else {
            register(server, json!({"Node": "web-node", "Address": "10.0.0.2"}));
            let answer = waiter.answer();
            assert_eq!(answer.json()["Node"]["Address"], "10.0.0.2");
        }
    }
    wait_for_waiters(server, 0);
    // A wait that ends without a change is answered as any read.
    let at = index(&get(server, "/v1/health/service/missing"));
    let path = format!("/v1/health/service/missing?index={at}&wait=50ms");
    assert_eq!(index(&get(server, &path)), at);
}

/// A session dies with its check, wherever the check is reported, and gives back its lock.
#[test]
fn a_critical_check_ends_the_sessions_that_are_bound_to_it() {
    let group = Group::formed(3, &[]);
    register(&group[0], instance("web", "passing"));
    let wanted = json!({
        "Node": "web-node", "NodeChecks": [], "ServiceChecks": [{"ID": "web-alive"}], "LockDelay": "0s",
    });
    let answer = put(&group[1], "/v1/session/create", &wanted);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["ID"].as_str().expect("an id").to_owned();
    let lock = format!("/v1/kv/lock?acquire={id}");
    assert!(put(&group[2], &lock, &json!("mine")).is_true());
    register(&group[2], instance("web", "critical"));
    let session = format!("/v1/session/info/{id}?consistent");
    assert_eq!(get(&group[1], &session).text(), "[]");
    let row = get(&group[0], "/v1/kv/lock?consistent").json();
    assert_eq!(row[0].get("Session"), None);
    let answer = put(&group[0], "/v1/session/create", &wanted);
    assert_eq!(
        (answer.status, &*answer.text()),
        (500, "apply failed: Check 'web-alive' is in critical state")
    );
}

/// What was registered is there after a restart, with its indexes, and wakes those who wait.
#[test]
fn the_catalog_outlives_its_servers() {
    let mut group = Group::formed(1, &[]);
    register(&group[0], instance("web", "passing"));
    register(&group[0], instance("gone", "passing"));
    let gone = json!({"Node": "gone-node"});
    assert!(put(&group[0], "/v1/catalog/deregister", &gone).is_true());
    let paths = [
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/health/service/web",
        "/v1/health/service/gone",
        "/v1/catalog/node/gone-node",
        "/v1/health/state/any",
    ];
    let seen = |server: &Server| {
        paths
            .map(|path| get(server, path))
            .map(|a| (index(&a), a.text()))
    };
    let before = seen(&group[0]);
    group[0].kill();
    group[0].start();
    group.wait_for_leader();
    assert_eq!(seen(&group[0]), before);
    let waiter = Waiter::start(&group[0], "/v1/health/service/gone");
    wait_for_waiters(&group[0], 1);
    register(&group[0], instance("gone", "passing"));
    assert_eq!(nodes_of(&waiter.answer()), ["gone-node"]);
}
