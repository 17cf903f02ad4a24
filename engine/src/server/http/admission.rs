//! Is there room for one more request?
//!
//! Two counters per executor: requests in flight and bytes of their bodies. A request is admitted
//! before its body is read and gives back what it took when its answer has been handed to the
//! socket, however it ends.

use std::{cell::Cell, rc::Rc};

use super::{failure::Refusal, limits::HttpLimits};

/// What one executor's HTTP service has done and is doing.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) connections: Cell<usize>,
    pub(super) connections_refused: Cell<u64>,
    pub(super) requests: Cell<usize>,
    /// Blocking queries, which are not among `requests`.
    pub(super) waiters: Cell<usize>,
    /// Watches, which are among neither.
    pub(super) watchers: Cell<usize>,
    pub(super) requests_total: Cell<u64>,
    pub(super) requests_refused: Cell<u64>,
    pub(super) body_bytes: Cell<usize>,
    pub(super) late: Cell<u64>,
}

/// An admitted request; dropping it makes room again.
#[derive(Debug)]
pub(super) struct Admitted {
    load: Rc<Load>,
    body_bytes: usize,
    kind: Kind,
}

/// What a request is counted as.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Waiter,
    Watcher,
}

impl Load {
    fn of(&self, kind: Kind) -> &Cell<usize> {
        match kind {
            Kind::Request => &self.requests,
            Kind::Waiter => &self.waiters,
            Kind::Watcher => &self.watchers,
        }
    }
}

impl Admitted {
    /// Admits a request whose body will not be larger than `body_bytes`.
    pub(super) fn new(
        load: &Rc<Load>,
        limits: &HttpLimits,
        body_bytes: usize,
    ) -> Result<Self, Refusal> {
        load.requests_total.set(load.requests_total.get() + 1);
        let full = if load.requests.get() >= limits.requests_max {
            Some(
                "Too many requests in flight on this server, try again later or against a different server",
            )
        } else if body_bytes > 0
            && load.body_bytes.get() + body_bytes > limits.body_bytes_in_flight_max
        {
            Some(
                "Too many bytes in flight on this server, try again later or against a different server",
            )
        } else {
            None
        };
        if let Some(text) = full {
            load.requests_refused.set(load.requests_refused.get() + 1);
            return Err(Refusal::busy(text));
        }
        load.requests.set(load.requests.get() + 1);
        load.body_bytes.set(load.body_bytes.get() + body_bytes);
        Ok(Self {
            load: load.clone(),
            body_bytes,
            kind: Kind::Request,
        })
    }

    /// Admits a blocking query.
    pub(super) fn waiting(load: &Rc<Load>, limits: &HttpLimits) -> Result<Self, Refusal> {
        let full = "Too many blocking queries on this server, try again later or against a different server";
        Self::long(load, Kind::Waiter, limits.waiters_max, full)
    }

    /// Admits a watch.
    pub(super) fn watching(load: &Rc<Load>, limits: &HttpLimits) -> Result<Self, Refusal> {
        let full = "Too many watches on this server, try again later or against a different server";
        Self::long(load, Kind::Watcher, limits.watchers_max, full)
    }

    fn long(load: &Rc<Load>, kind: Kind, max: usize, full: &'static str) -> Result<Self, Refusal> {
        load.requests_total.set(load.requests_total.get() + 1);
        let count = load.of(kind);
        if count.get() >= max {
            load.requests_refused.set(load.requests_refused.get() + 1);
            return Err(Refusal::busy(full));
        }
        count.set(count.get() + 1);
        Ok(Self {
            load: load.clone(),
            body_bytes: 0,
            kind,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let count = self.load.of(self.kind);
        count.set(count.get() - 1);
        self.load
            .body_bytes
            .set(self.load.body_bytes.get() - self.body_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_max_and_body_bytes_in_flight_max_are_reached_and_given_back() {
        let load = Rc::new(Load::default());
        let limits = HttpLimits {
            requests_max: 2,
            body_bytes_in_flight_max: 100,
            ..HttpLimits::default()
        };
        let first = Admitted::new(&load, &limits, 60).unwrap();
        let bytes = Admitted::new(&load, &limits, 41).unwrap_err();
        assert!(bytes.text.contains("bytes in flight"), "{}", bytes.text);
        let second = Admitted::new(&load, &limits, 40).unwrap();
        let requests = Admitted::new(&load, &limits, 0).unwrap_err();
        assert!(
            requests.text.contains("requests in flight"),
            "{}",
            requests.text
        );
        assert_eq!(requests.retry_after_s, Some(1));
        drop((first, second));
        assert_eq!((load.requests.get(), load.body_bytes.get()), (0, 0));
        assert_eq!(
            (load.requests_total.get(), load.requests_refused.get()),
            (4, 2)
        );
    }

    #[test]
    fn waiters_max_is_reached_beside_requests_max() {
        let load = Rc::new(Load::default());
        let limits = HttpLimits {
            requests_max: 1,
            waiters_max: 2,
            ..HttpLimits::default()
        };
        let waiters = [(); 2].map(|()| Admitted::waiting(&load, &limits).unwrap());
        let refused = Admitted::waiting(&load, &limits).unwrap_err();
        assert!(
            refused.text.contains("blocking queries"),
            "{}",
            refused.text
        );
        let other = Admitted::new(&load, &limits, 0).unwrap();
        drop((waiters, other));
        assert_eq!((load.waiters.get(), load.requests.get()), (0, 0));
    }
}
