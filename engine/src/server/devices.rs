//! The log's device and the background lane, as the loop drives them.
//!
//! The log's operations complete in the executor's ring, the lane rings an eventfd; a task each
//! turns the answers into events. With `log.completion = poll` the executor does not sleep as long
//! as something is in flight: a shorter delay, and all of a processor's time meanwhile.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    os::fd::AsRawFd,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{
    config::LogCompletion,
    shell::{Devices, Shell},
};
use crate::{
    io::{
        BackgroundDone, BackgroundLane, FileOp, Interest, LogDone, LogOp, LogRing, Readiness,
        event::Event as Signal,
    },
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
        let lane_signal = lane.signal()?;
        let devices = Self {
            ring: Rc::new(RefCell::new(ring)),
            lane: Rc::new(RefCell::new(lane)),
            poller: Rc::default(),
        };
        let (watched, watcher) = (Rc::clone(&devices.ring), Rc::clone(shell));
        glommio::spawn_local(watch_ring(watcher, watched)).detach();
        if completion == LogCompletion::Poll {
            let (watched, poller) = (Rc::clone(&devices.ring), Rc::clone(&devices.poller));
            glommio::spawn_local(stay_awake(Rc::clone(shell), watched, poller)).detach();
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

async fn watch_ring(shell: Rc<Shell>, ring: Rc<RefCell<LogRing>>) {
    let mut done: Vec<LogDone> = Vec::new();
    loop {
        poll_fn(|cx| ring.borrow().poll_done(cx)).await;
        ring.borrow_mut().reap(&mut done);
        for done in done.drain(..) {
            shell.post(Event::Log(done));
        }
    }
}

/// Keeps the executor's rounds going while the log has something in flight.
async fn stay_awake(
    shell: Rc<Shell>,
    ring: Rc<RefCell<LogRing>>,
    poller: Rc<RefCell<Option<Waker>>>,
) {
    poll_fn(|cx| {
        if ring.borrow().in_flight() > 0 {
            shell.ring().stir();
            cx.waker().wake_by_ref();
        } else {
            *poller.borrow_mut() = Some(cx.waker().clone());
        }
        Poll::<()>::Pending
    })
    .await;
}

async fn watch_lane(shell: Rc<Shell>, lane: Rc<RefCell<BackgroundLane>>, signal: Signal) {
    let mut readiness = Readiness::new(Rc::clone(shell.ring()), Interest::Read);
    let mut done = Vec::new();
    loop {
        readiness.ready(signal.as_raw_fd()).await;
        signal.silence();
        lane.borrow().reap(&mut done);
        for done in done.drain(..) {
            shell.post(match done {
                BackgroundDone::Log(done) => Event::Log(done),
                BackgroundDone::File(done) => Event::File(done),
            });
        }
    }
}
