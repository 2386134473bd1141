//! A thread that looks into answers and stores them, beside the threads that serve requests:
//! a large answer takes milliseconds to decode and to check.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::background;

/// Jobs that wait at most; what they hold counts within `server.max_buffered`. Beyond it an
/// answer is not stored.
const MOST_JOBS: usize = 4096;
/// How long jobs gather while there are some: waking the thread for each would cost its
/// request a system call.
const GATHER: Duration = Duration::from_millis(2);
/// How long the last jobs may take when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

/// The thread. Dropped, it ends, and what waits is dropped with it.
pub struct Keeper {
    shared: Arc<Shared>,
}

/// There is no room for another job.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The thread sleeps until it is told that there is something.
    asleep: bool,
    ended: bool,
}

impl Keeper {
    /// Starts it. Without a thread, of which the log tells, every job is one too many.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let worker = Arc::clone(&shared);
        if let Err(error) = background::spawn("cache keeper", move || worker.run()) {
            log::error!("the cache stores nothing: no thread for it: {error}");
            shared.queue.lock().ended = true;
        }
        Self { shared }
    }

    /// Does `job` soon. Never waits.
    ///
    /// # Errors
    /// When too many wait: the job is dropped.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let mut queue = self.shared.queue.lock();
        if queue.ended || queue.jobs.len() >= MOST_JOBS {
            return Err(Full);
        }
        queue.jobs.push_back(Box::new(job));
        if std::mem::take(&mut queue.asleep) {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until what has been submitted is done, two seconds at most.
    pub fn flush(&self) {
        let (done, told) = mpsc::channel();
        let last = move || {
            // Nobody waits any more: as good as told.
            let _ = done.send(());
        };
        if self.submit(last).is_ok() {
            let _ = told.recv_timeout(FLUSH);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(jobs) = self.wait() {
            for job in jobs {
                // One answer that cannot be looked into must not be the last.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("an answer could not be stored: this is a bug");
                }
            }
            std::thread::sleep(GATHER);
        }
    }

    /// All jobs there are, as soon as there are some; `None` at the end.
    fn wait(&self) -> Option<VecDeque<Job>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() && !queue.ended {
            queue.asleep = true;
            self.changed.wait(&mut queue);
        }
        if queue.ended {
            // Dropped here, after the lock: jobs may hold what their end is waited for.
            let left = std::mem::take(&mut queue.jobs);
            drop(queue);
            drop(left);
            return None;
        }
        Some(std::mem::take(&mut queue.jobs))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn jobs_are_done_in_order_and_a_panic_is_not_the_end() {
        let keeper = Keeper::start();
        let done = Arc::<Mutex<Vec<u32>>>::default();
        for number in 0..100 {
            let done = Arc::clone(&done);
            let job = move || match number {
                50 => panic!("as a test"),
                _ => done.lock().push(number),
            };
            keeper.submit(job).unwrap();
        }
        keeper.flush();
        let expected: Vec<_> = (0..100).filter(|number| *number != 50).collect();
        assert_eq!(*done.lock(), expected);
    }

    #[test]
    fn too_many_jobs_are_refused_and_none_outlives_it() {
        let keeper = Keeper::start();
        let (go, gate) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let first = move || {
            began.send(()).unwrap();
            gate.recv().unwrap_err();
        };
        keeper.submit(first).unwrap();
        begun.recv().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let job = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        for _ in 0..MOST_JOBS {
            keeper.submit(job()).unwrap();
        }
        assert_eq!(keeper.submit(job()), Err(Full));
        let shared = Arc::clone(&keeper.shared);
        drop(keeper);
        drop(go);
        while Arc::strong_count(&shared) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
        assert_eq!(Arc::strong_count(&count), 1, "what waited is dropped");
    }
}
