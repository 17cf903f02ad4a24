//! What breaks when everything happens at once, for as long as one cares to wait?
//!
//! Random kills, pauses and stops of random sets of servers under load, with images every few
//! dozen entries. A minute of it runs with the other tests; to hunt:
//! `CURIA_TORMENT_SECONDS=600 cargo test -p engine --test cluster_torment`. A failure prints the
//! seed of its choices, which `CURIA_TORMENT_SEED` repeats (not the processes' timing).

mod cluster;

use std::{
    env,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use cluster::{
    group::Group,
    http::Row,
    load::{Clock, History, Load},
    server::Server,
};

/// Each torment without the variable.
const SECONDS: u64 = 12;

/// A small generator: the choices need to be repeatable, not good (splitmix64).
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = env::var("CURIA_TORMENT_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .expect("after 1970");
            now.as_nanos() as u64
        });
        eprintln!("CURIA_TORMENT_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as usize % bound
    }

    /// A random set of servers, often of one.
    fn some_of(&mut self, servers: usize) -> Vec<usize> {
        let first = self.below(servers);
        match self.below(3) {
            0 => (0..servers)
                .filter(|at| *at == first || self.below(2) == 0)
                .collect(),
            _ => vec![first],
        }
    }

    fn pause(&mut self, longest_ms: usize) {
        sleep(Duration::from_millis(self.below(longest_ms) as u64));
    }
}

fn seconds() -> u64 {
    env::var("CURIA_TORMENT_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SECONDS)
}

const SMALL_IMAGES: [&str; 4] = [
    "-set=raft_snapshot_threshold=40",
    "-set=raft_snapshot_interval=50ms",
    "-set=raft_trailing_logs=5",
    "-set=log.segment_mb=1",
];

fn torment(size: usize, flags: &[&str]) {
    let (history, rows) = tormented(size, flags);
    history.check(&rows);
}

fn tormented(size: usize, flags: &[&str]) -> (History, Vec<Row>) {
    let mut dice = Dice::new();
    let mut group = Group::formed(size, flags);
    let addresses: Vec<SocketAddr> = group.servers.iter().map(Server::http_address).collect();
    let load = Load::start(&addresses, 4, 1000);
    let clock = Clock::start(&addresses);
    let end = Instant::now() + Duration::from_secs(seconds());
    while Instant::now() < end {
        dice.pause(700);
        let victims = dice.some_of(size);
        match dice.below(4) {
            0 => {
                victims.iter().for_each(|at| group[*at].pause());
                dice.pause(1500);
                victims.iter().for_each(|at| group[*at].resume());
            }
            1 => {
                victims.iter().for_each(|at| group[*at].stop());
                dice.pause(1000);
                victims.iter().for_each(|at| group[*at].start());
            }
            _ => {
                victims
                    .iter()
                    .for_each(|at| group[*at].signal(libc::SIGKILL));
                victims.iter().for_each(|at| {
                    group[*at].wait_for_exit();
                });
                dice.pause(1000);
                victims.iter().for_each(|at| group[*at].start());
            }
        }
        for server in &mut group.servers {
            assert!(server.ended().is_none(), "{} ended by itself", server.name);
        }
    }
    load.wait_for_more(20);
    clock.wait_for_more(1);
    clock.finish();
    let history = load.finish();
    let rows = group.wait_for_equal_rows(&history.prefixes());
    (history, rows)
}

#[test]
fn three_servers() {
    torment(3, &SMALL_IMAGES);
}

#[test]
fn five_servers_with_large_segments_and_no_images() {
    torment(5, &[]);
}

#[test]
fn three_servers_of_two_executors_and_four_shards() {
    let mut flags = SMALL_IMAGES.to_vec();
    flags.extend(["-executors=2", "-shards=4"]);
    let (history, rows) = tormented(3, &flags);
    history.check_in_shards(&rows);
}

#[test]
fn one_server() {
    torment(1, &SMALL_IMAGES);
}

/// Servers are killed while they find each other, again and again: one cluster must come of it.
#[test]
fn servers_that_are_killed_while_they_form_a_cluster() {
    let mut dice = Dice::new();
    for _ in 0..4 {
        let mut group = Group::new(3, &[]);
        for _ in 0..6 {
            group.start_all();
            dice.pause(200);
            for at in dice.some_of(3) {
                group[at].kill();
            }
        }
        group.start_all();
        group.wait_for_leader();
        let cluster = |server: &Server| {
            let text = std::fs::read_to_string(server.data.join("identity.json")).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["cluster_id"].clone()
        };
        let ids: Vec<_> = group.servers.iter().map(cluster).collect();
        assert!(
            ids[0].is_string() && ids.iter().all(|id| *id == ids[0]),
            "{ids:?}"
        );
    }
}
