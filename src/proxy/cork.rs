//! Head and body leave together.
//!
//! Pingora writes head and body of a request apart, and mostly those of an answer, too: packets, each of
//! which wakes somebody, and costs as much to send as the gateway's own work takes. Mostly the next one
//! is there already. So the socket is corked (`TCP_CORK`, tcp(7)) until the request waits for something:
//! then whatever has been written goes out as one, and nothing ever waits for what is still to come.
//!
//! Only over HTTP/1.1: over HTTP/2 a task of its own writes for all requests of a connection.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::pin::pin;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::Session;

tokio::task_local! {
    static CORKED: Cell<Option<RawFd>>;
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

/// What is written to `socket` from now on is sent when the request that runs here waits for
/// something. Outside of [`sending`] it is sent at once.
fn cork(socket: RawFd) {
    // Without a request that runs here nobody would let it go.
    let _ = CORKED.try_with(|corked| {
        let_go(corked);
        if hold(socket, true) {
            corked.set(Some(socket));
        }
    });
}

/// Runs `request`; whenever it waits, all that it has written goes out.
pub async fn sending<T>(request: impl Future<Output = T>) -> T {
    let running = async {
        let mut request = pin!(request);
        std::future::poll_fn(|context| {
            let polled = request.as_mut().poll(context);
            CORKED.with(let_go);
            polled
        })
        .await
    };
    CORKED.scope(Cell::new(None), running).await
}

fn let_go(corked: &Cell<Option<RawFd>>) {
    if let Some(socket) = corked.take() {
        // It may be closed by now, and its number another's: that one is not corked for longer than
        // a moment either, and loses nothing.
        hold(socket, false);
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
    use std::time::{Duration, Instant};

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

    #[tokio::test]
    async fn what_is_written_before_a_wait_leaves_as_one() {
        let mut pair = Pair::new().await;
        sending(async {
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
    async fn what_is_written_before_the_end_leaves_and_one_cork_lets_another_go() {
        let (mut first, mut second) = (Pair::new().await, Pair::new().await);
        sending(async {
            first.cork();
            first.write("1").await;
            second.cork();
            assert_eq!(first.comes(), "1");
            second.write("2").await;
            assert_eq!(second.there(), "");
        })
        .await;
        assert_eq!(second.comes(), "2");
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
