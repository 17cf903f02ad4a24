//! How do all cores work on one proof?
//!
//! Each thread takes the next number (a seed, a range of bits, an operation) until there is none
//! or a promise is broken. What they counted is added up by proof. Should the engine itself panic,
//! the number is printed before the process ends.

use std::{
    cell::Cell,
    panic,
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use engine::log::proof::{Tally, Violation};
use indicatif::{ProgressBar, ProgressStyle};

/// What one proof has counted.
#[derive(Clone, Debug)]
pub struct Part {
    /// The proof.
    pub name: &'static str,
    /// Its counts.
    pub tally: Tally,
    /// Time of all threads in it.
    pub busy: Duration,
}

thread_local! {
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Threads at work, and what they have counted.
pub struct Crowd {
    threads: usize,
    bar: ProgressBar,
    parts: Mutex<Vec<Part>>,
    broken: Mutex<Option<(u64, Violation)>>,
    stop: AtomicBool,
}

impl Crowd {
    /// Nobody at work yet; the bar goes to `length` of `what`.
    pub fn new(threads: usize, length: u64, what: &'static str) -> Self {
        say_number_on_panic();
        let bar = ProgressBar::new(length);
        let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
        bar.set_message(what);
        Self {
            threads,
            bar,
            parts: Mutex::default(),
            broken: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Moves the bar.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    /// How far the bar is.
    pub fn position(&self) -> u64 {
        self.bar.position()
    }

    /// Does one proof and notes what it counted.
    ///
    /// # Errors
    /// The promise that it found broken.
    pub fn prove(
        &self,
        name: &'static str,
        proof: impl FnOnce() -> Result<Tally, Violation>,
    ) -> Result<Tally, Violation> {
        let began = Instant::now();
        let tally = proof()?;
        let busy = began.elapsed();
        let parts = &mut *self.parts.lock().expect("no thread panics while it adds");
        match parts.iter_mut().find(|part| part.name == name) {
            Some(part) => {
                part.tally += tally.clone();
                part.busy += busy;
            }
            None => parts.push(Part {
                name,
                tally: tally.clone(),
                busy,
            }),
        }
        Ok(tally)
    }

    /// Numbers from `first` on, until `step` says that there are no more (`false`).
    ///
    /// # Errors
    /// The first broken promise, and the number at which it was found.
    pub fn work(
        &self,
        first: u64,
        step: impl Fn(u64) -> Result<bool, Violation> + Sync,
    ) -> Result<(), (u64, Violation)> {
        let next = AtomicU64::new(first);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while !self.stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        NUMBER.set(Some(number));
                        match step(number) {
                            Ok(true) => {}
                            Ok(false) => return,
                            Err(violation) => {
                                self.stop.store(true, Ordering::Relaxed);
                                let broken = &mut *self.broken.lock().expect("set once or twice");
                                broken.get_or_insert((number, violation));
                            }
                        }
                    }
                });
            }
        });
        match self.broken.lock().expect("all threads ended").take() {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    /// What was counted, by proof.
    pub fn finish(self) -> Vec<Part> {
        self.bar.finish_and_clear();
        let mut parts = self.parts.into_inner().expect("all threads ended");
        parts.sort_by_key(|part| part.name);
        parts
    }
}

fn say_number_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(number) = NUMBER.get() {
                eprintln!("at seed, range or operation {number}:");
            }
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_worked_on_once_and_counts_add_up() {
        let crowd = Crowd::new(3, 100, "numbers");
        let worked = crowd.work(5, |number| {
            if number >= 105 {
                return Ok(false);
            }
            crowd.prove("sum", || {
                let mut tally = Tally::default();
                tally.add("of numbers", number);
                Ok(tally)
            })?;
            crowd.advance(1);
            Ok(true)
        });
        assert_eq!(worked, Ok(()));
        assert_eq!(crowd.position(), 100);
        assert_eq!(
            crowd.finish()[0].tally.get("of numbers"),
            (5..105u64).sum::<u64>()
        );
    }

    #[test]
    fn a_broken_promise_ends_the_work_and_names_its_number() {
        let crowd = Crowd::new(2, 100, "numbers");
        let worked = crowd.work(0, |number| match number {
            20 => Err(Violation {
                at: "20".into(),
                what: "wrong".into(),
            }),
            _ => Ok(number < 1000),
        });
        assert_eq!(worked.unwrap_err().0, 20);
    }
}
