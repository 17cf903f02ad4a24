//! Prepared queries over HTTP, on real servers: kept, explained, executed, waited for, refused.

mod cluster;

use std::thread;

use cluster::{
    PATIENCE,
    acl::{ROOT, bearer, delete, get, guarded, lacks, post, put, said},
    check,
    group::Group,
    http::{Answer, Http},
    server::Server,
    wait_for,
};
use serde_json::{Value, json};

const NONE: &str = "";

fn created(server: &Server, token: &str, query: &Value) -> String {
    let answer = post(server, "/v1/query", token, query.to_string());
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()["ID"].as_str().expect("an id").to_owned()
}

/// A query of this name for this service.
fn named(name: &str, service: &str) -> Value {
    json!({"Name": name, "Service": {"Service": service}})
}

/// A service on a node of its own, with checks of it by id and status.
fn register(server: &Server, node: &str, service: Value, checks: &[(&str, &str)]) {
    let checks = checks.iter().map(|(id, status)| {
        let of = &service["ID"];
        json!({"Node": node, "CheckID": id, "Name": id, "Status": status, "ServiceID": of})
    });
    let body = json!({
        "Node": node,
        "Address": "10.0.0.1",
        "NodeMeta": {"rack": node},
        "Service": service,
        "Checks": checks.collect::<Value>(),
    });
    let done = put(server, "/v1/catalog/register", ROOT, body.to_string());
    assert!(done.is_true(), "{}", done.text());
}

fn web(id: &str, tags: &[&str]) -> Value {
    json!({"ID": id, "Service": "web", "Tags": tags, "Port": 80, "Meta": {"build": id}})
}

/// Instances of `web` in every state.
fn register_webs(server: &Server) {
    register(server, "n1", web("w1", &["V1"]), &[("alive", "passing")]);
    register(server, "n2", web("w2", &["v2"]), &[("alive", "warning")]);
    register(
        server,
        "n3",
        web("w3", &["v1", "v2"]),
        &[("alive", "critical")],
    );
    register(server, "n4", web("w4", &[]), &[]);
}

fn executed(server: &Server, path: &str, token: &str) -> Value {
    let answer = get(server, &format!("/v1/query/{path}"), token);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Nodes of a result, in its order.
fn nodes(result: &Value) -> Vec<String> {
    let rows = result["Nodes"].as_array().expect("a list").iter();
    rows.map(|row| row["Node"]["Node"].as_str().expect("a name").to_owned())
        .collect()
}

fn sorted(mut nodes: Vec<String>) -> Vec<String> {
    nodes.sort();
    nodes
}

fn index(answer: &Answer) -> u64 {
    let index = answer.header("x-consul-index").parse();
    index.unwrap_or_else(|why| panic!("no index: {why}: {}", answer.text()))
}

/// Made at one server, shown by each in each mode as Consul writes it, changed and deleted.
#[test]
fn queries_are_made_shown_changed_and_deleted_everywhere() {
    let group = Group::formed(3, &[]);
    let query = json!({
        "Name": "q",
        "Token": "t",
        "Service": {
            "Service": "web",
            "Failover": {"NearestN": 3, "Datacenters": ["dc2"]},
            "OnlyPassing": true,
            "IgnoreCheckIDs": ["c"],
            "Near": "n1",
            "Tags": ["a", "!b"],
            "NodeMeta": {"rack": "7"},
            "ServiceMeta": {"build": "1"},
        },
        "DNS": {"TTL": "10s"},
    });
    let id = created(&group[0], NONE, &query);
    let at = format!("/v1/query/{id}");
    for server in &group.servers {
        for (mode, level) in [
            ("", "leader"),
            ("?consistent", "consistent"),
            ("?stale", "stale"),
        ] {
            for path in [&at[..], "/v1/query"] {
                let path = format!("{path}{mode}");
                let mut answer = get(server, &path, NONE);
                wait_for("a follower hears of it", || {
                    answer = get(server, &path, NONE);
                    check(answer.text().contains(&id), || answer.text())
                });
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("x-consul-effective-consistency"), level);
                assert_eq!(answer.header("x-consul-knownleader"), "true");
                assert!(answer.header("x-consul-lastcontact").parse::<u64>().is_ok());
                let index = index(&answer);
                let expected = format!(
                    r#"[{{"ID":"{id}","Name":"q","Session":"","Token":"t","Template":{{"Type":"","Regexp":"","RemoveEmptyTags":false}},"Service":{{"Service":"web","SamenessGroup":"","Failover":{{"NearestN":3,"Datacenters":["dc2"],"Targets":null}},"OnlyPassing":true,"IgnoreCheckIDs":["c"],"Near":"n1","Tags":["a","!b"],"NodeMeta":{{"rack":"7"}},"ServiceMeta":{{"build":"1"}},"Connect":false,"Peer":""}},"DNS":{{"TTL":"10s"}},"CreateIndex":{index},"ModifyIndex":{index}}}]"#
                );
                assert_eq!(answer.text(), expected, "{path}");
            }
        }
    }
    let pretty = get(&group[0], "/v1/query?pretty", NONE).text();
    assert!(pretty.starts_with("[\n    {\n        \"ID\": "), "{pretty}");

    // The id of the path counts; what the body leaves out is gone.
    let mut other = named("other", "db");
    other["ID"] = "something".into();
    let changed = put(&group[1], &at, NONE, other.to_string());
    assert_eq!(said(&changed), (200, String::new()));
    let answer = get(&group[2], &at, NONE);
    assert_eq!(index(&changed), index(&answer));
    let now = answer.json();
    assert_eq!(
        (&now[0]["ID"], &now[0]["Name"]),
        (&json!(id), &json!("other"))
    );
    assert_eq!(
        (&now[0]["Token"], &now[0]["DNS"]["TTL"]),
        (&json!(""), &json!(""))
    );
    assert!(now[0]["CreateIndex"].as_u64() < now[0]["ModifyIndex"].as_u64());

    let gone = delete(&group[2], &at, NONE);
    assert_eq!(said(&gone), (200, String::new()));
    assert_eq!(
        said(&get(&group[0], &at, NONE)),
        (404, "Query not found".into())
    );
    assert_eq!(get(&group[1], "/v1/query", NONE).text(), "[]");
}

#[test]
fn refusals_have_consuls_statuses_and_texts() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let id = created(server, NONE, &named("taken", "web"));
    let template = json!({"Template": {"Type": "name_prefix_match"}, "Service": {"Service": "x"}});
    let template = created(server, NONE, &template);
    let unknown = "9dfbd7de-0000-4000-8000-000000000000";
    let broken = json!({
        "Template": {"Type": "name_prefix_match"}, "Name": "t", "Service": {"Service": "${nope}"},
    });
    for (query, status, text) in [
        (
            json!({"ID": unknown, "Name": "a", "Service": {"Service": "web"}}),
            500,
            "ID must be empty when creating a new prepared query".to_owned(),
        ),
        (
            json!({"Service": {"Service": "web"}}),
            500,
            "Invalid prepared query: Must be bound to a session".into(),
        ),
        (
            json!({"Name": "a"}),
            500,
            "Invalid prepared query: Must provide a Service name to query".into(),
        ),
        (
            named("TAKEN", "web"),
            500,
            "raft apply failed: name 'TAKEN' aliases an existing query name".into(),
        ),
        (
            named(&id, "web"),
            500,
            format!("raft apply failed: name '{id}' aliases an existing query ID"),
        ),
        (
            json!({"Session": unknown, "Service": {"Service": "web"}}),
            500,
            format!("raft apply failed: invalid session \"{unknown}\""),
        ),
        (
            json!({"Template": {"Type": "name_prefix_match"}, "Service": {"Service": "y"}}),
            500,
            "raft apply failed: a query template with an empty name already exists".into(),
        ),
        (
            broken,
            500,
            "raft apply failed: failed compiling template: Bad evaluation for '${nope}' in Service.Service: At column 3, line 1: unknown variable accessed: nope".into(),
        ),
    ] {
        let answer = post(server, "/v1/query", NONE, query.to_string());
        assert_eq!(said(&answer), (status, text), "{query}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    for body in ["", "[]", "{\"Name\":1}"] {
        let answer = post(server, "/v1/query", NONE, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.text().starts_with("Request decode failed: "),
            "{}",
            answer.text()
        );
    }
    let missing = format!("Cannot modify non-existent prepared query: '{unknown}'");
    let at = format!("/v1/query/{unknown}");
    let changed = put(server, &at, NONE, named("a", "web").to_string());
    assert_eq!(said(&changed), (500, missing.clone()));
    assert_eq!(said(&delete(server, &at, NONE)), (500, missing));
    let by_id = "prepared query templates can only be resolved up by name, not by ID";
    let limit = "Bad limit: strconv.Atoi: parsing \"x\": invalid syntax";
    for (path, status, text) in [
        (at.clone(), 404, "Query not found"),
        ("/v1/query/no-uuid".into(), 404, "Query not found"),
        (format!("/v1/query/{template}/execute"), 500, by_id),
        (format!("/v1/query/{template}/explain"), 500, by_id),
        ("/v1/query/taken/execute?limit=x".into(), 400, limit),
        ("/v1/query/taken/explain?limit=x".into(), 400, limit),
        (
            "/v1/query/taken/execute?connect=x".into(),
            400,
            "Error parsing 'connect' value: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "/v1/query/taken/execute?stale&consistent".into(),
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("/v1/query?index=x".into(), 400, "Invalid index"),
        ("/v1/query?dc=other".into(), 500, "No path to datacenter"),
    ] {
        assert_eq!(
            said(&get(server, &path, NONE)),
            (status, text.into()),
            "{path}"
        );
    }
    delete(server, &format!("/v1/query/{template}"), NONE);
    for path in ["/v1/query/none/execute", "/v1/query/none/explain"] {
        let answer = get(server, path, NONE);
        assert_eq!(said(&answer), (404, "Query not found".into()));
        assert_ne!(answer.header("x-consul-index"), "");
    }
    for (method, path, allowed) in [
        ("PUT", "/v1/query", "OPTIONS,GET,POST"),
        ("POST", "/v1/query/a", "OPTIONS,GET,PUT,DELETE"),
        ("PUT", "/v1/query/a/execute", "OPTIONS,GET"),
        ("POST", "/v1/query/a/explain", "OPTIONS,GET"),
    ] {
        let answer = match method {
            "PUT" => put(server, path, NONE, "{}"),
            _ => post(server, path, NONE, "{}"),
        };
        assert_eq!(
            said(&answer),
            (405, format!("method {method} not allowed")),
            "{path}"
        );
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
}

/// Health, tags, meta, ignored checks, limit and distance decide what is found, in every mode.
#[test]
fn a_query_finds_the_instances_that_it_asks_for() {
    let group = Group::formed(3, &[]);
    let server = &group[0];
    register_webs(server);
    let id = created(server, NONE, &named("all", "web"));
    let make = |name: &str, service: Value| {
        let query = json!({"Name": name, "Service": service, "DNS": {"TTL": "5s"}});
        created(server, NONE, &query);
    };
    make("passing", json!({"Service": "web", "OnlyPassing": true}));
    make(
        "ignored",
        json!({"Service": "web", "IgnoreCheckIDs": ["alive"]}),
    );
    make("v2", json!({"Service": "web", "Tags": ["V2"]}));
    make("not-v1", json!({"Service": "web", "Tags": ["!v1"]}));
    make(
        "rack",
        json!({"Service": "web", "NodeMeta": {"rack": "n2"}}),
    );
    make(
        "build",
        json!({"Service": "web", "ServiceMeta": {"build": "w4"}}),
    );
    make("mesh", json!({"Service": "web", "Connect": true}));
    make(
        "nowhere",
        json!({"Service": "db", "Failover": {"NearestN": 2, "Datacenters": ["dc2"]}}),
    );
    for (name, expected) in [
        ("all", &["n1", "n2", "n4"][..]),
        ("ALL", &["n1", "n2", "n4"]),
        (&id, &["n1", "n2", "n4"]),
        ("passing", &["n1", "n4"]),
        ("ignored", &["n1", "n2", "n3", "n4"]),
        ("v2", &["n2"]),
        ("not-v1", &["n2", "n4"]),
        ("rack", &["n2"]),
        ("build", &["n4"]),
        ("mesh", &[]),
        ("nowhere", &[]),
    ] {
        for server in &group.servers {
            for (mode, level) in [
                ("", "leader"),
                ("?consistent", "consistent"),
                ("?stale", "stale"),
            ] {
                let path = format!("/v1/query/{name}/execute{mode}");
                let mut answer = get(server, &path, NONE);
                wait_for("a follower hears of it", || {
                    answer = get(server, &path, NONE);
                    let all = answer.status == 200 && sorted(nodes(&answer.json())) == expected;
                    check(all, || answer.text())
                });
                assert_eq!(answer.header("x-consul-effective-consistency"), level);
                let result = answer.json();
                assert_eq!(result["ConsistencyLevel"], level);
                assert_eq!(result["Datacenter"], "dc1");
                assert_eq!(result["Failovers"], 0);
                assert_eq!(result["Index"].as_u64(), Some(index(&answer)));
                assert_eq!(result["ResultsFilteredByACLs"], false);
            }
        }
    }
    let result = executed(server, "passing/execute", NONE);
    assert_eq!(
        (&result["Service"], &result["DNS"]),
        (&json!("web"), &json!({"TTL": "5s"}))
    );
    let row = result["Nodes"].as_array().expect("a list").iter();
    let row = row
        .clone()
        .find(|row| row["Node"]["Node"] == "n1")
        .expect("n1");
    let health = get(server, "/v1/health/service/web", NONE).json();
    assert_eq!(*row, health[0], "as /v1/health/service shows it");
    let connect = executed(server, "all/execute?connect=true", NONE);
    assert_eq!(nodes(&connect).len(), 0);

    // At most so many; the order is not always the same.
    for (limit, count) in [("2", 2), ("0", 3), ("-1", 3), ("9", 3)] {
        let result = executed(server, &format!("all/execute?limit={limit}"), NONE);
        assert_eq!(nodes(&result).len(), count, "{limit}");
    }
    wait_for("another order", || {
        let first = nodes(&executed(server, "all/execute?limit=1", NONE));
        check(first != ["n1"], || first.join(""))
    });
}

/// What is near comes first: by coordinates, and of all the node itself.
#[test]
fn the_nearest_come_first() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    register_webs(server);
    let moved = json!({"Node": "n4", "Address": "127.77.7.7", "SkipNodeUpdate": false});
    assert!(put(server, "/v1/catalog/register", NONE, moved.to_string()).is_true());
    let query = json!({"Name": "q", "Service": {"Service": "web", "Near": "n2"}});
    created(server, NONE, &query);
    created(
        server,
        NONE,
        &json!({"Name": "ip", "Service": {"Service": "web", "Near": "_ip"}}),
    );
    created(
        server,
        NONE,
        &json!({"Name": "agent", "Service": {"Service": "web", "Near": "_agent"}}),
    );
    // Without coordinates only the node itself is known to be near.
    for _ in 0..8 {
        assert_eq!(nodes(&executed(server, "q/execute", NONE))[0], "n2");
        assert_eq!(
            nodes(&executed(server, "q/execute?near=n4&limit=1", NONE)),
            ["n4"]
        );
        let forwarded = server.http().get_with(
            "/v1/query/ip/execute",
            "x-forwarded-for",
            "127.77.7.7, 10.1.1.1",
        );
        assert_eq!(nodes(&forwarded.expect("an answer").json())[0], "n4");
    }
    assert_eq!(nodes(&executed(server, "agent/execute", NONE)).len(), 3);
    for (node, at) in [("n1", 0.3), ("n2", 0.0), ("n4", 0.1)] {
        let body = json!({
            "Node": node, "Segment": "",
            "Coord": {"Vec": [at, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1e-5},
        });
        let done = put(server, "/v1/coordinate/update", NONE, body.to_string());
        assert_eq!(done.status, 200, "{}", done.text());
    }
    wait_for("the coordinates count", || {
        let found = nodes(&executed(server, "q/execute", NONE));
        check(found == ["n2", "n4", "n1"], || found.join(" "))
    });
    assert_eq!(
        nodes(&executed(server, "q/execute?near=n1", NONE)),
        ["n1", "n4", "n2"]
    );
}

#[test]
fn templates_stand_for_every_name_that_begins_as_theirs() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    register_webs(server);
    let template = |name: &str, regexp: &str, service: Value| {
        json!({
            "Name": name,
            "Template": {"Type": "name_prefix_match", "Regexp": regexp, "RemoveEmptyTags": true},
            "Service": service,
        })
    };
    let all = template("", "", json!({"Service": "${name.full}"}));
    created(server, NONE, &all);
    let geo = template(
        "geo-",
        "^geo-(.*?)(?:-(v\\d))?$",
        json!({"Service": "${match(1)}", "Tags": ["${match(2)}"], "Near": "${agent.segment}"}),
    );
    let geo_id = created(server, NONE, &geo);
    created(server, NONE, &named("geo-own", "web"));
    for (name, service, tags) in [
        ("web", "web", json!(null)),
        ("geo-web", "web", json!(null)),
        ("geo-web-v2", "web", json!(["v2"])),
        ("GEO-web", "", json!(null)),
        ("geo-own", "web", json!(null)),
    ] {
        let answer = get(server, &format!("/v1/query/{name}/explain"), NONE);
        let explained = answer.json();
        let query = &explained["Query"];
        assert_eq!(query["Service"]["Service"], service, "{name}");
        assert_eq!(query["Service"]["Tags"], tags, "{name}");
        assert_eq!(explained["KnownLeader"], true);
        assert_eq!(answer.header("x-consul-effective-consistency"), "leader");
        let result = executed(server, &format!("{name}/execute?stale"), NONE);
        assert_eq!(result["Service"], service, "{name}");
    }
    let explained = get(server, "/v1/query/geo-web/explain?consistent", NONE).json();
    assert_eq!(explained["Query"]["ID"], geo_id);
    assert_eq!(explained["Query"]["Name"], "geo-");
    assert_eq!(explained["Query"]["Template"]["Type"], "name_prefix_match");
    let v2 = executed(server, "geo-web-v2/execute", NONE);
    assert_eq!(nodes(&v2), ["n2"]);
}

/// A change wakes whoever waits for the query or the list, and nobody else; ends of sessions too.
#[test]
fn queries_are_waited_for_and_die_with_their_session() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    register_webs(server);
    let session = put(
        server,
        "/v1/session/create",
        NONE,
        r#"{"Node": "n1", "NodeChecks": []}"#,
    );
    let session = session.json()["ID"].as_str().expect("an id").to_owned();
    let bound = json!({"Session": session, "Service": {"Service": "web"}});
    let bound = created(server, NONE, &bound);
    let other = created(server, NONE, &named("other", "web"));
    let wait = |path: String| {
        let path = format!("{path}?index={}", index(&get(server, &path, NONE)));
        let http = Http::new(server.http_address(), PATIENCE);
        thread::spawn(move || {
            http.get(&path)
                .unwrap_or_else(|why| panic!("{path}: {why:?}"))
        })
    };
    let waiters = |count: usize| {
        wait_for(&format!("{count} waiters"), || {
            let found = server.metric("curia.waiters");
            check(found == count as f64, || format!("{found} wait"))
        });
    };
    let of_bound = wait(format!("/v1/query/{bound}"));
    let of_other = wait(format!("/v1/query/{other}"));
    let of_list = wait("/v1/query".into());
    waiters(3);
    let before = server.metric("curia.waiters_woken");
    let changed = put(
        server,
        &format!("/v1/query/{other}"),
        NONE,
        named("new", "web").to_string(),
    );
    let heard = of_other.join().expect("an answer");
    assert_eq!(heard.json()[0]["Name"], "new");
    assert_eq!(index(&heard), index(&changed));
    assert_eq!(index(&of_list.join().expect("an answer")), index(&changed));
    waiters(1);
    assert_eq!(server.metric("curia.waiters_woken"), before + 2.0);
    let destroy = format!("/v1/session/destroy/{session}");
    assert!(put(server, &destroy, NONE, "").is_true());
    assert_eq!(
        said(&of_bound.join().expect("an answer")),
        (404, "Query not found".into())
    );
    // One that is not there is not waited for; the same again moves no index.
    let at = index(&get(server, "/v1/query", NONE));
    let none = format!("/v1/query/{bound}?index={at}");
    assert_eq!(get(server, &none, NONE).status, 404);
    let again = put(
        server,
        &format!("/v1/query/{other}"),
        NONE,
        named("new", "web").to_string(),
    );
    assert_eq!(again.status, 200);
    let same = get(server, &format!("/v1/query?index={at}&wait=50ms"), NONE);
    assert_eq!(index(&same), at);
    // Executing does not wait.
    assert_eq!(
        get(server, "/v1/query/new/execute?index=999999", NONE).status,
        200
    );
}

#[test]
fn queries_outlive_their_server() {
    let mut group = Group::formed(1, &[]);
    let query = json!({
        "Name": "geo-", "Template": {"Type": "name_prefix_match"}, "Token": "t",
        "Service": {"Service": "${name.suffix}"}, "DNS": {"TTL": "10s"},
    });
    created(&group[0], NONE, &query);
    let paths = ["/v1/query", "/v1/query/geo-web/explain"];
    let seen = |server: &Server| paths.map(|path| get(server, path, NONE).text());
    let before = seen(&group[0]);
    group[0].kill();
    group[0].start();
    group.wait_for_leader();
    assert_eq!(seen(&group[0]), before);
}

/// Who may see and change queries, and whose rights an execution has.
#[test]
fn queries_are_guarded_by_their_names_and_executed_with_their_tokens() {
    let group = guarded(1, json!({}));
    let server = &group[0];
    register_webs(server);
    let hidden = "<hidden>";
    let writer = bearer(
        server,
        "writer",
        r#"query_prefix "app-" { policy = "write" } query "other" { policy = "read" }"#,
    );
    let all_queries = bearer(server, "all", r#"query_prefix "" { policy = "write" }"#);
    let seer = bearer(
        server,
        "seer",
        r#"service "web" { policy = "read" } node_prefix "n" { policy = "read" } node "n1" { policy = "deny" }"#,
    );
    let t = writer.as_str();
    let denied = |what: &str| lacks(server, t, what);

    // Making: the name counts; a template for all names is of all names.
    let mut query = named("app-web", "web");
    query["Token"] = seer.clone().into();
    let app = created(server, t, &query);
    assert_eq!(
        said(&post(
            server,
            "/v1/query",
            t,
            named("other", "web").to_string()
        )),
        denied("'query:write' on \"other\"")
    );
    assert_eq!(
        post(server, "/v1/query", NONE, named("app-x", "web").to_string()).status,
        403
    );
    let catch_all =
        json!({"Template": {"Type": "name_prefix_match"}, "Service": {"Service": "web"}});
    assert_eq!(
        said(&post(server, "/v1/query", t, catch_all.to_string())),
        denied("'query:write'")
    );
    let catch_all = created(server, &all_queries, &catch_all);
    let other = created(server, ROOT, &named("other", "web"));
    let secret = created(server, ROOT, &named("secret", "web"));
    let session = put(
        server,
        "/v1/session/create",
        ROOT,
        r#"{"Node": "n1", "NodeChecks": []}"#,
    );
    let session = session.json()["ID"].as_str().expect("an id").to_owned();
    let bound = json!({"Session": session, "Token": "x", "Service": {"Service": "web"}});
    let bound = created(server, NONE, &bound);

    // Seeing: tokens are hidden from those who do not manage ACLs.
    let list = get(server, "/v1/query", t);
    let mut seen: Vec<_> = list.json().as_array().unwrap().clone();
    seen.sort_by_key(|query| query["Name"].to_string());
    let shown: Vec<_> = seen.iter().map(|q| (&q["Name"], &q["Token"])).collect();
    assert_eq!(
        shown,
        [
            (&json!("app-web"), &json!(hidden)),
            (&json!("other"), &json!(""))
        ]
    );
    assert_eq!(list.header("x-consul-results-filtered-by-acls"), "true");
    let list = get(server, "/v1/query", &all_queries).json();
    assert_eq!(
        list.as_array().unwrap().len(),
        4,
        "all but the one without a name"
    );
    let list = get(server, "/v1/query", ROOT).json();
    assert_eq!(list.as_array().unwrap().len(), 5);
    let tokens = list.to_string();
    assert!(tokens.contains(&seer) && !tokens.contains(hidden));
    assert_eq!(get(server, "/v1/query", NONE).text(), "[]");
    let at = |id: &str| format!("/v1/query/{id}");
    assert_eq!(get(server, &at(&app), t).json()[0]["Token"], hidden);
    assert_eq!(get(server, &at(&app), ROOT).json()[0]["Token"], json!(seer));
    assert_eq!(
        said(&get(server, &at(&secret), t)),
        denied("'query:read' on \"secret\"")
    );
    let index_now = index(&get(server, "/v1/query", ROOT));
    let waiting = format!("{}?index={index_now}", at(&secret));
    assert_eq!(
        get(server, &waiting, t).status,
        403,
        "it does not wait to be refused"
    );
    assert_eq!(
        said(&get(server, &at(&catch_all), t)),
        denied("'query:read'")
    );
    // Without a name, knowing the id is enough.
    assert_eq!(get(server, &at(&bound), NONE).json()[0]["Token"], hidden);
    let explain =
        |name: &str, token: &str| get(server, &format!("/v1/query/{name}/explain"), token);
    assert_eq!(explain("app-web", t).json()["Query"]["Token"], hidden);
    assert_eq!(
        said(&explain("secret", t)),
        denied("'query:read' on \"secret\"")
    );
    assert_eq!(said(&explain(&bound, t)), denied("'acl:write'"));
    assert_eq!(explain(&bound, ROOT).json()["Query"]["ID"], json!(bound));
    assert_eq!(said(&explain("any", t)), denied("'query:read'"));

    // Executing takes no right to the query; what is found is what the query's own token may see.
    for token in [NONE, t] {
        let answer = get(server, "/v1/query/app-web/execute", token);
        assert_eq!(sorted(nodes(&answer.json())), ["n2", "n4"], "{token}");
        assert_eq!(answer.header("x-consul-results-filtered-by-acls"), "true");
        assert_eq!(answer.json()["ResultsFilteredByACLs"], true);
        assert!(!answer.text().contains(&seer));
    }
    for _ in 0..8 {
        // What may not be seen does not count.
        let one = executed(server, "app-web/execute?limit=1&near=n1", NONE);
        assert_eq!(nodes(&one).len(), 1);
    }
    assert_eq!(nodes(&executed(server, "other/execute", t)).len(), 0);
    assert_eq!(nodes(&executed(server, "other/execute", ROOT)).len(), 3);
    assert_eq!(nodes(&executed(server, "other/execute", NONE)).len(), 0);
    assert_eq!(
        said(&get(server, &format!("/v1/query/{bound}/execute"), ROOT)),
        (403, "ACL not found".into())
    );

    // Changing: the old name and the new one. The old one was once looked up in a way that found
    // nothing, and then nothing was asked.
    let renamed = |id: &str, name: &str, token: &str| {
        put(server, &at(id), token, named(name, "web").to_string())
    };
    assert_eq!(
        said(&renamed(&app, "other-2", t)),
        denied("'query:write' on \"other-2\"")
    );
    assert_eq!(
        said(&renamed(&other, "app-2", t)),
        denied("'query:write' on \"other\"")
    );
    assert_eq!(renamed(&app, "app-3", t).status, 200);
    assert_eq!(
        said(&delete(server, &at(&secret), t)),
        denied("'query:write' on \"secret\"")
    );
    assert_eq!(
        said(&delete(server, &at(&catch_all), t)),
        denied("'query:write'")
    );
    assert_eq!(delete(server, &at(&app), t).status, 200);
    assert_eq!(delete(server, &at(&bound), NONE).status, 200);
    assert_eq!(delete(server, &at(&catch_all), &all_queries).status, 200);
}
