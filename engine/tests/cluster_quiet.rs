//! Does a server say what is true, and nothing alarming of what is normal?

mod cluster;

use cluster::group::Group;

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
