//! Connections to providers: new ones, and those that have been used before.
//!
//! Over HTTP/1.1 a connection carries one request at a time, and waits for the next in [`Idle`]. Over
//! HTTP/2 it is shared, and Pingora looks after it.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::{HttpPeer, Peer};

use super::idle::Idle;

/// Connections to providers.
pub struct Connections {
    connector: Connector,
    idle: Arc<Idle>,
}

impl Connections {
    /// Made by `connector`, at most `idle` of which wait for their next request over HTTP/1.1.
    pub fn new(connector: Connector, idle: usize) -> Self {
        let idle = Idle::new(idle);
        Self { connector, idle }
    }

    /// A connection to `peer`, and whether it has been used before.
    ///
    /// # Errors
    ///
    /// None can be made: Pingora's own error.
    pub async fn get(&self, peer: &HttpPeer) -> Result<(HttpSession, bool)> {
        while let Some(stream) = self.idle.take(key(peer)) {
            // A look at the socket itself: what has been reset has no other end any more.
            if peer.matches_fd(stream.id()) {
                let http1 = Http1Session::new_with_options(stream, peer);
                return Ok((HttpSession::H1(http1), true));
            }
        }
        self.connector.get_http_session(peer).await
    }

    /// What was asked has been answered: the connection is kept if both sides want it to be.
    pub async fn give_back(&self, session: HttpSession, peer: &HttpPeer) {
        match session {
            HttpSession::H1(mut http1) => {
                http1.respect_keepalive();
                if let Some(stream) = http1.reuse().await {
                    self.keep(stream, peer);
                }
            }
            shared => {
                let idle = peer.idle_timeout();
                self.connector
                    .release_http_session(shared, peer, idle)
                    .await;
            }
        }
    }

    /// Nothing has been asked.
    pub async fn give_back_unused(&self, session: HttpSession, peer: &HttpPeer) {
        match session {
            HttpSession::H1(http1) => self.keep(http1.into_inner(), peer),
            shared => self.give_back(shared, peer).await,
        }
    }

    /// Over HTTP/1.1 from now on.
    pub fn prefer_http1(&self, peer: &HttpPeer) {
        self.connector.prefer_h1(peer);
    }

    fn keep(&self, stream: Stream, peer: &HttpPeer) {
        let idle = peer.idle_timeout().unwrap_or(Duration::MAX);
        self.idle.put(key(peer), stream, idle);
    }
}

/// Tells the connections that may serve `peer` from all others. Those which were to speak HTTP/1.1,
/// as a large body wants it, are no reason for other requests to leave the provider's HTTP/2.
fn key(peer: &HttpPeer) -> u64 {
    peer.reuse_hash() ^ u64::from(matches!(peer.options.alpn, ALPN::H1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_to_speak_http1_serves_nobody_who_may_speak_http2() {
        let peer = |alpn, sni: &str| {
            let mut peer = HttpPeer::new(("127.0.0.1", 443), true, sni.to_owned());
            peer.options.alpn = alpn;
            key(&peer)
        };
        let keys = [
            peer(ALPN::H1, "one.example"),
            peer(ALPN::H2H1, "one.example"),
            peer(ALPN::H1, "two.example"),
        ];
        assert_eq!(keys[0], peer(ALPN::H1, "one.example"));
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
