//! What do servers do that cannot hear all the others? (Reliability promise 1; pre-vote and
//! check-quorum.)

mod cluster;

use std::{net::SocketAddr, thread::sleep, time::Duration};

use cluster::{
    check,
    group::Group,
    load::{Clock, Load},
    network::Network,
    server::Server,
    wait_for,
};

/// Who cannot reach a leader says so soon, or clients would spend the test waiting.
const SHORT_HOLD: [&str; 1] = ["-set=performance.rpc_hold_timeout=300ms"];

fn addresses(group: &Group) -> Vec<SocketAddr> {
    group.servers.iter().map(Server::http_address).collect()
}

/// What `at` names as the leader, by its position.
fn named_by(group: &Group, at: usize) -> Option<usize> {
    let named = group[at].http().get("/v1/status/leader").ok()?.text();
    let named = named.trim().trim_matches('"').to_owned();
    group
        .servers
        .iter()
        .position(|server| server.server_address().to_string() == named)
}

fn isolate(group: &Group, network: &Network, alone: usize) {
    for other in (0..group.servers.len()).filter(|other| *other != alone) {
        network.cut(group[alone].ip, group[other].ip);
    }
}

/// The rest elects a leader and goes on; the old one acknowledges nothing and answers nothing
/// that is no longer true; afterwards they are one cluster again.
#[test]
fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let Some(network) = Network::enter() else {
        return;
    };
    let group = Group::formed(3, &SHORT_HOLD);
    let load = Load::start(&addresses(&group), 4, 100);
    let clock = Clock::start(&addresses(&group));
    for _ in 0..5 {
        load.wait_for_more(30);
        let leader = group.wait_for_leader();
        isolate(&group, &network, leader);
        let other = (leader + 1) % 3;
        wait_for("another leader", || {
            let named = named_by(&group, other);
            check(named.is_some_and(|named| named != leader), || {
                format!("{named:?}")
            })
        });
        clock.wait_for_more(5);
        wait_for("the old leader steps down", || {
            check(named_by(&group, leader).is_none(), || {
                "it does not".to_owned()
            })
        });
        network.heal();
    }
    group.wait_for_leader();
    clock.finish();
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}

/// The leader speaks and hears nobody: followers are content with it, and nothing can be
/// committed. It must notice and give up.
#[test]
fn a_leader_that_hears_nobody_steps_down() {
    let Some(network) = Network::enter() else {
        return;
    };
    let group = Group::formed(3, &SHORT_HOLD);
    let clock = Clock::start(&addresses(&group));
    for _ in 0..3 {
        clock.wait_for_more(5);
        let leader = group.wait_for_leader();
        for other in (0..3).filter(|other| *other != leader) {
            network.cut_one_way(group[other].ip, group[leader].ip);
        }
        clock.wait_for_more(5);
        network.heal();
    }
    group.wait_for_leader();
    clock.finish();
}

/// Two servers do not hear each other, a third hears both: there is a leader, and it stays.
#[test]
fn a_bridge_is_enough() {
    let Some(network) = Network::enter() else {
        return;
    };
    let group = Group::formed(3, &SHORT_HOLD);
    let load = Load::start(&addresses(&group), 4, 100);
    let leader = group.wait_for_leader();
    let (bridge, cut_off) = ((leader + 1) % 3, (leader + 2) % 3);
    network.cut(group[leader].ip, group[cut_off].ip);
    load.wait_for_more(100);
    let elections = || -> f64 {
        let all = group.servers.iter();
        all.map(|server| server.metric("curia.raft.elections"))
            .sum()
    };
    let before = elections();
    sleep(Duration::from_secs(3));
    assert!(
        elections() - before <= 1.0,
        "{} elections in three quiet seconds: the server that is cut off disturbs the others",
        elections() - before
    );
    load.wait_for_more(50);
    assert_ne!(named_by(&group, bridge), None);
    network.heal();
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}

/// Nobody hears anybody for a while: nothing is acknowledged, and afterwards all goes on.
#[test]
fn a_long_silence_is_over_soon_after_the_network_is_back() {
    let Some(network) = Network::enter() else {
        return;
    };
    let group = Group::formed(3, &SHORT_HOLD);
    let load = Load::start(&addresses(&group), 2, 100);
    load.wait_for_more(20);
    for at in 0..3 {
        isolate(&group, &network, at);
    }
    wait_for("all leaders step down", || {
        check((0..3).all(|at| named_by(&group, at).is_none()), || {
            "they do not".to_owned()
        })
    });
    let before = load.acknowledged();
    // Longer than links bear with: they are dialled anew.
    sleep(Duration::from_secs(8));
    assert_eq!(load.acknowledged(), before, "without a quorum");
    network.heal();
    load.wait_for_more(20);
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}
