//! Is the log kept short, and does whoever needs the image get it, whatever ends in between?

mod cluster;

use std::{net::SocketAddr, thread::sleep, time::Duration};

use cluster::{check, group::Group, load::Load, server::Server, wait_for};

/// Images after a few entries, and nothing kept behind them: who was away needs one.
const SMALL: [&str; 3] = [
    "-set=raft_snapshot_threshold=50",
    "-set=raft_snapshot_interval=50ms",
    "-set=raft_trailing_logs=0",
];

fn addresses(group: &Group) -> Vec<SocketAddr> {
    group
        .servers
        .iter()
        .filter(|server| server.is_running())
        .map(Server::http_address)
        .collect()
}

fn wait_for_new_image(server: &Server, before: &[String]) {
    wait_for(&format!("{} writes an image", server.name), || {
        let images = server.images();
        let new = images
            .iter()
            .any(|image| !before.contains(image) && !image.contains("tmp"));
        check(new, || format!("{images:?}"))
    });
}

#[test]
fn a_server_comes_back_from_image_and_log() {
    let mut group = Group::formed(1, &SMALL);
    let load = Load::start(&addresses(&group), 4, 500);
    for _ in 0..6 {
        let images = group[0].images();
        load.wait_for_more(100);
        wait_for_new_image(&group[0], &images);
        group[0].kill();
        group[0].start();
        load.wait_for_more(1);
    }
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
    assert!(
        group[0].images().len() <= 3,
        "older images are removed: {:?}",
        group[0].images()
    );
    // The image really was what it came back from.
    group[0].stop();
    group[0].start();
    group.wait_for_leader();
    let replayed = group[0].log_text();
    let last = replayed
        .lines()
        .rev()
        .find(|line| line.contains("log recovered"))
        .expect("it says what it read");
    let entries: u64 = number_after(last, "entries=");
    assert!(
        entries < history.count(cluster::load::Fate::Acknowledged) as u64 + 1000,
        "{last}"
    );
    history.check(&group.wait_for_equal_states());
}

fn number_after(line: &str, name: &str) -> u64 {
    let digits = line
        .split(name)
        .nth(1)
        .expect(name)
        .chars()
        .take_while(char::is_ascii_digit);
    digits.collect::<String>().parse().expect(name)
}

/// Every server that got an image stopped itself as soon as it had it: consensus was told that the
/// image is applied before its checkpoint was durable.
#[test]
fn images_under_load_and_kills_lose_nothing() {
    let mut group = Group::formed(3, &SMALL);
    let load = Load::start(&addresses(&group), 4, 500);
    for round in 0..8 {
        load.wait_for_more(80);
        let at = (group.wait_for_leader() + round) % 3;
        group[at].kill();
        // Long enough for the others to write an image and forget the log behind it.
        let other = (at + 1) % 3;
        let images = group[other].images();
        load.wait_for_more(60);
        wait_for_new_image(&group[other], &images);
        group[at].start();
    }
    load.wait_for_more(50);
    let history = load.finish();
    group.wait_for_leader();
    history.check(&group.wait_for_equal_states());
    let fetched = group
        .servers
        .iter()
        .filter(|server| server.log_text().contains("installed the leader's image"));
    assert!(
        fetched.count() > 0,
        "nobody ever needed an image: the test proves nothing"
    );
}

/// Values that make an image of many pieces.
fn fill(group: &Group, at: usize, round: u8) {
    for key in 0..120 {
        let answer = group[at]
            .http()
            .put(&format!("/v1/kv/fill/{key}"), &vec![round; 200_000])
            .unwrap();
        assert!(answer.is_true(), "{} {}", answer.status, answer.text());
    }
}

/// A cluster with a large state, and a follower of it that is down and too far behind the log.
fn with_a_follower_far_behind() -> (Group, usize) {
    let mut group = Group::formed(3, &SMALL);
    let leader = group.wait_for_leader();
    fill(&group, leader, 1);
    let behind = group.followers()[0];
    group[behind].kill();
    let images = group[leader].images();
    fill(&group, leader, 2);
    wait_for_new_image(&group[leader], &images);
    (group, behind)
}

#[test]
fn a_follower_far_behind_is_killed_while_it_fetches_the_image() {
    let (mut group, behind) = with_a_follower_far_behind();
    for pause_ms in [0, 5, 20, 50, 100, 200] {
        let said = group[behind]
            .log_text()
            .matches("fetching the image")
            .count();
        group[behind].start();
        wait_for("a fetch begins", || {
            let now = group[behind]
                .log_text()
                .matches("fetching the image")
                .count();
            check(now > said || installed(&group[behind]), || {
                "it does not".to_owned()
            })
        });
        sleep(Duration::from_millis(pause_ms));
        group[behind].kill();
    }
    group[behind].start();
    converges(&group, behind);
}

#[test]
fn the_leader_is_killed_while_a_follower_fetches_its_image() {
    let (mut group, behind) = with_a_follower_far_behind();
    group[behind].start();
    for pause_ms in [0, 30, 100] {
        wait_for("a fetch begins", || {
            check(
                group[behind].log_text().contains("fetching the image"),
                || "it does not".to_owned(),
            )
        });
        sleep(Duration::from_millis(pause_ms));
        let leader = group.wait_for_leader();
        group[leader].kill();
        group[leader].start();
    }
    converges(&group, behind);
}

fn installed(server: &Server) -> bool {
    server.log_text().contains("installed the leader's image")
}

fn converges(group: &Group, behind: usize) {
    group.wait_for_leader();
    let rows = group.wait_for_equal_states();
    assert_eq!(rows.len(), 120);
    assert!(
        rows.iter().all(|row| row.value == [2; 200_000]),
        "the newest values are there"
    );
    assert!(
        installed(&group[behind]),
        "no image was needed: the test proves nothing"
    );
}
