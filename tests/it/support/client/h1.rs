//! The raw HTTP/1.1 client.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::wait::within;
use super::super::wire::{Framing, Head, Piece, Wire};
use super::{Ending, Live, Request, Response, Source, Told};

/// Chunks of this size carry bodies of untold length.
const CHUNK: usize = 50_000;

/// One client connection, for exact bytes and for several requests.
pub struct Connection {
    wire: Wire,
    address: SocketAddr,
}

impl Connection {
    /// Connects.
    pub async fn open(to: impl Into<SocketAddr>) -> Self {
        let connected = Self::try_open(to.into()).await;
        connected.expect("a connection")
    }

    /// Connects; `None` where the gateway ends at that moment.
    async fn try_open(address: SocketAddr) -> Option<Self> {
        let wire = Wire::new(connect(address).await?);
        Some(Self { wire, address })
    }

    /// Connects over TLS, to the name `localhost`.
    async fn open_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connect(address).await.expect("a connection");
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let wire = Wire::new(stream.expect("a TLS handshake"));
        Self { wire, address }
    }

    /// Sends exactly `bytes`; a peer that closes meanwhile is no error here.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.write_listening(bytes.as_ref()).await;
    }

    /// Sends `request` and reads its whole response.
    pub async fn exchange(&mut self, request: &Request) -> Option<Response> {
        let interim = self.send(request).await;
        self.response(request.method == "HEAD", interim).await
    }

    /// Reads the next final response; `None` when the connection ends instead.
    pub async fn read(&mut self) -> Option<Response> {
        self.response(false, Vec::new()).await
    }

    async fn response(&mut self, headless: bool, mut interim: Vec<u16>) -> Option<Response> {
        let what = "a response on this connection";
        let head = within(what, self.final_head(&mut interim)).await?;
        let mut framing = framing(&head, headless);
        let mut body = Vec::new();
        let ending = loop {
            match within(what, self.wire.piece(&mut framing)).await {
                Piece::Data(bytes) => body.extend(bytes),
                Piece::End => break Ending::Whole,
                Piece::EndOfStream => break Ending::EndOfStream,
                Piece::Cut => break Ending::Cut,
            }
        };
        Some(Response {
            status: status(&head),
            headers: head.headers,
            interim,
            body,
            ending,
        })
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", self.wire.rest()).await
    }

    /// Reads exactly `count` bytes of an upgraded connection.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut framing = Framing::Length(count as u64);
        let mut bytes = Vec::new();
        while let Piece::Data(more) =
            within("bytes on this connection", self.wire.piece(&mut framing)).await
        {
            bytes.extend(more);
        }
        bytes
    }

    /// The head of the next response, interim ones included.
    pub async fn head(&mut self) -> Option<Head> {
        within("a response head", self.wire.head()).await
    }

    /// Writes head and body; returns the interim responses it waited for.
    async fn send(&mut self, request: &Request) -> Vec<u16> {
        let body = request.body.clone().unwrap_or_default();
        let head = head_of(request, &self.address.to_string());
        if request.told != Told::AfterContinue {
            let body = match request.told {
                Told::Open => chunked(&body),
                _ => body,
            };
            self.write([head.into_bytes(), body].concat()).await;
            return Vec::new();
        }
        self.write(head).await;
        let interim = self.head().await.expect("100 Continue");
        self.write(body).await;
        vec![status(&interim)]
    }

    async fn final_head(&mut self, interim: &mut Vec<u16>) -> Option<Head> {
        loop {
            let head = self.wire.head().await?;
            match status(&head) {
                code @ (100 | 102..=199) => interim.push(code),
                _ => return Some(head),
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = match TcpStream::connect(address).await {
        // Who listened has ended while this connection waited to be accepted.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        connected => connected.expect("a connection"),
    };
    stream.set_nodelay(true).expect("TCP_NODELAY");
    Some(stream)
}

/// A response body being read.
pub(super) struct Reading {
    connection: Connection,
    framing: Framing,
}

impl Reading {
    pub(super) async fn piece(&mut self) -> Piece {
        self.connection.wire.piece(&mut self.framing).await
    }
}

/// Sends `request` on a new connection and reads the head.
pub(super) async fn open(request: &Request, address: SocketAddr) -> Option<Live> {
    let mut connection = match &request.tls {
        Some(config) => Connection::open_tls(address, config.clone()).await,
        None => Connection::try_open(address).await?,
    };
    let mut interim = connection.send(request).await;
    let head = connection.final_head(&mut interim).await?;
    let framing = framing(&head, request.method == "HEAD");
    Some(Live {
        status: status(&head),
        headers: head.headers,
        interim,
        source: Source::H1(Reading {
            connection,
            framing,
        }),
        seen: Vec::new(),
    })
}

fn status(head: &Head) -> u16 {
    let word = head.start.split(' ').nth(1).unwrap_or_default();
    word.parse()
        .unwrap_or_else(|_| panic!("a status line, not {:?}", head.start))
}

fn framing(head: &Head, headless: bool) -> Framing {
    if headless || matches!(status(head), 101 | 204 | 304) {
        return Framing::Length(0);
    }
    head.framing(Framing::UntilClose)
}

fn head_of(request: &Request, host: &str) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    let named = |name: &str| {
        request
            .headers
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    if !named("host") {
        head.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &request.body {
        head.push_str(&match request.told {
            Told::Length => format!("content-length: {}\r\n", body.len()),
            Told::Open => "transfer-encoding: chunked\r\n".to_owned(),
            Told::AfterContinue => {
                format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len())
            }
        });
    }
    head.push_str("\r\n");
    head
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(CHUNK) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}
