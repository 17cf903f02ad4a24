//! Sessions and locks on real servers, while leaders are killed.

mod cluster;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use cluster::{
    check,
    group::Group,
    http::{Answer, Http},
    wait_for,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends until there is an answer that is no refusal for want of a leader. Only for what may be
/// done twice.
fn insist(what: &str, mut send: impl FnMut() -> Result<Answer, cluster::http::NoAnswer>) -> Answer {
    wait_for(what, || {
        let answer = send().map_err(|why| format!("{why:?}"))?;
        check(answer.status < 500, || answer.text())?;
        Ok(answer)
    })
}

/// A node that no server tends, so that only what the test does ends its sessions.
fn register_node(http: &Http) {
    let node = json!({"Node": "client", "Address": "127.0.0.9"}).to_string();
    let done = insist("a node is registered", || {
        http.put("/v1/catalog/register", node.as_bytes())
    });
    assert!(done.is_true(), "{}", done.text());
}

fn create(http: &Http, ttl: &str, lock_delay: &str) -> String {
    create_through(|| http, ttl, lock_delay)
}

/// Each attempt through the next of the servers: one of them may be dead.
fn create_through<'h>(mut next: impl FnMut() -> &'h Http, ttl: &str, lock_delay: &str) -> String {
    let body = json!({"Node": "client", "NodeChecks": [], "TTL": ttl, "LockDelay": lock_delay});
    let made = insist("a session is made", || {
        next().put("/v1/session/create", body.to_string().as_bytes())
    });
    made.json()["ID"].as_str().expect("an id").to_owned()
}

fn exists(http: &Http, id: &str) -> bool {
    let info = insist("a session is looked up", || {
        http.get(&format!("/v1/session/info/{id}"))
    });
    info.json() != json!([])
}

#[test]
fn a_lock_outlives_its_leader_and_a_session_its_ttl() {
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    let follower = (leader + 1) % 3;
    let http = Http::new(group[follower].http_address(), PATIENCE);
    register_node(&http);
    let held = create(&http, "", "0s");
    let dying = create(&http, "10s", "0s");
    for (key, id) in [("held", &held), ("dying", &dying)] {
        let path = format!("/v1/kv/{key}?acquire={id}");
        assert!(insist("a lock", || http.put(&path, b"mine")).is_true());
    }
    let renewed = insist("a renewal", || {
        http.put(&format!("/v1/session/renew/{dying}"), b"")
    });
    let since = Instant::now();
    assert_eq!(renewed.status, 200);
    group[leader].kill();
    // Whoever leads now knows the locks, and how long the session has been alone.
    let alive = exists(&http, &dying);
    assert!(alive || since.elapsed() >= Duration::from_secs(10));
    let row = insist("the lock is read", || http.get("/v1/kv/held")).json();
    assert_eq!(row[0]["Session"], json!(held));
    wait_for("the session ends", || {
        check(!exists(&http, &dying), || "it lives".into())
    });
    assert!(
        since.elapsed() >= Duration::from_secs(10),
        "it ended {:?} after its renewal",
        since.elapsed()
    );
    let row = insist("what it held is read", || http.get("/v1/kv/dying")).json();
    assert_eq!(row[0].get("Session"), None);
    let row = insist("the lock is read", || http.get("/v1/kv/held")).json();
    assert_eq!(row[0]["Session"], json!(held), "only its own time was over");
    group.start_all();
    group.wait_for_equal_states();
}

/// Clients that count under a lock, each count conditional on its holding it: through two kills of
/// the leader no count is lost, and no two clients ever held the lock at once.
#[test]
fn a_lock_has_one_holder_at_a_time_through_changes_of_leader() {
    const CLIENTS: usize = 4;
    let mut group = Group::formed(3, &[]);
    group.wait_for_leader();
    let addresses: Vec<_> = (0..3).map(|at| group[at].http_address()).collect();
    register_node(&group[0].http());
    let stop = AtomicBool::new(false);
    // Counts that were answered, and those of which nobody knows.
    let (counted, unknown) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, counted, unknown, addresses) = (&stop, &counted, &unknown, &addresses);
            scope.spawn(move || {
                let servers: Vec<_> = addresses
                    .iter()
                    .map(|address| Http::new(*address, PATIENCE))
                    .collect();
                let mut at = client;
                while !stop.load(Ordering::Relaxed) {
                    let next = || {
                        at += 1;
                        &servers[at % servers.len()]
                    };
                    match count_once(next) {
                        Count::Done => drop(counted.fetch_add(1, Ordering::Relaxed)),
                        Count::Unknown => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                        Count::NotMine => {}
                    }
                }
            });
        }
        for _ in 0..2 {
            let before = counted.load(Ordering::Relaxed);
            wait_for("the clients count", || {
                let now = counted.load(Ordering::Relaxed);
                check(now >= before + 30, || format!("{} counts", now - before))
            });
            let leader = group.wait_for_leader();
            group[leader].kill();
            let before = counted.load(Ordering::Relaxed);
            wait_for("the clients count on", || {
                let now = counted.load(Ordering::Relaxed);
                check(now >= before + 10, || format!("{} counts", now - before))
            });
            group.start_all();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let http = group[group.wait_for_leader()].http();
    let count = insist("the count", || http.get("/v1/kv/count?raw"));
    let count: u64 = count.text().parse().expect("a number");
    let (counted, unknown) = (counted.into_inner(), unknown.into_inner());
    assert!(
        (counted..=counted + unknown).contains(&count),
        "{count} is not within {counted} and {unknown} more"
    );
    group.wait_for_equal_states();
}

enum Count {
    Done,
    Unknown,
    NotMine,
}

/// Takes the lock, reads the count, writes one more if the lock is still ours, and lets go. The
/// write does not look at the count's own index: only the lock keeps two clients apart.
fn count_once<'h>(mut next: impl FnMut() -> &'h Http) -> Count {
    let id = create_through(&mut next, "", "0s");
    // Without this one left out, three requests would meet the same three servers each time.
    next();
    let count = count_as(next(), &id);
    // The lock goes with its session.
    insist("a session is destroyed", || {
        next().put(&format!("/v1/session/destroy/{id}"), b"")
    });
    count
}

fn count_as(http: &Http, id: &str) -> Count {
    match http.put(&format!("/v1/kv/lock?acquire={id}"), b"") {
        Ok(answer) if answer.is_true() => {}
        _ => return Count::NotMine,
    }
    let Ok(held) = http.get("/v1/kv/count?raw") else {
        return Count::NotMine;
    };
    let count: u64 = match held.status {
        404 => 0,
        200 => held.text().parse().expect("a number"),
        _ => return Count::NotMine,
    };
    use base64::Engine;
    let next = base64::engine::general_purpose::STANDARD.encode((count + 1).to_string());
    let ops = json!([
        {"KV": {"Verb": "check-session", "Key": "lock", "Session": id}},
        {"KV": {"Verb": "set", "Key": "count", "Value": next}},
    ]);
    match http.put("/v1/txn", ops.to_string().as_bytes()) {
        Ok(answer) if answer.status == 200 => Count::Done,
        Ok(answer) if answer.status == 409 => Count::NotMine,
        _ => Count::Unknown,
    }
}
