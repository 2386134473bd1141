//! What an upstream does with a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

/// One scripted reaction to one request.
#[derive(Clone)]
pub enum Reply {
    /// A response.
    Answer(Answer),
    /// Reads the whole body and answers its length and SHA-256 as JSON.
    Digest,
    /// Switches protocols with these headers and then echoes every byte. HTTP/1.1 only.
    Upgrade(Vec<(String, String)>),
    /// Reads the whole body and never answers.
    Silence,
    /// Reads the whole body and closes the connection (over HTTP/2: resets the stream).
    Close,
    /// Reads the whole body and resets the connection or the stream.
    Reset,
    /// Writes these bytes as they are and closes. HTTP/1.1 only.
    Raw(Vec<u8>),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// A door in a reply that the test opens.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets one waiting reply go on.
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    pub(super) async fn passed(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }
}

/// One step of a response body.
#[derive(Clone)]
pub enum Part {
    /// Sends these bytes (over HTTP/1.1 chunked: as one chunk).
    Bytes(Bytes),
    /// Sleeps.
    Pause(Duration),
    /// Waits for the test.
    Wait(Gate),
}

/// How a response's length is told. Over HTTP/2 only the declared length counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    /// `Content-Length` of this value, true or not.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Not at all: the connection's end ends the body.
    UntilClose,
}

/// How a response ends after its last part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its framing demands.
    Clean,
    /// The connection is closed without the framing's end.
    Close,
    /// The connection (over HTTP/2: the stream) is reset.
    Reset,
    /// Nothing more comes.
    Hang,
}

/// A scripted response.
#[derive(Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) framed: Option<Framed>,
    pub(super) parts: Vec<Part>,
    pub(super) end: End,
    pub(super) before_body: bool,
    pub(super) after: Option<Gate>,
    pub(super) late: Duration,
}

impl Answer {
    /// A response of `status` with an empty body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            framed: None,
            parts: Vec::new(),
            end: End::Clean,
            before_body: false,
            after: None,
            late: Duration::ZERO,
        }
    }

    /// 200 with a JSON body.
    pub fn json(body: &str) -> Self {
        Self::new(200)
            .header("content-type", "application/json")
            .text(body)
    }

    /// 200 and an open event stream: chunked, no part yet.
    pub fn sse() -> Self {
        Self::new(200)
            .header("content-type", "text/event-stream")
            .chunked()
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends text next.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Sends bytes next.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.parts.push(Part::Bytes(Bytes::copy_from_slice(bytes)));
        self
    }

    /// Sleeps next.
    pub fn pause(mut self, duration: Duration) -> Self {
        self.parts.push(Part::Pause(duration));
        self
    }

    /// Waits for `gate` next.
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.parts.push(Part::Wait(gate.clone()));
        self
    }

    /// Declares a `Content-Length` that need not be true.
    pub fn declaring(mut self, length: usize) -> Self {
        self.framed = Some(Framed::Length(length));
        self
    }

    /// Frames the body in chunks.
    pub fn chunked(mut self) -> Self {
        self.framed = Some(Framed::Chunked);
        self
    }

    /// Lets the end of the connection end the body.
    pub fn until_close(mut self) -> Self {
        self.framed = Some(Framed::UntilClose);
        self
    }

    /// Holds the head back until the test opens `gate`.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.after = Some(gate.clone());
        self
    }

    /// Holds the head back for so long.
    pub fn late(mut self, by: Duration) -> Self {
        self.late = by;
        self
    }

    /// Ends otherwise than the framing demands.
    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Answers before the request body is read, as providers do that refuse by the head.
    pub fn before_body(mut self) -> Self {
        self.before_body = true;
        self
    }

    /// How the length is told: the declared way, else by the length of all parts.
    pub(super) fn framing(&self) -> Framed {
        self.framed.unwrap_or_else(|| Framed::Length(self.length()))
    }

    fn length(&self) -> usize {
        let bytes = self.parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Pause(_) | Part::Wait(_) => 0,
        });
        bytes.sum()
    }
}
