//! Head and body leave together, and with those of other requests.
//!
//! Pingora writes head and body of a request apart, and mostly those of an answer, too: packets, each of
//! which wakes somebody, and costs as much to send as the gateway's own work takes. Mostly the next one
//! is there already. So the socket is corked (`TCP_CORK`, tcp(7)) until the request waits for something:
//! then whatever has been written goes out as one, whatever is still to come.
//!
//! Where many requests are under way, their sockets are let go together, once their thread has nothing
//! else to do, and after [`LONGEST`]: who is woken by the first finds the others there, and one waking
//! is most of what sending a packet costs.
//!
//! Only over HTTP/1.1: over HTTP/2 a task of its own writes for all requests of a connection.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::Session;

/// How many sockets of a thread wait for each other: a ninth would be none the cheaper, and the first
/// would wait longer.
const MOST: usize = 8;

/// How long a socket waits for others. It may be longer by what the thread is at when it has passed.
const LONGEST: Duration = Duration::from_micros(500);

/// Requests that are under way in the process up to which none waits for another: waiting for nobody
/// costs more than sending.
const FEW: usize = 2;

static ALL: Requests = Requests {
    under_way: AtomicUsize::new(0),
    longest: LONGEST,
};

/// The requests of the process.
struct Requests {
    under_way: AtomicUsize,
    longest: Duration,
}

thread_local! {
    static HERE: Here = Here::default();
}

/// What is a thread's own.
#[derive(Default)]
struct Here {
    /// A request is polled.
    runs: Cell<bool>,
    corked: Arc<Mutex<Corked>>,
}

/// The sockets of a thread that are to be let go.
#[derive(Default)]
struct Corked {
    sockets: Sockets,
    /// When the first of them was corked.
    since: Option<Instant>,
    /// A [`LetGo`] sees to them.
    is_seen_to: bool,
}

#[derive(Default)]
struct Sockets {
    numbers: [RawFd; MOST],
    count: usize,
}

/// A request goes over `socket` now. Where HTTP/2 is offered, others may go over it, too.
pub fn request(session: &mut Session, peer: &HttpPeer, socket: RawFd) {
    if matches!(peer.options.alpn, ALPN::H1) && !session.as_mut().is_body_empty() {
        cork(socket);
    }
}

/// The head of an answer goes to the client now.
pub fn answer(session: &Session) {
    if let Some(client) = session.as_http1() {
        cork(client.stream().id());
    }
}

/// What is written to `socket` from now on is sent soon after the request that runs here has come to
/// wait for something. Outside of [`sending`] it is sent at once.
fn cork(socket: RawFd) {
    HERE.with(|here| {
        // Without a request that runs here nobody would let it go.
        if here.runs.get() && hold(socket, true) {
            here.add(socket);
        }
    });
}

/// Runs `request`; soon after it has come to wait, all that it has written goes out.
pub async fn sending<T>(request: impl Future<Output = T>) -> T {
    sending_among(&ALL, request).await
}

async fn sending_among<T>(all: &'static Requests, request: impl Future<Output = T>) -> T {
    let _one = One::more(&all.under_way);
    let mut request = pin!(request);
    std::future::poll_fn(|context| {
        let _turn = Turn::begin(all);
        request.as_mut().poll(context)
    })
    .await
}

/// One of the requests that are under way.
struct One(&'static AtomicUsize);

impl One {
    fn more(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request is polled, until it waits, ends or panics.
struct Turn {
    all: &'static Requests,
    /// Another one was, around it.
    outer: bool,
}

impl Turn {
    fn begin(all: &'static Requests) -> Self {
        let outer = HERE.with(|here| here.runs.replace(true));
        Self { all, outer }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HERE.with(|here| {
            here.runs.set(self.outer);
            here.waits(self.all);
        });
    }
}

impl Here {
    fn add(&self, socket: RawFd) {
        let full = {
            let mut corked = self.corked.lock();
            let is_full = corked.sockets.count == MOST;
            let full = is_full.then(|| corked.take());
            corked.since.get_or_insert_with(Instant::now);
            corked.sockets.add(socket);
            full
        };
        full.unwrap_or_default().let_go();
    }

    /// The request that ran waits, or has ended.
    fn waits(&self, all: &Requests) {
        let next = self.corked.lock().when_one_waits(all);
        // Without the lock: a runtime that has ended drops what is spawned at once.
        match next {
            Next::Nothing => {}
            Next::Now(sockets) => sockets.let_go(),
            Next::Later => {
                let later = LetGo(Arc::clone(&self.corked));
                tokio::spawn(async move {
                    let _later = later;
                    // Tokio comes back to it when it has no other task to run, or has run some sixty.
                    tokio::task::yield_now().await;
                });
            }
        }
    }
}

/// What becomes of the corked sockets of a thread.
enum Next {
    Nothing,
    Now(Sockets),
    Later,
}

impl Corked {
    fn when_one_waits(&mut self, all: &Requests) -> Next {
        let Some(since) = self.since else {
            return Next::Nothing;
        };
        let are_few = all.under_way.load(Ordering::Relaxed) <= FEW;
        match self.is_seen_to {
            true if since.elapsed() < all.longest => Next::Nothing,
            false if !are_few => {
                self.is_seen_to = true;
                Next::Later
            }
            _ => Next::Now(self.take()),
        }
    }

    fn take(&mut self) -> Sockets {
        self.since = None;
        std::mem::take(&mut self.sockets)
    }
}

impl Sockets {
    fn add(&mut self, socket: RawFd) {
        self.numbers[self.count] = socket;
        self.count += 1;
    }

    fn let_go(self) {
        for socket in &self.numbers[..self.count] {
            // It may be closed by now, and its number another's: that one is not corked for longer
            // than a moment either, and loses nothing.
            hold(*socket, false);
        }
    }
}

/// Lets the sockets of a thread go when dropped: a runtime that ends drops its tasks, too.
struct LetGo(Arc<Mutex<Corked>>);

impl Drop for LetGo {
    fn drop(&mut self) {
        let sockets = {
            let mut corked = self.0.lock();
            corked.is_seen_to = false;
            corked.take()
        };
        sockets.let_go();
    }
}

/// False where it is no TCP socket, or no socket any more.
#[allow(unsafe_code)]
fn hold(socket: RawFd, on: bool) -> bool {
    let on = libc::c_int::from(on);
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: reads the integer during the call, and changes no memory, whatever the number stands
    // for: Pingora shows sockets only so.
    let done = unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_CORK,
            (&raw const on).cast(),
            size,
        )
    };
    done == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncWriteExt;
    use tokio::net;

    use super::*;

    /// Writes at one end, and looks at the other.
    struct Pair {
        from: net::TcpStream,
        to: TcpStream,
    }

    impl Pair {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let to = listener.accept().unwrap().0;
            from.set_nodelay(true).unwrap();
            from.set_nonblocking(true).unwrap();
            to.set_nonblocking(true).unwrap();
            let from = net::TcpStream::from_std(from).unwrap();
            // The first write would wait for this.
            from.writable().await.unwrap();
            Self { from, to }
        }

        fn cork(&self) {
            cork(self.from.as_raw_fd());
        }

        /// A request that writes this, and ends.
        async fn request(&mut self, text: &str, among: &'static Requests) {
            sending_among(among, async {
                self.cork();
                self.write(text).await;
            })
            .await;
        }

        async fn write(&mut self, text: &str) {
            self.from.write_all(text.as_bytes()).await.unwrap();
        }

        /// What has arrived.
        fn there(&mut self) -> String {
            let mut read = [0; 16];
            match self.to.read(&mut read) {
                Ok(length) => String::from_utf8_lossy(&read[..length]).into_owned(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
                Err(error) => panic!("{error}"),
            }
        }

        /// What arrives long before the kernel gives up holding it, which is after 200 ms.
        fn comes(&mut self) -> String {
            let began = Instant::now();
            loop {
                let there = self.there();
                if !there.is_empty() || began.elapsed() > Duration::from_millis(100) {
                    return there;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// As many as there are beside those of a test, however slow the machine is.
    fn others(count: usize) -> &'static Requests {
        Box::leak(Box::new(Requests {
            under_way: AtomicUsize::new(count),
            longest: Duration::MAX,
        }))
    }

    #[tokio::test]
    async fn what_is_written_before_a_wait_leaves_as_one() {
        let mut pair = Pair::new().await;
        sending_among(others(0), async {
            pair.cork();
            pair.write("head").await;
            assert_eq!(pair.there(), "");
            pair.write("body").await;
            tokio::task::yield_now().await;
            assert_eq!(pair.comes(), "headbody");
            // From then on everything leaves at once.
            pair.write("more").await;
            assert_eq!(pair.comes(), "more");
        })
        .await;
    }

    #[tokio::test]
    async fn of_few_requests_none_waits_for_another() {
        let (mut first, mut second) = (Pair::new().await, Pair::new().await);
        let among = others(FEW - 1);
        first.request("1", among).await;
        assert_eq!(first.comes(), "1");
        second.request("2", among).await;
        assert_eq!(second.comes(), "2");
    }

    #[tokio::test]
    async fn of_many_requests_those_of_a_thread_leave_together() {
        let (mut first, mut second) = (Pair::new().await, Pair::new().await);
        let among = others(FEW);
        first.request("1", among).await;
        second.request("2", among).await;
        assert_eq!(
            (first.there(), second.there()),
            (String::new(), String::new())
        );
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(
            (first.comes(), second.comes()),
            ("1".to_owned(), "2".to_owned())
        );
        // And so again.
        first.request("3", among).await;
        assert_eq!(first.there(), "");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(first.comes(), "3");
    }

    #[tokio::test]
    async fn no_more_than_some_wait_for_each_other() {
        let among = others(FEW);
        let mut pairs = Vec::new();
        for _ in 0..=MOST {
            pairs.push(Pair::new().await);
        }
        for pair in &mut pairs {
            pair.request("1", among).await;
        }
        let mut last = pairs.pop().unwrap();
        for pair in &mut pairs {
            assert_eq!(pair.comes(), "1");
        }
        assert_eq!(last.there(), "");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn threads_that_work_for_each_other_let_everything_go() {
        let among = others(FEW);
        let requests = (0..50).map(|_| {
            tokio::spawn(async {
                let mut pair = Pair::new().await;
                pair.request("1", among).await;
                pair
            })
        });
        for request in requests.collect::<Vec<_>>() {
            let mut pair = request.await.unwrap();
            assert_eq!(pair.comes(), "1");
        }
    }

    #[tokio::test]
    async fn none_waits_for_long() {
        let (mut first, mut second) = (Pair::new().await, Pair::new().await);
        let among = Box::leak(Box::new(Requests {
            under_way: AtomicUsize::new(FEW),
            longest: Duration::ZERO,
        }));
        first.request("1", among).await;
        second.request("2", among).await;
        assert_eq!(
            (first.comes(), second.comes()),
            ("1".to_owned(), "2".to_owned())
        );
    }

    #[tokio::test]
    async fn a_request_that_panics_holds_nothing() {
        let mut pair = Pair::new().await;
        let number = pair.from.as_raw_fd();
        let panicking = sending_among(others(0), async move {
            cork(number);
            panic!("as it does");
        });
        assert!(tokio::spawn(panicking).await.is_err());
        pair.cork();
        pair.write("1").await;
        assert_eq!(pair.comes(), "1");
    }

    #[test]
    fn a_request_that_is_polled_when_its_runtime_has_ended_holds_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _inside = handle.enter();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut to = listener.accept().unwrap().0;
        to.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let request = pin!(sending_among(others(FEW), async {
            cork(from.as_raw_fd());
            std::io::Write::write_all(&mut from, b"1").unwrap();
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(request.poll(&mut context).is_ready());
        assert_eq!(to.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_runtime_that_ends_lets_go() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut pair = runtime.block_on(async {
            let mut pair = Pair::new().await;
            pair.request("1", others(FEW)).await;
            pair
        });
        assert_eq!(pair.there(), "");
        drop(runtime);
        assert_eq!(pair.comes(), "1");
    }

    #[tokio::test]
    async fn nothing_is_held_where_nobody_would_let_it_go() {
        let mut pair = Pair::new().await;
        pair.cork();
        pair.write("1").await;
        assert_eq!(pair.comes(), "1");
        cork(-1);
    }
}
