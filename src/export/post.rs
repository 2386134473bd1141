//! The HTTP client that posts batches, on Pingora's own upstream connector.
//!
//! HTTP/1.1 on kept connections: there is a batch every second, and never two at once to the same
//! place. Redirects are not followed: they would carry secrets elsewhere. Leaves out trying again.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use pingora_core::Result;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

use super::place::Place;
use crate::dns::Dns;
use crate::routing::patience;

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;
/// How much is read of an answer, in bytes; collectors say little.
const MOST_READ: usize = 64 << 10;
/// How long a connection is kept that nothing is sent over.
const IDLE: Duration = Duration::from_secs(90);
/// Who posts, for the receiver's own log.
const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (export)");

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// How long it asks to be left alone.
    pub patience: Option<Duration>,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
}

/// The client.
pub struct Client {
    dns: Arc<Dns>,
    /// Made for the first batch: it reads the system's authorities.
    connector: OnceLock<Connector>,
    /// How long one exchange may take, name resolution and TLS included.
    timeout: Duration,
}

impl Client {
    /// A client whose connections go only where `dns` permits.
    pub fn new(dns: Arc<Dns>, timeout: Duration) -> Self {
        Self {
            dns,
            connector: OnceLock::new(),
            timeout,
        }
    }

    /// Posts one body. Any status is an answer.
    ///
    /// # Errors
    /// Why there is none, in words that tell no secret.
    pub async fn post(&self, place: &Place, body: Bytes) -> Result<Answer, String> {
        match tokio::time::timeout(self.timeout, self.exchange(place, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    async fn exchange(&self, place: &Place, body: Bytes) -> Result<Answer, String> {
        let (mut session, peer) = self.connect(place).await?;
        let told = |error: Box<pingora_core::Error>| place.shown(&error.to_string());
        let head = head(place, body.len()).map_err(told)?;
        // Who refuses a body may close before all of it is sent; the answer tells more than that.
        let sent = send(&mut session, head, body).await;
        let status = match (read_status(&mut session).await, sent) {
            (Ok(status), _) => status,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(told(error)),
        };
        let (body, is_whole) = read_body(&mut session).await;
        let head = session.response_header();
        let patience = head.and_then(|head| patience::asked(status, &head.headers, now()));
        if is_whole {
            let connector = self.connector();
            connector
                .release_http_session(session, &peer, Some(IDLE))
                .await;
        }
        Ok(Answer {
            status,
            patience,
            body,
        })
    }

    /// A kept connection, or one to the first address that takes it.
    async fn connect(&self, place: &Place) -> Result<(HttpSession, HttpPeer), String> {
        let found = self.dns.lookup(&place.host).await;
        let addresses = found.map_err(|error| format!("{} {error}", place.host))?;
        let mut failure = String::new();
        for address in addresses.iter().take(MOST_ADDRESSES) {
            let address = SocketAddr::new(*address, place.port);
            // Pingora skips verification where the name is empty; `Place` has seen to that.
            let mut peer = HttpPeer::new(address, place.tls, place.host.to_string());
            peer.options.ca.clone_from(&place.ca);
            peer.options.total_connection_timeout = Some(self.timeout / 2);
            match self.connector().get_http_session(&peer).await {
                Ok((session, _)) => return Ok((session, peer)),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| Connector::new(None))
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn head(place: &Place, length: usize) -> Result<Box<RequestHeader>> {
    let mut head = RequestHeader::build("POST", place.path.as_bytes(), None)?;
    head.insert_header(HOST, &*place.authority)?;
    head.insert_header(USER_AGENT, AGENT)?;
    head.insert_header(ACCEPT_ENCODING, "identity")?;
    for (name, value) in &place.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(CONTENT_TYPE, place.content_type)?;
    head.insert_header(CONTENT_LENGTH, length.to_string())?;
    Ok(Box::new(head))
}

async fn send(session: &mut HttpSession, head: Box<RequestHeader>, body: Bytes) -> Result<()> {
    session.write_request_header(head).await?;
    session.write_request_body(body, true).await?;
    session.finish_request_body().await
}

/// The status of the final response; informational ones are passed over.
async fn read_status(session: &mut HttpSession) -> Result<u16> {
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map(|head| head.status);
        if let Some(status) = status.filter(|status| !status.is_informational()) {
            return Ok(status.as_u16());
        }
    }
}

/// The body, and whether that is all of it. The status has told what matters; a body that breaks
/// off changes nothing.
async fn read_body(session: &mut HttpSession) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let chunk = match session.read_response_body().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        };
        let room = MOST_READ - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return (body, false);
        }
    }
}
