//! Watches that wander from server to server through crashes, losses and images: is every change
//! told once, in order, and the same by everyone?

use wire::{ChangeOp, Cursor, Index, Wait, WatchFrom};

use super::*;

/// What a change did: to which key, and the value since.
type Done = (ChangeOp, Vec<u8>, Vec<u8>);

/// Longer than any wait that is asked for, and than any answer takes.
const PATIENCE_NS: u64 = 1_500 * MS;

/// Somebody who watches a prefix, as the HTTP layer does, and keeps the rows up to date.
struct Watcher {
    prefix: &'static [u8],
    /// The question under way, and when its connection is given up for lost.
    asked: Option<(usize, Ticket, WatchFrom)>,
    patient_until: u64,
    /// Behind everything that was told; `None` before the rows of the beginning.
    next: Option<Cursor>,
    /// Where it began, and what was told since.
    began: Cursor,
    told: BTreeMap<Cursor, Done>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    resets: usize,
    moves: usize,
}

impl Watcher {
    fn new(prefix: &'static [u8]) -> Self {
        Self {
            prefix,
            asked: None,
            patient_until: 0,
            next: None,
            began: Cursor::default(),
            told: BTreeMap::new(),
            rows: BTreeMap::new(),
            resets: 0,
            moves: 0,
        }
    }

    /// Takes an answer if there is one, and asks on, here or at another server.
    fn step(&mut self, world: &mut World, seen: &mut BTreeMap<Cursor, Done>) {
        if let Some((at, ticket, from)) = self.asked {
            if let Some(found) = world.answers.iter().position(|(of, _)| *of == ticket) {
                let (_, answer) = world.answers.swap_remove(found);
                self.asked = None;
                self.hear(from, answer, seen);
            } else if world.nodes[at].core.is_none() || world.now > self.patient_until {
                // The server crashed, and may be back before anybody has looked.
                self.asked = None;
            }
        }
        if self.asked.is_none() {
            let at = world.draw.below(world.nodes.len() as u64) as usize;
            self.ask(world, at);
        }
    }

    fn ask(&mut self, world: &mut World, at: usize) {
        if world.nodes[at].core.is_none() {
            return;
        }
        let from = self.next.map_or(WatchFrom::Rows, WatchFrom::Cursor);
        let query = Query {
            mode: ReadMode::Stale,
            min_index: Index(0),
            wait: Wait {
                index: Index(1),
                ms: 1 + world.draw.below(400) as u32,
            },
            body: QueryBody::KvWatch {
                prefix: Bytes::from_static(self.prefix),
                from,
            },
        };
        self.moves += 1;
        self.patient_until = world.now + PATIENCE_NS;
        self.asked = Some((at, world.ask(at, Request::Read(query)), from));
    }

    fn hear(
        &mut self,
        from: WatchFrom,
        answer: Result<Reply, wire::Failure>,
        seen: &mut BTreeMap<Cursor, Done>,
    ) {
        let answer = match answer {
            Ok(Reply::Read(answer)) => answer,
            Ok(other) => panic!("not a read: {other:?}"),
            Err(failure) => return assert_eq!(failure.kind, FailureKind::NotLeader),
        };
        let changes = match answer.body {
            ReadBody::List(mut list) => {
                assert_eq!(from, WatchFrom::Rows);
                let mut rows = Vec::new();
                while list.next_rows(100, usize::MAX, &mut rows) {}
                self.rows = rows
                    .iter()
                    .map(|row| (row.key().to_vec(), row.value().to_vec()))
                    .collect();
                self.began = Cursor::behind(answer.index);
                self.next = Some(self.began);
                self.told.clear();
                return;
            }
            ReadBody::Changes(changes) => changes.to_wire(),
            other => panic!("no changes: {other:?}"),
        };
        if changes.gone {
            self.resets += 1;
            self.next = None;
            return;
        }
        let mut next = self.next.expect("it asked from a cursor");
        for change in changes.changes {
            assert!(change.at > next, "told twice or out of order");
            next = change.at;
            let (key, value) = (change.row.key.to_vec(), change.row.value.to_vec());
            match change.op {
                ChangeOp::Delete => drop(self.rows.remove(&key)),
                ChangeOp::DeleteTree => self.rows.retain(|other, _| !other.starts_with(&key)),
                _ => drop(self.rows.insert(key.clone(), value.clone())),
            }
            let done = (change.op, key, value);
            // A recursive delete is told to each watcher in the words of its own prefix.
            if change.op != ChangeOp::DeleteTree {
                let first = seen.entry(change.at).or_insert_with(|| done.clone());
                assert_eq!(*first, done, "two servers tell {:?} differently", change.at);
            }
            self.told.insert(change.at, done);
        }
        assert!(changes.next >= next);
        self.next = Some(changes.next);
    }

    /// Nothing between its beginning and now was left out that somebody was told.
    fn judge(&self, seed: u64, seen: &BTreeMap<Cursor, Done>) {
        let own = seen
            .range(self.began..)
            .filter(|(at, (_, key, _))| **at > self.began && key.starts_with(self.prefix));
        for (at, done) in own {
            assert_eq!(self.told.get(at), Some(done), "SEED={seed}: lost {at:?}");
        }
    }
}

const PREFIXES: [&[u8]; 4] = [b"", b"a/", b"a/1", b"b/"];

fn command(draw: &mut Draw) -> Request {
    let key = format!(
        "{}/{}",
        ["a", "b", "c"][draw.below(3) as usize],
        draw.below(30)
    );
    let (verb, key) = match draw.below(20) {
        0 => (KvVerb::DeleteTree, key.as_str()),
        1 => (KvVerb::DeleteTree, &key[..2]),
        2..6 => (KvVerb::Delete, key.as_str()),
        _ => (KvVerb::Set, key.as_str()),
    };
    let value = vec![draw.below(256) as u8; 1 + draw.below(300) as usize];
    let command = KvCommand {
        verb,
        key: key.as_bytes(),
        value: &value,
        flags: 0,
        index: 0,
        session: b"",
    };
    Request::Write(Command::Kv(command).encode())
}

/// Watchers look for an answer with `diligence` percent each millisecond. Returns how often one had
/// to begin anew.
fn wander(seed: u64, image_threshold: u64, history_bytes: usize, diligence: u64) -> usize {
    let mut draw = Draw(seed ^ 0xACE);
    let mut world = World::new(seed, 3, draw.below(4), image_threshold);
    world.history_bytes = history_bytes;
    for at in 0..3 {
        world.crash(at, 1);
    }
    let mut watchers: Vec<_> = PREFIXES
        .iter()
        .chain(&PREFIXES)
        .map(|prefix| Watcher::new(prefix))
        .collect();
    let mut seen = BTreeMap::new();
    for _ in 0..3_000 {
        world.step();
        let (at, writes) = (draw.below(3) as usize, draw.below(3));
        for _ in 0..writes {
            if world.nodes[at].core.is_some() {
                world.ask(at, command(&mut draw));
            }
        }
        for watcher in &mut watchers {
            if draw.chance(diligence) {
                watcher.step(&mut world, &mut seen);
            }
        }
        let known: BTreeSet<Ticket> = watchers
            .iter()
            .filter_map(|watcher| watcher.asked.map(|(_, ticket, _)| ticket))
            .collect();
        world.answers.retain(|(ticket, _)| known.contains(ticket));
        if draw.below(1000) < 5 {
            let at = draw.below(3) as usize;
            if world.nodes[at].core.is_some() {
                world.crash(at, 1 + draw.below(600));
            }
        }
    }
    world.settle();
    // Each asks to the end, of a server of its own.
    for _ in 0..2_000 {
        world.step();
        for watcher in &mut watchers {
            watcher.step(&mut world, &mut seen);
        }
    }
    for (at, watcher) in watchers.iter().enumerate() {
        watcher.judge(seed, &seen);
        let mut rows = Vec::new();
        let store = world.member(at % 3).fsm().store();
        let mut list = store.kv_list(watcher.prefix, b"", 0);
        while list.next_rows(100, usize::MAX, &mut rows) {}
        let rows: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (row.key().to_vec(), row.value().to_vec()))
            .collect();
        assert_eq!(watcher.rows, rows, "SEED={seed}: watcher {at}");
        assert!(watcher.moves > 5, "SEED={seed}: it did not wander");
    }
    watchers.iter().map(|watcher| watcher.resets).sum()
}

/// With a history that holds everything, and after restarts that rebuild it from the log, nobody
/// begins anew.
#[test]
fn wandering_watchers_are_told_each_change_once_through_crashes() {
    for seed in seeds(15) {
        let resets = wander(seed, u64::MAX, 64 << 20, 70);
        assert_eq!(resets, 0, "SEED={seed}");
    }
}

/// With images, from which a restart knows no history, and little memory, some do; and are right.
#[test]
fn watchers_whose_history_is_gone_begin_anew() {
    let resets: usize = seeds(15)
        .into_iter()
        .map(|seed| wander(seed, 40 << 10, 30_000, 1))
        .sum();
    assert!(resets > 10, "only {resets}: the test tests little");
}

fn watch(prefix: &'static [u8], from: WatchFrom, ms: u32) -> Query {
    Query {
        mode: ReadMode::Stale,
        min_index: Index(0),
        wait: Wait {
            index: Index(u64::from(ms > 0)),
            ms,
        },
        body: QueryBody::KvWatch {
            prefix: Bytes::from_static(prefix),
            from,
        },
    }
}

impl World {
    fn changes(&mut self, ticket: Ticket) -> wire::KvChanges {
        for _ in 0..3_000 {
            if let Some(found) = self.answers.iter().position(|(of, _)| *of == ticket) {
                match self.answers.swap_remove(found).1 {
                    Ok(Reply::Read(crate::shard::ReadAnswer {
                        body: ReadBody::Changes(changes),
                        ..
                    })) => return changes.to_wire(),
                    other => panic!("no changes: {other:?}"),
                }
            }
            self.step();
        }
        panic!("{ticket:?} is not answered");
    }

    fn put(&mut self, at: usize, key: &str, value: &[u8]) -> u64 {
        let command = KvCommand {
            verb: KvVerb::Set,
            key: key.as_bytes(),
            value,
            flags: 0,
            index: 0,
            session: b"",
        };
        let ticket = self.ask(at, Request::Write(Command::Kv(command).encode()));
        for _ in 0..3_000 {
            if let Some(found) = self.answers.iter().position(|(of, _)| *of == ticket) {
                match self.answers.swap_remove(found).1 {
                    Ok(Reply::Written { index, .. }) => return index.0,
                    other => panic!("not written: {other:?}"),
                }
            }
            self.step();
        }
        panic!("not written");
    }
}

/// While a watch was parked, more went by than the history holds, and none of it concerned it: it
/// is not told that the history is gone, neither when its time is over nor when it is woken.
#[test]
fn a_parked_watch_needs_no_history_of_what_does_not_concern_it() {
    let (mut world, leader) = World::led(21);
    let now = world.ask(leader, Request::Read(watch(b"mine", WatchFrom::Now, 0)));
    let begin = world.changes(now).next;
    let from = WatchFrom::Cursor(begin);
    let late = world.ask(leader, Request::Read(watch(b"mine", from, 700)));
    let woken = world.ask(leader, Request::Read(watch(b"mine", from, 60_000)));
    world.steps(5);
    assert_eq!(world.waiters(leader), 2);
    for n in 0..200 {
        world.put(leader, &format!("other/{n}"), &[0; 1000]);
    }
    assert!(world.member(leader).history().len() < 100, "it forgets");
    world.steps(800);
    let late = world.changes(late);
    assert!(!late.gone && late.caught_up && late.changes.is_empty());
    assert!(late.next > begin, "and goes on behind what went by");
    let index = world.put(leader, "mine", b"1");
    let woken = world.changes(woken);
    assert!(!woken.gone);
    assert_eq!(woken.changes.len(), 1);
    assert_eq!(woken.changes[0].at.index, Index(index));
    // Who asks with the old cursor is too late.
    let gone = world.ask(leader, Request::Read(watch(b"mine", from, 0)));
    assert!(world.changes(gone).gone);
}

/// A watch through a follower asked where the follower stood, with an index to wait for and time
/// to do so, and was parked until something changed: its client got no headers for minutes.
#[test]
fn where_the_history_stands_is_said_once_the_index_is_applied() {
    let (mut world, leader) = World::led(23);
    let follower = (leader + 1) % 3;
    let index = world.put(leader, "k", b"1");
    for at in [leader, follower] {
        let mut query = watch(b"other", WatchFrom::Now, 60_000);
        query.min_index = Index(index);
        let ticket = world.ask(at, Request::Read(query));
        assert_eq!(world.changes(ticket).next, Cursor::behind(Index(index)));
    }
    let mut query = watch(b"other", WatchFrom::Now, 60_000);
    query.min_index = Index(index + 1);
    let ticket = world.ask(follower, Request::Read(query));
    world.steps(50);
    assert!(!world.is_answered(ticket), "it is not there yet");
    world.put(leader, "k", b"2");
    assert_eq!(world.changes(ticket).next.index, Index(index + 1));
}

#[test]
fn a_server_without_a_history_says_so() {
    let (mut world, leader) = World::led(22);
    world.history_bytes = 0;
    world.crash(leader, 1);
    world.steps(1_000);
    let ticket = world.ask(leader, Request::Read(watch(b"", WatchFrom::Now, 0)));
    while !world.is_answered(ticket) {
        world.step();
    }
    let (_, answer) = world.answers.pop().expect("one answer");
    let failure = answer.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(
        failure.message.contains("switched off"),
        "{}",
        failure.message
    );
}
