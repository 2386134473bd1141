//! The stream of an HTTP/1 connection, which lets nothing out before the application has taken
//! the request in.
//!
//! Pingora parses a head once, inside its proxy, and answers what its parser refuses by itself:
//! a bare 400, of which nobody learns. Parsing every head before it does would cost every
//! request; so its answer is caught here, and the entrance gives its own.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Tells the stream of a connection, which says it of itself, that its request was taken in:
/// from now on the application's answer passes. Streams of other kinds always let it pass.
pub fn cross(stream: &Stream) {
    if let Some(threshold) = stream.as_any().downcast_ref::<Threshold>() {
        threshold.keeper.crossed.store(true, Ordering::Relaxed);
    }
}

/// What the entrance keeps of a connection while the engine has its stream.
#[derive(Debug, Default)]
pub struct Keeper {
    crossed: AtomicBool,
    kept: Mutex<Option<Stream>>,
}

impl Keeper {
    /// A stream that is kept by `self`, before its first request.
    pub fn watch(self: &Arc<Self>, stream: Stream) -> Stream {
        Box::new(Threshold {
            stream: Some(stream),
            keeper: Arc::clone(self),
        })
    }

    /// Another request comes: nothing passes before it is taken in.
    pub fn expect_request(&self) {
        self.crossed.store(false, Ordering::Relaxed);
    }

    /// The stream, if the engine refused the request by itself.
    pub fn refused(&self) -> Option<Stream> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take()
    }
}

/// The stream that the engine sees.
#[derive(Debug)]
struct Threshold {
    /// None once the engine has refused a request: the keeper has it, and what the engine
    /// still does goes nowhere.
    stream: Option<Stream>,
    keeper: Arc<Keeper>,
}

impl Threshold {
    /// The stream for something that is on its way out, if it may pass.
    fn outward(&mut self) -> Option<Pin<&mut Stream>> {
        if !self.keeper.crossed.load(Ordering::Relaxed)
            && let Some(stream) = self.stream.take()
        {
            let mut kept = self
                .keeper
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *kept = Some(stream);
        }
        self.stream.as_mut().map(Pin::new)
    }

    fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }
}

impl AsyncRead for Threshold {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Threshold {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        match self.outward() {
            Some(stream) => stream.poll_write(context, bytes),
            None => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match self.outward() {
            Some(stream) => stream.poll_write_vectored(context, slices),
            None => Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream()
            .is_some_and(|stream| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self.outward() {
            Some(stream) => stream.poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[async_trait]
impl Shutdown for Threshold {
    async fn shutdown(&mut self) {
        // The client may have closed it already.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl Peek for Threshold {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match &mut self.stream {
            Some(stream) => stream.try_peek(buffer).await,
            None => Ok(false),
        }
    }
}

impl UniqueID for Threshold {
    fn id(&self) -> UniqueIDType {
        self.stream().map_or(-1, |stream| stream.id())
    }
}

impl Ssl for Threshold {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Threshold {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream()
            .map_or_else(Vec::new, |stream| stream.get_timing_digest())
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream()
            .map_or(Duration::ZERO, |stream| stream.get_read_pending_time())
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream()
            .map_or(Duration::ZERO, |stream| stream.get_write_pending_time())
    }
}

impl GetProxyDigest for Threshold {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream()?.get_proxy_digest()
    }
}

impl GetSocketDigest for Threshold {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream()?.get_socket_digest()
    }
}
