//! Streams: time to first token, delay of every chunk, processor time per chunk, and
//! a thousand at once. Every stream must arrive whole: all events in order, the
//! terminator, and the end of the framing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::Outcome;
use crate::answer::{self, Dechunker, Framing};
use crate::closed::Snapshot;
use crate::figures::Quantiles;
use crate::legs::Leg;
use crate::request::{StreamShape, streamed};

/// An event is START, its number (8 digits), MIDDLE, when it was written (20 digits), END.
pub const EVENT_START: &str = r#"data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1764000000,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"number":""#;
/// Between an event's number and its time.
pub const EVENT_MIDDLE: &str = r#"","written":""#;
/// After an event's time.
pub const EVENT_END: &str = "\"}\n\n";
/// What follows the last event.
pub const TERMINATOR: &str = "data: [DONE]\n\n";

/// How long a stream may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// Nanoseconds on the clock that all processes of a machine share.
pub fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Time to first token and chunk delays, in microseconds.
#[derive(Debug)]
pub struct Delays {
    /// From sending the request to its first event.
    pub first: Quantiles,
    /// From the upstream's write of an event to its arrival.
    pub chunk: Quantiles,
}

/// `count` streams one after the other on one connection.
pub fn one_by_one(leg: &Leg, shape: StreamShape, count: usize) -> Outcome<Delays> {
    let request = streamed(leg, shape);
    let log = Log::default();
    block_on(async {
        let mut stream = connect(leg.address).await?;
        for _ in 0..3 {
            receive(&mut stream, &request, shape, &Log::default()).await?;
        }
        for _ in 0..count {
            receive(&mut stream, &request, shape, &log).await?;
        }
        Ok(())
    })
    .map_err(|why| failed(leg, &why))?;
    Ok(log.delays())
}

/// `count` streams at once for as long as `shape` takes; processor time per chunk, in
/// microseconds, from one second after the start for `window`.
pub fn cpu_per_chunk(
    leg: &Leg,
    shape: StreamShape,
    count: usize,
    window: Duration,
) -> Outcome<Option<f64>> {
    let log = Rc::new(Log::default());
    let pace = Pace {
        count,
        gap: Duration::from_millis(1),
    };
    let watched = log.clone();
    let throughput = crowd(leg, shape, pace, &log, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = Snapshot::take(leg, watched.events.get())?;
        tokio::time::sleep(window).await;
        Snapshot::take(leg, watched.events.get())?.since(&before)
    })?;
    Ok(throughput.cpu_micros)
}

/// `count` clients that connect one millisecond apart and stream together.
pub fn many(leg: &Leg, shape: StreamShape, count: usize) -> Outcome<Delays> {
    let log = Rc::new(Log::default());
    let pace = Pace {
        count,
        gap: Duration::from_millis(1),
    };
    crowd(leg, shape, pace, &log, async { Ok(()) })?;
    Ok(log.delays())
}

/// How many clients, how far apart.
#[derive(Debug, Clone, Copy)]
struct Pace {
    count: usize,
    gap: Duration,
}

/// Runs the clients and `watch` beside them until all have ended.
fn crowd<T>(
    leg: &Leg,
    shape: StreamShape,
    pace: Pace,
    log: &Rc<Log>,
    watch: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let request: Rc<[u8]> = streamed(leg, shape).into();
    let address = leg.address;
    let local = LocalSet::new();
    let ended = block_on(local.run_until(async {
        let start = tokio::time::Instant::now();
        let clients: Vec<_> = (0..pace.count as u32)
            .map(|index| {
                let (request, log) = (request.clone(), log.clone());
                tokio::task::spawn_local(async move {
                    tokio::time::sleep_until(start + pace.gap * index).await;
                    let begun = Instant::now();
                    let mut stream = connect(address).await?;
                    receive_since(begun, &mut stream, &request, shape, &log).await
                })
            })
            .collect();
        let watched = watch.await;
        for client in clients {
            client.await.map_err(|e| e.to_string())??;
        }
        watched
    }));
    ended.map_err(|why| failed(leg, &why))
}

fn failed(leg: &Leg, why: &str) -> String {
    format!("{}: a stream was not whole: {why}", leg.name)
}

fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(future)
}

async fn connect(address: std::net::SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

async fn receive(
    stream: &mut TcpStream,
    request: &[u8],
    shape: StreamShape,
    log: &Log,
) -> Outcome<()> {
    receive_since(Instant::now(), stream, request, shape, log).await
}

/// Sends the request and reads its whole stream.
async fn receive_since(
    begun: Instant,
    stream: &mut TcpStream,
    request: &[u8],
    shape: StreamShape,
    log: &Log,
) -> Outcome<()> {
    stream.write_all(request).await.map_err(|e| e.to_string())?;
    let mut reception = Reception::new(begun, shape);
    let mut buffer = [0; 8 * 1024];
    loop {
        let read = tokio::time::timeout(SILENCE_LIMIT, stream.read(&mut buffer)).await;
        let read = read.map_err(|_| format!("silent for {SILENCE_LIMIT:?}"))?;
        match read.map_err(|e| e.to_string())? {
            0 => return Err(format!("closed after {} events", reception.events)),
            read if reception.feed(&buffer[..read], log)? => return Ok(()),
            _ => {}
        }
    }
}

/// What all streams of a cell showed.
#[derive(Debug, Default)]
struct Log {
    events: Cell<u64>,
    first: RefCell<Vec<f64>>,
    chunk: RefCell<Vec<f64>>,
}

impl Log {
    fn delays(&self) -> Delays {
        Delays {
            first: Quantiles::of(self.first.take()),
            chunk: Quantiles::of(self.chunk.take()),
        }
    }
}

/// One stream as it arrives.
struct Reception {
    begun: Instant,
    shape: StreamShape,
    head: Option<Vec<u8>>,
    dechunker: Dechunker,
    text: Vec<u8>,
    events: u32,
    terminated: bool,
}

impl Reception {
    fn new(begun: Instant, shape: StreamShape) -> Self {
        Self {
            begun,
            shape,
            head: Some(Vec::new()),
            dechunker: Dechunker::default(),
            text: Vec::new(),
            events: 0,
            terminated: false,
        }
    }

    /// True when the stream has come to its proper end.
    fn feed(&mut self, bytes: &[u8], log: &Log) -> Outcome<bool> {
        match self.head.take() {
            Some(head) => self.feed_head(head, bytes, log),
            None => self.feed_body(bytes, log),
        }
    }

    fn feed_head(&mut self, mut head: Vec<u8>, bytes: &[u8], log: &Log) -> Outcome<bool> {
        head.extend_from_slice(bytes);
        match answer::head(&head)? {
            None => {
                self.head = Some(head);
                Ok(false)
            }
            Some(parsed) if parsed.body == Framing::Chunked => {
                self.feed_body(&head[parsed.length..], log)
            }
            Some(_) => Err("a stream with a length".into()),
        }
    }

    fn feed_body(&mut self, bytes: &[u8], log: &Log) -> Outcome<bool> {
        let framing_ended = self.dechunker.feed(bytes, &mut self.text)?;
        let now = now_nanos();
        let mut from = 0;
        while let Some(end) = memchr::memmem::find(&self.text[from..], b"\n\n") {
            let event = from..from + end + 2;
            from = event.end;
            self.take_event(event, now, log)?;
        }
        self.text.drain(..from);
        match (framing_ended, self.terminated && self.text.is_empty()) {
            (false, _) => Ok(false),
            (true, true) => Ok(true),
            (true, false) => Err(format!("ended after {} events", self.events)),
        }
    }

    fn take_event(&mut self, at: std::ops::Range<usize>, now: u64, log: &Log) -> Outcome<()> {
        let event = &self.text[at];
        if self.events == self.shape.events && event == TERMINATOR.as_bytes() && !self.terminated {
            self.terminated = true;
            return Ok(());
        }
        let (number, written) = parse_event(event)
            .ok_or_else(|| format!("unexpected event: {}", String::from_utf8_lossy(event)))?;
        if number != self.events {
            return Err(format!("event {number} where {} was due", self.events));
        }
        if number == 0 {
            let first = self.begun.elapsed().as_secs_f64() * 1e6;
            log.first.borrow_mut().push(first);
        }
        self.events += 1;
        log.events.set(log.events.get() + 1);
        log.chunk
            .borrow_mut()
            .push(now.saturating_sub(written) as f64 / 1e3);
        Ok(())
    }
}

/// Number and time of an event.
fn parse_event(event: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(event).ok()?;
    let rest = text.strip_prefix(EVENT_START)?.strip_suffix(EVENT_END)?;
    let (number, written) = rest.split_once(EVENT_MIDDLE)?;
    Some((number.parse().ok()?, written.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: StreamShape = StreamShape {
        events: 2,
        interval_ms: 0,
    };

    fn event(number: u32) -> String {
        let event = format!("{EVENT_START}{number:08}{EVENT_MIDDLE}{:020}{EVENT_END}", 5);
        format!("{:x}\r\n{event}\r\n", event.len())
    }

    fn whole(events: &[u32]) -> String {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let events: String = events.iter().copied().map(event).collect();
        format!("{head}{events}e\r\n{TERMINATOR}\r\n0\r\n\r\n")
    }

    fn receive(pieces: &[&[u8]]) -> Outcome<bool> {
        let mut reception = Reception::new(Instant::now(), SHAPE);
        let log = Log::default();
        let fed = pieces.iter().map(|piece| reception.feed(piece, &log));
        fed.reduce(|before, now| before.and(now)).expect("pieces")
    }

    #[test]
    fn a_whole_stream_is_whole_in_every_split() {
        let text = whole(&[0, 1]);
        for at in 1..text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(receive(&[head]), Ok(false), "at {at}");
            assert_eq!(receive(&[head, tail]), Ok(true), "at {at}");
        }
    }

    #[test]
    fn lost_repeated_and_unended_streams_are_failures() {
        assert!(receive(&[whole(&[0]).as_bytes()]).is_err());
        assert!(receive(&[whole(&[1, 0]).as_bytes()]).is_err());
        assert!(receive(&[whole(&[0, 1, 1]).as_bytes()]).is_err());
        let unended = whole(&[0, 1]).replace("e\r\ndata: [DONE]\n\n\r\n", "");
        assert!(receive(&[unended.as_bytes()]).is_err());
    }
}
