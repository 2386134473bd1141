//! Closed loop: every connection sends its next request as soon as it has its answer.
//! Measures throughput, and processor time per request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::Outcome;
use crate::answer::{self, CacheStatus};
use crate::legs::Leg;
use crate::process::{BESIDE, WRITER};
use crate::request::Questions;

/// How long an answer may take before the request counts as failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The load of one cell.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Run before anything is measured.
    pub warm_up: Duration,
    /// What is measured.
    pub window: Duration,
}

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Answers per second.
    pub per_second: f64,
    /// Processor time of the process under test per request, in microseconds.
    pub cpu_micros: Option<f64>,
    /// What of it was not on the path of requests.
    pub beside_micros: Option<f64>,
    /// What of that was the log store's writer.
    pub writer_micros: Option<f64>,
}

impl Throughput {
    /// Processor time on the path of requests.
    pub fn on_path_micros(&self) -> Option<f64> {
        Some(self.cpu_micros? - self.beside_micros?)
    }

    /// With all of what the log store's writer took per request: it may be behind when a window
    /// ends, and its work counts whole. None where there is no log store.
    pub fn with_all_written(self, writer_micros: Option<f64>) -> Self {
        let both = writer_micros.zip(self.writer_micros);
        let later = both.map_or(0.0, |(all, by_then)| all - by_then);
        let and_later = |micros: Option<f64>| micros.map(|micros| micros + later);
        Self {
            cpu_micros: and_later(self.cpu_micros),
            beside_micros: and_later(self.beside_micros),
            writer_micros,
            ..self
        }
    }
}

/// When the connections stop sending.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// When told.
    Told,
    /// After this many requests altogether.
    After(u64),
}

#[derive(Debug)]
struct Shared {
    questions: Questions,
    stop: Cell<Option<Stop>>,
    sent: Cell<u64>,
    answered: Cell<u64>,
    misses: Cell<u64>,
    failure: RefCell<Option<String>>,
}

impl Shared {
    fn new(questions: Questions, stop: Stop) -> Rc<Self> {
        Rc::new(Self {
            questions,
            stop: Cell::new(Some(stop)),
            sent: Cell::new(0),
            answered: Cell::new(0),
            misses: Cell::new(0),
            failure: RefCell::new(None),
        })
    }

    /// Which request is to be sent, as long as one more may be; counts it.
    fn take_turn(&self) -> Option<u64> {
        let turn = self.sent.get();
        let may = match self.stop.get() {
            Some(Stop::Told) => true,
            Some(Stop::After(total)) => turn < total,
            None => false,
        };
        self.sent.set(turn + u64::from(may));
        may.then_some(turn)
    }

    /// Counts an answer; an error when the cache had not to do with it what was expected.
    fn take_answer(&self, said: CacheStatus) -> Outcome<()> {
        self.questions.check(said)?;
        let missed = said == CacheStatus::Miss;
        self.misses.set(self.misses.get() + u64::from(missed));
        self.answered.set(self.answered.get() + 1);
        Ok(())
    }

    fn fail(&self, why: String) {
        self.stop.set(None);
        self.failure.borrow_mut().get_or_insert(why);
    }

    fn outcome(&self) -> Outcome<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// Loads `leg` with `questions` for one window. Also tells how many were asked, before and
/// after it included.
pub fn measure(leg: &Leg, questions: Questions, load: Load) -> Outcome<(Throughput, u64)> {
    let shared = Shared::new(questions, Stop::Told);
    let watched = shared.clone();
    let throughput = run(leg, load.connections, &shared, async move {
        tokio::time::sleep(load.warm_up).await;
        let before = Snapshot::take(leg, watched.answered.get())?;
        tokio::time::sleep(load.window).await;
        let after = Snapshot::take(leg, watched.answered.get())?;
        watched.stop.set(None);
        after
            .since(&before)
            .map_err(|why| format!("{}: {why}", leg.name))
    })?;
    Ok((throughput, shared.sent.get()))
}

/// Sends exactly `total` requests over `connections`; how many a cache had no answer to.
pub fn send(leg: &Leg, questions: Questions, connections: usize, total: u64) -> Outcome<u64> {
    let shared = Shared::new(questions, Stop::After(total));
    run(leg, connections, &shared, async { Ok(()) })?;
    match shared.answered.get() {
        answered if answered == total => Ok(shared.misses.get()),
        answered => Err(format!("{}: {answered} of {total} answered", leg.name)),
    }
}

/// Runs the connections and `watch` beside them, until both have ended.
fn run<T>(
    leg: &Leg,
    connections: usize,
    shared: &Rc<Shared>,
    watch: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let local = LocalSet::new();
    let address = leg.address;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let shared = shared.clone();
            local.spawn_local(async move {
                if let Err(why) = converse(address, &shared).await {
                    shared.fail(why);
                }
            })
        })
        .collect();
    let watched = local.block_on(&runtime, async {
        let watched = watch.await;
        for task in tasks {
            task.await.map_err(|e| e.to_string())?;
        }
        watched
    });
    shared
        .outcome()
        .map_err(|why| format!("{}: a request failed: {why}", leg.name))?;
    watched
}

async fn converse(address: std::net::SocketAddr, shared: &Shared) -> Outcome<()> {
    let broken = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut request = shared.questions.first();
    while let Some(turn) = shared.take_turn() {
        shared.questions.turn(turn, &mut request);
        let exchange = async {
            stream.write_all(&request).await.map_err(broken)?;
            read_answer(&mut stream, &mut buffer).await
        };
        let limited = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
        let said = limited.map_err(|_| format!("no whole answer within {ANSWER_LIMIT:?}"))??;
        shared.take_answer(said)?;
    }
    Ok(())
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Outcome<CacheStatus> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await;
        match read.map_err(|e| e.to_string())? {
            0 => {
                return Err(format!(
                    "connection closed after {filled} bytes of the answer"
                ));
            }
            read => filled += read,
        }
        if let Some(said) = answer::whole(&buffer[..filled])? {
            return Ok(said);
        }
    }
}

/// A moment: how much was done, and what it had cost.
#[derive(Debug)]
pub struct Snapshot {
    at: Instant,
    done: u64,
    cpu: Option<Duration>,
    beside: Option<Duration>,
    writer: Option<Duration>,
}

impl Snapshot {
    /// Now, with `done` things done.
    pub fn take(leg: &Leg, done: u64) -> Outcome<Self> {
        let process = leg.process.as_ref();
        let of = |threads| process.map(|p| p.cpu_of(threads)).transpose();
        Ok(Self {
            at: Instant::now(),
            done,
            cpu: process.map(|p| p.cpu()).transpose()?,
            beside: of(&BESIDE)?,
            writer: of(&[WRITER])?,
        })
    }

    /// What happened since `before`.
    pub fn since(&self, before: &Self) -> Outcome<Throughput> {
        let done = (self.done - before.done) as f64;
        if done == 0.0 {
            return Err("nothing was answered".into());
        }
        let micros = |now: Option<Duration>, then: Option<Duration>| {
            let spent = now.zip(then).map(|(now, then)| now.saturating_sub(then));
            spent.map(|spent| spent.as_secs_f64() * 1e6 / done)
        };
        Ok(Throughput {
            per_second: done / (self.at - before.at).as_secs_f64(),
            cpu_micros: micros(self.cpu, before.cpu),
            beside_micros: micros(self.beside, before.beside),
            writer_micros: micros(self.writer, before.writer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Numbers;

    #[test]
    fn what_a_writer_does_after_the_window_is_not_on_the_path() {
        let shown = Throughput {
            per_second: 1.0,
            cpu_micros: Some(100.0),
            beside_micros: Some(30.0),
            writer_micros: Some(20.0),
        };
        let whole = shown.with_all_written(Some(25.0));
        assert_eq!(
            (whole.cpu_micros, whole.beside_micros),
            (Some(105.0), Some(35.0))
        );
        assert_eq!(
            (whole.writer_micros, whole.on_path_micros()),
            (Some(25.0), Some(70.0))
        );
        let without = shown.with_all_written(None);
        assert_eq!(
            (without.cpu_micros, without.writer_micros),
            (Some(100.0), None)
        );
    }

    #[test]
    fn an_answer_with_another_cache_status_is_a_failure() {
        let leg = crate::legs::direct(([127, 0, 0, 1], 80).into());
        let shared = |expected| {
            let questions = Questions::new(&leg, 1024, Numbers::ONE, expected);
            Shared::new(questions, Stop::Told)
        };
        let hits = shared(Some(CacheStatus::Hit));
        assert_eq!(hits.take_answer(CacheStatus::Hit), Ok(()));
        assert!(hits.take_answer(CacheStatus::Miss).is_err());
        assert!(hits.take_answer(CacheStatus::Unsaid).is_err());
        let any = shared(None);
        assert_eq!(any.take_answer(CacheStatus::Miss), Ok(()));
        assert_eq!((any.answered.get(), any.misses.get()), (1, 1));
    }
}
