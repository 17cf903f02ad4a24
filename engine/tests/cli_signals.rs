//! Signals become a readable descriptor, in a process whose every thread has them blocked.
//!
//! Its own program, without the test harness: the harness has started threads before a test runs.

use std::{fs::File, io::Read, thread};

use engine::cli::signals::SignalFd;

fn main() {
    let signals = SignalFd::new().unwrap();
    let mut reader = File::from(signals.reader().unwrap());
    assert_eq!(signals.last(), None);
    // Threads started later must not be the ones that die of it.
    let others: Vec<_> = (0..4).map(|_| thread::spawn(thread::park)).collect();
    let mut hangups = File::from(signals.hangups().unwrap());
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGTERM] {
        // A hang-up ends nothing: it must not be what the reader gets.
        // SAFETY: as below.
        assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGHUP) }, 0);
        // SAFETY: sends a signal to this process, which has it blocked and waits for it.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
        // It has a descriptor of its own, which never blocks.
        let mut hung_up = [0; 8];
        while hangups.read_exact(&mut hung_up).is_err() {
            thread::yield_now();
        }
        assert_eq!(u64::from_ne_bytes(hung_up), 1);
        assert!(hangups.read(&mut [0; 8]).is_err(), "taken once");
        let mut count = [0; 8];
        reader.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert_eq!(signals.last(), Some(signal));
    }
    for other in others {
        other.thread().unpark();
        other.join().unwrap();
    }
    println!("signals: ok");
}
