//! A collector on a free port of this machine: keeps what it receives, answers as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::LONG;

/// One request.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status, more lines of the head, body.
    Answer(u16, &'static str, Vec<u8>),
    /// Nothing: the connection is closed.
    Hangup,
    /// Nothing at all.
    Silence,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, "", Vec::new())
    }
}

type Script = Arc<dyn Fn(usize, &Received) -> Reply + Send + Sync>;

/// The collector; its threads end with it.
pub struct Collector {
    address: SocketAddr,
    received: Receiver<Received>,
    listener: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    count: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
    is_over: AtomicUsize,
}

impl Collector {
    /// Takes everything.
    pub fn new() -> Self {
        Self::answering(|_, _| Reply::status(200))
    }

    /// Answers the request of a number, from 0, as `script` says.
    pub fn answering(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = channel();
        let shared = Arc::new(Shared {
            script: Arc::new(script),
            count: AtomicUsize::new(0),
            connections: Mutex::default(),
            is_over: AtomicUsize::new(0),
        });
        let kept = Arc::clone(&shared);
        let listener = std::thread::spawn(move || listen(&listener, &kept, &sender));
        Self {
            address,
            received,
            listener: Some(listener),
            shared,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request.
    pub fn next(&self) -> Received {
        self.received.recv_timeout(LONG).unwrap()
    }

    /// All that have come and were not taken yet.
    pub fn rest(&self) -> Vec<Received> {
        self.received.try_iter().collect()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.is_over.store(1, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>, sender: &Sender<Received>) {
    let mut threads = Vec::new();
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) > 0 {
            break;
        }
        let stream = stream.unwrap();
        shared.connections.lock().push(stream.try_clone().unwrap());
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        threads.push(std::thread::spawn(move || serve(stream, &shared, &sender)));
    }
    for connection in shared.connections.lock().iter() {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, sender: &Sender<Received>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(received) = receive(&mut reader) {
        let number = shared.count.fetch_add(1, Ordering::SeqCst);
        let reply = (shared.script)(number, &received);
        // Known before it is answered: whoever has flushed finds it.
        let _ = sender.send(received);
        match reply {
            Reply::Answer(status, lines, body) => {
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\n{lines}content-length: {length}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
            Reply::Hangup => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Reply::Silence => {}
        }
    }
}

/// A request with a `content-length`; `None` at the end of the connection.
pub fn receive(reader: &mut impl BufRead) -> Option<Received> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    assert!(first.starts_with("POST /"), "{first}");
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut received = Received {
        path,
        headers,
        body: Vec::new(),
    };
    let length = received.header("content-length")?.parse().ok()?;
    received.body.resize(length, 0);
    reader.read_exact(&mut received.body).ok()?;
    Some(received)
}
