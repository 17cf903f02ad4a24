//! Which clients are too slow?
//!
//! All connections of an executor are looked at once a tick by one task, which runs only while
//! there are connections. Time is counted in ticks, so that entering a phase costs a store and
//! not a system call.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use ahash::AHashMap;

use super::{
    admission::Load,
    limits::HttpLimits,
    link::{Link, Phase, Tick},
};

/// The open connections of one executor.
pub(super) struct Links {
    clock: Rc<Cell<Tick>>,
    open: RefCell<AHashMap<u64, Rc<Link>>>,
    next: Cell<u64>,
    sweeping: Cell<bool>,
    load: Rc<Load>,
    deadlines: Deadlines,
    /// Refused connections that are still being told so come on top of the admitted ones.
    open_max: usize,
}

/// The limits' timeouts, in ticks.
struct Deadlines {
    tick: Duration,
    header: Tick,
    body: Tick,
    write: Tick,
    idle: Tick,
    linger: Tick,
}

/// A connection's place among the open ones; dropping it gives it up.
pub(super) struct Registered {
    links: Rc<Links>,
    id: u64,
}

impl Links {
    pub(super) fn new(limits: &HttpLimits, load: Rc<Load>) -> Rc<Self> {
        let tick = limits.tick();
        // One more, since a phase begins somewhere within a tick.
        let ticks = |timeout: Duration| (timeout.as_nanos().div_ceil(tick.as_nanos()) as Tick) + 1;
        Rc::new(Self {
            clock: Rc::new(Cell::new(0)),
            open: RefCell::new(AHashMap::new()),
            next: Cell::new(0),
            sweeping: Cell::new(false),
            load,
            deadlines: Deadlines {
                tick,
                header: ticks(limits.header_timeout),
                body: ticks(limits.body_timeout),
                write: ticks(limits.write_timeout),
                idle: ticks(limits.idle_timeout),
                linger: ticks(limits.linger_timeout),
            },
            open_max: limits.connections_max + limits.connections_max / 16 + 16,
        })
    }

    pub(super) fn clock(&self) -> Rc<Cell<Tick>> {
        self.clock.clone()
    }

    /// Watches over a connection; `None` when there are too many even to be refused politely.
    pub(super) fn register(self: &Rc<Self>, link: &Rc<Link>) -> Option<Registered> {
        if self.open.borrow().len() >= self.open_max {
            let refused = &self.load.connections_refused;
            refused.set(refused.get() + 1);
            return None;
        }
        let id = self.next.get();
        self.next.set(id + 1);
        self.open.borrow_mut().insert(id, link.clone());
        self.load.connections.set(self.load.connections.get() + 1);
        if !self.sweeping.replace(true) {
            let links = self.clone();
            glommio::spawn_local(async move {
                loop {
                    glommio::timer::sleep(links.deadlines.tick).await;
                    if !links.sweep() {
                        break links.sweeping.set(false);
                    }
                }
            })
            .detach();
        }
        Some(Registered {
            links: self.clone(),
            id,
        })
    }

    /// Advances the clock and cuts off who is late; returns whether anyone is left to watch.
    fn sweep(&self) -> bool {
        let now = self.clock.get() + 1;
        self.clock.set(now);
        for link in self.open.borrow().values() {
            self.check(link, now);
        }
        !self.open.borrow().is_empty()
    }

    fn check(&self, link: &Link, now: Tick) {
        let late = |since: Tick, allowed: Tick| now - since > allowed;
        if link
            .write_blocked_since()
            .is_some_and(|since| late(since, self.deadlines.write))
        {
            self.count_late();
            return link.cut();
        }
        let allowed = match link.phase() {
            Phase::Serving => return,
            Phase::Linger => {
                if late(link.since(), self.deadlines.linger) {
                    link.cut();
                }
                return;
            }
            Phase::Idle => self.deadlines.idle,
            Phase::Header => self.deadlines.header,
            Phase::Body => self.deadlines.body,
        };
        if late(link.since(), allowed) && link.late_in().is_none() {
            if link.phase() != Phase::Idle {
                self.count_late();
            }
            link.cut_reading();
        }
    }

    fn count_late(&self) {
        self.load.late.set(self.load.late.get() + 1);
    }

    /// Ends the connections that have no request.
    pub(super) fn cut_idle(&self) {
        for link in self.open.borrow().values() {
            if link.phase() == Phase::Idle {
                link.cut_reading();
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.links.open.borrow_mut().remove(&self.id);
        self.links
            .load
            .connections
            .set(self.links.load.connections.get() - 1);
    }
}
