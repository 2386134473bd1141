//! One probe: a GET on a connection of its own, so that it shows whether one can be made, under the
//! same trust and with the same headers as a call.
//!
//! Keys that sign requests or that are exchanged for tokens stay out of it: who answers that it is
//! shown no key is there.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use pingora_core::Result;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use tokio::time::{Instant, timeout_at};

use crate::credential::Credential;
use crate::dns::Dns;
use crate::provider::{Probe, Provider};

/// Addresses of a name that are tried, each for its share of the probe's time.
const MOST_ADDRESSES: usize = 4;
/// How much is read of a body before the connection is closed on it, in bytes.
const MOST_READ: usize = 64 * 1024;
/// Who asks, for the provider's own log.
const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (probe)");

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The provider is there, whatever it thinks of the request.
    There,
    /// It has too much to do just now to say, or too much of us: 408, 429.
    Busy,
    /// It is not there, or broken: why, for the log.
    Failed(String),
}

impl Finding {
    fn of(status: u16) -> Self {
        match status {
            408 | 429 => Self::Busy,
            100..500 => Self::There,
            _ => Self::Failed(format!("it answers {status}")),
        }
    }

    /// The word in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::There => "ok",
            Self::Busy => "busy",
            Self::Failed(_) => "failed",
        }
    }
}

/// What sends probes.
pub struct Client {
    dns: Arc<Dns>,
    /// Made for the first probe: it reads the system's authorities.
    connector: OnceLock<Connector>,
}

impl Client {
    /// A client whose connections go only where `dns` permits.
    pub fn new(dns: Arc<Dns>) -> Self {
        Self {
            dns,
            connector: OnceLock::new(),
        }
    }

    /// Sends one probe and tells what it found, within its time.
    pub async fn ask(&self, provider: &Provider, probe: &Probe) -> Finding {
        let until = Instant::now() + probe.timeout;
        match timeout_at(until, self.answer(provider, probe)).await {
            Ok(Ok((status, session))) => {
                // The head tells; the rest is only not to be cut off in mid-sentence.
                let _ = timeout_at(until, read(session)).await;
                Finding::of(status)
            }
            Ok(Err(why)) => Finding::Failed(why),
            Err(_) => Finding::Failed(format!("no answer within {:?}", probe.timeout)),
        }
    }

    async fn answer(
        &self,
        provider: &Provider,
        probe: &Probe,
    ) -> Result<(u16, HttpSession), String> {
        let mut session = self.connect(provider, probe).await?;
        let answered = async {
            let mut head = head(provider, probe)?;
            if session.as_http1().is_some() {
                head.insert_header(CONNECTION, "close")?;
            }
            session.write_request_header(Box::new(head)).await?;
            session.finish_request_body().await?;
            status(&mut session).await
        };
        let status = answered.await.map_err(|error| error.to_string())?;
        Ok((status, session))
    }

    /// Connects to the first address of the provider that takes the connection.
    async fn connect(&self, provider: &Provider, probe: &Probe) -> Result<HttpSession, String> {
        let (origin, connection) = (&probe.target.origin, &provider.connection);
        let (host, port) = connection.place(origin);
        let found = self.dns.lookup(host).await;
        let addresses = found.map_err(|error| format!("{host} {error}"))?;
        let tried = addresses.iter().take(MOST_ADDRESSES);
        let share = probe.timeout.div_f64(tried.len() as f64);
        let mut failure = String::new();
        for address in tried {
            let place = SocketAddr::new(*address, port);
            let mut peer = HttpPeer::new(place, origin.tls, origin.host.to_string());
            peer.options.ca = connection.ca.clone();
            peer.options.alpn = connection.alpn();
            // With room for more streams the connection would be kept for them.
            peer.options.max_h2_streams = 1;
            peer.options.total_connection_timeout = Some(share);
            match self.connector().get_http_session(&peer).await {
                Ok((session, _)) => return Ok(session),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| Connector::new(None))
    }
}

fn head(provider: &Provider, probe: &Probe) -> Result<RequestHeader> {
    let target = &probe.target;
    let mut head = RequestHeader::build("GET", target.path_and_query.as_bytes(), None)?;
    head.insert_header(HOST, target.origin.authority.clone())?;
    head.insert_header(USER_AGENT, AGENT)?;
    head.insert_header(ACCEPT, "*/*")?;
    for (name, value) in &provider.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    let key = provider.keyring(target).own();
    if let Some(Ok(Credential::Header { name, value })) = key.map(|key| &key.credential) {
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

/// The status of the final response; informational ones are passed over.
async fn status(session: &mut HttpSession) -> Result<u16> {
    loop {
        session.read_response_header().await?;
        let head = session.response_header().map(|head| head.status);
        if let Some(status) = head.filter(|status| !status.is_informational()) {
            return Ok(status.as_u16());
        }
    }
}

/// Reads a body to its end or to [`MOST_READ`], and keeps nothing of it.
async fn read(mut session: HttpSession) -> Result<()> {
    let mut count = 0;
    while count < MOST_READ
        && let Some(chunk) = session.read_response_body().await?
    {
        count += chunk.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_answers_is_there_unless_it_is_broken() {
        for status in [200, 204, 301, 400, 401, 402, 403, 404, 405, 410, 422, 499] {
            assert_eq!(Finding::of(status), Finding::There, "{status}");
        }
        for status in [408, 429] {
            assert_eq!(Finding::of(status), Finding::Busy, "{status}");
        }
        for status in [500, 502, 503, 529, 599, 600, 999] {
            assert_eq!(Finding::of(status).name(), "failed", "{status}");
        }
    }
}
