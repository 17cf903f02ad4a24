//! Where does work go that the kernel makes one wait for: small files, names of hosts?
//!
//! To a thread of its own, in order. An executor that looked up a name would stand still for as
//! long as a name server is silent; the log's lane (`io::background`) must not wait behind that
//! either. The thread starts with the first piece of work and ends with its owner.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    rc::{Rc, Weak},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use futures_channel::oneshot;

use crate::{
    io::{Interest, Readiness, event::Event},
    server::reactor,
};

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does what is handed to it, one after the other.
pub(super) struct Aside {
    name: &'static str,
    thread: RefCell<Option<Lane>>,
    /// Who waits, in the order of the jobs.
    waiting: RefCell<VecDeque<oneshot::Sender<()>>>,
    jobs_done: Cell<u64>,
}

struct Lane {
    jobs: Sender<Job>,
    /// One word for each job that is done.
    done: Receiver<()>,
}

impl Aside {
    /// A thread of this name, once there is something to do.
    pub(super) fn new(name: &'static str) -> Rc<Self> {
        Rc::new(Self {
            name,
            thread: RefCell::default(),
            waiting: RefCell::default(),
            jobs_done: Cell::new(0),
        })
    }

    /// What `job` returns, made there.
    ///
    /// # Errors
    /// When no thread can be started, or it has ended.
    pub(super) async fn run<T: Send + 'static>(
        self: &Rc<Self>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the thread for such work has ended");
        if self.thread.borrow().is_none() {
            let lane = self.start()?;
            *self.thread.borrow_mut() = Some(lane);
        }
        let (give, taken) = channel();
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The asker may be gone.
            let _ = give.send(job());
        });
        if let Some(lane) = &*self.thread.borrow() {
            lane.jobs.send(job).map_err(|_| ended())?;
        }
        self.waiting.borrow_mut().push_back(tell);
        told.await.map_err(|_| ended())?;
        taken.recv().map_err(|_| ended())
    }

    fn start(self: &Rc<Self>) -> io::Result<Lane> {
        let event = Event::new()?;
        let (jobs, inbox) = channel::<Job>();
        let (outbox, done) = channel();
        let ring = event.share()?;
        thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                while let Ok(job) = inbox.recv() {
                    job();
                    if outbox.send(()).is_err() {
                        return;
                    }
                    ring.ring();
                }
            })?;
        let readable = Readiness::new(reactor::ring()?, Interest::Read);
        glommio::spawn_local(tell(Rc::downgrade(self), event, readable)).detach();
        Ok(Lane { jobs, done })
    }

    fn reap(&self) {
        let thread = self.thread.borrow();
        let Some(lane) = &*thread else { return };
        for () in lane.done.try_iter() {
            self.jobs_done.set(self.jobs_done.get() + 1);
            if let Some(asker) = self.waiting.borrow_mut().pop_front() {
                // It may have gone; the job was done all the same.
                let _ = asker.send(());
            }
        }
    }
}

/// Wakes who waits, whenever the thread rings.
async fn tell(aside: Weak<Aside>, event: Event, mut readable: Readiness) {
    loop {
        readable.ready(event.as_raw_fd()).await;
        event.silence();
        match aside.upgrade() {
            Some(aside) => aside.reap(),
            None => return,
        }
    }
}
