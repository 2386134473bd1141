//! Threads that work beside the requests, and how they share a processor with them.
//!
//! A background thread is of Linux's class for batches (`SCHED_BATCH`, sched(7)): when something
//! comes for it, it does not push a request off its processor, and so it works in longer turns,
//! which also costs it less. [`Calm`] goes further for a thread whose work can wait: it has what
//! requests leave of the processors (`SCHED_IDLE`), and its fair share again once it is late.
//!
//! Where the kernel refuses, everything works as before, with requests waiting for a turn at
//! times.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use libc::{SCHED_BATCH, SCHED_IDLE};

/// Starts a thread of that name that works beside the requests.
///
/// # Errors
/// Of the operating system: there are too many threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        schedule(this_thread(), SCHED_BATCH);
        work()
    })
}

/// A thread's work is late when it was calm for so long: half of it waited already to be
/// collected, and a kill may cost a second's.
const LATE: Duration = Duration::from_millis(250);

/// The thread has its fair share.
const PRESSED: u64 = 0;
/// The thread sleeps, calm.
const RESTING: u64 = u64::MAX;

/// Whether a thread has the processors' leisure or a fair share of them. Only leisure is not
/// enough where requests take all of every processor: who brings work says when it is late.
#[derive(Debug, Default)]
pub struct Calm {
    thread: OnceLock<libc::pid_t>,
    /// [`PRESSED`], [`RESTING`], or when its work will be late, in ms of [`now`].
    until: AtomicU64,
}

impl Calm {
    /// For the thread that calls this, if the kernel lets threads come back from leisure: it
    /// wants `RLIMIT_NICE` of 20 or `CAP_SYS_NICE`.
    pub fn begin(&self) {
        if may_come_back() {
            let _ = self.thread.set(this_thread());
        }
    }

    /// Whether it can be calm at all.
    pub fn is_possible(&self) -> bool {
        self.thread.get().is_some()
    }

    /// Whether it has only leisure now.
    pub fn is_calm(&self) -> bool {
        self.is_possible() && self.until.load(Ordering::Relaxed) != PRESSED
    }

    /// Work begins: it may take its time, but not too much of it.
    pub fn work(&self) {
        let order = Ordering::SeqCst;
        // Who was pressed in its sleep stays so.
        let _ = self.until.compare_exchange(RESTING, late(), order, order);
    }

    /// A part of the work is done in time: so may the next. Who had to be pressed stays so until
    /// all of it is done.
    pub fn go_on(&self) {
        let then = |now| (now != PRESSED).then(late);
        let order = Ordering::SeqCst;
        let _ = self.until.fetch_update(order, order, then);
    }

    /// The work is done: the next has leisure again.
    pub fn rest(&self) {
        let Some(thread) = self.thread.get() else {
            return;
        };
        if self.until.swap(RESTING, Ordering::SeqCst) != PRESSED {
            return;
        }
        schedule(*thread, SCHED_IDLE);
        // Somebody was in a hurry in between, and came too early.
        if self.until.load(Ordering::SeqCst) == PRESSED {
            schedule(*thread, SCHED_BATCH);
        }
    }

    /// Gives the thread a fair share for the work it does now.
    pub fn press(&self) {
        if let Some(thread) = self.thread.get()
            && self.until.swap(PRESSED, Ordering::SeqCst) != PRESSED
        {
            schedule(*thread, SCHED_BATCH);
        }
    }

    /// The same, if the work is late.
    pub fn press_if_late(&self) {
        let until = self.until.load(Ordering::Relaxed);
        if until != PRESSED && until != RESTING && now() >= until {
            self.press();
        }
    }
}

/// When work that begins now is late.
fn late() -> u64 {
    now() + LATE.as_millis() as u64
}

/// Milliseconds since something in this process asked first, and one.
fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    1 + FIRST.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Tried, because limits, capabilities and filters of system calls have a say in it; by a thread
/// that ends at once, because it may not come back.
fn may_come_back() -> bool {
    let there_and_back = || {
        let thread = this_thread();
        schedule(thread, SCHED_IDLE) && schedule(thread, SCHED_BATCH)
    };
    let tried = Builder::new().spawn(there_and_back);
    tried.is_ok_and(|thread| thread.join().unwrap_or(false))
}

fn this_thread() -> libc::pid_t {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Whether the thread is of that class now. No crate offers it for a thread that is not one's own
/// without changing one's own niceness.
#[allow(unsafe_code)]
fn schedule(thread: libc::pid_t, class: libc::c_int) -> bool {
    // SAFETY: a plain structure of integers, for which zeros are the values that both classes want.
    let nothing: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: reads the structure during the call, and changes no memory.
    unsafe { libc::sched_setscheduler(thread, class, &raw const nothing) == 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    /// The 41st field, of which the name is the second, in parentheses.
    fn class_of(thread: libc::pid_t) -> libc::c_int {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        let (_, behind_name) = stat.rsplit_once(") ").unwrap();
        let field = behind_name.split(' ').nth(41 - 3).unwrap();
        field.parse().unwrap()
    }

    #[test]
    fn a_background_thread_is_of_the_class_for_batches() {
        let class = spawn("beside", || class_of(this_thread())).unwrap();
        assert_eq!(class.join().unwrap(), SCHED_BATCH);
    }

    /// A calm thread, and what ends it.
    fn thread(calm: &Arc<Calm>) -> (std::sync::mpsc::Sender<()>, JoinHandle<()>) {
        let ((end, ended), (ready, is_ready)) = (channel(), channel());
        let its = Arc::clone(calm);
        let handle = spawn("calm", move || {
            its.begin();
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        is_ready.recv().unwrap();
        (end, handle.unwrap())
    }

    #[test]
    fn a_calm_thread_has_leisure_until_its_work_is_late_or_hurried() {
        let calm = Arc::new(Calm::default());
        let (end, handle) = thread(&calm);
        if !calm.is_possible() {
            // Nothing may change then.
            calm.work();
            calm.press();
            return;
        }
        let class = || class_of(*calm.thread.get().unwrap());
        calm.rest();
        calm.work();
        assert_eq!(class(), SCHED_IDLE);
        calm.press_if_late();
        assert_eq!(class(), SCHED_IDLE, "it has just begun");
        calm.until.store(now(), Ordering::SeqCst);
        calm.press_if_late();
        assert_eq!(class(), SCHED_BATCH);
        calm.rest();
        calm.press_if_late();
        assert_eq!(class(), SCHED_IDLE, "who sleeps is not late");
        calm.press();
        calm.work();
        assert_eq!(class(), SCHED_BATCH, "who is pressed in its sleep");
        calm.go_on();
        assert_eq!(class(), SCHED_BATCH, "until all is done");
        calm.rest();
        calm.work();
        assert_eq!(class(), SCHED_IDLE, "the next work is calm again");
        drop(end);
        handle.join().unwrap();
    }
}
