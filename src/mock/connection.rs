//! A socket as Pingora's server wants it.
//!
//! Pingora's own stream is unbuffered unless one of its listeners made it. This one
//! buffers writes, so that the head and the body of a short answer leave in one
//! packet, and looks for the HTTP/2 preface without taking bytes off the socket.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;

/// Write buffer: answers up to this size leave in one packet.
const BUFFER: usize = 8 * 1024;
/// Pause between two looks at a preface that comes in pieces.
const NEXT_LOOK: Duration = Duration::from_millis(2);
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufWriter<TcpStream>,
}

impl Connection {
    /// Takes over an accepted socket.
    ///
    /// # Errors
    /// When the socket is already gone.
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            stream: BufWriter::with_capacity(BUFFER, socket),
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // The peer may be gone already, which is what was wanted.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

#[async_trait]
impl Peek for Connection {
    /// Looks until there is a whole preface or bytes that cannot become one: a short
    /// request is not kept waiting for the rest of a preface that never comes.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        loop {
            let seen = self.stream.get_ref().peek(buf).await?;
            let preface = H2_PREFACE.starts_with(&buf[..seen]);
            if seen == 0 || seen == buf.len() || !preface {
                return Ok(true);
            }
            tokio::time::sleep(NEXT_LOOK).await;
        }
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().as_raw_fd()
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
