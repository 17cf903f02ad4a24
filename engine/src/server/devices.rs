//! The log's device and the background lane, as the loop drives them.
//!
//! Both answer through an eventfd each, which a task awaits like any file and turns into events.
//! With `log.completion = poll` the ring is looked at in every round of the executor instead, as
//! long as something is in flight: half the delay, and all of a processor's time meanwhile.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    rc::Rc,
    task::{Poll, Waker},
};

use glommio::io::BufferedFile;

use super::{
    config::LogCompletion,
    shell::{Devices, Shell},
};
use crate::{
    io::{BackgroundDone, BackgroundLane, FileOp, LogDone, LogOp, LogRing},
    shard::Event,
};

/// Production devices of one executor.
pub struct RealDevices {
    ring: Rc<RefCell<LogRing>>,
    lane: Rc<RefCell<BackgroundLane>>,
    /// Wakes the polling task, where there is one.
    poller: Rc<RefCell<Option<Waker>>>,
}

impl RealDevices {
    /// Devices whose completions become events of `shell`.
    pub fn start(
        shell: &Rc<Shell>,
        ring: LogRing,
        lane: BackgroundLane,
        completion: LogCompletion,
    ) -> io::Result<Self> {
        let ring_signal = ring.eventfd()?;
        let lane_signal = lane.eventfd()?;
        let devices = Self {
            ring: Rc::new(RefCell::new(ring)),
            lane: Rc::new(RefCell::new(lane)),
            poller: Rc::default(),
        };
        let (watched, watcher) = (Rc::clone(&devices.ring), Rc::clone(shell));
        match completion {
            LogCompletion::Eventfd => {
                glommio::spawn_local(watch_ring(watcher, watched, ring_signal)).detach();
            }
            LogCompletion::Poll => {
                let poller = Rc::clone(&devices.poller);
                glommio::spawn_local(poll_ring(watcher, watched, poller)).detach();
            }
        }
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
        if let Some(waker) = self.poller.borrow_mut().take() {
            waker.wake();
        }
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

async fn poll_ring(
    shell: Rc<Shell>,
    ring: Rc<RefCell<LogRing>>,
    poller: Rc<RefCell<Option<Waker>>>,
) {
    let mut done: Vec<LogDone> = Vec::new();
    loop {
        poll_fn(|cx| {
            if ring.borrow().in_flight() > 0 {
                return Poll::Ready(());
            }
            *poller.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        ring.borrow_mut().reap(&mut done);
        for done in done.drain(..) {
            shell.post(Event::Log(done));
        }
        glommio::executor().yield_task_queue_now().await;
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
