//! Open loop: requests leave on a fixed schedule, whatever became of the ones before.
//! Measures latency from the moment a request was due, so that a stall is not hidden.
//!
//! Blocking threads, because timers of an asynchronous runtime are a millisecond coarse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::figures::Quantiles;
use crate::legs::Leg;
use crate::request::Questions;
use crate::{Outcome, answer};

/// Connections, each on a thread, that take turns: at 500/s one has 32 ms for its answer.
const CONNECTIONS: u32 = 16;
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends `rate` requests a second, all connections together, for `window`; latencies in
/// microseconds, and how many were asked.
pub fn measure(
    leg: &Leg,
    questions: &Questions,
    rate: u32,
    window: Duration,
) -> Outcome<(Quantiles, u64)> {
    let turns = (window.as_secs_f64() * f64::from(rate / CONNECTIONS)) as u32;
    let gap = Duration::from_secs(1) / rate;
    let ready = Barrier::new(CONNECTIONS as usize);
    let results: Vec<Outcome<Vec<f64>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                scope.spawn({
                    let ready = &ready;
                    let schedule = Schedule { index, turns, gap };
                    move || take_turns(leg, questions, schedule, ready)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|_| Err("a load thread panicked".into())))
            .collect()
    });
    let latencies: Outcome<Vec<Vec<f64>>> = results.into_iter().collect();
    let latencies = latencies.map_err(|why| format!("{}: a request failed: {why}", leg.name))?;
    let asked = CONNECTIONS * (turns + FIRST);
    Ok((Quantiles::of(latencies.concat()), asked.into()))
}

/// When a connection's turns are.
#[derive(Clone, Copy)]
struct Schedule {
    /// Which connection it is.
    index: u32,
    turns: u32,
    /// From one request of all to the next.
    gap: Duration,
}

fn take_turns(
    leg: &Leg,
    questions: &Questions,
    schedule: Schedule,
    ready: &Barrier,
) -> Outcome<Vec<f64>> {
    let Schedule { index, turns, gap } = schedule;
    let mut request = questions.first();
    // The kernel may otherwise round a sleep up by 50 microseconds.
    let precise = nix::sys::prctl::set_timerslack(1).map_err(|e| e.to_string());
    let connected = precise.and_then(|()| connect(leg, &request));
    ready.wait();
    let mut stream = connected?;
    let start = Instant::now() + Duration::from_millis(5) + gap * index;
    (0..turns)
        .map(|turn| {
            let due = start + gap * CONNECTIONS * turn;
            questions.turn((CONNECTIONS * turn + index).into(), &mut request);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            exchange(&mut stream, &request)?;
            Ok(due.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

/// What a connection carries before its turns.
const FIRST: u32 = 2;

/// A connection that has already carried [`FIRST`] requests.
fn connect(leg: &Leg, request: &[u8]) -> Outcome<TcpStream> {
    let broken = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(leg.address).map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    stream
        .set_read_timeout(Some(ANSWER_LIMIT))
        .map_err(broken)?;
    stream
        .set_write_timeout(Some(ANSWER_LIMIT))
        .map_err(broken)?;
    for _ in 0..FIRST {
        exchange(&mut stream, request)?;
    }
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, request: &[u8]) -> Outcome<()> {
    let broken = |e: std::io::Error| e.to_string();
    stream.write_all(request).map_err(broken)?;
    let mut buffer = [0; 8 * 1024];
    let mut filled = 0;
    while answer::whole(&buffer[..filled])?.is_none() {
        match stream.read(&mut buffer[filled..]).map_err(broken)? {
            0 => {
                return Err(format!(
                    "connection closed after {filled} bytes of the answer"
                ));
            }
            read => filled += read,
        }
    }
    Ok(())
}
