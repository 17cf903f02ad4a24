//! What may a server say that slept while others went on? (Reliability promise 1.)

mod cluster;

use std::{net::SocketAddr, thread, time::Duration};

use cluster::{
    PATIENCE, check,
    group::Group,
    http::Http,
    load::{Clock, Load},
    server::Server,
    wait_for,
};

fn addresses(group: &Group) -> Vec<SocketAddr> {
    group.servers.iter().map(Server::http_address).collect()
}

/// A leader that wakes up after another was elected must not answer from what it knew.
#[test]
fn a_paused_leader_never_answers_with_what_was_true_before() {
    let mut group = Group::formed(3, &[]);
    for round in 0..10 {
        let leader = group.wait_for_leader();
        put(&group[leader], &format!("before {round}"));
        group[leader].pause();
        // Asked while it sleeps: answered when it wakes, before it hears anything else.
        let sleeping = ask_in_parallel(group[leader].http_address(), 8);
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        let value = format!("after {round}");
        wait_for("the others elect a leader and write", || {
            let answer = Http::new(group[others[0]].http_address(), PATIENCE)
                .put("/v1/kv/paused", value.as_bytes())
                .map_err(|why| format!("{why:?}"))?;
            check(answer.is_true(), || answer.text())
        });
        group[leader].resume();
        for asker in sleeping
            .into_iter()
            .chain(ask_in_parallel(group[leader].http_address(), 8))
        {
            for (mode, body) in asker.join().expect("a client ends") {
                assert_eq!(body, value, "round {round}: a{mode} read of the old leader");
            }
        }
    }
}

fn put(server: &Server, value: &str) {
    let answer = server
        .http()
        .put("/v1/kv/paused", value.as_bytes())
        .unwrap();
    assert!(answer.is_true(), "{}", answer.text());
}

/// Clients that read in both modes; those answers that were successes.
fn ask_in_parallel(
    server: SocketAddr,
    clients: usize,
) -> Vec<thread::JoinHandle<Vec<(&'static str, String)>>> {
    let ask = move |mode| {
        let http = Http::new(server, PATIENCE);
        let answers = (0..5).filter_map(|_| http.get(&format!("/v1/kv/paused?raw{mode}")).ok());
        answers
            .filter(|answer| answer.status == 200)
            .map(|answer| (mode, answer.text()))
            .collect()
    };
    (0..clients)
        .map(|at| thread::spawn(move || ask(["", "&consistent"][at % 2])))
        .collect()
}

/// Servers fall asleep again and again under load, the leader as well as others.
#[test]
fn pauses_under_load_lose_nothing_and_let_no_read_go_back() {
    let mut group = Group::formed(3, &[]);
    let load = Load::start(&addresses(&group), 4, 100);
    let clock = Clock::start(&addresses(&group));
    for round in 0..8 {
        load.wait_for_more(20);
        let leader = group.wait_for_leader();
        let sleeper = (leader + round % 2) % 3;
        group[sleeper].pause();
        thread::sleep(Duration::from_millis(if round % 4 < 2 {
            1500
        } else {
            300
        }));
        group[sleeper].resume();
    }
    load.wait_for_more(20);
    clock.finish();
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}

/// A request forwarded to a leader that sleeps for ever held its client for ever: the connection
/// stands, and no answer comes. It must end: a read by asking the next leader, a write by saying
/// that nobody knows.
#[test]
fn a_request_that_lies_with_a_sleeping_leader_is_given_an_answer() {
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    put(&group[leader], "before");
    let follower = group[(leader + 1) % 3].http_address();
    group[leader].pause();
    let ask = |what: &'static str| {
        thread::spawn(move || {
            let http = Http::new(follower, PATIENCE);
            let answer = match what {
                "write" => http.put("/v1/kv/paused", b"after"),
                "default" => http.get("/v1/kv/paused?raw"),
                _ => http.get("/v1/kv/paused?raw&consistent"),
            };
            (what, answer)
        })
    };
    for asker in ["write", "default", "consistent"].map(ask) {
        let (what, answer) = asker.join().expect("a client ends");
        let answer = answer.unwrap_or_else(|why| panic!("{what}: {why:?}"));
        let unknown = answer.status == 500
            && answer
                .text()
                .contains("leadership lost while committing log");
        let good = match what {
            "write" => unknown || answer.is_true(),
            _ => answer.status == 200,
        };
        assert!(good, "{what}: {} {}", answer.status, answer.text());
    }
    group[leader].resume();
}
