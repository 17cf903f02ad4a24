//! Does a server say what is true, and nothing alarming of what is normal?

mod cluster;

use cluster::{
    frames::{Raw, frame},
    group::Group,
};
use wire::{FrameKind, Hello, Role, ServerId, Uuid, limits};

/// A server of two executors that was stopped before its cluster had formed said that it was done,
/// waited a second for an executor that waited for a cluster, and warned of a log that was not there.
#[test]
fn a_server_stops_at_once_before_there_is_a_cluster() {
    let mut group = Group::new(3, &["-executors=2"]);
    group[0].start();
    group[0].wait_for_log("no cluster yet");
    group[0].stop();
    let log = group[0].log_text();
    assert!(log.contains("shutdown complete"), "{log}");
    assert!(!log.contains("stopped without waiting"), "{log}");
}

/// With `-http-port=0` the log said `:0`, which nobody can connect to.
#[test]
fn a_port_that_was_chosen_is_logged() {
    let mut group = Group::new(1, &["-http-port=0"]);
    group[0].start();
    group[0].wait_for_log("agent running");
    let log = group[0].log_text();
    let (_, rest) = log.split_once(" http=").expect("the HTTP address");
    let address = rest.split_whitespace().next().unwrap().parse().unwrap();
    let http = cluster::http::Http::new(address, cluster::PATIENCE);
    assert_eq!(http.get("/v1/agent/version").unwrap().status, 200);
}

/// A member that learned of the new cluster a moment before the others reached out to them; they
/// warned that it was of another cluster than theirs, of 00000000-….
#[test]
fn a_peer_that_knows_of_the_cluster_first_is_no_cause_for_alarm() {
    let mut group = Group::new(3, &[]);
    group[0].start();
    group[0].wait_for_log("no cluster yet");
    let mut raw = Raw::connect(group[0].server_address());
    let hello = Hello {
        protocol: limits::PROTOCOL_VERSION,
        role: Role::Peer,
        raft_id: ServerId(7),
        cluster_id: Uuid([7; 16]),
        name: "early".to_owned(),
        ..Hello::default()
    };
    raw.send(&frame(FrameKind::Hello, 0, hello.encode()));
    raw.expect_close();
    group[0].wait_for_log("server early is of cluster");
    group.start_all();
    group.wait_for_leader();
    for server in &group.servers {
        let log = server.log_text();
        let alarm = log
            .lines()
            .find(|line| line.contains("WARN") && line.contains("cluster"));
        assert_eq!(alarm, None);
    }
}
