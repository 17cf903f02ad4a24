//! Which server next?
//!
//! Sans-io. The leader is tried first, then the members that servers named, then the seeds; each
//! once per round, with growing pauses between rounds. A leader that has just failed is not gone
//! back to on the word of a server that has not noticed: that server is stayed with, since it
//! forwards, and asked again later.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use wire::{ClusterId, Hello, limits};

/// For how long a server that failed is not believed to lead.
const FAILED_LEADER_AVOIDED: Duration = Duration::from_secs(1);
/// First pause between two rounds; doubled up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Servers may name each other as leader so often in a row before one is stayed with.
const REDIRECTS_MAX: usize = 3;
/// A client remembers so many addresses.
const ADDRESSES_MAX: usize = 64;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Connect.
    Dial(SocketAddr),
    /// All servers failed: wait.
    Pause(Duration),
}

/// What a server's Hello means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Use it. Whether it leads.
    Stay { leads: bool },
    /// Another server leads: the next step goes there.
    Elsewhere,
    /// It is of no use to us.
    Unusable(String),
}

#[derive(Debug)]
pub(crate) struct Route {
    seeds: Vec<SocketAddr>,
    members: Vec<SocketAddr>,
    leader: Option<SocketAddr>,
    tried: Vec<SocketAddr>,
    failed: Vec<(SocketAddr, Instant)>,
    redirects: usize,
    pause: Duration,
    jitter: u32,
    cluster: ClusterId,
}

impl Route {
    /// A route that begins at `seeds`; `seed` spreads the pauses of many clients.
    pub(crate) fn new(seeds: &[SocketAddr], seed: u32) -> Self {
        Self {
            seeds: seeds.to_vec(),
            members: Vec::new(),
            leader: None,
            tried: Vec::new(),
            failed: Vec::new(),
            redirects: 0,
            pause: PAUSE_MIN,
            jitter: seed | 1,
            cluster: ClusterId::default(),
        }
    }

    /// The next attempt. A server counts as tried from here on.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        let leader = self
            .leader
            .filter(|&leader| !self.failed_lately(leader, now));
        let known = leader.iter().chain(&self.members).chain(&self.seeds);
        let untried = known
            .copied()
            .filter(|address| !self.tried.contains(address));
        // The first of those that have not just failed.
        if let Some(address) = untried.min_by_key(|&address| self.failed_lately(address, now)) {
            self.tried.push(address);
            return Step::Dial(address);
        }
        self.tried.clear();
        let pause = self.pause.mul_f64(self.next_jitter());
        self.pause = (2 * self.pause).min(PAUSE_MAX);
        Step::Pause(pause)
    }

    /// Between 0.75 and 1.25 (xorshift32).
    fn next_jitter(&mut self) -> f64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 17;
        self.jitter ^= self.jitter << 5;
        0.75 + f64::from(self.jitter) / f64::from(u32::MAX) / 2.0
    }

    /// A server introduced itself.
    pub(crate) fn answered(&mut self, hello: &Hello, now: Instant) -> Verdict {
        if hello.protocol != limits::PROTOCOL_VERSION {
            let (theirs, ours) = (hello.protocol, limits::PROTOCOL_VERSION);
            return Verdict::Unusable(format!(
                "server {} speaks protocol version {theirs}, this client {ours}",
                hello.name
            ));
        }
        if hello.shards == 0 || hello.cluster_id.is_nil() {
            let name = &hello.name;
            return Verdict::Unusable(format!("server {name} is not part of a cluster yet"));
        }
        if self.cluster.is_nil() {
            self.cluster = hello.cluster_id;
        } else if self.cluster != hello.cluster_id {
            let (name, theirs, ours) = (&hello.name, hello.cluster_id, self.cluster);
            return Verdict::Unusable(format!("server {name} is of cluster {theirs}, not {ours}"));
        }
        self.learn_members(hello.members.iter().map(|member| &member.address[..]));
        let leads = !hello.leader.is_empty() && hello.leader == hello.address;
        if !leads && self.redirects < REDIRECTS_MAX && self.follow(&hello.leader, now) {
            self.redirects += 1;
            // It answered: should the leader not, this server is as good as any.
            self.tried.clear();
            return Verdict::Elsewhere;
        }
        Verdict::Stay { leads }
    }

    /// The connection proved useful: when it is lost, all servers are worth a try at once.
    ///
    /// Until then the server counts as tried, so that one which answers Hello and nothing else
    /// is not called again and again without a pause.
    pub(crate) fn settled(&mut self) {
        (self.redirects, self.pause) = (0, PAUSE_MIN);
        self.tried.clear();
    }

    /// Takes `leader` for the leader, if that is an address that has not just failed.
    pub(crate) fn follow(&mut self, leader: &str, now: Instant) -> bool {
        let leader = usable(leader).filter(|&leader| !self.failed_lately(leader, now));
        if let Some(leader) = leader {
            self.leader = Some(leader);
        }
        leader.is_some()
    }

    /// The connection to `address`, or the attempt to make one, failed.
    pub(crate) fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.failed.retain(|(old, at)| {
            *old != address && now.saturating_duration_since(*at) < FAILED_LEADER_AVOIDED
        });
        self.failed.push((address, now));
        if self.leader == Some(address) {
            self.leader = None;
        }
    }

    fn failed_lately(&self, address: SocketAddr, now: Instant) -> bool {
        self.failed.iter().any(|(failed, at)| {
            *failed == address && now.saturating_duration_since(*at) < FAILED_LEADER_AVOIDED
        })
    }

    fn learn_members<'a>(&mut self, addresses: impl Iterator<Item = &'a str>) {
        let members: Vec<_> = addresses.filter_map(usable).take(ADDRESSES_MAX).collect();
        if !members.is_empty() {
            self.members = members;
        }
    }
}

/// An address that can be connected to.
fn usable(address: &str) -> Option<SocketAddr> {
    let address: SocketAddr = address.parse().ok()?;
    let nowhere = |ip: IpAddr| ip.is_unspecified();
    (!nowhere(address.ip()) && address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use wire::{Member, ServerId, Uuid};

    use super::*;

    fn address(n: u8) -> SocketAddr {
        format!("127.0.0.{n}:8300").parse().unwrap()
    }

    /// Server `n` of three, which takes `leader` for the leader (0: none).
    fn hello(n: u8, leader: u8) -> Hello {
        Hello {
            protocol: limits::PROTOCOL_VERSION,
            name: format!("node-{n}"),
            address: address(n).to_string(),
            cluster_id: Uuid([7; 16]),
            shards: 1,
            leader: if leader == 0 {
                String::new()
            } else {
                address(leader).to_string()
            },
            members: (1..=3)
                .map(|n| Member {
                    raft_id: ServerId(u64::from(n)),
                    address: address(n).to_string(),
                    ..Member::default()
                })
                .collect(),
            ..Hello::default()
        }
    }

    fn after_ms(ms: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_millis(ms)
    }

    #[test]
    fn every_server_is_tried_once_per_round() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(1), address(2)], 1);
        for _ in 0..2 {
            assert_eq!(route.next(now), Step::Dial(address(1)));
            assert_eq!(route.next(now), Step::Dial(address(2)));
            assert!(matches!(route.next(now), Step::Pause(_)));
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut route = Route::new(&[], 12345);
        let mut pauses = (0..20).map(|_| match route.next(after_ms(0)) {
            Step::Pause(pause) => pause,
            step => panic!("{step:?}"),
        });
        let first = pauses.next().unwrap();
        assert!(first >= PAUSE_MIN.mul_f64(0.75) && first <= PAUSE_MIN.mul_f64(1.25));
        let last = pauses.last().unwrap();
        assert!(last >= PAUSE_MAX.mul_f64(0.75) && last <= PAUSE_MAX.mul_f64(1.25));
    }

    #[test]
    fn a_follower_leads_to_the_leader() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(1)], 1);
        assert_eq!(route.next(now), Step::Dial(address(1)));
        assert_eq!(route.answered(&hello(1, 2), now), Verdict::Elsewhere);
        assert_eq!(route.next(now), Step::Dial(address(2)));
        assert_eq!(
            route.answered(&hello(2, 2), now),
            Verdict::Stay { leads: true }
        );
    }

    /// The leader was killed; the followers have not noticed and still name it.
    #[test]
    fn a_dead_leader_is_not_gone_back_to() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(2)], 1);
        route.next(now);
        route.answered(&hello(2, 2), now);
        route.settled();
        route.failed(address(2), now);
        assert_eq!(route.next(now), Step::Dial(address(1)));
        assert_eq!(
            route.answered(&hello(1, 2), now),
            Verdict::Stay { leads: false }
        );
        let later = now + FAILED_LEADER_AVOIDED;
        assert!(route.follow(&address(2).to_string(), later));
    }

    /// A leader that cannot be reached: the follower that named it is used.
    #[test]
    fn an_unreachable_leader_falls_back() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(1)], 1);
        route.next(now);
        assert_eq!(route.answered(&hello(1, 2), now), Verdict::Elsewhere);
        assert_eq!(route.next(now), Step::Dial(address(2)));
        route.failed(address(2), now);
        assert_eq!(route.next(now), Step::Dial(address(1)));
        assert_eq!(
            route.answered(&hello(1, 2), now),
            Verdict::Stay { leads: false }
        );
    }

    #[test]
    fn servers_that_name_each_other_are_stayed_with() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(1)], 1);
        let verdicts: Vec<_> = (0..=REDIRECTS_MAX)
            .map(|n| {
                let (here, there) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
                assert_eq!(route.next(now), Step::Dial(address(here)));
                route.answered(&hello(here, there), now)
            })
            .collect();
        assert_eq!(
            verdicts[..REDIRECTS_MAX],
            vec![Verdict::Elsewhere; REDIRECTS_MAX]
        );
        assert_eq!(verdicts[REDIRECTS_MAX], Verdict::Stay { leads: false });
    }

    #[test]
    fn strangers_are_of_no_use() {
        let now = after_ms(0);
        let mut route = Route::new(&[address(1)], 1);
        let unusable = |route: &mut Route, hello: Hello, why: &str| {
            let verdict = route.answered(&hello, now);
            let Verdict::Unusable(text) = verdict else {
                panic!("{verdict:?}")
            };
            assert!(text.contains(why), "{text}");
        };
        let alone = Hello {
            shards: 0,
            ..hello(1, 1)
        };
        unusable(&mut route, alone, "not part of a cluster yet");
        let newer = Hello {
            protocol: 9,
            ..hello(1, 1)
        };
        unusable(&mut route, newer, "protocol version 9");
        assert!(matches!(
            route.answered(&hello(1, 1), now),
            Verdict::Stay { .. }
        ));
        let other = Hello {
            cluster_id: Uuid([8; 16]),
            ..hello(1, 1)
        };
        unusable(&mut route, other, "is of cluster 08080808");
    }
}
