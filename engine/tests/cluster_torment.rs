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
    check,
    group::Group,
    http::Row,
    load::{Clock, History, Load},
    network::Network,
    server::Server,
    wait_for,
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
                victims.iter().for_each(|at| group[*at].stop_at_any_time());
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

/// Cuts between random servers, in one direction or both, while random servers are killed.
#[test]
fn three_servers_in_a_network_that_comes_and_goes() {
    let Some(network) = Network::enter() else {
        return;
    };
    let mut dice = Dice::new();
    let mut flags = SMALL_IMAGES.to_vec();
    flags.push("-set=performance.rpc_hold_timeout=300ms");
    let mut group = Group::formed(3, &flags);
    let addresses: Vec<SocketAddr> = group.servers.iter().map(Server::http_address).collect();
    let load = Load::start(&addresses, 4, 1000);
    let clock = Clock::start(&addresses);
    let end = Instant::now() + Duration::from_secs(seconds());
    while Instant::now() < end {
        for _ in 0..=dice.below(3) {
            let (from, to) = (dice.below(3), dice.below(3));
            if from != to {
                network.cut_one_way(group[from].ip, group[to].ip);
            }
        }
        dice.pause(1500);
        if dice.below(3) == 0 {
            let victim = dice.below(3);
            group[victim].kill();
            dice.pause(500);
            group[victim].start();
        }
        dice.pause(1500);
        network.heal();
        dice.pause(500);
    }
    load.wait_for_more(20);
    clock.wait_for_more(1);
    clock.finish();
    let history = load.finish();
    history.check(&group.wait_for_equal_rows(&history.prefixes()));
}

/// One server's log is damaged whenever it is down, and all are killed: the others' copies must
/// mend it, and nothing may be lost or made up. Never all copies are damaged.
#[test]
fn a_server_whose_disk_rots() {
    let mut dice = Dice::new();
    let mut group = Group::formed(3, &["-set=log.segment_mb=1"]);
    let addresses: Vec<SocketAddr> = group.servers.iter().map(Server::http_address).collect();
    let load = Load::start(&addresses, 4, 5000);
    let clock = Clock::start(&addresses);
    let end = Instant::now() + Duration::from_secs(seconds());
    while Instant::now() < end {
        load.wait_for_more(10);
        dice.pause(500);
        // The others' copies must be whole before one more is damaged.
        group[0].kill();
        let segments = group[0].segments();
        let segment = &segments[dice.below(segments.len())];
        let length = std::fs::metadata(segment).expect("it is there").len();
        for _ in 0..=dice.below(3) {
            flip(segment, dice.below(length as usize) as u64);
        }
        group[0].start();
        dice.pause(300);
        let other = dice.below(3);
        group[other].kill();
        dice.pause(300);
        group[other].start();
        wait_for("the damaged server takes part again", || {
            let answer = group[0]
                .http()
                .get("/v1/kv/clock?stale")
                .map_err(|why| format!("{why:?}"))?;
            check(answer.status == 200, || answer.text())
        });
    }
    load.wait_for_more(20);
    clock.finish();
    let history = load.finish();
    history.check(&group.wait_for_equal_rows(&history.prefixes()));
    let found = group[0].log_text().matches("corrupt record").count();
    eprintln!("{found} damaged places were found");
}

fn flip(file: &std::path::Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let open = std::fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .expect("it is there");
    let mut byte = [0];
    open.read_exact_at(&mut byte, offset)
        .expect("within the file");
    open.write_all_at(&[byte[0] ^ 0x40], offset)
        .expect("within the file");
}
