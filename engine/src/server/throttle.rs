//! How does a storm not drown the log?
//!
//! What anyone on the network can cause any number of times is said once in a while, and the next
//! time with how often it was not.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Decides what is said of one kind of event.
#[derive(Debug)]
pub struct Throttle {
    pause: Duration,
    said_at: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Throttle {
    /// At most one line in `pause`.
    pub fn new(pause: Duration) -> Self {
        Self {
            pause,
            said_at: Cell::new(None),
            left_out: Cell::new(0),
        }
    }

    /// One for each of `names`.
    pub fn for_each(names: &[String], pause: Duration) -> Vec<Self> {
        names.iter().map(|_| Self::new(pause)).collect()
    }

    /// It happened `now`. Whether it is to be said, and if so, how often it was not since the last time.
    pub fn speak(&self, now: Instant) -> Option<u64> {
        let said_at = self.said_at.get();
        if said_at.is_some_and(|at| now.saturating_duration_since(at) < self.pause) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.said_at.set(Some(now));
        Some(self.left_out.take())
    }
}

/// What to put behind a line before which `left_out` others were left out.
pub fn left_out(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        others => format!(" ({others} more like it were not logged)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_while_and_the_next_counts_the_others() {
        let throttle = Throttle::new(Duration::from_secs(1));
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(throttle.speak(at(0)), Some(0));
        for ms in 0..999 {
            assert_eq!(throttle.speak(at(ms)), None);
        }
        assert_eq!(throttle.speak(at(1000)), Some(999));
        assert_eq!(throttle.speak(at(1999)), None);
        assert_eq!(throttle.speak(at(5000)), Some(1));
        assert_eq!(throttle.speak(at(7000)), Some(0));
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(left_out(0), "");
        assert!(left_out(25_999).contains("25999 more"));
    }
}
