//! Does every acknowledged write survive whoever is killed, and is nothing acknowledged without a
//! quorum? (Reliability promises 1 and 2.)

mod cluster;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use cluster::{
    check,
    group::Group,
    http::Http,
    load::{Clock, Load},
    server::Server,
    wait_for,
};

fn addresses(group: &Group) -> Vec<SocketAddr> {
    group.servers.iter().map(Server::http_address).collect()
}

/// What a client that insists on the newest state finds.
fn read_all(group: &Group) -> Vec<cluster::http::Row> {
    wait_for("a consistent listing", || {
        let answer = group[0]
            .http()
            .get("/v1/kv/?recurse&consistent")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.status == 200, || answer.text()).map(|()| answer.rows())
    })
}

/// Kills the servers at `places` at once, and starts them again.
fn kill_and_restart(group: &mut Group, places: &[usize]) {
    for at in places {
        group[*at].signal(libc::SIGKILL);
    }
    for at in places {
        group[*at].wait_for_exit();
    }
    for at in places {
        group[*at].start();
    }
}

#[test]
fn nothing_acknowledged_is_lost_whoever_is_killed_under_load() {
    let mut group = Group::formed(3, &[]);
    let load = Load::start(&addresses(&group), 6, 200);
    let clock = Clock::start(&addresses(&group));
    for round in 0..12 {
        load.wait_for_more(60);
        clock.wait_for_more(1);
        let leader = group.wait_for_leader();
        let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
        let victims: &[usize] = match round % 6 {
            0 => &[leader],
            1 => &[next],
            2 => &[leader, next, last],
            3 => &[leader, last],
            4 => &[next, last],
            _ => &[leader],
        };
        kill_and_restart(&mut group, victims);
    }
    load.wait_for_more(60);
    clock.finish();
    let history = load.finish();
    history.check(&read_all(&group));
    history.check(&group.wait_for_equal_states());
}

#[test]
fn a_sole_server_loses_nothing_either() {
    let mut group = Group::formed(1, &[]);
    let load = Load::start(&addresses(&group), 4, 200);
    for _ in 0..8 {
        load.wait_for_more(100);
        kill_and_restart(&mut group, &[0]);
    }
    load.wait_for_more(100);
    let history = load.finish();
    history.check(&read_all(&group));
}

#[test]
fn five_servers_bear_two_and_not_three() {
    bears_its_tolerance_and_no_more(5);
}

#[test]
fn three_servers_bear_one_and_not_two() {
    bears_its_tolerance_and_no_more(3);
}

fn bears_its_tolerance_and_no_more(size: usize) {
    let tolerance = (size - 1) / 2;
    let mut group = Group::formed(size, &[]);
    for _ in 0..tolerance {
        let leader = group.wait_for_leader();
        group[leader].kill();
        put(&group, "within");
    }
    put(&group, "before");
    // What is acknowledged is on a quorum; that it is committed reaches the followers a moment
    // later, and without a leader they could not know.
    group.wait_for_equal_states();
    let leader = group.wait_for_leader();
    group[leader].kill();
    acknowledges_nothing_and_says_so(&group);
    let back = (0..size)
        .find(|at| !group[*at].is_running())
        .expect("some were killed");
    group[back].start();
    put(&group, "after");
    for key in ["within", "before", "after"] {
        let read = running(&group)[0]
            .http()
            .get(&format!("/v1/kv/{key}?consistent"))
            .unwrap();
        assert_eq!(read.status, 200, "{key}");
    }
    group.start_all();
    group.wait_for_leader();
    let keys: Vec<String> = group
        .wait_for_equal_states()
        .into_iter()
        .map(|row| row.key)
        .collect();
    // A write that was refused without a leader may not appear later.
    assert_eq!(keys, ["after", "before", "within"]);
}

fn running(group: &Group) -> Vec<&Server> {
    group
        .servers
        .iter()
        .filter(|server| server.is_running())
        .collect()
}

/// Writes through any running server until it is acknowledged.
fn put(group: &Group, key: &str) {
    wait_for(&format!("{key} is written"), || {
        let answer = running(group)[0]
            .http()
            .put(&format!("/v1/kv/{key}"), b"x")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.is_true(), || answer.text())
    });
}

/// Without a quorum: stale reads, and Consul's words after the hold time.
fn acknowledges_nothing_and_says_so(group: &Group) {
    for server in running(group) {
        // The old leader's followers need an election timeout to notice; then none of them knows one.
        wait_for("the leader is missed", || {
            let leader = server
                .http()
                .get("/v1/status/leader")
                .map_err(|why| format!("{why:?}"))?;
            check(leader.text().trim() == "\"\"", || leader.text())
        });
        let stale = server.http().get("/v1/kv/before?stale").unwrap();
        assert_eq!(stale.status, 200, "stale reads go on");
        assert_eq!(stale.header("x-consul-knownleader"), "false");
        let contact: u64 = stale
            .header("x-consul-lastcontact")
            .parse()
            .expect("LastContact is a number");
        assert!(contact > 0, "how old the answer may be is said");
    }
    let asked: Vec<_> = running(group)
        .into_iter()
        .flat_map(|server| {
            let address = server.http_address();
            ["write", "default", "consistent"]
                .map(move |what| thread::spawn(move || (what, held(address, what))))
        })
        .collect();
    for asker in asked {
        let (what, (status, text, waited)) = asker.join().expect("a client ends");
        assert_eq!(
            (status, text.as_str()),
            (500, "No cluster leader"),
            "{what}"
        );
        // The hold time (7 s) is a promise; how much longer a loaded machine takes is not.
        assert!(
            waited >= Duration::from_secs(6),
            "{what} was refused after {waited:?}, not held"
        );
    }
}

fn held(address: SocketAddr, what: &str) -> (u16, String, Duration) {
    let http = Http::new(address, cluster::PATIENCE);
    let began = Instant::now();
    let answer = match what {
        "write" => http.put("/v1/kv/refused", b"x"),
        "default" => http.get("/v1/kv/before"),
        _ => http.get("/v1/kv/before?consistent"),
    };
    let answer = answer.expect("an answer");
    (answer.status, answer.text(), began.elapsed())
}
