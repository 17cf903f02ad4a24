//! How much may be under way at once?
//!
//! Requests and their bytes are counted per executor from the moment they are read until they
//! are answered. Beyond the bounds a request is refused at once, before it costs anything:
//! everything behind this door is therefore bounded too. Blocking queries, which do nothing but
//! wait, are counted by themselves: however many wait, other requests are let in.

use std::{cell::Cell, rc::Rc};

/// Bounds of one executor.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Requests in flight.
    pub requests_max: usize,
    /// Bytes of requests in flight.
    pub bytes_max: usize,
    /// Blocking queries that wait.
    pub waiters_max: usize,
    /// Bytes of blocking queries that wait.
    pub waiter_bytes_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            requests_max: 16_384,
            bytes_max: 64 << 20,
            waiters_max: 131_072,
            waiter_bytes_max: 64 << 20,
        }
    }
}

/// Requests of one sort that are inside.
#[derive(Debug)]
struct Count {
    requests_max: usize,
    bytes_max: usize,
    requests: Cell<usize>,
    bytes: Cell<usize>,
}

#[derive(Debug)]
struct Counts {
    passing: Count,
    waiting: Count,
    refused: Cell<u64>,
}

/// The door of one executor.
#[derive(Clone, Debug)]
pub struct Admission(Rc<Counts>);

/// A place inside; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    counts: Rc<Counts>,
    bytes: usize,
    waits: bool,
}

impl Count {
    fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            requests_max,
            bytes_max,
            requests: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    /// Which bound one more request of `bytes` would pass.
    fn full(&self, bytes: usize) -> Option<Bound> {
        if self.requests.get() >= self.requests_max {
            Some(Bound::Requests)
        } else if self.bytes.get() + bytes > self.bytes_max {
            Some(Bound::Bytes)
        } else {
            None
        }
    }

    fn add(&self, bytes: usize) {
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn remove(&self, bytes: usize) {
        self.requests.set(self.requests.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
    }
}

enum Bound {
    Requests,
    Bytes,
}

impl Counts {
    fn count(&self, waits: bool) -> &Count {
        match waits {
            true => &self.waiting,
            false => &self.passing,
        }
    }

    fn check(&self, bytes: usize, waits: bool) -> Result<(), &'static str> {
        let Some(bound) = self.count(waits).full(bytes) else {
            return Ok(());
        };
        self.refused.set(self.refused.get() + 1);
        Err(match (waits, bound) {
            (false, Bound::Requests) => "requests",
            (false, Bound::Bytes) => "request bytes",
            (true, Bound::Requests) => "blocking queries",
            (true, Bound::Bytes) => "bytes of blocking queries",
        })
    }
}

impl Admission {
    /// A door with these bounds.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self(Rc::new(Counts {
            passing: Count::new(limits.requests_max, limits.bytes_max),
            waiting: Count::new(limits.waiters_max, limits.waiter_bytes_max),
            refused: Cell::new(0),
        }))
    }

    /// Lets a request of `bytes` in, or says which bound it would pass.
    pub fn enter(&self, bytes: usize) -> Result<Permit, &'static str> {
        self.0.check(bytes, false)?;
        self.0.passing.add(bytes);
        Ok(Permit {
            counts: Rc::clone(&self.0),
            bytes,
            waits: false,
        })
    }

    /// Requests in flight, without those that wait for a change.
    pub fn requests(&self) -> usize {
        self.0.passing.requests.get()
    }

    /// Blocking queries.
    pub fn waiters(&self) -> usize {
        self.0.waiting.requests.get()
    }

    /// Requests refused since the start.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }
}

impl Permit {
    /// Counts a request that turned out to be a blocking query among those that wait, or says
    /// which bound it would pass.
    pub fn waits(mut self) -> Result<Self, &'static str> {
        self.counts.check(self.bytes, true)?;
        self.counts.passing.remove(self.bytes);
        self.counts.waiting.add(self.bytes);
        self.waits = true;
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.count(self.waits).remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_refuse_and_make_room_again() {
        let door = Admission::new(AdmissionLimits {
            requests_max: 2,
            bytes_max: 100,
            ..AdmissionLimits::default()
        });
        let first = door.enter(60).unwrap();
        assert_eq!(door.enter(41).unwrap_err(), "request bytes");
        let second = door.enter(40).unwrap();
        assert_eq!(door.enter(0).unwrap_err(), "requests");
        drop(first);
        let third = door.enter(60).unwrap();
        assert_eq!(door.refused(), 2);
        drop((second, third));
        assert_eq!(door.requests(), 0);
    }

    #[test]
    fn waiters_max_and_waiter_bytes_max_leave_other_requests_alone() {
        let door = Admission::new(AdmissionLimits {
            requests_max: 1,
            bytes_max: 100,
            waiters_max: 2,
            waiter_bytes_max: 100,
        });
        let first = door.enter(60).unwrap().waits().unwrap();
        let refused = door.enter(41).unwrap().waits().unwrap_err();
        assert_eq!(refused, "bytes of blocking queries");
        let second = door.enter(40).unwrap().waits().unwrap();
        let refused = door.enter(0).unwrap().waits().unwrap_err();
        assert_eq!(refused, "blocking queries");
        assert_eq!((door.requests(), door.waiters(), door.refused()), (0, 2, 2));
        let passing = door.enter(100).unwrap();
        assert_eq!(door.enter(0).unwrap_err(), "requests");
        drop((first, second, passing));
        assert_eq!((door.requests(), door.waiters()), (0, 0));
    }
}
