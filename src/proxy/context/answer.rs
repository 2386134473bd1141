//! What came back for a request, and what went on to its client.

use std::time::Instant;

use http::header::HeaderValue;

use crate::usage::Observer;
use crate::wire::Watch;

/// What came back from the provider.
#[derive(Default)]
pub struct Answer {
    /// When its head arrived.
    pub head: Option<Instant>,
    /// When the first byte of its body arrived.
    pub first_byte: Option<Instant>,
    /// When the last byte so far arrived.
    pub last_byte: Option<Instant>,
    /// Events, or an upgrade.
    pub streamed: bool,
    /// Knows how to end it honestly, should it break.
    pub watch: Option<Watch>,
    /// Sees what it tells of tokens.
    pub observer: Option<Observer>,
    /// Its last byte has arrived.
    pub ended: bool,
    /// The provider's status.
    pub status: u16,
    /// Its framing tells where it ends, not the end of the connection.
    pub is_framed: bool,
    /// What has gone on to the client, for a record that is made when its session is gone.
    pub given: Given,
}

/// What has gone on to a client.
#[derive(Default)]
pub struct Given {
    /// The status; 0 before.
    pub status: u16,
    /// The type of the body.
    pub content_type: Option<HeaderValue>,
    /// Bytes of the body.
    pub bytes: u64,
}
