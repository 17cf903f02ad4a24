//! The ring on real files: every write path, more files than slots, errors, and its end.

use std::{io::Read, path::Path};

use super::*;
use crate::io::{Dir, SectorKey, prepare_segment, ring::SUBMISSIONS};

const ALL_PATHS: [WritePath; 4] = [
    WritePath {
        direct: true,
        dsync: true,
    },
    WritePath {
        direct: true,
        dsync: false,
    },
    WritePath {
        direct: false,
        dsync: true,
    },
    WritePath {
        direct: false,
        dsync: false,
    },
];

fn prepare(place: &Path, no: u64, recycle: Option<u64>) {
    let dir = Dir::open(place).unwrap();
    prepare_segment(
        &dir,
        SegmentNo(no),
        recycle.map(SegmentNo),
        1 << 20,
        SectorKey(7),
    )
    .unwrap();
}

fn write(segment: u64, offset: u64, buf: AlignedBuf, token: u64) -> LogOp {
    let length = buf.len();
    LogOp::Write {
        segment: SegmentNo(segment),
        offset,
        buf,
        length,
        token,
    }
}

/// Waits for all answers, in any order.
fn drain(ring: &mut LogRing) -> Vec<LogDone> {
    let mut all = Vec::new();
    while ring.in_flight() > 0 {
        let mut done = Vec::new();
        ring.wait(&mut done);
        assert!(!done.is_empty());
        all.append(&mut done);
    }
    all.sort_by_key(|done| done.token);
    all
}

#[test]
fn every_write_path_writes_and_reads_back() {
    for path in ALL_PATHS {
        let place = tempfile::tempdir().unwrap();
        prepare(place.path(), 1, None);
        let (mut ring, mut buffers) = LogRing::open_with(
            Ring::open().unwrap(),
            place.path(),
            path,
            RingOptions::default(),
        )
        .unwrap();
        let fallbacks = ring.fallbacks();
        assert_eq!(
            (fallbacks.buffered, fallbacks.separate_flush),
            (!path.direct, !path.dsync)
        );
        assert_eq!(
            ring.warnings()
                .iter()
                .filter(|text| text.contains("filesystem"))
                .count(),
            usize::from(path.missing().is_some())
        );
        // A registered buffer, if there is one, and one that is not.
        buffers.push(AlignedBuf::new(8192));
        let count = buffers.len() as u64;
        for (no, mut buf) in (1..).zip(buffers) {
            buf.fill(no as u8);
            ring.submit(write(1, no * 131072, buf, no));
        }
        ring.flush();
        let done = drain(&mut ring);
        assert_eq!(done.len() as u64, count);
        for done in done {
            done.result.unwrap();
            ring.submit(LogOp::Read {
                segment: SegmentNo(1),
                offset: done.token * 131072,
                buf: AlignedBuf::new(8192),
                length: 8192,
                token: done.token,
            });
        }
        for done in drain(&mut ring) {
            done.result.unwrap();
            assert!(
                done.buf
                    .unwrap()
                    .iter()
                    .all(|byte| *byte == done.token as u8)
            );
        }
    }
}

#[test]
fn require_direct_refuses_every_path_but_the_fast_one_and_says_what_is_missing() {
    let place = tempfile::tempdir().unwrap();
    let options = RingOptions {
        require_direct: true,
    };
    for path in ALL_PATHS {
        let opened = LogRing::open_with(Ring::open().unwrap(), place.path(), path, options);
        match path.missing() {
            None => assert!(opened.is_ok()),
            Some(missing) => {
                let text = opened.err().unwrap().to_string();
                assert!(
                    text.contains(missing) && text.contains("log.require_direct"),
                    "{text}"
                );
            }
        }
    }
    let error = LogRing::open(Ring::open().unwrap(), &place.path().join("none"), options)
        .err()
        .unwrap();
    assert!(matches!(error, RingError::Directory { .. }), "{error}");
}

#[test]
fn more_segments_than_slots_and_recycled_ones() {
    let place = tempfile::tempdir().unwrap();
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    let mut buf = AlignedBuf::new(4096);
    let per_round = OPEN_SEGMENTS_MAX as u64 + 3;
    for no in 1..=3 * per_round {
        let before = no.checked_sub(per_round).filter(|before| *before > 0);
        before
            .into_iter()
            .for_each(|before| ring.forget(SegmentNo(before)));
        prepare(place.path(), no, before);
        buf.fill(no as u8);
        ring.submit(write(no, 4096, buf, no));
        let mut done = drain(&mut ring);
        let done = done.pop().unwrap();
        done.result.unwrap();
        buf = done.buf.unwrap();
        let bytes = std::fs::read(place.path().join(SegmentNo(no).file_name())).unwrap();
        assert!(bytes[4096..8192].iter().all(|byte| *byte == no as u8));
    }
}

#[test]
fn a_forgotten_segment_gives_its_space_back() {
    // The descriptor of a removed file kept 64 MiB on a full disk: the log waited for space that
    // its own ring held.
    let place = tempfile::tempdir().unwrap();
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    prepare(place.path(), 1, None);
    ring.submit(write(1, 0, AlignedBuf::new(4096), 1));
    drain(&mut ring);
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter_map(|link| std::fs::read_link(link.path()).ok())
            .any(|target| target.starts_with(place.path()))
    };
    assert!(open());
    ring.forget(SegmentNo(1));
    assert!(!open());
}

#[test]
fn errors_and_short_transfers_are_answers() {
    let place = tempfile::tempdir().unwrap();
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    ring.submit(write(5, 0, AlignedBuf::new(4096), 1));
    let done = drain(&mut ring).pop().unwrap();
    assert_eq!(
        (done.token, done.result.unwrap_err().kind()),
        (1, io::ErrorKind::NotFound)
    );
    assert!(done.buf.is_some());
    prepare(place.path(), 5, None);
    let (segment, length) = (SegmentNo(5), 8192);
    let offset = (1 << 20) - 4096;
    ring.submit(LogOp::Read {
        segment,
        offset,
        buf: AlignedBuf::new(length),
        length,
        token: 2,
    });
    let done = drain(&mut ring).pop().unwrap();
    assert!(
        done.result
            .unwrap_err()
            .to_string()
            .contains("4096 of 8192")
    );
}

#[test]
fn completions_ring_the_event() {
    let place = tempfile::tempdir().unwrap();
    prepare(place.path(), 1, None);
    let (mut ring, mut buffers) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    let event = std::fs::File::from(ring.ring.eventfd().unwrap());
    for token in 0..20 {
        ring.submit(write(
            1,
            0,
            buffers.pop().unwrap_or_else(|| AlignedBuf::new(4096)),
            token,
        ));
        ring.flush();
        let mut done = Vec::new();
        while done.is_empty() {
            (&event).read_exact(&mut [0; 8]).unwrap();
            ring.ring.poll().unwrap();
            ring.reap(&mut done);
        }
        assert_eq!(done[0].token, token);
    }
}

#[test]
fn more_ops_than_ring_entries() {
    let place = tempfile::tempdir().unwrap();
    prepare(place.path(), 1, None);
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    let count = u64::from(SUBMISSIONS) * 2 + 5;
    for token in 0..count {
        ring.submit(write(1, token % 200 * 4096, AlignedBuf::new(4096), token));
    }
    let done = drain(&mut ring);
    assert_eq!(
        done.iter().map(|done| done.token).collect::<Vec<_>>(),
        (0..count).collect::<Vec<_>>()
    );
    assert!(done.iter().all(|done| done.result.is_ok()));
}

#[test]
fn dropping_the_ring_waits_for_its_writes() {
    let place = tempfile::tempdir().unwrap();
    prepare(place.path(), 1, None);
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    for no in 0..4 {
        let mut buf = AlignedBuf::new(128 * 1024);
        buf.fill(9);
        ring.submit(write(1, no * 131072, buf, no));
    }
    drop(ring);
    let bytes = std::fs::read(place.path().join(SegmentNo(1).file_name())).unwrap();
    assert!(bytes[..4 * 131072].iter().all(|byte| *byte == 9));
}

#[test]
fn no_completion_is_left_behind() {
    // A server on tmpfs stood still: a write had completed, the event had been taken, and the
    // completion was still waiting for the kernel's deferred work to be run.
    let places = [
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in("/dev/shm").unwrap(),
    ];
    let threads = places.map(|place| {
        std::thread::spawn(move || {
            prepare(place.path(), 1, None);
            let (mut ring, _) =
                LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
            let event = std::fs::File::from(ring.ring.eventfd().unwrap());
            let mut bufs: Vec<_> = (0..2).map(|_| AlignedBuf::new(4096)).collect();
            let rounds: u64 = std::env::var("RING_ROUNDS").map_or(3000, |n| n.parse().unwrap());
            for token in 0..rounds {
                // One in flight, or two, as the log does.
                for _ in 0..=token % 2 {
                    let Some(buf) = bufs.pop() else { continue };
                    ring.submit(write(1, token % 200 * 4096, buf, token));
                    ring.flush();
                }
                let mut done = Vec::new();
                while done.is_empty() {
                    let mut poll = libc::pollfd {
                        fd: event.as_raw_fd(),
                        events: libc::POLLIN,
                        revents: 0,
                    };
                    // SAFETY: one pollfd, alive across the call.
                    let ready = unsafe { libc::poll(&mut poll, 1, 5000) };
                    assert_eq!(
                        ready,
                        1,
                        "round {token}: {} in flight and no event",
                        ring.in_flight()
                    );
                    (&event).read_exact(&mut [0; 8]).unwrap();
                    ring.ring.poll().unwrap();
                    ring.reap(&mut done);
                }
                bufs.extend(done.into_iter().map(|done| done.buf.unwrap()));
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Without this a server whose segment file had vanished never heard of it, and hung.
#[test]
fn a_refused_op_wakes_whoever_waits_for_completions() {
    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let place = tempfile::tempdir().unwrap();
    let (mut ring, _) =
        LogRing::open(Ring::open().unwrap(), place.path(), RingOptions::default()).unwrap();
    let flag = std::sync::Arc::new(Flag(false.into()));
    let waker = std::sync::Arc::clone(&flag).into();
    assert!(ring.poll_done(&Context::from_waker(&waker)).is_pending());
    ring.submit(write(1, 0, AlignedBuf::new(4096), 7));
    assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
    assert!(ring.poll_done(&Context::from_waker(&waker)).is_ready());
    let mut done = Vec::new();
    ring.reap(&mut done);
    assert_eq!(
        done[0].result.as_ref().unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}
