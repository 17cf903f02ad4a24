//! Do servers start, find each other, serve, stop and come back as issue and design promise?

mod cluster;

use std::{fs, net::SocketAddr, thread::sleep, time::Duration};

use cluster::{PATIENCE, check, group::Group, http::Http, server::Server, wait_for};

/// Waits until the server answers a write, and says what it answered.
fn first_write(server: &Server) {
    wait_for(&format!("{} takes a write", server.name), || {
        let answer = server
            .http()
            .put("/v1/kv/first", b"1")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.is_true(), || {
            format!("{} {}", answer.status, answer.text())
        })
    });
}

fn dev(group: &Group) -> Server {
    let ip = group.ip(0);
    let flags = [
        "-dev".to_owned(),
        format!("-bind={ip}"),
        format!("-client={ip}"),
        "-executors=1".to_owned(),
    ];
    Server::new(group.home(), "dev", ip, flags.to_vec())
}

#[test]
fn dev_serves_stops_on_either_signal_and_leaves_nothing_behind() {
    let group = Group::empty();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut server = dev(&group);
        server.start();
        first_write(&server);
        assert_eq!(server.http().get("/v1/kv/first?raw").unwrap().body, b"1");
        assert_eq!(
            fs::read_dir(server.temporary()).unwrap().count(),
            1,
            "its data lie in a temporary directory"
        );
        server.signal(signal);
        let status = server.wait_for_exit();
        assert!(status.success(), "signal {signal}: {status}");
        assert_eq!(
            fs::read_dir(server.temporary()).unwrap().count(),
            0,
            "the temporary directory is removed"
        );
    }
}

/// One start in ten was refused with "in use by another process": the dead process's io_uring
/// held the listening socket for some milliseconds more.
#[test]
fn a_killed_server_can_be_started_again_at_once() {
    let mut group = Group::empty();
    let server = group.add_plain(&["-bootstrap".to_owned()]);
    server.start();
    for _ in 0..10 {
        first_write(server);
        server.kill();
        server.start();
    }
    first_write(server);
}

#[test]
fn a_sole_server_comes_back_from_its_data_directory_alone() {
    let mut group = Group::empty();
    let server = group.add_plain(&["-bootstrap".to_owned()]);
    server.start();
    first_write(server);
    for round in 0..3 {
        server
            .http()
            .put(&format!("/v1/kv/round/{round}"), b"kept")
            .unwrap();
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        // Without -bootstrap: what it needs to know is in its data.
        server.flags.retain(|flag| flag != "-bootstrap");
        server.start();
        first_write(server);
        let rows = server
            .http()
            .get("/v1/kv/round/?recurse&consistent")
            .unwrap()
            .rows();
        assert_eq!(rows.len(), round + 1);
    }
}

#[test]
fn three_servers_form_one_cluster_in_whatever_order_and_each_serves_all() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        let mut group = Group::new(3, &[]);
        for (nth, at) in order.into_iter().enumerate() {
            group[at].start();
            if nth < 2 {
                group[at].wait_for_log("no cluster yet");
            }
        }
        let leader = group.wait_for_leader();
        each_serves_all(&group, leader);
        one_peer_set(&group);
    }
}

fn each_serves_all(group: &Group, leader: usize) {
    for writer in 0..3 {
        let key = format!("/v1/kv/by/{writer}");
        let written = group[writer]
            .http()
            .put(&format!("{key}?flags=7"), b"value")
            .unwrap();
        assert!(written.is_true(), "{} {}", written.status, written.text());
        for reader in 0..3 {
            for mode in ["", "&consistent"] {
                let read = group[reader]
                    .http()
                    .get(&format!("{key}?dc=dc1{mode}"))
                    .unwrap();
                let row = read.rows().pop().expect("an acknowledged write is read");
                assert_eq!((row.value.as_slice(), row.flags), (b"value".as_slice(), 7));
                assert_eq!(read.header("x-consul-index"), row.modify_index.to_string());
                assert_eq!(read.header("x-consul-knownleader"), "true");
                assert_eq!(read.header("x-consul-lastcontact"), "0");
            }
            let stale = wait_for("a stale read catches up", || {
                let read = group[reader]
                    .http()
                    .get(&format!("{key}?stale"))
                    .map_err(|why| format!("{why:?}"))?;
                check(read.status == 200, || format!("{}", read.status)).map(|()| read)
            });
            assert_eq!(stale.header("x-consul-knownleader"), "true");
            let contact: u64 = stale
                .header("x-consul-lastcontact")
                .parse()
                .expect("LastContact is a number");
            assert!(
                reader != leader || contact == 0,
                "the leader is in contact with itself"
            );
        }
    }
    let keys = group[leader].http().get("/v1/kv/by/?keys").unwrap().json();
    assert_eq!(keys, serde_json::json!(["by/0", "by/1", "by/2"]));
}

fn one_peer_set(group: &Group) {
    let mut wanted: Vec<String> = (0..3)
        .map(|at| group[at].server_address().to_string())
        .collect();
    wanted.sort();
    for server in &group.servers {
        let mut peers: Vec<String> =
            serde_json::from_value(server.http().get("/v1/status/peers").unwrap().json()).unwrap();
        peers.sort();
        assert_eq!(peers, wanted, "{}", server.name);
    }
}

#[test]
fn a_follower_answers_through_the_leader_after_the_old_one_is_gone() {
    let mut group = Group::formed(3, &[]);
    let old = group.wait_for_leader();
    group[old].kill();
    let asked = &group[(old + 1) % 3];
    wait_for("the old leader is missed", || {
        let leader = asked
            .http()
            .get("/v1/status/leader")
            .map_err(|why| format!("{why:?}"))?
            .text();
        check(
            !leader.contains(&group[old].server_address().to_string()),
            || leader,
        )
    });
    let written = asked.http().put("/v1/kv/after", b"the old leader").unwrap();
    assert!(
        written.is_true(),
        "a request waits for the next leader: {} {}",
        written.status,
        written.text()
    );
    group[old].start();
    let leader = group.wait_for_leader();
    assert_eq!(
        group[leader].http().get("/v1/kv/after?raw").unwrap().body,
        b"the old leader"
    );
    group.wait_for_equal_states();
}

// ---------------------------------------------------------------- shards

/// A server that was asked before it knew its cluster took it for one of a single shard: it looked
/// for the key in shard 0, found nothing, and said so; a write went where nobody would read it.
#[test]
fn a_starting_server_does_not_guess_where_a_key_belongs() {
    let mut group = Group::formed(1, &["-shards=8", "-executors=2"]);
    let keys: Vec<String> = (0..8).map(|at| format!("/v1/kv/app{at}/key")).collect();
    for key in &keys {
        assert!(group[0].http().put(key, b"there").unwrap().is_true());
    }
    for round in 0..10 {
        group[0].kill();
        group[0].start();
        let key = &keys[round % keys.len()];
        let http = group[0].http();
        let read = wait_for("an answer", || {
            http.get(&format!("{key}?raw"))
                .map_err(|why| format!("{why:?}"))
        });
        assert_eq!(
            (read.status, read.text().as_str()),
            (200, "there"),
            "round {round}"
        );
        let written = http.put(&format!("{key}?cas=0"), b"again").unwrap();
        assert_eq!(
            written.text().trim(),
            "false",
            "it exists, wherever the server thinks it is"
        );
    }
}

/// With several shards a recursive delete of any prefix was carried out, in one shard.
#[test]
fn what_spans_shards_is_refused_by_name() {
    let group = Group::formed(1, &["-shards=4"]);
    let http = group[0].http();
    for at in 0..8 {
        assert!(
            http.put(&format!("/v1/kv/app{at}/key"), b"x")
                .unwrap()
                .is_true()
        );
    }
    for answer in [
        http.get("/v1/kv/?recurse"),
        http.get("/v1/kv/app?keys"),
        http.delete("/v1/kv/app?recurse"),
        http.delete("/v1/kv/?recurse"),
    ] {
        let answer = answer.unwrap();
        assert!(
            answer.status == 400 && answer.text().contains("spans shards"),
            "{} {}",
            answer.status,
            answer.text()
        );
    }
    assert!(http.delete("/v1/kv/app3/?recurse").unwrap().is_true());
    for at in 0..8 {
        let wanted = if at == 3 { 404 } else { 200 };
        assert_eq!(
            http.get(&format!("/v1/kv/app{at}/?recurse"))
                .unwrap()
                .status,
            wanted,
            "app{at}"
        );
    }
}

// ---------------------------------------------------------------- who may not take part

#[test]
fn an_empty_server_that_finds_a_cluster_does_not_bootstrap_and_says_so() {
    let mut group = Group::formed(3, &[]);
    first_write(&group[0]);
    group.add(3, &[]).start();
    stays_outside(&group[3]);
    // Nor one that expects to be alone.
    let seeds = format!("-retry-join={}", group[0].server_address());
    group.add_plain(&["-bootstrap".to_owned(), seeds]).start();
    stays_outside(&group[4]);
    assert_eq!(
        group[0]
            .http()
            .get("/v1/status/peers")
            .unwrap()
            .json()
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

fn stays_outside(server: &Server) {
    server.wait_for_log("this server is not in the peer set of cluster");
    for path in [
        "/v1/kv/first",
        "/v1/kv/first?consistent",
        "/v1/kv/first?stale",
    ] {
        let read = server.http().get(path).unwrap();
        assert_eq!(read.status, 500, "{path}: {}", read.text());
        assert!(
            read.text().contains("not in the peer set"),
            "{path}: {}",
            read.text()
        );
    }
    let written = server.http().put("/v1/kv/first", b"2").unwrap();
    assert!(
        written.status == 500 && written.text().contains("not in the peer set"),
        "{}",
        written.text()
    );
}

#[test]
fn a_wiped_server_stays_outside_until_it_is_added() {
    let mut group = Group::formed(3, &[]);
    first_write(&group[0]);
    let wiped = group.followers()[0];
    group[wiped].kill();
    group[wiped].wipe();
    group[wiped].start();
    stays_outside(&group[wiped]);
    // All stop, and the wiped one starts first and alone: it has nobody to form a cluster with.
    for server in &mut group.servers {
        server.kill();
    }
    group[wiped].start();
    group[wiped].wait_for_log("found 1 of 3 servers expected");
    for at in (0..3).filter(|at| *at != wiped) {
        group[at].start();
    }
    let others = [(wiped + 1) % 3, (wiped + 2) % 3];
    first_write(&group[others[0]]);
    stays_outside(&group[wiped]);
}

#[test]
fn servers_that_expect_different_numbers_say_so_and_end() {
    let mut group = Group::empty();
    group.add(3, &[]);
    group.add(2, &[]);
    group.start_all();
    let statuses: Vec<_> = group
        .servers
        .iter_mut()
        .map(Server::wait_for_exit)
        .collect();
    assert!(
        statuses.iter().all(|status| !status.success()),
        "{statuses:?}"
    );
    for (server, other) in [(0, 2), (1, 3)] {
        let said = group[server].log_text();
        assert!(
            said.contains(&format!("-bootstrap-expect={other}")),
            "{said}"
        );
    }
}

#[test]
fn a_second_process_on_the_same_directory_or_port_is_refused_by_name() {
    let mut group = Group::empty();
    let first = group.add_plain(&["-bootstrap".to_owned()]);
    first.start();
    first_write(first);
    let directory = format!("-data-dir={}", first.data.display());
    let (server_port, http_port) = (first.server_address(), first.http_address());

    let second = group.add_plain(&["-bootstrap".to_owned(), directory]);
    let (status, said) = second.run_to_its_end();
    assert!(
        !status.success() && said.contains("in use by another curia process"),
        "{status}: {said}"
    );

    let bind = format!("-bind={}", server_port.ip());
    let third = group.add_plain(&["-bootstrap".to_owned(), bind]);
    let (status, said) = third.run_to_its_end();
    assert!(
        !status.success() && said.contains(&server_port.to_string()),
        "{status}: {said}"
    );
    assert!(
        said.contains("-server-port"),
        "the error names the flag: {said}"
    );

    let client = format!("-client={}", http_port.ip());
    let fourth = group.add_plain(&["-bootstrap".to_owned(), client]);
    let (status, said) = fourth.run_to_its_end();
    assert!(
        !status.success() && said.contains(&http_port.to_string()),
        "{status}: {said}"
    );
    assert!(
        said.contains("-http-port"),
        "the error names the flag: {said}"
    );

    first_write(&group[0]);
}

/// A server that was started with the data of another voted and acknowledged in its name.
#[test]
fn the_directory_of_another_server_is_refused_by_name() {
    let mut group = Group::formed(3, &[]);
    first_write(&group[0]);
    group[0].kill();
    let data = format!("-data-dir={}", group[0].data.display());
    let (name, address) = (group[0].name.clone(), group[0].server_address().to_string());
    let stranger = group.add_plain(&[data]);
    let (status, said) = stranger.run_to_its_end();
    assert!(
        !status.success() && said.contains(&name),
        "{status}: {said}"
    );
    assert!(said.contains(&address) && said.contains("-bind"), "{said}");
    group[0].start();
    group.wait_for_leader();
    group.wait_for_equal_states();
}

#[test]
fn a_server_that_waits_for_others_stops_when_told() {
    let mut group = Group::new(3, &[]);
    group[0].start();
    group[0].wait_for_log("no cluster yet");
    group[0].stop();
    let mut group = Group::formed(3, &[]);
    group.add(3, &[]).start();
    group[3].wait_for_log("not in the peer set");
    group[3].stop();
}

#[test]
fn a_directory_of_another_datacenter_or_a_newer_format_is_refused_and_left_alone() {
    let mut group = Group::empty();
    let server = group.add_plain(&["-bootstrap".to_owned()]);
    server.start();
    first_write(server);
    server.stop();
    let identity = server.data.join("identity.json");
    let before = fs::read(&identity).unwrap();

    server.flags.push("-datacenter=elsewhere".to_owned());
    let (status, said) = server.run_to_its_end();
    assert!(
        !status.success() && said.contains("datacenter") && said.contains("elsewhere"),
        "{status}: {said}"
    );
    server.flags.pop();

    let newer = String::from_utf8(before.clone())
        .unwrap()
        .replace("\"format\": 1", "\"format\": 99");
    fs::write(&identity, newer).unwrap();
    let (status, said) = server.run_to_its_end();
    assert!(
        !status.success() && said.contains("newer"),
        "{status}: {said}"
    );

    fs::write(&identity, before).unwrap();
    server.start();
    first_write(server);
    assert_eq!(server.http().get("/v1/kv/first?raw").unwrap().body, b"1");
}

#[test]
fn a_stopping_server_under_load_ends_cleanly() {
    let mut group = Group::formed(3, &[]);
    let addresses: Vec<SocketAddr> = group.servers.iter().map(Server::http_address).collect();
    let load = cluster::load::Load::start(&addresses, 4, 100);
    for round in 0..4 {
        load.wait_for_more(50);
        let at = if round % 2 == 0 {
            group.wait_for_leader()
        } else {
            group.followers()[0]
        };
        group[at].stop();
        group[at].start();
    }
    load.wait_for_more(50);
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}

/// SIGHUP, which Consul's operators send to have the configuration read again, ended the server.
#[test]
fn a_hang_up_does_not_end_a_server() {
    let group = Group::empty();
    let mut server = dev(&group);
    server.start();
    first_write(&server);
    server.signal(libc::SIGHUP);
    sleep(Duration::from_millis(300));
    let http = Http::new(server.http_address(), PATIENCE);
    assert!(http.put("/v1/kv/first", b"2").unwrap().is_true());
    assert!(server.ended().is_none());
}
