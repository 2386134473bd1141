//! HTTP/1.1 on a raw socket, for both ends: heads, framings and nothing else,
//! so that a test controls and sees the exact bytes.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A TCP or TLS stream that can be made to reset when it is dropped.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes dropping the stream send RST instead of FIN.
    fn reset_when_dropped(&self);
}

impl Stream for TcpStream {
    fn reset_when_dropped(&self) {
        self.set_zero_linger().expect("SO_LINGER");
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset_when_dropped(&self) {
        self.get_ref().0.reset_when_dropped();
    }
}

impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn reset_when_dropped(&self) {
        self.get_ref().0.reset_when_dropped();
    }
}

/// A request or response head. Bytes beyond ASCII are kept as Latin-1.
#[derive(Debug, Clone)]
pub struct Head {
    /// The first line.
    pub start: String,
    /// Headers in order, names as they came.
    pub headers: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self { start, headers }
    }

    /// The first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// How the body after this head is framed; `otherwise` when the head does not say.
    pub fn framing(&self, otherwise: Framing) -> Framing {
        let chunked = |value: &str| value.to_ascii_lowercase().ends_with("chunked");
        if self.header("transfer-encoding").is_some_and(chunked) {
            return Framing::Chunked {
                left: 0,
                begun: false,
            };
        }
        match self.header("content-length").map(str::parse) {
            Some(Ok(length)) => Framing::Length(length),
            _ => otherwise,
        }
    }
}

/// The first value of `name` in `headers`, in any case.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
    headers.iter().find(same).map(|(_, value)| value.as_str())
}

/// What is left of a body, by its framing.
#[derive(Debug, Clone)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks; `left` bytes of the present one.
    Chunked {
        /// Bytes left of the present chunk.
        left: u64,
        /// Whether a chunk came already, whose line end is still to be read.
        begun: bool,
    },
    /// Everything until the connection ends.
    UntilClose,
}

/// One piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Payload, framing removed.
    Data(Vec<u8>),
    /// The framing ended as it must.
    End,
    /// The connection ended where only it told the end.
    EndOfStream,
    /// The connection or the stream broke before the framing ended.
    Cut,
}

/// A stream and what was read of it ahead.
pub struct Wire {
    stream: Box<dyn Stream>,
    ahead: BytesMut,
}

impl Wire {
    /// Wraps `stream`.
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            ahead: BytesMut::with_capacity(64 * 1024),
        }
    }

    /// The next head; `None` when the connection ended before a whole one.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = end_of_head(&self.ahead) {
                let bytes = self.ahead.split_to(end);
                return Some(Head::parse(&bytes));
            }
            self.more().await?;
        }
    }

    /// The next piece of a body framed by `framing`.
    pub async fn piece(&mut self, framing: &mut Framing) -> Piece {
        match framing {
            Framing::Length(0) => Piece::End,
            Framing::Length(left) => self.some(left).await,
            Framing::UntilClose => match self.any().await {
                Some(bytes) => Piece::Data(bytes),
                None => Piece::EndOfStream,
            },
            Framing::Chunked { left, begun } => {
                if *left == 0 {
                    match self.next_chunk(*begun).await {
                        Some(0) => return self.trailers().await,
                        Some(size) => (*left, *begun) = (size, true),
                        None => return Piece::Cut,
                    }
                }
                self.some(left).await
            }
        }
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Writes `bytes` while it keeps reading, and stops early when a final
    /// response or the end of the connection arrives.
    pub async fn write_listening(&mut self, bytes: &[u8]) -> io::Result<()> {
        let ahead = &mut self.ahead;
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let listening = async {
            while !has_final_response(ahead) {
                if !matches!(reader.read_buf(ahead).await, Ok(1..)) {
                    break;
                }
            }
        };
        tokio::select! {
            written = async { writer.write_all(bytes).await?; writer.flush().await } => written,
            () = listening => Ok(()),
        }
    }

    /// Resolves when the peer has gone; what it sends meanwhile is kept.
    pub async fn gone(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Whether the peer has ended the connection already, as clients ask before they use one
    /// again.
    pub async fn is_over(&mut self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.gone())
            .await
            .is_ok()
    }

    /// What was received and not consumed yet, waiting for at least one byte;
    /// `None` at the end of the connection.
    pub async fn any(&mut self) -> Option<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more().await?;
        }
        Some(self.ahead.split().to_vec())
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        self.gone().await;
        self.ahead.split().to_vec()
    }

    /// Ends this side of the connection.
    pub async fn end(&mut self) {
        // It may have ended already.
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.stream.reset_when_dropped();
    }

    async fn more(&mut self) -> Option<usize> {
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(0) | Err(_) => None,
            Ok(count) => Some(count),
        }
    }

    /// At most `left` bytes, and counts them off.
    async fn some(&mut self, left: &mut u64) -> Piece {
        if self.ahead.is_empty() && self.more().await.is_none() {
            return Piece::Cut;
        }
        let count =
            usize::try_from(*left).map_or(self.ahead.len(), |left| left.min(self.ahead.len()));
        *left -= count as u64;
        Piece::Data(self.ahead.split_to(count).to_vec())
    }

    async fn next_chunk(&mut self, begun: bool) -> Option<u64> {
        if begun && !self.line().await?.is_empty() {
            return None;
        }
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(size, 16).ok()
    }

    async fn trailers(&mut self) -> Piece {
        loop {
            match self.line().await {
                Some(line) if line.is_empty() => return Piece::End,
                Some(_) => {}
                None => return Piece::Cut,
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = position(&self.ahead, b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.advance(end + 2);
                return Some(line);
            }
            self.more().await?;
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    position(bytes, b"\r\n\r\n").map(|start| start + 4)
}

fn has_final_response(bytes: &[u8]) -> bool {
    end_of_head(bytes).is_some() && !bytes.starts_with(b"HTTP/1.1 1")
}

/// Where `needle` first stands in `bytes`.
pub fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}
