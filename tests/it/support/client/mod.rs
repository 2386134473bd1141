//! Clients that see what is on the wire: a raw HTTP/1.1 one, and HTTP/2.

mod h1;
mod h2;
pub mod raw_h2;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

pub use h1::Connection;
pub use h2::Multiplexed;

use super::wait::within;
use super::wire::{Piece, find, position};

/// The HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2, with prior knowledge unless the request goes over TLS.
    H2,
}

/// How a request body's length is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// `Content-Length`.
    Length,
    /// Not at all: chunked over HTTP/1.1, frames until the end over HTTP/2.
    Open,
    /// `Content-Length`, and the body only after `100 Continue`.
    AfterContinue,
}

/// One request.
#[derive(Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    told: Told,
    protocol: Protocol,
    tls: Option<Arc<ClientConfig>>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
            told: Told::Length,
            protocol: Protocol::H1,
            tls: None,
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target)
            .header("content-type", "application/json")
            .body(body)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// Says how the body's length is told.
    pub fn told(mut self, told: Told) -> Self {
        self.told = told;
        self
    }

    /// Says which HTTP version to speak.
    pub fn over(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Goes over TLS; the server must be `localhost`.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Sends it on a connection of its own and reads the whole response.
    pub async fn send(&self, to: impl Into<SocketAddr>) -> Response {
        self.open(to).await.finish().await
    }

    /// Sends it on a connection of its own and reads the response's head.
    pub async fn open(&self, to: impl Into<SocketAddr>) -> Live {
        self.try_open(to).await.expect("a response head")
    }

    /// As [`Request::open`]; `None` when the connection ends without a head.
    pub async fn try_open(&self, to: impl Into<SocketAddr>) -> Option<Live> {
        let address = to.into();
        let what = format!("a response head for {} {}", self.method, self.target);
        within(&what, async {
            match self.protocol {
                Protocol::H1 => h1::open(self, address).await,
                Protocol::H2 => h2::open(self, address).await,
            }
        })
        .await
    }
}

/// How a response body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its framing ended as it must.
    Whole,
    /// Only the end of the connection told it.
    EndOfStream,
    /// The connection or the stream broke first.
    Cut,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
    /// Payload, framing removed.
    pub body: Vec<u8>,
    /// How it ended.
    pub ending: Ending,
}

impl Response {
    /// The first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Everything a client can see, for searching what must not be there.
    pub fn everything(&self) -> String {
        format!("{:?}\n{}", self.headers, self.text())
    }
}

/// A response whose body is still to be read. Dropping it is a client that goes away.
pub struct Live {
    /// Status.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    interim: Vec<u16>,
    source: Source,
    /// Payload read so far and not handed out.
    seen: Vec<u8>,
}

enum Source {
    H1(h1::Reading),
    H2(h2::Reading),
}

impl Live {
    /// The first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next piece of the body.
    pub async fn piece(&mut self) -> Piece {
        match &mut self.source {
            Source::H1(reading) => within("a piece of the body", reading.piece()).await,
            Source::H2(reading) => within("a piece of the body", reading.piece()).await,
        }
    }

    /// Reads up to and including `needle` and returns all that came with it.
    pub async fn read_past(&mut self, needle: &str) -> String {
        let mut text = std::mem::take(&mut self.seen);
        while position(&text, needle.as_bytes()).is_none() {
            match self.piece().await {
                Piece::Data(bytes) => text.extend(bytes),
                end => panic!(
                    "{end:?} before {needle:?} in {:?}",
                    String::from_utf8_lossy(&text)
                ),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads the rest of the body.
    pub async fn finish(mut self) -> Response {
        let mut body = std::mem::take(&mut self.seen);
        let ending = loop {
            match self.piece().await {
                Piece::Data(bytes) => body.extend(bytes),
                Piece::End => break Ending::Whole,
                Piece::EndOfStream => break Ending::EndOfStream,
                Piece::Cut => break Ending::Cut,
            }
        };
        Response {
            status: self.status,
            headers: self.headers,
            interim: self.interim,
            body,
            ending,
        }
    }
}
