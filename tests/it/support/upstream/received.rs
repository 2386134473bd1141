//! What an upstream remembers of a request.

use std::sync::Mutex;

use super::super::body::{Digest, Digester};
use super::super::wire::find;
use super::lock;

/// Bodies are kept up to this size; of larger ones only the digest.
const KEPT: usize = 1 << 20;

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Number of the connection it came on, from 0.
    pub connection: usize,
    /// Method.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Headers in order; over HTTP/2 without the pseudo-headers, `:authority` as `host`.
    pub headers: Vec<(String, String)>,
    /// The body, if it is no longer than 1 MiB.
    pub body: Vec<u8>,
    /// Length and digest, once the body has arrived whole.
    pub digest: Option<Digest>,
    /// The gateway ended the connection or the stream before the exchange was over.
    pub abandoned: bool,
}

impl Received {
    /// The first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All values of `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        let values = self.headers.iter().filter(same);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request whose record still grows.
pub struct Exchange {
    state: Mutex<(Received, Digester)>,
}

impl Exchange {
    pub(super) fn new(received: Received) -> Self {
        Self {
            state: Mutex::new((received, Digester::default())),
        }
    }

    /// The record as it stands.
    pub fn received(&self) -> Received {
        lock(&self.state).0.clone()
    }

    pub(super) fn take(&self, bytes: &[u8]) {
        let (received, digester) = &mut *lock(&self.state);
        digester.update(bytes);
        let room = KEPT.saturating_sub(received.body.len());
        received
            .body
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The body has ended whole.
    pub(super) fn whole(&self) -> Digest {
        let (received, digester) = &mut *lock(&self.state);
        let digest = digester.clone().finish();
        received.digest = Some(digest.clone());
        digest
    }

    pub(super) fn abandon(&self) {
        lock(&self.state).0.abandoned = true;
    }
}
