//! A provider's HTTP/2 connection, on which the heads that arrive are counted below the library:
//! it forgets streams that end before it has looked at them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PREFACE: usize = 24;
const HEADERS: u8 = 1;

/// A connection of which one end goes into the library, and the other counts.
#[derive(Clone)]
pub struct Tap(Arc<Mutex<Tapped>>);

struct Tapped {
    stream: TcpStream,
    frames: Frames,
}

/// Where in the frames the bytes read so far have ended.
struct Frames {
    /// Bytes to the next frame's head.
    skip: usize,
    head: [u8; 9],
    /// Bytes of that head that are there.
    have: usize,
    headers: u64,
}

impl Tap {
    pub fn new(stream: TcpStream) -> Self {
        let frames = Frames {
            skip: PREFACE,
            head: [0; 9],
            have: 0,
            headers: 0,
        };
        Self(Arc::new(Mutex::new(Tapped { stream, frames })))
    }

    /// Heads that have arrived. Requests have no trailers here.
    pub fn heads(&self) -> u64 {
        self.lock().frames.headers
    }

    pub async fn say(&self, bytes: &[u8]) {
        let _ = self.clone().write_all(bytes).await;
    }

    /// Ends the connection, and counts what the gateway has sent by then.
    pub async fn end(&self, most: Duration) {
        let mut own = self.clone();
        let _ = own.shutdown().await;
        let mut piece = vec![0; 16 << 10];
        let listening = async { while let Ok(1..) = own.read(&mut piece).await {} };
        let _ = timeout(most, listening).await;
    }

    fn lock(&self) -> MutexGuard<'_, Tapped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == self.head.len() {
                let [a, b, c, kind, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.have = 0;
                self.headers += u64::from(kind == HEADERS);
            }
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut tapped = self.lock();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut tapped.stream).poll_read(context, buffer))?;
        tapped.frames.pass(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(context)
    }
}
