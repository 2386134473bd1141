//! Open loop: requests leave on a fixed schedule, whatever became of the ones before.
//! Measures latency from the moment a request was due, so that a stall is not hidden, and
//! processor time per request.
//!
//! Blocking threads, because timers of an asynchronous runtime are a millisecond coarse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::closed::{Snapshot, Throughput};
use crate::figures::Quantiles;
use crate::legs::Leg;
use crate::request::Questions;
use crate::{Outcome, answer};

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The load of one cell.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests a second, of all connections together.
    pub rate: u32,
    /// Connections, each on a thread, that take turns.
    pub connections: u32,
    /// What is measured.
    pub window: Duration,
}

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// In microseconds.
    pub latency: Quantiles,
    /// What it took.
    pub spent: Throughput,
    /// How many were asked, before the window included.
    pub asked: u64,
}

/// Loads `leg` with `questions` for one window.
pub fn measure(leg: &Leg, questions: &Questions, load: Load) -> Outcome<Shown> {
    let connections = load.connections;
    let turns = (load.window.as_secs_f64() * f64::from(load.rate / connections)) as u32;
    let schedule = Schedule {
        connections,
        turns,
        gap: Duration::from_secs(1) / load.rate,
    };
    let ready = &Barrier::new(connections as usize + 1);
    let (before, results) = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|index| scope.spawn(move || take_turns(leg, questions, schedule, index, ready)))
            .collect();
        ready.wait();
        let before = Snapshot::take(leg, 0);
        let joined = threads.into_iter().map(|thread| thread.join());
        let results: Vec<Outcome<Vec<f64>>> = joined
            .map(|result| result.unwrap_or_else(|_| Err("a load thread panicked".into())))
            .collect();
        (before, results)
    });
    let after = Snapshot::take(leg, (connections * turns).into())?;
    let latencies: Outcome<Vec<Vec<f64>>> = results.into_iter().collect();
    let latencies = latencies.map_err(|why| format!("{}: a request failed: {why}", leg.name))?;
    Ok(Shown {
        latency: Quantiles::of(latencies.concat()),
        spent: after.since(&before?)?,
        asked: (connections * (FIRST + turns)).into(),
    })
}

/// When the turns of all connections are.
#[derive(Clone, Copy)]
struct Schedule {
    connections: u32,
    /// Of each.
    turns: u32,
    /// From one request of all to the next.
    gap: Duration,
}

fn take_turns(
    leg: &Leg,
    questions: &Questions,
    schedule: Schedule,
    index: u32,
    ready: &Barrier,
) -> Outcome<Vec<f64>> {
    let Schedule {
        connections,
        turns,
        gap,
    } = schedule;
    // The kernel may otherwise round a sleep up by 50 microseconds.
    let precise = nix::sys::prctl::set_timerslack(1).map_err(|e| e.to_string());
    // No two requests of a window have the same turn, those before it included.
    let turn_of = |nth: u32| u64::from(connections * nth + index);
    let connected = precise.and_then(|()| Caller::connect(leg, questions, turn_of));
    ready.wait();
    let mut caller = connected?;
    let start = Instant::now() + Duration::from_millis(5) + gap * index;
    (0..turns)
        .map(|turn| {
            let due = start + gap * connections * turn;
            caller.prepare(turn_of(FIRST + turn));
            thread::sleep(due.saturating_duration_since(Instant::now()));
            caller.exchange()?;
            Ok(due.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

/// What a connection carries before its turns.
const FIRST: u32 = 2;

/// A connection and what it sends next.
struct Caller<'a> {
    questions: &'a Questions,
    request: Vec<u8>,
    stream: TcpStream,
}

impl<'a> Caller<'a> {
    /// A connection that has already carried [`FIRST`] requests.
    fn connect(leg: &Leg, questions: &'a Questions, turn_of: impl Fn(u32) -> u64) -> Outcome<Self> {
        let stream = connect(leg).map_err(|e| e.to_string())?;
        let mut caller = Self {
            questions,
            request: questions.first(),
            stream,
        };
        for nth in 0..FIRST {
            caller.prepare(turn_of(nth));
            caller.exchange()?;
        }
        Ok(caller)
    }

    fn prepare(&mut self, turn: u64) {
        self.questions.turn(turn, &mut self.request);
    }

    fn exchange(&mut self) -> Outcome<()> {
        let broken = |e: std::io::Error| e.to_string();
        self.stream.write_all(&self.request).map_err(broken)?;
        let mut buffer = [0; 8 * 1024];
        let mut filled = 0;
        loop {
            match self.stream.read(&mut buffer[filled..]).map_err(broken)? {
                0 => {
                    return Err(format!(
                        "connection closed after {filled} bytes of the answer"
                    ));
                }
                read => filled += read,
            }
            if let Some(said) = answer::whole(&buffer[..filled])? {
                return self.questions.check(said);
            }
        }
    }
}

fn connect(leg: &Leg) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(leg.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}
