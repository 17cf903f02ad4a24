//! The agents of real servers: what is registered survives, is in the catalog of all, and is run;
//! the catalog knows who is alive.

mod cluster;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use cluster::{check, group::Group, wait_for};
use serde_json::{Value, json};

/// Short elections, so that a killed leader costs little of a test's time.
const QUICK: [&str; 1] = ["-set=performance.raft_multiplier=1"];

fn get(group: &Group, at: usize, path: &str) -> Result<Value, String> {
    let answer = group[at]
        .http()
        .get(path)
        .map_err(|why| format!("{why:?}"))?;
    check(answer.status == 200, || answer.text())?;
    Ok(answer.json())
}

fn put(group: &Group, at: usize, path: &str, body: &Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = group[at]
        .http()
        .put(path, body.as_bytes())
        .expect("it answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

/// Statuses of a node's checks by their ids, as server `at` sees them.
fn checks(group: &Group, at: usize, node: &str) -> Result<Value, String> {
    let rows = get(group, at, &format!("/v1/health/node/{node}"))?;
    let rows = rows.as_array().ok_or("not a list")?;
    let pair = |row: &Value| {
        let id = row["CheckID"].as_str().unwrap_or_default().to_owned();
        (id, row["Status"].clone())
    };
    Ok(Value::Object(rows.iter().map(pair).collect()))
}

fn wait_for_checks(group: &Group, at: usize, node: &str, wanted: &Value) {
    wait_for(&format!("checks of {node} are {wanted}"), || {
        let found = checks(group, at, node)?;
        check(found == *wanted, || found.to_string())
    });
}

fn services(group: &Group, at: usize, node: &str) -> Result<Vec<String>, String> {
    let rows = get(group, at, &format!("/v1/catalog/node/{node}"))?;
    let services = rows["Services"].as_object().ok_or("no services")?;
    Ok(services.keys().cloned().collect())
}

fn wait_for_services(group: &Group, at: usize, node: &str, wanted: &[&str]) {
    wait_for(&format!("services of {node} are {wanted:?}"), || {
        let found = services(group, at, node)?;
        check(found == wanted, || format!("{found:?}"))
    });
}

#[test]
fn every_server_is_in_the_catalog_and_default_sessions_live_on_it() {
    let group = Group::formed(3, &QUICK);
    for node in ["s1", "s2", "s3"] {
        wait_for_checks(&group, 0, node, &json!({"serfHealth": "passing"}));
        wait_for_services(&group, 1, node, &["consul"]);
    }
    let node = get(&group, 2, "/v1/catalog/node/s2").unwrap();
    let ip = group.ip(1).to_string();
    wait_for("its agent says what it is", || {
        let node = get(&group, 2, "/v1/catalog/node/s2")?;
        check(node["Node"]["TaggedAddresses"]["lan_ipv4"] == *ip, || {
            node.to_string()
        })
    });
    assert_eq!(node["Services"]["consul"]["Port"], 8300);
    for at in 0..3 {
        let answer = group[at].http().put("/v1/session/create", b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn a_dead_server_turns_critical_and_its_sessions_end_until_it_is_back() {
    let mut group = Group::formed(3, &QUICK);
    for node in ["s1", "s2", "s3"] {
        wait_for_checks(&group, 0, node, &json!({"serfHealth": "passing"}));
    }
    let leader = group.wait_for_leader();
    let other = (leader + 1) % 3;
    let dead = group[leader].name.clone();
    let session = json!({"Node": dead});
    let answer = group[other]
        .http()
        .put("/v1/session/create", session.to_string().as_bytes());
    let id = answer.unwrap().json()["ID"].as_str().unwrap().to_owned();
    group[leader].kill();
    group.wait_for_leader();
    wait_for_checks(&group, other, &dead, &json!({"serfHealth": "critical"}));
    let session = get(&group, other, &format!("/v1/session/info/{id}")).unwrap();
    assert_eq!(session, json!([]));
    let members = get(&group, other, "/v1/agent/members").unwrap();
    let failed: Vec<&Value> = members
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["Status"] == 4)
        .map(|member| &member["Name"])
        .collect();
    assert_eq!(failed, [&json!(dead)]);
    group[leader].start();
    wait_for_checks(&group, other, &dead, &json!({"serfHealth": "passing"}));
    for node in ["s1", "s2", "s3"] {
        wait_for_checks(&group, other, node, &json!({"serfHealth": "passing"}));
    }
}

#[test]
fn registrations_survive_a_kill_and_are_in_the_catalog_of_all() {
    let mut group = Group::formed(3, &QUICK);
    let at = group.followers()[0];
    let (node, other) = (group[at].name.clone(), (at + 1) % 3);
    let web =
        json!({"ID": "web/1", "Name": "web", "Port": 80, "Tags": ["a"], "Check": {"TTL": "1h"}});
    put(&group, at, "/v1/agent/service/register", &web);
    put(
        &group,
        at,
        "/v1/agent/check/pass/service:web/1?note=well",
        &Value::Null,
    );
    put(
        &group,
        at,
        "/v1/agent/maintenance?enable=true&reason=upgrade",
        &Value::Null,
    );
    let wanted = json!({
        "serfHealth": "passing", "service:web/1": "passing", "_node_maintenance": "critical",
    });
    wait_for_checks(&group, other, &node, &wanted);
    wait_for_services(&group, other, &node, &["consul", "web/1"]);
    group[at].kill();
    group[at].start();
    wait_for("it serves", || get(&group, at, "/v1/agent/services"));
    let found = get(&group, at, "/v1/agent/checks").unwrap();
    assert_eq!(found["service:web/1"]["Status"], "passing");
    assert_eq!(found["service:web/1"]["Output"], "well");
    assert_eq!(found["_node_maintenance"]["Notes"], "upgrade");
    // Gone from the catalog behind its back, it is put in again: the agent is right about its own.
    let gone = json!({"Node": node, "ServiceID": "web/1"});
    put(&group, other, "/v1/catalog/deregister", &gone);
    put(
        &group,
        at,
        "/v1/agent/maintenance?enable=false",
        &Value::Null,
    );
    put(
        &group,
        at,
        "/v1/agent/service/deregister/web/1",
        &Value::Null,
    );
    wait_for_checks(&group, other, &node, &json!({"serfHealth": "passing"}));
    wait_for_services(&group, other, &node, &["consul"]);
    group[at].kill();
    group[at].start();
    wait_for("it serves", || get(&group, at, "/v1/agent/services"));
    assert_eq!(get(&group, at, "/v1/agent/services").unwrap(), json!({}));
    assert_eq!(get(&group, at, "/v1/agent/checks").unwrap(), json!({}));
}

/// A server that answers every request with this status and body.
fn answering(status: &'static AtomicU16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let status = status.load(Ordering::Relaxed);
            let answer = format!(
                "HTTP/1.1 {status} Word\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn checks_are_run_and_the_catalog_shows_what_they_find() {
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let port = answering(&STATUS);
    let group = Group::formed(1, &["-executors=2"]);
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let web = json!({"Name": "web", "Checks": [
        {"CheckID": "http", "HTTP": format!("http://localhost:{port}/x"), "Interval": "1s"},
        {"CheckID": "tcp", "TCP": format!("127.0.0.1:{port}"), "Interval": "1s"},
        {"CheckID": "refused", "TCP": format!("127.0.0.1:{free}"), "Interval": "1s", "Status": "passing"},
        {"CheckID": "ttl", "TTL": "1s", "Status": "passing"},
    ]});
    put(&group, 0, "/v1/agent/service/register", &web);
    for (status, found) in [
        (200, "passing"),
        (429, "warning"),
        (500, "critical"),
        (204, "passing"),
    ] {
        STATUS.store(status, Ordering::Relaxed);
        let wanted = json!({"serfHealth": "passing", "http": found, "tcp": "passing",
            "refused": "critical", "ttl": "critical"});
        wait_for_checks(&group, 0, "s1", &wanted);
    }
    let outputs = get(&group, 0, "/v1/agent/checks").unwrap();
    assert_eq!(
        outputs["http"]["Output"],
        format!("HTTP GET http://localhost:{port}/x: 204 No Content Output: ")
    );
    assert_eq!(
        outputs["tcp"]["Output"],
        format!("TCP connect 127.0.0.1:{port}: Success")
    );
    assert_eq!(
        outputs["refused"]["Output"],
        format!("dial tcp 127.0.0.1:{free}: connect: connection refused")
    );
    assert_eq!(outputs["ttl"]["Output"], "TTL expired");
    let passing = get(&group, 0, "/v1/health/service/web?passing").unwrap();
    assert_eq!(passing, json!([]));
}

#[test]
fn events_are_heard_by_all_servers_and_their_waiters() {
    let group = Group::formed(3, &["-set=performance.raft_multiplier=1", "-executors=2"]);
    let heard = |at: usize, path: &str| get(&group, at, path);
    let list = heard(2, "/v1/event/list").unwrap();
    assert_eq!(list, json!([]));
    let fired = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| heard(2, "/v1/event/list?index=1&wait=1m"));
        wait_for("it waits", || {
            let waits = group[2].metric("curia.http.requests_waiting");
            check(waits == 1.0, || waits.to_string())
        });
        let fired = group[0]
            .http()
            .put("/v1/event/fire/deploy", b"v2")
            .unwrap()
            .json();
        let heard = waiting.join().unwrap().unwrap();
        assert_eq!(heard[0]["ID"], fired["ID"]);
        fired
    });
    for at in 0..3 {
        wait_for("every server hears it once", || {
            let list = heard(at, "/v1/event/list?name=deploy")?;
            check(list.as_array().is_some_and(|list| list.len() == 1), || {
                list.to_string()
            })
        });
        let list = heard(at, "/v1/event/list").unwrap();
        assert_eq!(
            (&list[0]["ID"], &list[0]["Payload"]),
            (&fired["ID"], &json!("djI="))
        );
    }
}

#[test]
fn coordinates_are_kept_and_shown() {
    let group = Group::formed(1, &[]);
    wait_for_checks(&group, 0, "s1", &json!({"serfHealth": "passing"}));
    let coord =
        json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0.5], "Error": 1.5, "Adjustment": 0, "Height": 0.25});
    let update = json!({"Node": "s1", "Segment": "", "Coord": coord});
    put(&group, 0, "/v1/coordinate/update", &update);
    for path in ["/v1/coordinate/nodes", "/v1/coordinate/node/S1"] {
        let rows = get(&group, 0, path).unwrap();
        assert_eq!(
            (&rows[0]["Node"], &rows[0]["Coord"]["Height"]),
            (&json!("s1"), &json!(0.25))
        );
    }
    let missing = group[0].http().get("/v1/coordinate/node/x").unwrap();
    assert_eq!((missing.status, missing.text().as_str()), (404, ""));
    let flat = json!({"Node": "s1", "Coord": {"Vec": [0]}}).to_string();
    let refused = group[0]
        .http()
        .put("/v1/coordinate/update", flat.as_bytes())
        .unwrap();
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (500, "incompatible coordinate")
    );
    let datacenters = get(&group, 0, "/v1/coordinate/datacenters").unwrap();
    assert_eq!(datacenters[0]["Datacenter"], "dc1");
}

#[test]
fn services_of_configuration_files_are_registered_and_change_with_a_reload() {
    let mut group = Group::empty();
    let file = group.home().join("services.json");
    let write = |value: &Value| std::fs::write(&file, value.to_string()).unwrap();
    write(&json!({
        "node_meta": {"rack": "7"},
        "services": [
            {"name": "web", "port": 80, "check": {"ttl": "1h", "status": "passing"}},
            {"name": "db", "checks": [{"http": "https:///", "interval": "10s"}]},
        ],
    }));
    let flags = [
        "-bootstrap".to_owned(),
        format!("-config-file={}", file.display()),
    ];
    group.add_plain(&flags);
    group.start_all();
    group.wait_for_leader();
    let wanted = json!({"serfHealth": "passing", "service:web": "passing"});
    wait_for_checks(&group, 0, "s1", &wanted);
    // What it cannot check it does not register.
    wait_for_services(&group, 0, "s1", &["consul", "web"]);
    let node = get(&group, 0, "/v1/catalog/node/s1").unwrap();
    assert_eq!(node["Node"]["Meta"]["rack"], "7");
    put(
        &group,
        0,
        "/v1/agent/service/register",
        &json!({"Name": "client"}),
    );
    write(&json!({"node_meta": {"rack": "8"}, "service": {"name": "web", "port": 81}}));
    put(&group, 0, "/v1/agent/reload", &Value::Null);
    wait_for_checks(&group, 0, "s1", &json!({"serfHealth": "passing"}));
    wait_for_services(&group, 0, "s1", &["client", "consul", "web"]);
    wait_for("the node's meta data change too", || {
        let node = get(&group, 0, "/v1/catalog/node/s1")?;
        check(node["Node"]["Meta"]["rack"] == "8", || node.to_string())
    });
    // Kept in no file of ours: after a restart without it, it is gone.
    write(&json!({}));
    group[0].kill();
    group[0].start();
    wait_for_services(&group, 0, "s1", &["client", "consul"]);
}

/// Answers HTTPS with `body`, as whoever holds this certificate.
fn serve_tls(key: rcgen::KeyPair, certificate: rcgen::Certificate, body: &'static str) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![certificate.der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, socket);
            let mut asked = [0; 4096];
            // A client that does not believe us goes away.
            let Ok(1..) = stream.read(&mut asked) else {
                continue;
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// An authority, and a certificate of it for this name.
fn certified(name: &str) -> (String, rcgen::KeyPair, rcgen::Certificate) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let service = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = service.signed_by(&key, &issuer).unwrap();
    (pem, key, certificate)
}

#[test]
fn https_checks_believe_whom_the_machine_believes_or_whom_they_are_told_to() {
    let (pem, key, certificate) = certified("web.example");
    let trusted = serve_tls(key, certificate, "well");
    let (_, key, certificate) = certified("web.example");
    let stranger = serve_tls(key, certificate, "strange");
    let mut group = Group::new(1, &[]);
    let file = group.home().join("authorities.pem");
    std::fs::write(&file, pem).unwrap();
    let file = file.display().to_string();
    group[0].env.push(("SSL_CERT_FILE".into(), file));
    group.start_all();
    group.wait_for_leader();
    let http = |port: u16, more: Value| {
        let mut check = json!({"HTTP": format!("https://127.0.0.1:{port}/"), "Interval": "1s"});
        for (name, value) in more.as_object().unwrap() {
            check[name] = value.clone();
        }
        check
    };
    let tcp = |port: u16, name: &str| {
        json!({"TCP": format!("127.0.0.1:{port}"), "Interval": "1s", "TCPUseTLS": true,
            "TLSServerName": name})
    };
    let named = json!({"TLSServerName": "web.example"});
    for (id, mut body) in [
        ("named", http(trusted, named.clone())),
        ("other-name", http(trusted, json!({}))),
        ("stranger", http(stranger, named)),
        ("skips", http(stranger, json!({"TLSSkipVerify": true}))),
        ("tcp", tcp(trusted, "web.example")),
        ("tcp-other", tcp(trusted, "db.example")),
    ] {
        body["ID"] = json!(id);
        body["Name"] = json!(id);
        put(&group, 0, "/v1/agent/check/register", &body);
    }
    let wanted = [
        ("named", "passing", "Output: well"),
        (
            "other-name",
            "critical",
            "tls: failed to verify certificate",
        ),
        ("stranger", "critical", "tls: failed to verify certificate"),
        ("skips", "passing", "Output: strange"),
        ("tcp", "passing", "Success"),
        ("tcp-other", "critical", "tls: failed to verify certificate"),
    ];
    wait_for("checks have run", || {
        let checks = get(&group, 0, "/v1/agent/checks")?;
        for (id, status, output) in wanted {
            let said = checks[id]["Output"].as_str().unwrap_or_default();
            check(
                checks[id]["Status"] == status && said.contains(output),
                || format!("{id}: {}", checks[id]),
            )?;
        }
        Ok(())
    });
}

#[test]
fn a_service_that_does_not_speak_tls_is_critical_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.write_all(b"220 welcome to plain text\r\n");
        }
    });
    let group = Group::formed(1, &[]);
    let body = json!({"ID": "plain", "Name": "plain", "HTTP": format!("https://127.0.0.1:{port}/"),
        "Interval": "1s", "TLSSkipVerify": true});
    put(&group, 0, "/v1/agent/check/register", &body);
    wait_for("the check has run", || {
        let checks = get(&group, 0, "/v1/agent/checks")?;
        let said = checks["plain"]["Output"].as_str().unwrap_or_default();
        check(said.contains("does not look like a TLS handshake"), || {
            said.to_owned()
        })
    });
}
