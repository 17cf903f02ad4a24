//! Who reads along while the log is written?
//!
//! Clients of `/v1/agent/monitor`. Whoever writes a line hands it to each that wants its level, and
//! never waits for one: a [`Monitor`] has room for [`LINES_MAX`] lines and [`BYTES_MAX`] bytes that
//! it has not taken. What finds no room is dropped, and so is all that follows, until it takes what
//! there is; where the gap lies it is told how many lines are missing.
//!
//! ```text
//! any thread ─ tell ─► room of each monitor ─ eventfd, if the room was empty ─► its executor: next
//! ```
//!
//! The list of monitors is behind a lock, which a line takes only while there are any: it is not
//! on the data path. A monitor may want finer lines than standard output gets; then they are made
//! while it reads along, and only it gets them.
//!
//! Invariant: what a monitor takes is a run of lines without a gap, or names the gap at its end.

mod line;

use std::{
    io, mem,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use log::{Level, LevelFilter, Record};

use super::reactor;
use crate::io::{Interest, Readiness, event::Event};
pub use line::{Form, line, parse_level};

/// Lines that wait for a monitor at most. Consul's buffer: 512.
pub const LINES_MAX: usize = 512;

/// Bytes of such lines at most.
pub const BYTES_MAX: usize = 256 * 1024;

/// Those who read along.
struct Hub {
    /// The finest level of standard output.
    own: LevelFilter,
    monitors: Vec<Weak<Room>>,
}

static HUB: Mutex<Hub> = Mutex::new(Hub {
    own: LevelFilter::Off,
    monitors: Vec::new(),
});

/// [`Hub::own`], as every line looks at it.
static OWN: AtomicUsize = AtomicUsize::new(LevelFilter::Off as usize);

/// Whether there is a monitor.
static ANY: AtomicBool = AtomicBool::new(false);

fn hub() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Has lines made as fine as anyone wants them.
    fn settle(&mut self) {
        self.monitors.retain(|room| room.strong_count() > 0);
        let monitors = self.monitors.iter().filter_map(Weak::upgrade);
        let finest = monitors.map(|room| room.level).max();
        ANY.store(finest.is_some(), Ordering::Release);
        OWN.store(self.own as usize, Ordering::Release);
        log::set_max_level(finest.map_or(self.own, |level| level.max(self.own)));
    }
}

/// Lines of this level and coarser go to standard output from now on.
pub fn set_level(level: LevelFilter) {
    let mut hub = hub();
    hub.own = level;
    hub.settle();
}

/// Whether a line of this level goes to standard output.
pub fn is_own(level: Level) -> bool {
    level as usize <= OWN.load(Ordering::Acquire)
}

/// Hands a record to all who read along.
pub fn tell(record: &Record<'_>, now: SystemTime) {
    if !ANY.load(Ordering::Acquire) {
        return;
    }
    let (mut text, mut json) = (None, None);
    for room in hub().monitors.iter().filter_map(Weak::upgrade) {
        if record.level() > room.level {
            continue;
        }
        let made = match room.form {
            Form::Text => &mut text,
            Form::Json => &mut json,
        };
        let made = made.get_or_insert_with(|| Bytes::from(line(room.form, record, now)));
        room.push(made.clone());
    }
}

/// What waits for a monitor.
struct Room {
    level: LevelFilter,
    form: Form,
    waiting: Mutex<Waiting>,
    bell: Event,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Bytes>,
    bytes: usize,
    dropped: u64,
}

impl Waiting {
    /// Whether this is the first that waits.
    fn push(&mut self, line: Bytes) -> bool {
        let full = self.lines.len() >= LINES_MAX || self.bytes + line.len() > BYTES_MAX;
        // What follows a gap must not look as if it followed what lies before it.
        if full || self.dropped > 0 {
            self.dropped += 1;
            return self.lines.is_empty() && self.dropped == 1;
        }
        self.bytes += line.len();
        self.lines.push(line);
        self.lines.len() == 1
    }
}

impl Room {
    fn push(&self, line: Bytes) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.push(line) {
            self.bell.ring();
        }
    }

    fn take(&self) -> Waiting {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One who reads along. Dropped, it is forgotten.
pub struct Monitor {
    room: Option<Arc<Room>>,
    readable: Readiness,
}

impl Monitor {
    /// Reads along from now on, on this executor.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(level: LevelFilter, form: Form) -> io::Result<Self> {
        let readable = Readiness::new(reactor::ring()?, Interest::Read);
        let room = Arc::new(Room {
            level,
            form,
            waiting: Mutex::default(),
            bell: Event::new()?,
        });
        let mut hub = hub();
        hub.monitors.push(Arc::downgrade(&room));
        hub.settle();
        Ok(Self {
            room: Some(room),
            readable,
        })
    }

    /// Waits for lines; all that there are.
    pub async fn next(&mut self) -> Bytes {
        loop {
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            if let Some(room) = &self.room {
                self.readable.ready(room.bell.as_raw_fd()).await;
                room.bell.silence();
            }
        }
    }

    /// All that there are now, and how many are missing behind them.
    pub fn take(&self) -> Bytes {
        let Some(room) = &self.room else {
            return Bytes::new();
        };
        let Waiting { lines, dropped, .. } = room.take();
        let mut taken = lines.concat();
        if dropped > 0 {
            taken.extend_from_slice(gap(room.form, dropped).as_bytes());
        }
        taken.into()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Before the others are looked at.
        self.room = None;
        hub().settle();
    }
}

/// What a monitor is told of lines that it does not get.
fn gap(form: Form, dropped: u64) -> String {
    let text = format!(
        "lines were dropped here, since this client takes them too slowly: dropped_count={dropped}"
    );
    line(
        form,
        &Record::builder()
            .level(Level::Warn)
            .target("agent.monitor")
            .args(format_args!("{text}"))
            .build(),
        SystemTime::now(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(lines: std::ops::Range<usize>) -> Waiting {
        let mut waiting = Waiting::default();
        for line in lines {
            waiting.push(Bytes::from(format!("{line}\n")));
        }
        waiting
    }

    #[test]
    fn lines_max_is_reached_and_the_rest_counted() {
        let full = numbered(0..LINES_MAX);
        assert_eq!((full.lines.len(), full.dropped), (LINES_MAX, 0));
        let over = numbered(0..LINES_MAX + 7);
        assert_eq!((over.lines.len(), over.dropped), (LINES_MAX, 7));
        assert_eq!(over.lines[LINES_MAX - 1], format!("{}\n", LINES_MAX - 1));
    }

    #[test]
    fn bytes_max_is_reached_and_nothing_slips_past_a_gap() {
        let mut waiting = Waiting::default();
        assert!(waiting.push(vec![b'a'; BYTES_MAX - 1].into()), "the first");
        assert!(!waiting.push(vec![b'b'; 2].into()));
        // It would fit.
        assert!(!waiting.push(vec![b'c'; 1].into()));
        assert_eq!((waiting.lines.len(), waiting.dropped), (1, 2));
    }

    #[test]
    fn a_line_longer_than_the_room_wakes_its_reader_all_the_same() {
        let mut waiting = Waiting::default();
        assert!(waiting.push(vec![b'a'; BYTES_MAX + 1].into()));
        assert_eq!((waiting.lines.len(), waiting.dropped), (0, 1));
    }

    #[test]
    fn a_gap_says_how_many() {
        let text = gap(Form::Text, 3);
        assert!(text.contains("[WARN]  agent.monitor: "), "{text}");
        assert!(text.ends_with("dropped_count=3\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&gap(Form::Json, 3)).unwrap();
        assert_eq!(json["@level"], "warn");
    }
}
