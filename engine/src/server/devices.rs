//! The log's device and the background lane, as the loop drives them.
//!
//! Both answer through an eventfd each, which a task awaits like any file and turns into events.

use std::{
    cell::RefCell,
    io,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    rc::Rc,
};

use glommio::io::BufferedFile;

use super::shell::{Devices, Shell};
use crate::{
    io::{BackgroundDone, BackgroundLane, FileOp, LogDone, LogOp, LogRing},
    shard::Event,
};

/// Production devices of one executor.
pub struct RealDevices {
    ring: Rc<RefCell<LogRing>>,
    lane: Rc<RefCell<BackgroundLane>>,
}

impl RealDevices {
    /// Devices whose completions become events of `shell`.
    pub fn start(shell: &Rc<Shell>, ring: LogRing, lane: BackgroundLane) -> io::Result<Self> {
        let ring_signal = ring.eventfd()?;
        let lane_signal = lane.eventfd()?;
        let devices = Self {
            ring: Rc::new(RefCell::new(ring)),
            lane: Rc::new(RefCell::new(lane)),
        };
        glommio::spawn_local(watch_ring(
            Rc::clone(shell),
            Rc::clone(&devices.ring),
            ring_signal,
        ))
        .detach();
        glommio::spawn_local(watch_lane(
            Rc::clone(shell),
            Rc::clone(&devices.lane),
            lane_signal,
        ))
        .detach();
        Ok(devices)
    }
}

impl Devices for RealDevices {
    fn submit(&mut self, log: &mut Vec<LogOp>, files: &mut Vec<FileOp>) {
        let lane = self.lane.borrow();
        let mut ring = self.ring.borrow_mut();
        for op in log.drain(..) {
            match op {
                LogOp::Write { .. } | LogOp::Read { .. } => ring.submit(op),
                LogOp::Prepare { recycle, .. } => {
                    recycle.into_iter().for_each(|freed| ring.forget(freed));
                    lane.log(op);
                }
                LogOp::Remove { segment, .. } => {
                    // Its space returns only when nobody holds it open.
                    ring.forget(segment);
                    lane.log(op);
                }
            }
        }
        ring.flush();
        for op in files.drain(..) {
            lane.file(op);
        }
    }
}

async fn signalled(file: &BufferedFile) -> bool {
    file.read_at(0, 8).await.is_ok_and(|read| read.len() == 8)
}

fn signal_file(fd: OwnedFd) -> BufferedFile {
    // SAFETY: the descriptor is an open eventfd, and its ownership passes to the file.
    unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) }
}

async fn watch_ring(shell: Rc<Shell>, ring: Rc<RefCell<LogRing>>, signal: OwnedFd) {
    let signal = signal_file(signal);
    let mut done: Vec<LogDone> = Vec::new();
    while signalled(&signal).await {
        ring.borrow_mut().reap(&mut done);
        for done in done.drain(..) {
            shell.post(Event::Log(done));
        }
    }
}

async fn watch_lane(shell: Rc<Shell>, lane: Rc<RefCell<BackgroundLane>>, signal: OwnedFd) {
    let signal = signal_file(signal);
    let mut done = Vec::new();
    while signalled(&signal).await {
        lane.borrow().reap(&mut done);
        for done in done.drain(..) {
            shell.post(match done {
                BackgroundDone::Log(done) => Event::Log(done),
                BackgroundDone::File(done) => Event::File(done),
            });
        }
    }
}
