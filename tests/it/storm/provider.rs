//! A fake provider in a storm: it comes and goes, does with each attempt what its script says,
//! checks every body, and counts.
//!
//! What makes the counts exact: a connection that it ends, it ends one side of, and then still
//! listens for a request that is on its way. So an attempt either brings a head that is counted
//! (`heads`), or a connection that is (`headless`), or is refused, which only the gateway knows.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::Who;
use super::ask::{TOPIC, Topic, traced};
use super::chance::Dice;
use super::script::{Act, Script};
use super::{provider_h1, provider_h2};
use crate::support::ports::Port;

/// The longest that the gateway may keep an exchange open with which nothing happens.
pub const LONGEST: Duration = Duration::from_secs(20);
/// How long the gateway may take to hear that a connection has ended.
pub const LISTENS: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 1024;

/// A running provider.
pub struct Provider {
    pub state: Arc<State>,
    port: Port,
    running: JoinHandle<()>,
}

/// What all its connections share.
pub struct State {
    pub who: Who,
    seed: u64,
    attempts: Mutex<Vec<Attempt>>,
    tries: Mutex<HashMap<String, u32>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    over: watch::Sender<bool>,
    pub tally: Tally,
    wrongs: Mutex<Vec<String>>,
}

/// Counts that belong to no request.
#[derive(Default)]
pub struct Tally {
    /// Heads that arrived. Over HTTP/2 more than were taken up: a stream that is reset at once,
    /// or whose connection ends, may never be seen above the frames.
    pub heads: AtomicU64,
    /// Connections that ended before a head.
    pub headless: AtomicU64,
    /// How often it could not be reached for a while. A connection that came between the last
    /// look and the closing of the listener was reset by the kernel: nobody can count it.
    pub absences: AtomicU64,
    /// How often nobody took connections for a while.
    pub pauses: AtomicU64,
    /// Bodies that came whole, and those that were given up on the way.
    pub whole_bodies: AtomicU64,
    pub cut_bodies: AtomicU64,
}

/// One head that was taken up.
#[derive(Clone, Copy)]
pub struct Attempt {
    pub number: u64,
    pub act: Act,
    pub status: u16,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy)]
pub enum Welcome {
    Serve,
    /// It is reset as soon as something comes.
    Reset,
    /// It ends at once.
    End,
    /// What comes at once is not the protocol.
    Garble,
}

/// A request whose head has been read.
pub struct Heard {
    pub topic: Topic,
    pub script: Script,
    number: u64,
}

pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Provider {
    pub fn start(seed: u64, who: Who) -> Self {
        let port = Port::reserve();
        let state = Arc::new(State {
            who,
            seed,
            attempts: Mutex::default(),
            tries: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            over: watch::Sender::new(false),
            tally: Tally::default(),
            wrongs: Mutex::default(),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let running = tokio::spawn(accept(address, state.clone()));
        Self {
            state,
            port,
            running,
        }
    }

    pub fn yaml(&self) -> String {
        let (name, version) = match self.state.who {
            Who::Openai => ("openai", "h1"),
            Who::Groq => ("groq", "h2"),
        };
        format!(
            "  {name}: {{ base_url: \"http://127.0.0.1:{}/v1\", allow_insecure: true, http: {version}, \
             keys: [ {{ alias: default, value: sk-{name} }} ] }}\n",
            self.port.number()
        )
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl State {
    /// Every connection ends as soon as nothing is in flight on it.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Resolves when that was said.
    pub async fn over(&self) {
        // The sender lives as long as this.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Every head that was taken up.
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.attempts).clone()
    }

    /// How often it did what.
    pub fn acts(&self) -> BTreeMap<Act, u64> {
        let mut acts = BTreeMap::new();
        for attempt in lock(&self.attempts).iter() {
            *acts.entry(attempt.act).or_default() += 1;
        }
        acts
    }

    /// What must never happen.
    pub fn wrongs(&self) -> Vec<String> {
        lock(&self.wrongs).clone()
    }

    pub fn wrong(&self, what: String) {
        lock(&self.wrongs).push(format!("{}: {what}", self.who.name()));
    }

    /// What to do with the next connection.
    pub fn welcome(&self) -> Welcome {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::of(self.seed, &format!("{} {number}", self.who.name()));
        dice.weighted(&[
            (940, Welcome::Serve),
            (20, Welcome::Reset),
            (20, Welcome::End),
            (20, Welcome::Garble),
        ])
    }

    /// Takes a head up. `None`: it says nothing that a client of the storm says.
    pub fn hear<'a>(&self, header: impl Fn(&str) -> Option<&'a str>) -> Option<Heard> {
        let heard = self.read(&header);
        if heard.is_none() {
            let told = [header("traceparent"), header(TOPIC)];
            self.wrong(format!("a head that nobody sent: {told:?}"));
        }
        let heard = heard?;
        self.note(&heard, heard.script.act);
        Some(heard)
    }

    /// Takes a head up on a connection that has ended.
    pub fn hear_late<'a>(&self, act: Act, header: impl Fn(&str) -> Option<&'a str>) {
        match self.read(&header) {
            Some(heard) => self.note(&heard, act),
            None => self.wrong("half a head that nobody sent".to_owned()),
        }
    }

    fn read<'a>(&self, header: &impl Fn(&str) -> Option<&'a str>) -> Option<Heard> {
        let number = traced(header("traceparent")?)?;
        let topic = Topic::parse(header(TOPIC)?)?;
        let attempt = self.next_try(&topic);
        let script = Script::of(self.seed, self.who, &topic, attempt);
        Some(Heard {
            topic,
            script,
            number,
        })
    }

    fn next_try(&self, topic: &Topic) -> u32 {
        let mut tries = lock(&self.tries);
        let tried = tries.entry(topic.text.clone()).or_default();
        *tried += 1;
        *tried - 1
    }

    fn note(&self, heard: &Heard, act: Act) {
        lock(&self.attempts).push(Attempt {
            number: heard.number,
            act,
            status: heard.script.status,
        });
    }

    /// A body has ended as its framing demands: then it is all of this request's, for this
    /// provider's model.
    pub fn whole(&self, heard: &Heard, length: Option<&str>, body: &[u8]) {
        add(&self.tally.whole_bodies, 1);
        let expected = heard.topic.body_at(self.who);
        let told = length.is_none_or(|length| length == body.len().to_string());
        if body != expected || !told {
            let start = String::from_utf8_lossy(&body[..body.len().min(200)]);
            self.wrong(format!(
                "{} bytes, told as {length:?}, for the {} of {}: {start}",
                body.len(),
                expected.len(),
                heard.topic.text
            ));
        }
    }

    /// A body was broken off: what came is a part of this request's.
    pub fn cut(&self, heard: &Heard, body: &[u8]) {
        add(&self.tally.cut_bodies, 1);
        if !heard.topic.body_at(self.who).starts_with(body) {
            self.wrong(format!("another beginning for {}", heard.topic.text));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections, but not all the time.
async fn accept(address: SocketAddr, state: Arc<State>) {
    // Dropping the set with this task ends every connection.
    let mut connections = JoinSet::new();
    let mut dice = Dice::of(state.seed, &format!("weather of {}", state.who.name()));
    let mut listener = listen(address);
    loop {
        let until = Duration::from_secs(1) + dice.millis(3000);
        let _ = tokio::time::timeout(until, take(&listener, &mut connections, &state)).await;
        if dice.one_in(2) {
            add(&state.tally.pauses, 1);
            tokio::time::sleep(dice.millis(700)).await;
        } else {
            add(&state.tally.absences, 1);
            go_away(listener, &mut connections, &state);
            tokio::time::sleep(dice.millis(500)).await;
            listener = listen(address);
        }
        while connections.try_join_next().is_some() {}
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket.bind(address).expect("a reserved port");
    socket.listen(BACKLOG).expect("a listener")
}

/// Never ends by itself.
async fn take(listener: &TcpListener, connections: &mut JoinSet<()>, state: &Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, connections, state),
            Err(error) => state.wrong(format!("accept: {error}")),
        }
    }
}

/// Takes who has come, and closes the door.
fn go_away(listener: TcpListener, connections: &mut JoinSet<()>, state: &Arc<State>) {
    let listener = listener.into_std().expect("a listener");
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("a socket");
        let stream = TcpStream::from_std(stream).expect("a socket");
        begin(stream, connections, state);
    }
}

fn begin(stream: TcpStream, connections: &mut JoinSet<()>, state: &Arc<State>) {
    let _ = stream.set_nodelay(true);
    let counted = Open::count(state);
    let state = state.clone();
    connections.spawn(async move {
        let _counted = counted;
        match state.who {
            Who::Openai => provider_h1::serve(stream, &state).await,
            Who::Groq => provider_h2::serve(stream, &state).await,
        }
    });
}

/// Makes a connection end with RST once something has come on it: before that, the gateway may
/// not know that it was ever made, and say that it was refused.
pub async fn reset_unread(stream: &TcpStream) {
    let _ = tokio::time::timeout(LISTENS, stream.peek(&mut [0])).await;
    stream.set_zero_linger().expect("SO_LINGER");
}

/// Counts a connection as long as it is open.
struct Open(Arc<State>);

impl Open {
    fn count(state: &Arc<State>) -> Self {
        state.open.fetch_add(1, Ordering::AcqRel);
        Self(state.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
