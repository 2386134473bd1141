//! Head and body leave together.
//!
//! Pingora writes and flushes the head of a request, then its body, and of an answer without a length
//! the head and every piece: packets, each of which wakes somebody, and costs as much to send as the
//! gateway's own work takes. Mostly the next one is there already. So the socket is corked
//! (`TCP_CORK`, tcp(7)) until the request waits for something: then whatever has been written goes out
//! as one, and nothing ever waits for what is still to come.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::pin::pin;

tokio::task_local! {
    static CORKED: Cell<Option<RawFd>>;
}

/// What is written to `socket` from now on is sent when the request that runs here waits for
/// something. Outside of [`sending`] it is sent at once.
pub fn cork(socket: RawFd) {
    // Without a request that runs here nobody would let it go.
    let _ = CORKED.try_with(|corked| {
        if hold(socket, true) {
            let_go(corked);
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
    use std::os::fd::AsRawFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        let client = client.unwrap();
        client.set_nodelay(true).unwrap();
        (client, server.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_written_before_a_wait_arrives_as_one() {
        let (mut client, mut server) = pair().await;
        let mut arrived = [0; 16];
        sending(async {
            cork(client.as_raw_fd());
            client.write_all(b"head").await.unwrap();
            assert!(server.try_read(&mut [0]).is_err(), "it has left already");
            client.write_all(b"body").await.unwrap();
            let length = server.read(&mut arrived).await.unwrap();
            assert_eq!(&arrived[..length], b"headbody");
            // From then on everything goes out at once.
            client.write_all(b"more").await.unwrap();
            server.readable().await.unwrap();
            let length = server.try_read(&mut arrived).unwrap();
            assert_eq!(&arrived[..length], b"more");
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_written_before_the_end_arrives_and_one_cork_follows_another() {
        let (mut first, mut its) = pair().await;
        let (mut second, mut other) = pair().await;
        sending(async {
            cork(first.as_raw_fd());
            first.write_all(b"1").await.unwrap();
            cork(second.as_raw_fd());
            second.write_all(b"2").await.unwrap();
        })
        .await;
        assert_eq!(its.read_u8().await.unwrap(), b'1');
        assert_eq!(other.read_u8().await.unwrap(), b'2');
    }

    #[tokio::test]
    async fn nothing_is_held_where_nobody_would_let_it_go() {
        let (mut client, mut server) = pair().await;
        cork(client.as_raw_fd());
        client.write_all(b"1").await.unwrap();
        server.readable().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'1');
        cork(-1);
    }
}
