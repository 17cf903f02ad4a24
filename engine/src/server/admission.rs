//! How much may be under way at once?
//!
//! Requests and their bytes are counted per executor from the moment they are read until they
//! are answered. Beyond the bounds a request is refused at once, before it costs anything:
//! everything behind this door is therefore bounded too.

use std::{cell::Cell, rc::Rc};

/// Bounds of one executor.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Requests in flight.
    pub requests_max: usize,
    /// Bytes of requests in flight.
    pub bytes_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            requests_max: 16_384,
            bytes_max: 64 << 20,
        }
    }
}

#[derive(Debug)]
struct Counts {
    limits: AdmissionLimits,
    requests: Cell<usize>,
    bytes: Cell<usize>,
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
}

impl Admission {
    /// A door with these bounds.
    pub fn new(limits: AdmissionLimits) -> Self {
        let (requests, bytes, refused) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self(Rc::new(Counts {
            limits,
            requests,
            bytes,
            refused,
        }))
    }

    /// Lets a request of `bytes` in, or says which bound it would pass.
    pub fn enter(&self, bytes: usize) -> Result<Permit, &'static str> {
        let counts = &self.0;
        let full = if counts.requests.get() >= counts.limits.requests_max {
            Some("requests")
        } else if counts.bytes.get() + bytes > counts.limits.bytes_max {
            Some("request bytes")
        } else {
            None
        };
        if let Some(what) = full {
            counts.refused.set(counts.refused.get() + 1);
            return Err(what);
        }
        counts.requests.set(counts.requests.get() + 1);
        counts.bytes.set(counts.bytes.get() + bytes);
        Ok(Permit {
            counts: Rc::clone(counts),
            bytes,
        })
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.0.requests.get()
    }

    /// Requests refused since the start.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.requests.set(self.counts.requests.get() - 1);
        self.counts.bytes.set(self.counts.bytes.get() - self.bytes);
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
}
