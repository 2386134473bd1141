//! The HTTP/2 client, on hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::wire::{Piece, Stream};
use super::{Live, Request, Source, Told};

/// Bodies go out in frames of at most this size.
const FRAME: usize = 50_000;

/// One HTTP/2 connection that carries many requests.
#[derive(Clone)]
pub struct Multiplexed {
    sender: SendRequest<Outgoing>,
    authority: String,
}

impl Multiplexed {
    /// Connects with prior knowledge.
    pub async fn open(to: impl Into<SocketAddr>) -> Self {
        let address = to.into();
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::on(stream, address.to_string()).await
    }

    /// Sends `request` and reads the head; `None` when the stream is reset instead.
    pub async fn start(&mut self, request: &Request) -> Option<Live> {
        self.sender.ready().await.ok()?;
        let sending = self.sender.send_request(head_of(request, &self.authority));
        Some(live(sending.await.ok()?))
    }

    async fn on(stream: impl Stream + 'static, authority: String) -> Self {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        Self { sender, authority }
    }
}

/// Sends `request` on a new connection and reads the head.
pub(super) async fn open(request: &Request, address: SocketAddr) -> Option<Live> {
    let mut connection = match &request.tls {
        None => Multiplexed::open(address).await,
        Some(config) => {
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = TcpStream::connect(address).await.expect("a connection");
            let stream = TlsConnector::from(config.clone())
                .connect(name, stream)
                .await;
            let authority = format!("localhost:{}", address.port());
            Multiplexed::on(stream.expect("a TLS handshake"), authority).await
        }
    };
    connection.start(request).await
}

fn live(response: http::Response<Incoming>) -> Live {
    let (head, body) = response.into_parts();
    let text =
        |value: &http::HeaderValue| value.as_bytes().iter().map(|b| char::from(*b)).collect();
    let headers = head.headers.iter();
    Live {
        status: head.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        interim: Vec::new(),
        source: Source::H2(Reading { body }),
        seen: Vec::new(),
    }
}

fn head_of(request: &Request, authority: &str) -> http::Request<Outgoing> {
    let scheme = if request.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let uri = format!("{scheme}://{authority}{}", request.target);
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .version(http::Version::HTTP_2)
        .uri(uri);
    for (name, value) in &request.headers {
        head = head.header(name, value);
    }
    head.body(Outgoing::new(request)).expect("a valid head")
}

/// A response body being read.
pub(super) struct Reading {
    body: Incoming,
}

impl Reading {
    pub(super) async fn piece(&mut self) -> Piece {
        loop {
            match self.body.frame().await {
                None => return Piece::End,
                Some(Err(_)) => return Piece::Cut,
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Piece::Data(bytes.to_vec());
                    }
                }
            }
        }
    }
}

/// A request body whose length is told or not.
struct Outgoing {
    left: Bytes,
    told: bool,
}

impl Outgoing {
    fn new(request: &Request) -> Self {
        Self {
            left: Bytes::from(request.body.clone().unwrap_or_default()),
            told: request.body.is_none() || request.told != Told::Open,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(FRAME);
        let bytes = self.left.split_to(size);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.told && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.told {
            SizeHint::with_exact(self.left.len() as u64)
        } else {
            SizeHint::default()
        }
    }
}
