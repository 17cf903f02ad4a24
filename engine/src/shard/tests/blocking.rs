//! Blocking queries: when do they return, by which rule, and what ends them?

use wire::{Index, Wait};

use super::*;
use crate::shard::member::WOKEN_PER_TURN_MAX;

fn set<'a>(key: &'a str, value: &'a [u8]) -> Request {
    let command = KvCommand {
        verb: KvVerb::Set,
        key: key.as_bytes(),
        value,
        flags: 0,
        index: 0,
        session: b"",
    };
    Request::Write(Command::Kv(command).encode())
}

fn get(key: &str, mode: ReadMode, index: u64, ms: u32) -> Query {
    Query {
        mode,
        min_index: Index(0),
        wait: Wait {
            index: Index(index),
            ms,
        },
        body: QueryBody::KvGet {
            key: Bytes::copy_from_slice(key.as_bytes()),
        },
    }
}

impl World {
    /// Three servers with a leader; its position.
    pub(super) fn led(seed: u64) -> (Self, usize) {
        let mut world = Self::new(seed, 3, 0, u64::MAX);
        for _ in 0..600 {
            world.step();
        }
        let leader = world.leader().expect("a leader was elected");
        (world, leader)
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| {
            let core = node.core.as_ref();
            core.is_some_and(|core| core.member(SHARD).expect("one").replica().is_leader())
        })
    }

    pub(super) fn member(&self, at: usize) -> &crate::shard::Member {
        let core = self.nodes[at].core.as_ref().expect("it is up");
        core.member(SHARD).expect("one shard")
    }

    pub(super) fn waiters(&self, at: usize) -> usize {
        self.member(at).watches().len()
    }

    pub(super) fn ask(&mut self, at: usize, request: Request) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.nodes[at].events.push(Event::Request {
            ticket,
            shard: SHARD,
            request,
        });
        ticket
    }

    fn wait(&mut self, at: usize, query: Query) -> Ticket {
        let until = self.now + u64::from(query.wait.ms) * MS;
        let ticket = self.ask(at, Request::Read(query.clone()));
        self.waiting.insert((at, ticket.0), (query, until));
        ticket
    }

    /// A blocking query of somebody, somewhere: on a key to come, or on any.
    pub(super) fn wait_somewhere(&mut self) {
        let at = self.draw.below(self.nodes.len() as u64) as usize;
        if self.nodes[at].core.is_none() || !self.draw.chance(20) {
            return;
        }
        let mode = ReadMode::ALL[self.draw.below(3) as usize];
        let number = self.next_key + self.draw.below(20);
        let mut query = get(&format!("key/{number:06}"), mode, 0, 0);
        if self.draw.chance(30) {
            query.body = QueryBody::KvKeys {
                prefix: Bytes::from_static(b"key/"),
                separator: Bytes::new(),
                start_after: Bytes::new(),
                limit: 0,
            };
        }
        // What a client would have seen, give or take.
        let applied = self.member(at).replica().applied_index().0;
        query.wait = Wait {
            index: Index((applied + self.draw.below(3)).max(1)),
            ms: 1 + self.draw.below(2_000) as u32,
        };
        self.wait(at, query);
    }

    /// A blocking query was answered: it may not be without news, a reason or the time for it.
    pub(super) fn returned(
        &mut self,
        at: usize,
        ticket: Ticket,
        result: Result<Reply, wire::Failure>,
    ) {
        if let Some((query, until)) = self.waiting.remove(&(at, ticket.0)) {
            match &result {
                Ok(Reply::Read(answer)) => assert!(
                    answer.index > query.wait.index
                        || self.now >= until
                        || query.mode == ReadMode::Stale && self.nodes[at].installs > 0,
                    "SEED={}: {query:?} returned with index {} before its time",
                    self.seed,
                    answer.index
                ),
                Ok(_) => unreachable!("it is a read"),
                Err(failure) => assert_eq!(failure.kind, FailureKind::NotLeader),
            }
        }
        self.answers.push((ticket, result));
    }

    /// All waits are over in the end, and nobody is left behind.
    pub(super) fn outwait(&mut self) {
        for _ in 0..3_000 {
            self.step();
        }
        assert_eq!(
            self.waiting,
            BTreeMap::new(),
            "SEED={}: left waiting",
            self.seed
        );
        for at in 0..self.nodes.len() {
            assert_eq!(self.waiters(at), 0, "SEED={}: at server {at}", self.seed);
        }
    }

    /// Steps until this ticket is answered.
    fn answer(&mut self, ticket: Ticket) -> Result<Reply, wire::Failure> {
        for _ in 0..3_000 {
            if let Some(found) = self.answers.iter().position(|(of, _)| *of == ticket) {
                return self.answers.swap_remove(found).1;
            }
            self.step();
        }
        panic!("{ticket:?} is not answered");
    }

    fn written(&mut self, at: usize, key: &str, value: &[u8]) -> u64 {
        let ticket = self.ask(at, set(key, value));
        match self.answer(ticket) {
            Ok(Reply::Written { ok: true, index }) => index.0,
            other => panic!("not written: {other:?}"),
        }
    }

    pub(super) fn is_answered(&self, ticket: Ticket) -> bool {
        self.answers.iter().any(|(of, _)| *of == ticket)
    }

    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// One turn of one server, and what it asks for.
    fn one_turn(&mut self, at: usize, mut events: Vec<Event>) -> Effects {
        self.now += MS;
        let (now, mut effects) = (self.now, Effects::default());
        let core = self.nodes[at].core.as_mut().expect("it is up");
        core.turn(now, &mut events, &mut effects);
        effects
    }
}

fn index_and_value(reply: Result<Reply, wire::Failure>) -> (u64, Option<Vec<u8>>) {
    match reply {
        Ok(Reply::Read(answer)) => match answer.body {
            ReadBody::Row(row) => (answer.index.0, row.map(|row| row.value().to_vec())),
            other => panic!("not a row: {other:?}"),
        },
        other => panic!("not an answer: {other:?}"),
    }
}

#[test]
fn a_waiter_returns_with_the_change_in_every_mode_and_not_before() {
    let (mut world, leader) = World::led(1);
    let follower = (leader + 1) % 3;
    let before = world.written(leader, "k", b"1");
    let waiting: Vec<Ticket> = [
        (leader, ReadMode::Default),
        (leader, ReadMode::Consistent),
        (leader, ReadMode::Stale),
        (follower, ReadMode::Stale),
    ]
    .map(|(at, mode)| world.wait(at, get("k", mode, before, 60_000)))
    .into();
    world.steps(50);
    assert_eq!((world.waiters(leader), world.waiters(follower)), (3, 1));
    world.written(leader, "sibling", b"1");
    world.written(leader, "k", b"1");
    world.steps(50);
    assert!(!waiting.iter().any(|ticket| world.is_answered(*ticket)));
    assert_eq!(world.member(leader).watches().woken_total(), 0);
    let after = world.written(leader, "k", b"2");
    for ticket in waiting {
        let found = index_and_value(world.answer(ticket));
        assert_eq!(found, (after, Some(b"2".to_vec())));
    }
    for mode in [ReadMode::Default, ReadMode::Consistent] {
        let at_once = world.wait(leader, get("k", mode, before, 60_000));
        assert_eq!(
            index_and_value(world.answer(at_once)).0,
            after,
            "an older index"
        );
        let refused = world.wait(follower, get("k", mode, before, 60_000));
        let failure = world.answer(refused).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotLeader);
    }
}

/// A woken `consistent` waiter is not answered by a leader that a quorum has not confirmed since.
#[test]
fn a_woken_waiter_is_answered_under_the_rule_of_its_mode() {
    let (mut world, leader) = World::led(2);
    let before = world.written(leader, "k", b"1");
    let consistent = world.wait(leader, get("k", ReadMode::Consistent, before, 60_000));
    let default = world.wait(leader, get("k", ReadMode::Default, before, 60_000));
    world.steps(50);
    assert_eq!(world.waiters(leader), 2);
    let write = world.ask(leader, set("k", b"2"));
    while !world.is_answered(write) {
        assert!(!world.is_answered(consistent) && !world.is_answered(default));
        world.step();
    }
    assert!(
        world.is_answered(default),
        "under the lease: with the change"
    );
    assert!(!world.is_answered(consistent), "not without a round");
    index_and_value(world.answer(consistent));
}

#[test]
fn a_missing_key_and_an_index_of_the_future_wait_their_time() {
    let (mut world, leader) = World::led(3);
    let before = world.written(leader, "k", b"1");
    let missing = world.wait(leader, get("missing", ReadMode::Default, before, 200));
    let future = world.wait(leader, get("k", ReadMode::Default, before + 1_000, 300));
    world.steps(20);
    let now = world.written(leader, "k", b"2");
    world.steps(50);
    assert_eq!(
        world.waiters(leader),
        2,
        "greater than before, but not than asked for"
    );
    let begun = world.now;
    let missing = index_and_value(world.answer(missing));
    assert_eq!(missing, (now, None), "as it is");
    assert!(world.now < begun + 300 * MS);
    let future = index_and_value(world.answer(future));
    assert_eq!(future, (now, Some(b"2".to_vec())));
}

/// Who waits with a leader that is none any longer has to ask the next one.
#[test]
fn a_leader_that_steps_down_ends_its_waiters_but_not_stale_ones() {
    let (mut world, leader) = World::led(4);
    let before = world.written(leader, "k", b"1");
    let [default, consistent, stale] = [ReadMode::Default, ReadMode::Consistent, ReadMode::Stale]
        .map(|mode| world.wait(leader, get("k", mode, before, 60_000)));
    world.steps(50);
    world.loss_percent = 100;
    for ticket in [default, consistent] {
        let failure = world.answer(ticket).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotLeader);
    }
    assert_eq!(world.waiters(leader), 1);
    world.loss_percent = 0;
    world.steps(1_000);
    let next = world.leader().expect("a leader");
    let after = world.written(next, "k", b"2");
    assert_eq!(index_and_value(world.answer(stale)).0, after);
}

#[test]
fn cancelled_waiters_give_up_their_places_and_get_no_answer() {
    let (mut world, leader) = World::led(5);
    let before = world.written(leader, "k", b"1");
    let tickets: Vec<Ticket> = (0..10)
        .map(|_| world.wait(leader, get("k", ReadMode::Consistent, before, 60_000)))
        .collect();
    // Some while they wait for their first round, the others while they wait for a change.
    let cancel = |tickets: &[Ticket]| Event::Cancel {
        shard: SHARD,
        tickets: tickets.to_vec(),
    };
    world.nodes[leader].events.push(cancel(&tickets[..4]));
    world.steps(50);
    assert_eq!(world.waiters(leader), 6);
    world.nodes[leader].events.push(cancel(&tickets[2..8]));
    world.steps(50);
    assert_eq!(world.waiters(leader), 2);
    world.written(leader, "k", b"2");
    world.steps(50);
    let answered = tickets.iter().map(|ticket| world.is_answered(*ticket));
    assert_eq!(answered.filter(|answered| *answered).count(), 2);
    world.waiting.clear();
}

#[test]
fn a_stopping_server_ends_its_waiters_and_takes_no_more() {
    let (mut world, leader) = World::led(6);
    let before = world.written(leader, "k", b"1");
    for mode in ReadMode::ALL {
        world.ask(leader, Request::Read(get("k", mode, before, 60_000)));
    }
    world.steps(50);
    let effects = world.one_turn(leader, vec![Event::Shutdown]);
    let later = Event::Request {
        ticket: Ticket(9_999),
        shard: SHARD,
        request: Request::Read(get("k", ReadMode::Default, before, 60_000)),
    };
    let refused = world.one_turn(leader, vec![later]);
    for (effects, count) in [(effects, 3), (refused, 1)] {
        assert_eq!(effects.answers.len(), count);
        for answered in effects.answers {
            let failure = answered.result.unwrap_err();
            assert_eq!(failure.kind, FailureKind::ShuttingDown);
        }
    }
    assert_eq!(world.waiters(leader), 0);
}

/// However many wait for one key, a turn answers a bounded number and asks for another.
#[test]
fn woken_per_turn_max_bounds_a_turn_and_all_are_answered() {
    let (mut world, leader) = World::led(7);
    let before = world.written(leader, "k", b"1");
    let waiters = 2 * WOKEN_PER_TURN_MAX + 10;
    let tickets: Vec<Ticket> = (0..waiters)
        .map(|_| {
            world.ask(
                leader,
                Request::Read(get("k", ReadMode::Default, before, 60_000)),
            )
        })
        .collect();
    world.steps(5);
    assert_eq!(world.waiters(leader), waiters);
    let write = world.ask(leader, set("k", b"2"));
    let mut answered = 0;
    while answered < waiters {
        world.step();
        let now = tickets
            .iter()
            .filter(|ticket| world.is_answered(**ticket))
            .count();
        assert!(
            now - answered <= WOKEN_PER_TURN_MAX,
            "{} in a turn",
            now - answered
        );
        assert!(now == answered || world.is_answered(write));
        answered = now;
    }
    assert_eq!(world.waiters(leader), 0);
}

/// A follower that gets an image holds another state from one moment to the next: whoever waits
/// there is answered, since what has changed in between is not known row by row.
#[test]
fn an_installed_image_returns_the_stale_waiters() {
    let mut world = World::new(8, 3, 0, 20 << 10);
    world.steps(600);
    let leader = world.leader().expect("a leader");
    let lagging = (leader + 1) % 3;
    let before = world.written(leader, "quiet", b"1");
    world.steps(50);
    let ticket = world.wait(lagging, get("quiet", ReadMode::Stale, before, 600_000));
    world.steps(20);
    assert_eq!(world.waiters(lagging), 1);
    let installs = world.nodes[lagging].installs;
    // It hears nothing for so long that the log it needs is gone.
    let mut writes = 0;
    while !world.is_answered(ticket) {
        let cut_off = writes < 2_000;
        if cut_off {
            let leader = world.leader().unwrap_or(leader);
            world.ask(leader, set(&format!("key/{writes}"), &[7; 300]));
        }
        writes += 1;
        world.step();
        if cut_off {
            world
                .wire
                .retain(|(_, from, to, _)| *from != lagging && *to != lagging);
        }
        assert!(writes < 20_000, "no image was installed");
    }
    assert!(world.nodes[lagging].installs > installs);
    let (index, value) = index_and_value(world.answer(ticket));
    assert_eq!(
        (index, value),
        (before, Some(b"1".to_vec())),
        "the row is the same"
    );
    assert_eq!(world.waiters(lagging), 0);
}
