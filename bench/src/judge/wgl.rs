//! Is there one order of all operations that explains every answer?
//!
//! The complete judge: the search of Wing and Gong with Lowe's list and memory ("Testing for
//! linearizability", 2017), object by object. It tries to place operations one after the other,
//! never one before another that had ended before it began, and goes back when nothing fits. What
//! it has tried is remembered as (which operations are placed, the state), so that no
//! configuration is looked at twice. If it comes to the end the history is linearizable; if it
//! runs out of choices, it is not, and both are proofs; if it runs out of memory it says so.
//!
//! What makes it fast enough for histories with faults:
//!
//! - An operation that leaves the state alone is placed where it first fits: had it a later place,
//!   this one would do as well. So reads never cause a second try.
//! - Where the place in the log is known, operations are only placed in its order.
//! - Operations whose outcome is unknown may be placed at any time after their call, or never; they
//!   are tried last.
//!
//! A stale read may be old, but must tell of a state that was: it is a read that began at the
//! beginning of time.
//!
//! | file | job |
//! |---|---|
//! | `objects` | keys that must be judged together, strings as numbers |
//! | `model` | Consul's rules, one operation at a time |
//!
//! Invariant: never "linearizable" or "violation" without a proof.

mod model;
mod objects;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use model::Behavior;
use model::{Act, Model, Op, State};
use objects::Object;

use super::History;

/// What the judge is told, and what it may use.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What destroyed sessions do with their locks.
    pub behavior: Behavior,
    /// Most memory for configurations of one object, bytes.
    pub memory_bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            behavior: Behavior::Release,
            memory_bytes_max: 512 << 20,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Objects that were judged.
    pub objects: usize,
    /// Operations in them.
    pub operations: usize,
    /// Configurations that the search went through.
    pub configurations: u64,
    /// One sentence or more for each object that no order explains.
    pub violations: Vec<String>,
    /// One sentence for each object that did not fit into the memory.
    pub undecided: Vec<String>,
}

impl Verdict {
    /// Whether everything was decided, in the store's favour.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

/// Judges a whole history.
pub fn judge(history: &History, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let objects = match objects::split(history) {
        Ok(objects) => objects,
        Err(why) => {
            verdict.violations.push(why);
            return verdict;
        }
    };
    for object in objects {
        verdict.objects += 1;
        verdict.operations += object.ops.len();
        let keys = name(&object.keys);
        let mut search = Search::new(object, rules);
        let end = search.run();
        verdict.configurations += search.configurations;
        match end {
            End::Explained => {}
            End::Impossible => {
                let told = search.tell(history);
                verdict.violations.push(format!(
                    "{keys}: no order explains what was answered\n{told}"
                ));
            }
            End::OutOfMemory => verdict.undecided.push(format!(
                "{keys}: could not decide: {} operations, {} configurations, {} MiB are used up",
                search.ops.len(),
                search.configurations,
                rules.memory_bytes_max >> 20
            )),
        }
    }
    verdict
}

fn name(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    match keys.len() {
        0 => "sessions alone".into(),
        n if n <= SHOWN => keys.join(", "),
        n => format!("{} and {} more", keys[..SHOWN].join(", "), n - SHOWN),
    }
}

enum End {
    Explained,
    Impossible,
    OutOfMemory,
}

/// Which operations are placed, and what that made of the object.
type Configuration = (Box<[u64]>, State);

/// An operation that was placed, and what was before.
struct Placed {
    op: usize,
    before: State,
    /// Nothing is gained by placing it elsewhere.
    forced: bool,
}

/// What to try next.
enum Next {
    /// An operation whose outcome is known, or the end of those that may come now.
    Event(usize),
    /// Those of unknown outcome, from this one on.
    Unsure(usize),
}

/// One event of the list: the call of an operation whose outcome is known, or its return.
#[derive(Clone, Copy, Debug)]
enum Event {
    Call(usize),
    Return(usize),
}

/// The search through one object.
struct Search {
    model: Model,
    ops: Vec<Op>,
    keys: Vec<String>,
    state: State,
    list: List,
    /// Operations of unknown outcome, by the time of their calls.
    unsure: Vec<usize>,
    placed: Vec<Placed>,
    bits: Box<[u64]>,
    tried: HashSet<Configuration>,
    configurations: u64,
    bytes: usize,
    bytes_max: usize,
    /// The most that was ever placed, for the report.
    farthest: Vec<usize>,
    /// The operation that had to be placed next then, and the state.
    stuck: Option<(usize, State)>,
}

impl Search {
    fn new(object: Object, rules: &Rules) -> Self {
        let mut unsure: Vec<usize> = (0..object.ops.len())
            .filter(|op| object.ops[*op].returned_ns.is_none())
            .collect();
        unsure.sort_by_key(|op| object.ops[*op].called_ns);
        Self {
            unsure,
            list: List::of(&object.ops),
            bits: vec![0; object.ops.len().div_ceil(64)].into(),
            model: Model {
                known: object.known,
                behavior: rules.behavior,
            },
            ops: object.ops,
            keys: object.keys,
            state: object.start,
            placed: Vec::new(),
            tried: HashSet::new(),
            configurations: 0,
            bytes: 0,
            bytes_max: rules.memory_bytes_max,
            farthest: Vec::new(),
            stuck: None,
        }
    }

    fn run(&mut self) -> End {
        let mut at = Next::Event(self.list.first());
        loop {
            if self.bytes > self.bytes_max {
                return End::OutOfMemory;
            }
            // Only operations are left that need never have taken place.
            if self.list.returns == 0 {
                return End::Explained;
            }
            at = match at {
                Next::Event(place) => match self.list.event(place) {
                    Event::Call(op) if self.place(op) => Next::Event(self.list.first()),
                    Event::Call(_) => Next::Event(self.list.after(place)),
                    Event::Return(op) => {
                        self.note(op);
                        Next::Unsure(0)
                    }
                },
                Next::Unsure(nth) => match self.unsure_from(nth) {
                    Some(nth) if self.place(self.unsure[nth]) => Next::Event(self.list.first()),
                    Some(nth) => Next::Unsure(nth + 1),
                    None => match self.go_back() {
                        Some(next) => next,
                        None => return End::Impossible,
                    },
                },
            }
        }
    }

    /// The next operation of unknown outcome that may be placed now: it was called before the
    /// first return that is still to come, and none that would do the same was called earlier.
    fn unsure_from(&self, nth: usize) -> Option<usize> {
        let before = self.list.first_return();
        let may = |nth: &usize| {
            let op = &self.ops[self.unsure[*nth]];
            !self.is_placed(self.unsure[*nth]) && op.twin.is_none_or(|twin| self.is_placed(twin))
        };
        (nth..self.unsure.len())
            .take_while(|nth| self.ops[self.unsure[*nth]].called_ns <= before)
            .find(may)
    }

    fn is_placed(&self, op: usize) -> bool {
        self.bits[op / 64] >> (op % 64) & 1 == 1
    }

    /// Places an operation if it fits and leads somewhere new.
    fn place(&mut self, op: usize) -> bool {
        let Some(next) = self.model.apply(&self.state, &self.ops[op]) else {
            return false;
        };
        let forced = self.ops[op].is_pure();
        self.flip(op);
        if !forced {
            let configuration = (self.bits.clone(), next.clone());
            if !self.tried.insert(configuration) {
                self.flip(op);
                return false;
            }
            self.bytes += self.bits.len() * 8 + next.rows.len() * 48 + next.sessions.len() + 96;
            self.configurations += 1;
        }
        self.list.lift(op);
        let before = std::mem::replace(&mut self.state, next);
        self.placed.push(Placed { op, before, forced });
        true
    }

    /// Takes back what was placed last and might be placed elsewhere; what to go on with.
    fn go_back(&mut self) -> Option<Next> {
        loop {
            let placed = self.placed.pop()?;
            self.flip(placed.op);
            self.list.unlift(placed.op);
            self.state = placed.before;
            if placed.forced {
                continue;
            }
            let nth = self.unsure.iter().position(|op| *op == placed.op);
            return Some(match nth {
                Some(nth) => Next::Unsure(nth + 1),
                None => Next::Event(self.list.after(self.list.calls[placed.op])),
            });
        }
    }

    fn flip(&mut self, op: usize) {
        self.bits[op / 64] ^= 1 << (op % 64);
    }

    fn note(&mut self, op: usize) {
        if self.stuck.is_none() || self.placed.len() > self.farthest.len() {
            self.farthest = self.placed.iter().map(|placed| placed.op).collect();
            self.stuck = Some((op, self.state.clone()));
        }
    }

    /// What the farthest attempt came to, for a person.
    fn tell(&self, history: &History) -> String {
        const SHOWN: usize = 12;
        let operation = |op: usize| {
            let source = self.ops[op].source;
            let seen = &history.operations[source];
            let (ended, answer) = match &seen.answer {
                Some((at, answer)) => (format!("{:.6}", *at as f64 / 1e9), format!("{answer:?}")),
                None => ("?".into(), "unknown".into()),
            };
            let began = seen.called_ns as f64 / 1e9;
            format!(
                "  #{source} client {} {began:.6}…{ended} s {:?} → {answer}\n",
                seen.client, seen.call
            )
        };
        let mut text = String::new();
        let Some((stuck, state)) = &self.stuck else {
            return text;
        };
        let skipped = self.farthest.len().saturating_sub(SHOWN);
        text += &format!(
            "at best {} of {} could be placed; the last of them:\n",
            self.farthest.len(),
            self.ops.len()
        );
        for op in &self.farthest[skipped..] {
            text += &operation(*op);
        }
        text += "then this had to be, and did not fit:\n";
        text += &operation(*stuck);
        for (key, row) in self.keys.iter().zip(&state.rows) {
            let touched = match self.ops[*stuck].act {
                Act::Read(at) => self.keys[at] == *key,
                _ => true,
            };
            if touched {
                let is = row.as_ref().map_or("missing".into(), |row| {
                    format!(
                        "index {} (0: not known), made at {}, lock index {}, holder number {}",
                        row.modify, row.create, row.lock_index, row.session
                    )
                });
                text += &format!("  {key} was: {is}\n");
            }
        }
        text
    }
}

/// Events in the order of time, from which operations can be lifted and put back in O(1).
struct List {
    events: Vec<Event>,
    times: Vec<u64>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Places of each operation's events.
    calls: Vec<usize>,
    ends: Vec<Option<usize>>,
    /// Returns in the list.
    returns: usize,
}

impl List {
    /// The head's place is behind all events; it closes the ring.
    fn of(ops: &[Op]) -> Self {
        let mut timed: Vec<(u64, bool, Event)> = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            if let Some(returned) = op.returned_ns {
                timed.push((op.called_ns, false, Event::Call(at)));
                timed.push((returned, true, Event::Return(at)));
            }
        }
        // At the same instant calls come first: they may overlap.
        timed.sort_by_key(|(time, is_return, _)| (*time, *is_return));
        let head = timed.len();
        let mut list = Self {
            next: (1..=head).chain([0]).collect(),
            previous: [head].into_iter().chain(0..head).collect(),
            calls: vec![0; ops.len()],
            ends: vec![None; ops.len()],
            returns: head / 2,
            times: timed.iter().map(|(time, ..)| *time).collect(),
            events: timed.into_iter().map(|(.., event)| event).collect(),
        };
        for (place, event) in list.events.iter().enumerate() {
            match *event {
                Event::Call(op) => list.calls[op] = place,
                Event::Return(op) => list.ends[op] = Some(place),
            }
        }
        list
    }

    fn first(&self) -> usize {
        self.next[self.events.len()]
    }

    /// There is always one while there are returns.
    fn event(&self, place: usize) -> Event {
        self.events[place]
    }

    fn after(&self, place: usize) -> usize {
        self.next[place]
    }

    /// When the first operation returns that is not placed.
    fn first_return(&self) -> u64 {
        let mut place = self.first();
        while let Some(Event::Call(_)) = self.events.get(place) {
            place = self.next[place];
        }
        self.times.get(place).copied().unwrap_or(u64::MAX)
    }

    /// Takes an operation's events out; one of unknown outcome has none.
    fn lift(&mut self, op: usize) {
        if let Some(end) = self.ends[op] {
            self.unlink(self.calls[op]);
            self.unlink(end);
            self.returns -= 1;
        }
    }

    /// Puts them back; operations come back in the opposite order.
    fn unlift(&mut self, op: usize) {
        if let Some(end) = self.ends[op] {
            self.link(end);
            self.link(self.calls[op]);
            self.returns += 1;
        }
    }

    fn unlink(&mut self, place: usize) {
        self.next[self.previous[place]] = self.next[place];
        self.previous[self.next[place]] = self.previous[place];
    }

    fn link(&mut self, place: usize) {
        self.next[self.previous[place]] = place;
        self.previous[self.next[place]] = place;
    }
}
