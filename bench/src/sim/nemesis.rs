//! Who does harm, when, and to whom?
//!
//! From time to time one of the plan's faults strikes, and after a while it relents. How many
//! servers are down or cut off at a time is left to chance: a cluster without a majority must be
//! safe too. What is never allowed is to destroy all good copies of something: see
//! [`atlas`](super::atlas).

use std::collections::BTreeMap;

use engine::{io::mem::Fault as DiskFault, shard::Event};

use super::{
    draw::Draw,
    plan::{Fault, MS, Plan},
    world::{Happening, World},
};

/// What ends when a fault relents.
enum Relief {
    /// These links are open again.
    Links(Vec<(usize, usize)>),
    /// A link that flaps is turned over, so many times more.
    Flap(Vec<(usize, usize)>, u32, bool),
    /// A disk has space again.
    Space(usize),
}

/// Who does harm.
pub struct Nemesis {
    pub(super) draw: Draw,
    kinds: Vec<Fault>,
    reliefs: BTreeMap<u64, Relief>,
    next: u64,
    /// How often it struck.
    pub strikes: u64,
}

impl Nemesis {
    /// As the plan has it.
    pub fn new(plan: &Plan) -> Self {
        let kinds = Fault::EVENTS.into_iter();
        Self {
            draw: Draw::new(plan.seed, 6),
            kinds: kinds.filter(|fault| plan.has(*fault)).collect(),
            reliefs: BTreeMap::new(),
            next: 0,
            strikes: 0,
        }
    }

    /// Whether a server stands still in the middle of this turn, and for how long, ns.
    pub fn pause_within_turn(&mut self, plan: &Plan) -> Option<u64> {
        let pauses = plan.has(Fault::Pause) && self.draw.below(2000) == 0;
        if pauses {
            self.strikes += 1;
        }
        pauses.then(|| self.draw.spread(MS, 1000 * MS))
    }
}

/// All links between two groups, one way.
fn links(from: &[usize], to: &[usize]) -> Vec<(usize, usize)> {
    let links = from.iter().flat_map(|a| to.iter().map(|b| (*a, *b)));
    links.filter(|(a, b)| a != b).collect()
}

fn both_ways(a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    [links(a, b), links(b, a)].concat()
}

impl World {
    /// The nemesis strikes, and will again.
    pub(super) fn strike(&mut self) {
        if self.calm {
            return;
        }
        let draw = &mut self.nemesis.draw;
        let next_ns = draw.within(self.plan.strike_ns / 4, 2 * self.plan.strike_ns);
        self.queue.at(self.now_ns + next_ns, Happening::Strike);
        if self.nemesis.kinds.is_empty() {
            return;
        }
        let draw = &mut self.nemesis.draw;
        let kind = *draw.pick(&self.nemesis.kinds);
        let at = draw.below(self.servers.len() as u64) as usize;
        let for_ns = draw.spread(4 * MS, 600 * MS);
        self.digest.mix((kind as u64) << 8 | at as u64);
        self.nemesis.strikes += 1;
        self.tell(|| format!("{kind:?} strikes server {at} for {} ms", for_ns / MS));
        match kind {
            Fault::Crash if self.servers[at].core.is_some() => self.crash(at, for_ns),
            Fault::Blackout => self.black_out(for_ns),
            Fault::Restart => self.restart(at),
            Fault::Pause => {
                let until = self.now_ns + for_ns;
                let paused = &mut self.servers[at].paused_until_ns;
                *paused = until.max(*paused);
            }
            Fault::ClockJump => {
                let by_ns = self.nemesis.draw.spread(MS, 10_000_000 * MS);
                self.servers[at].jump(by_ns);
            }
            Fault::StalledDisk => {
                let until = self.now_ns + 2 * for_ns;
                self.servers[at].stalled_until_ns = until;
            }
            Fault::FullDisk => self.fill(at, for_ns),
            Fault::FailedWrite | Fault::FailedImage => self.fail_disk(at, kind),
            Fault::Corrupt | Fault::LostWrite | Fault::Misdirected => self.damage(at, kind),
            _ => self.cut_links(kind, at, for_ns),
        }
    }

    /// What was done at a strike is over.
    pub(super) fn relent(&mut self, no: u64) {
        match self.nemesis.reliefs.remove(&no) {
            _ if self.calm => {}
            Some(Relief::Links(links)) => self.network.cut(&links, false),
            Some(Relief::Flap(links, left, cut)) => {
                self.network.cut(&links, cut);
                if left > 0 || cut {
                    let pause_ns = self.nemesis.draw.spread(MS, 64 * MS);
                    let more = Relief::Flap(links, left.saturating_sub(1), !cut);
                    self.relieve(pause_ns, more);
                }
            }
            Some(Relief::Space(at)) => {
                self.servers[at].log_disk.set_capacity(None);
                self.servers[at].is_full = false;
            }
            None => {}
        }
    }

    fn relieve(&mut self, after_ns: u64, relief: Relief) {
        self.nemesis.next += 1;
        let no = self.nemesis.next;
        self.nemesis.reliefs.insert(no, relief);
        self.queue.at(self.now_ns + after_ns, Happening::Relent(no));
    }

    fn cut_links(&mut self, kind: Fault, at: usize, for_ns: u64) {
        let count = self.servers.len();
        if count < 2 {
            return;
        }
        let draw = &mut self.nemesis.draw;
        let others: Vec<usize> = (0..count).filter(|other| *other != at).collect();
        let other = [*draw.pick(&others)];
        let mut shuffled = others.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, draw.below(i as u64 + 1) as usize);
        }
        let half = draw.below(shuffled.len() as u64 + 1) as usize;
        let (left, right) = shuffled.split_at(half);
        let at = [at];
        let cut = match kind {
            Fault::Isolate => both_ways(&at, &others),
            Fault::Split => both_ways(&[&at, left].concat(), right),
            Fault::OneWay | Fault::Flapping => links(&at, &other),
            Fault::Deaf => links(&others, &at),
            Fault::Mute => links(&at, &others),
            Fault::Bridge => both_ways(left, right),
            _ => return,
        };
        self.network.cut(&cut, true);
        let relief = match kind {
            Fault::Flapping => Relief::Flap(cut, draw.within(2, 20) as u32, false),
            _ => Relief::Links(cut),
        };
        self.relieve(for_ns, relief);
    }

    fn black_out(&mut self, for_ns: u64) {
        for at in 0..self.servers.len() {
            if self.servers[at].core.is_some() {
                let more_ns = self.nemesis.draw.below(100 * MS);
                self.crash(at, for_ns + more_ns);
            }
        }
    }

    fn restart(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if server.core.is_some() && !server.stopping {
            server.stopping = true;
            self.post(at, Event::Shutdown);
        }
    }

    /// The files may grow by so much and no more.
    fn fill(&mut self, at: usize, for_ns: u64) {
        use engine::io::Disk;
        let disk = &self.servers[at].log_disk;
        let Ok(files) = disk.list() else { return };
        let used: u64 = files.iter().map(|file| file.1).sum();
        let more = self.nemesis.draw.below(2 * self.plan.limits.segment_bytes);
        disk.set_capacity(Some(used + more));
        self.servers[at].is_full = true;
        self.relieve(2 * for_ns, Relief::Space(at));
    }

    /// One of the next operations fails. Of the log: the server stops, once it was a write.
    fn fail_disk(&mut self, at: usize, kind: Fault) {
        let draw = &mut self.nemesis.draw;
        let nth = draw.spread(1, 32);
        let fault = match draw.below(3) {
            0 => DiskFault::Short,
            1 => DiskFault::Errno(libc::ENOSPC),
            _ => DiskFault::Errno(libc::EIO),
        };
        let server = &mut self.servers[at];
        if server.core.is_none() {
            return;
        }
        server.faults_due += 1;
        match kind {
            Fault::FailedImage => server.image_disk.fail_at(nth, fault),
            _ => server.log_disk.fail_at(nth, fault),
        }
    }
}
