//! The promise of reloads and upgrades, under load: not one failed request, not one lost or
//! repeated byte, while everything that can happen to a process happens.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::conf::CHAT;
use crate::support::wire::{Framing, Head, Piece, Wire};
use crate::support::{Gateway, Request, eventually, within};

/// Connections that are never idle for long, and streams that stay open throughout.
const BUSY: usize = 50;
const STREAMS: usize = 50;

/// Every fifth busy client opens a connection for each request: those may never fail.
const FRESH: usize = 5;

/// Streams that are opened in each further process.
const LATER_STREAMS: usize = 10;

const RELOADS: usize = 20;
const UPGRADES: usize = 3;

/// Between two events of a stream, and between two requests of a busy client.
const PACE: Duration = Duration::from_millis(20);

// --- The upstream: echoes bodies, and streams numbered events until it is told to end.

struct Source {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
}

impl Source {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = Self {
            address: listener.local_addr().unwrap(),
            ending: Arc::default(),
        };
        let ending = source.ending.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(answer(Wire::new(stream), ending.clone()));
            }
        });
        source
    }

    fn yaml(&self) -> String {
        format!(
            "providers:\n  openai: {{ base_url: \"http://{}/v1\", allow_insecure: true }}\n",
            self.address
        )
    }
}

/// Serves one connection.
async fn answer(mut wire: Wire, ending: Arc<AtomicBool>) -> Option<()> {
    loop {
        let head = wire.head().await?;
        let body = body(&mut wire, &head, Framing::Length(0)).await?;
        if body.starts_with(b"stream ") {
            numbered_events(&mut wire, &body, &ending).await?;
        } else {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            wire.write(&[head.as_bytes(), &body].concat()).await.ok()?;
        }
    }
}

async fn numbered_events(wire: &mut Wire, name: &[u8], ending: &AtomicBool) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    wire.write(head.as_bytes()).await.ok()?;
    let name = String::from_utf8_lossy(name);
    for number in 0.. {
        let end = ending.load(Ordering::Acquire);
        let event = if end {
            "data: [DONE]\n\n".to_owned()
        } else {
            format!("data: {name} {number}\n\n")
        };
        wire.write(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await
            .ok()?;
        if end {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    wire.write(b"0\r\n\r\n").await.ok()
}

async fn body(wire: &mut Wire, head: &Head, otherwise: Framing) -> Option<Vec<u8>> {
    let (mut framing, mut body) = (head.framing(otherwise), Vec::new());
    loop {
        match wire.piece(&mut framing).await {
            Piece::Data(bytes) => body.extend(bytes),
            Piece::End => return Some(body),
            Piece::Cut | Piece::EndOfStream => return None,
        }
    }
}

// --- The clients.

async fn connect(to: SocketAddr) -> Wire {
    let stream = TcpStream::connect(to)
        .await
        .expect("a connection is never refused");
    stream.set_nodelay(true).unwrap();
    Wire::new(stream)
}

fn post(body: &str) -> Vec<u8> {
    format!(
        "POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One client that asks again and again, and counts what it did.
struct Busy {
    to: SocketAddr,
    reuses: bool,
    answered: u64,
    resent: u64,
}

impl Busy {
    async fn run(mut self, name: usize, stop: Arc<AtomicBool>, progress: Arc<AtomicU64>) -> Self {
        let mut kept = None;
        while !stop.load(Ordering::Acquire) {
            let body = format!(
                "client {name} asks {} {}",
                self.answered,
                "x".repeat(name * 100)
            );
            let (answer, wire) = within("an answer", self.ask(kept.take(), &body)).await;
            assert_eq!(answer, body.as_bytes(), "client {name} got another answer");
            kept = wire.filter(|_| self.reuses);
            self.answered += 1;
            progress.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(PACE).await;
        }
        self
    }

    /// Asks on `kept` or on a new connection; returns the connection if it may be used again.
    /// Resends once, and only if `kept` was closed before a byte of an answer came.
    async fn ask(&mut self, kept: Option<Wire>, body: &str) -> (Vec<u8>, Option<Wire>) {
        if let Some(mut wire) = kept {
            match exchange(&mut wire, body).await {
                Ok((answer, again)) => return (answer, again.then_some(wire)),
                Err(bytes) => assert!(
                    bytes.is_empty(),
                    "broken off: {}",
                    String::from_utf8_lossy(&bytes)
                ),
            }
            self.resent += 1;
        }
        let mut wire = connect(self.to).await;
        let outcome = exchange(&mut wire, body).await;
        let (answer, again) = outcome.expect("a new connection is never closed before its answer");
        (answer, again.then_some(wire))
    }
}

/// The answer's body and whether the connection stays; or what came before it broke.
async fn exchange(wire: &mut Wire, request: &str) -> Result<(Vec<u8>, bool), Vec<u8>> {
    // A failed write shows as the end of the connection.
    let _ = wire.write(&post(request)).await;
    let Some(head) = wire.head().await else {
        return Err(wire.rest().await);
    };
    assert_eq!(head.start, "HTTP/1.1 200 OK");
    let Some(body) = body(wire, &head, Framing::UntilClose).await else {
        return Err(b"half a body".to_vec());
    };
    Ok((body, head.header("connection") != Some("close")))
}

/// Reads a stream of numbered events to its end, and says when it has begun.
async fn follow(to: SocketAddr, name: String, begun: Arc<AtomicU64>) -> u64 {
    let mut wire = connect(to).await;
    let request = format!("stream {name}");
    wire.write(&post(&request)).await.unwrap();
    let head = wire.head().await.expect("a stream begins");
    assert_eq!(head.start, "HTTP/1.1 200 OK");
    let mut framing = head.framing(Framing::UntilClose);
    let mut text = String::new();
    let mut expected = 0;
    loop {
        match wire.piece(&mut framing).await {
            Piece::Data(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            end => {
                assert_eq!(end, Piece::End, "stream {name} after {expected} events");
                assert_eq!(
                    text, "data: [DONE]\n\n",
                    "stream {name} after {expected} events"
                );
                return expected;
            }
        }
        while let Some(event) = text.strip_prefix(&format!("data: {request} {expected}\n\n")) {
            text = event.to_owned();
            begun.fetch_add(u64::from(expected == 0), Ordering::AcqRel);
            expected += 1;
        }
    }
}

// --- The storm.

struct Storm {
    gateway: Gateway,
    program: tempfile::TempDir,
    good: String,
    processes: HashSet<u64>,
    reloads: usize,
}

impl Storm {
    async fn begin(source: &Source) -> Self {
        let program = tempfile::tempdir().unwrap();
        let path = program.path().join("tollgate");
        symlink(env!("CARGO_BIN_EXE_tollgate"), &path).unwrap();
        let gateway = Gateway::with(&source.yaml())
            .server("drain_timeout: 5m")
            .program(path)
            .start()
            .await;
        let good = std::fs::read_to_string(gateway.conf()).unwrap();
        let processes = HashSet::from([u64::from(gateway.pid())]);
        Self {
            gateway,
            program,
            good,
            processes,
            reloads: 0,
        }
    }

    async fn reload(&mut self) {
        self.reloads += 1;
        let changed = format!("{}# reload {}\n", self.good, self.reloads);
        std::fs::write(self.gateway.conf(), changed).unwrap();
        let answer = self.gateway.ask(Request::new("POST", "/-/reload")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn upgrade(&mut self) {
        let answer = self.gateway.ask(Request::new("POST", "/-/upgrade")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let fresh = self
            .processes
            .insert(answer.json()["pid"].as_u64().unwrap());
        assert!(fresh, "{}", answer.text());
    }

    async fn upgrade_to_crashing(&self) {
        let path = self.program.path().join("tollgate");
        let aside = self.program.path().join("aside");
        std::fs::write(&aside, "#!/bin/sh\necho validated >&0\nkill -SEGV $$\n").unwrap();
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        let answer = self.gateway.ask(Request::new("POST", "/-/upgrade")).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        symlink(env!("CARGO_BIN_EXE_tollgate"), &aside).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }

    async fn upgrade_to_broken_configuration(&self) {
        let broken = self.good.replace("accounts:", "acounts:");
        std::fs::write(self.gateway.conf(), broken).unwrap();
        for path in ["/-/upgrade", "/-/reload"] {
            let answer = self.gateway.ask(Request::new("POST", path)).await;
            assert!(
                answer.status >= 400 && answer.text().contains("acounts"),
                "{}",
                answer.text()
            );
        }
        std::fs::write(self.gateway.conf(), &self.good).unwrap();
    }

    /// The processes that have not exited.
    fn alive(&self) -> usize {
        self.processes.iter().filter(|pid| is_alive(**pid)).count()
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_reloads_and_upgrades() {
    let source = Source::start().await;
    let mut storm = Storm::begin(&source).await;
    let to = storm.gateway.public();
    let (stop, answers, begun): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
        Default::default();
    let (mut busy, mut streams) = (JoinSet::new(), JoinSet::new());
    for name in 0..BUSY {
        let client = Busy {
            to,
            reuses: name % FRESH != 0,
            answered: 0,
            resent: 0,
        };
        busy.spawn(client.run(name, stop.clone(), answers.clone()));
    }
    for name in 0..STREAMS {
        streams.spawn(follow(to, format!("first {name}"), begun.clone()));
    }
    let all_busy = |streams: usize, since: u64| {
        let (begun, answers) = (begun.clone(), answers.clone());
        async move {
            let wanted = (streams as u64, since + BUSY as u64);
            eventually("traffic on every connection", || {
                let now = (
                    begun.load(Ordering::Acquire),
                    answers.load(Ordering::Acquire),
                );
                (now.0 >= wanted.0 && now.1 >= wanted.1).then_some(())
            })
            .await;
        }
    };
    let mut open = STREAMS;
    all_busy(open, 0).await;
    for round in 1..=UPGRADES {
        while storm.reloads < RELOADS * round / (UPGRADES + 1) {
            storm.reload().await;
        }
        match round {
            1 => storm.upgrade_to_crashing().await,
            2 => storm.upgrade_to_broken_configuration().await,
            _ => {}
        }
        storm.upgrade().await;
        open += LATER_STREAMS;
        for name in 0..LATER_STREAMS {
            streams.spawn(follow(to, format!("round {round} {name}"), begun.clone()));
        }
        all_busy(open, answers.load(Ordering::Acquire)).await;
    }
    while storm.reloads < RELOADS {
        storm.reload().await;
    }
    all_busy(open, answers.load(Ordering::Acquire)).await;
    assert_eq!(
        storm.alive(),
        1 + UPGRADES,
        "every old process still carries streams"
    );
    finish(storm, &source, &stop, busy, streams).await;
}

/// Ends the traffic in order, and looks at what became of it.
async fn finish(
    storm: Storm,
    source: &Source,
    stop: &AtomicBool,
    mut busy: JoinSet<Busy>,
    mut streams: JoinSet<u64>,
) {
    stop.store(true, Ordering::Release);
    let (mut answered, mut resent) = (0, 0);
    while let Some(client) = busy.join_next().await {
        let client = client.expect("no request fails");
        answered += client.answered;
        resent += client.resent;
        assert!(client.answered > 0);
    }
    source.ending.store(true, Ordering::Release);
    let mut events = 0;
    while let Some(stream) = within("the end of the streams", streams.join_next()).await {
        events += stream.expect("no event is lost or repeated");
    }
    eventually("the exit of the old processes", || {
        (storm.alive() == 1).then_some(())
    })
    .await;
    println!("{answered} requests answered, {resent} of them resent; {events} events streamed");
    // A resend is a race between two closings; it must stay the exception.
    assert!(resent <= (BUSY * UPGRADES) as u64, "{resent} resent");
}
