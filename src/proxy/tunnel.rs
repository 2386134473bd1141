//! The connection of a request that asks for a tunnel (a WebSocket).
//!
//! Pingora passes on the request's end and reads the answer in two halves of one task, in any
//! order. A 101 that is read first, as from a provider on the same machine, makes it take the end
//! of the request for the end of the tunnel. So the answer is held back for the few turns of the
//! task in which the request's end is passed on.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::ext::set_tcp_keepalive;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, OkOrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Turns of the task that a read is held back after a write. In the first, one half puts the
/// request's end into the other's queue; in the second the other half takes it out, the read not
/// being ready. One more for a first turn that begins with the other half.
const TURNS: u8 = 3;

/// Set in the pool's key of these connections, so that they serve no other request.
const APART: u64 = 1 << 63;

/// The socket, as soon as it is connected: Pingora does not know that of such a connection.
pub type Known = Arc<OnceLock<RawFd>>;

/// The peer is to be asked for a tunnel: over a connection of its own.
pub fn prepare(peer: &mut HttpPeer) -> Known {
    let known = Known::default();
    peer.group_key ^= APART;
    peer.options.idle_timeout = Some(std::time::Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(Connector(Arc::clone(&known))));
    known
}

#[derive(Debug)]
struct Connector(Known);

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let inet = address
            .as_inet()
            .or_err(ErrorType::InternalError, "no address of the network")?;
        let connected = TcpStream::connect(inet).await;
        let socket = connected.map_err(|error| refused(address, error))?;
        // A connector makes one connection.
        let _ = self.0.set(socket.as_raw_fd());
        let held = HoldsBack { socket, turns: 0 };
        Ok(VirtualSocketStream::new(Box::new(held)).into())
    }
}

fn refused(address: &SocketAddr, error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            ErrorType::ConnectNoRoute
        }
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, format!("Fail to connect to {address}"), error)
}

/// A socket whose reads wait for a few turns after each write.
#[derive(Debug)]
struct HoldsBack {
    socket: TcpStream,
    /// Turns that are left.
    turns: u8,
}

impl VirtualSocket for HoldsBack {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(keepalive) => {
                set_tcp_keepalive(&self.socket, &keepalive).map_err(io::Error::other)
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for HoldsBack {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.turns.checked_sub(1) {
            self.turns = left;
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(task, into)
    }
}

impl AsyncWrite for HoldsBack {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.turns = TURNS;
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.turns = TURNS;
        Pin::new(&mut self.socket).poll_write_vectored(task, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}
