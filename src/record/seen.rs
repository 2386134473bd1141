//! Heads and bodies of a request, as they passed: what only the log store keeps.

use bytes::Bytes;

use super::Lines;

/// What a gateway keeps of a request in the log store.
#[derive(Debug, Default)]
pub enum Logged {
    /// Nothing.
    Nothing,
    /// Its facts.
    #[default]
    Facts,
    /// Its facts, heads and bodies.
    Whole(Box<Seen>),
}

/// Heads and bodies.
#[derive(Debug, Default)]
pub struct Seen {
    /// Head of the client's request.
    pub request_head: Lines,
    /// Body of the request, as the client sent it.
    pub request: Begun,
    /// Head of the answer, as the client received it.
    pub response_head: Lines,
    /// Body of the answer, as the client received it but for a comment on what it cost.
    pub response: Begun,
}

/// A body, or the beginning of one.
#[derive(Debug, Default, Clone)]
pub struct Begun {
    /// What was kept of it, in pieces; `None` where it is not to be kept.
    pub pieces: Option<Vec<Bytes>>,
    /// That is all of it.
    pub is_whole: bool,
}

impl Logged {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        match self {
            Self::Nothing | Self::Facts => 0,
            Self::Whole(seen) => seen.held(),
        }
    }
}

impl Seen {
    fn held(&self) -> usize {
        let body = |body: &Begun| {
            let pieces = body.pieces.iter().flatten();
            pieces
                .map(|piece| size_of::<Bytes>() + piece.len())
                .sum::<usize>()
        };
        size_of::<Self>()
            + body(&self.request)
            + body(&self.response)
            + self.request_head.held()
            + self.response_head.held()
    }
}
