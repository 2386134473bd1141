//! A fake provider: scripted replies, and a record of every request.
//!
//! Each request takes the next reply of the script. A reply that nobody asked
//! for, or a request that nobody scripted, fails the test.

mod h1;
mod h2;
mod received;
mod reply;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use received::{Exchange, Received};
pub use reply::{Answer, End, Gate, Part, Reply};

use super::wait::eventually;
use super::wire::Wire;

/// What an upstream speaks.
#[derive(Clone)]
enum Speaks {
    H1,
    H2c,
    Tls(Arc<ServerConfig>),
}

/// A fake provider on a free port of 127.0.0.1.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// HTTP/1.1.
    pub async fn h1() -> Self {
        Self::listen(Speaks::H1).await
    }

    /// HTTP/2 with prior knowledge.
    pub async fn h2c() -> Self {
        Self::listen(Speaks::H2c).await
    }

    /// TLS as `config` says; ALPN chooses the HTTP version.
    pub async fn tls(config: Arc<ServerConfig>) -> Self {
        Self::listen(Speaks::Tls(config)).await
    }

    /// An HTTP/1.1 upstream that answers once, with `reply`.
    pub async fn answering(reply: impl Into<Reply>) -> Self {
        let upstream = Self::h1().await;
        upstream.script(reply);
        upstream
    }

    async fn listen(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, speaks, shared.clone()));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Queues `reply` for the next request that has none yet.
    pub fn script(&self, reply: impl Into<Reply>) {
        lock(&self.shared.script).push_back(reply.into());
    }

    /// Answers every request beyond the script with `reply`.
    pub fn always(&self, reply: impl Into<Reply>) {
        *lock(&self.shared.otherwise) = Some(reply.into());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        let exchanges = lock(&self.shared.exchanges);
        exchanges
            .iter()
            .map(|exchange| exchange.received())
            .collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits for `count` requests whose bodies are whole, and demands that there are no more.
    pub async fn received(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} whole requests at the upstream");
        let requests = eventually(&what, || {
            let requests = self.requests();
            let whole = requests.iter().filter(|request| request.digest.is_some());
            (whole.count() >= count).then_some(requests)
        })
        .await;
        assert_eq!(requests.len(), count, "requests at the upstream");
        requests
    }

    /// The only request: waits until it is whole.
    pub async fn only(&self) -> Received {
        self.received(1).await.remove(0)
    }

    /// Waits until `count` exchanges were abandoned by the gateway before their end.
    pub async fn abandoned(&self, count: usize) {
        let what = format!("{count} exchanges that the gateway gives up");
        eventually(&what, || {
            let requests = self.requests();
            let gone = requests.iter().filter(|request| request.abandoned);
            (gone.count() >= count).then_some(())
        })
        .await;
    }

    /// Waits until `count` request heads have arrived.
    pub async fn reached(&self, count: usize) {
        let what = format!("{count} request heads at the upstream");
        eventually(&what, || (self.requests().len() >= count).then_some(())).await;
    }

    /// Demands that nothing ever arrived.
    pub fn untouched(&self) {
        assert_eq!(self.requests().len(), 0, "requests: {:?}", self.requests());
    }
}

impl From<&Upstream> for SocketAddr {
    fn from(upstream: &Upstream) -> Self {
        upstream.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
        if std::thread::panicking() {
            return;
        }
        let unused = lock(&self.shared.script).len();
        assert_eq!(unused, 0, "scripted replies that nobody asked for");
        let surprises = self.shared.unscripted.load(Ordering::SeqCst);
        assert_eq!(surprises, 0, "requests that no reply was scripted for");
    }
}

/// What the connections of an upstream share.
#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Option<Reply>>,
    exchanges: Mutex<Vec<Arc<Exchange>>>,
    unscripted: AtomicUsize,
    connections: AtomicUsize,
}

impl Shared {
    /// Records a request head and chooses its reply.
    fn begin(&self, received: Received) -> (Arc<Exchange>, Reply) {
        let exchange = Arc::new(Exchange::new(received));
        lock(&self.exchanges).push(exchange.clone());
        let reply = lock(&self.script)
            .pop_front()
            .or_else(|| lock(&self.otherwise).clone());
        let reply = reply.unwrap_or_else(|| {
            self.unscripted.fetch_add(1, Ordering::SeqCst);
            Answer::new(599).text("no reply was scripted").into()
        });
        (exchange, reply)
    }
}

/// Locks, also after another test thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept(listener: TcpListener, speaks: Speaks, shared: Arc<Shared>) {
    // Dropping the set with this task ends every connection of the upstream.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, speaks.clone(), number, shared.clone()));
    }
}

async fn serve(stream: TcpStream, speaks: Speaks, number: usize, shared: Arc<Shared>) {
    match speaks {
        Speaks::H1 => h1::serve(Wire::new(stream), number, shared).await,
        Speaks::H2c => h2::serve(stream, number, shared).await,
        Speaks::Tls(config) => {
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
                return;
            };
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => h2::serve(stream, number, shared).await,
                _ => h1::serve(Wire::new(stream), number, shared).await,
            }
        }
    }
}
