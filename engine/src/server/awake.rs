//! How is an executor kept from sleeping through its own start?
//!
//! `LocalExecutor::run` of glommio 0.9 polls for I/O, runs what is ready, and parks when nothing ran.
//! Between the first two its preemption timer may fire, or anything else that is meant to interrupt
//! tasks: on a busy host the thread need only lose its processor there. Then nothing is run although
//! the main task is ready, and the executor parks. It wakes for I/O or for a timer of a task; before
//! the main task has run for the first time there is neither, and it sleeps for ever. So:
//!
//! - until the main task runs, a timer of the kernel interrupts the thread with a signal again and
//!   again. glommio takes an interrupted sleep as an ordinary end of it, and looks round once more;
//! - from then on until the start is over, a timer of glommio's bounds each sleep.
//!
//! Once an executor serves there is always a timer (ticks, the look at whether to stop), and the worst
//! that the hole can cost is the time until that.
//!
//! Invariant: no signal is sent once the main task runs: what it calls need not bear interruption.

use std::{io, mem, ptr, sync::Once, time::Duration};

use futures_lite::FutureExt;
use glommio::timer::sleep;

/// Between two interruptions, and between two wake-ups while an executor starts.
const BEAT: Duration = Duration::from_millis(50);

/// Ignored by default, so that one that comes late or from elsewhere harms nobody.
const SIGNAL: i32 = libc::SIGURG;

/// Wakes the thread that made it, until it is dropped. Made after the executor and before it runs.
pub struct Awake {
    /// Not to be sent elsewhere, as a pointer is not: the timer is of one thread.
    timer: libc::timer_t,
}

impl Awake {
    /// Begins to wake this thread.
    ///
    /// # Errors
    /// When the process may have no more timers (`RLIMIT_SIGPENDING`).
    pub fn new() -> io::Result<Self> {
        catch_signal();
        // SAFETY: a sigevent of zeros is a valid one, and so is a null timer to be overwritten.
        let (mut event, mut timer): (libc::sigevent, libc::timer_t) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        // SAFETY: no pointers are passed.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        // SAFETY: both point to locals of the types that are read and written.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        let awake = Self { timer };
        let beat = libc::timespec {
            tv_sec: BEAT.as_secs() as libc::time_t,
            tv_nsec: BEAT.subsec_nanos().into(),
        };
        let every_beat = libc::itimerspec {
            it_interval: beat,
            it_value: beat,
        };
        // SAFETY: the timer is ours and exists; the times are read only; no old ones are asked for.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const every_beat, ptr::null_mut()) };
        match set {
            0 => Ok(awake),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Runs the start of an executor, as the first thing that its main task does. Until it ends the
    /// executor sleeps no longer than [`BEAT`] at a time.
    pub async fn through<T>(self, start: impl Future<Output = T>) -> T {
        drop(self);
        let beats = async {
            loop {
                sleep(BEAT).await;
            }
        };
        start.or(beats).await
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, exists, and is not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// The signal must be caught to interrupt anything. Nothing is done with it.
fn catch_signal() {
    extern "C" fn nothing(_: i32) {}
    static CAUGHT: Once = Once::new();
    CAUGHT.call_once(|| {
        // SAFETY: an action of zeros has no flags (no SA_RESTART: system calls are to end) and an
        // empty mask; the handler does nothing, which is safe wherever it interrupts.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            let caught = libc::sigaction(SIGNAL, &raw const action, ptr::null_mut());
            assert_eq!(caught, 0, "SIGURG can be caught");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::thread::JoinHandleExt, thread};

    use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

    use super::*;

    thread_local! {
        /// Signals that this thread took.
        static SIGNALS: Cell<u64> = const { Cell::new(0) };
    }

    /// As servers make theirs, but for the preemption timer.
    fn executor(preempt_after: Duration) -> LocalExecutor {
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .ring_depth(128)
            .preempt_timer(preempt_after)
            .make()
            .unwrap()
    }

    /// From now on signals are counted, by a handler that otherwise does as little.
    fn count_signals() {
        extern "C" fn count(_: i32) {
            SIGNALS.set(SIGNALS.get() + 1);
        }
        catch_signal();
        // SAFETY: as in `catch_signal`; a thread's own number may be changed wherever it is interrupted.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = count as *const () as libc::sighandler_t;
            libc::sigaction(SIGNAL, &raw const action, ptr::null_mut());
        }
    }

    /// Found as servers that hung at their start on a busy host, before they had said a word: the
    /// preemption timer had fired before the first task ran. Here it is made shorter until it does.
    /// Each start that took a signal is one that would never have ended.
    #[test]
    fn an_executor_whose_start_is_preempted_starts() {
        count_signals();
        let mut preempt_after = Duration::from_micros(300);
        let mut rescued = 0;
        while rescued < 20 {
            for _ in 0..20 {
                let start = thread::spawn(move || {
                    let executor = executor(preempt_after);
                    let awake = Awake::new().unwrap();
                    executor.run(awake.through(async { SIGNALS.get() }))
                });
                rescued += u64::from(start.join().unwrap() > 0);
            }
            preempt_after = preempt_after * 9 / 10;
            assert!(preempt_after.as_nanos() > 100, "no start was preempted");
        }
    }

    /// What is relied upon: an interrupted sleep is an ordinary one to glommio.
    #[test]
    fn an_executor_can_be_interrupted_wherever_it_is() {
        count_signals();
        let sleeping = thread::spawn(|| {
            executor(Duration::from_millis(1)).run(async {
                for _ in 0..300 {
                    sleep(Duration::from_millis(1)).await;
                    glommio::yield_if_needed().await;
                }
            });
        });
        while !sleeping.is_finished() {
            // SAFETY: the thread was not joined yet, so that its handle is valid; the signal is caught.
            unsafe { libc::pthread_kill(sleeping.as_pthread_t(), SIGNAL) };
            thread::sleep(Duration::from_micros(50));
        }
        sleeping.join().unwrap();
    }

    #[test]
    fn no_signal_is_sent_once_the_main_task_runs() {
        count_signals();
        executor(Duration::from_millis(10)).run(async {
            let awake = Awake::new().unwrap();
            let taken = awake
                .through(async {
                    let before = SIGNALS.get();
                    sleep(4 * BEAT).await;
                    SIGNALS.get() - before
                })
                .await;
            assert_eq!(taken, 0);
        });
    }
}
