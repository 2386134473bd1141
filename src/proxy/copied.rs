//! What the log store is to have of a call's heads and bodies, copied as they pass: no byte waits
//! for it, and all of it is within the memory of held bodies.

use bytes::Bytes;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::record::{Begun, Lines, Logged, Seen};

use super::Door;
use super::context::{Body, Context};
use super::kept::{self, Kept};

/// What is kept of a call.
pub enum Copied {
    /// Nothing: it is not to be in the log store.
    Nothing,
    /// Its facts are enough.
    Facts,
    /// Its facts, heads and bodies.
    Whole(Box<Bodies>),
}

/// Heads and bodies.
pub struct Bodies {
    request_head: Lines,
    response_head: Lines,
    /// `None`: what follows the head is no body, but a tunnel's.
    response: Option<Kept>,
    /// Most bytes of each body.
    most: usize,
}

/// What the log store is to have of a request that is refused before its wishes are read.
pub fn by_policy(ctx: &mut Context) {
    let collects = ctx
        .gateway
        .as_ref()
        .is_none_or(|gateway| gateway.logs.collect);
    if !collects {
        ctx.copied = Copied::Nothing;
    }
}

/// Decides what the log store is to have of a request, and copies its head.
pub fn begin(door: &Door, session: &Session, ctx: &mut Context) {
    let Some(gateway) = &ctx.gateway else { return };
    let wished = ctx.directives.logs;
    let most = ctx.snapshot.logged_body;
    let policy = gateway.logs.with(wished);
    ctx.copied = match most.filter(|_| policy.payload) {
        _ if !policy.collect => Copied::Nothing,
        None => Copied::Facts,
        Some(most) => {
            let limit = ctx.snapshot.limits.max_buffered;
            Copied::Whole(Box::new(Bodies {
                request_head: Lines::of(&session.req_header().headers),
                response_head: Lines::default(),
                response: Some(Kept::new(door.memory.reserve_nothing(), limit, most)),
                most,
            }))
        }
    };
}

/// Bytes of a streaming request's body that the log store is to have.
pub fn of_request(ctx: &Context) -> usize {
    match &ctx.copied {
        Copied::Whole(bodies) => bodies.most,
        Copied::Nothing | Copied::Facts => 0,
    }
}

impl Copied {
    /// The same request is asked once more, from its start.
    pub fn again(&self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Facts => Self::Facts,
            Self::Whole(bodies) => Self::Whole(Box::new(Bodies {
                request_head: bodies.request_head.clone(),
                response_head: Lines::default(),
                response: bodies.response.as_ref().map(Kept::another),
                most: bodies.most,
            })),
        }
    }

    /// An answer's head goes to the client.
    pub fn head(&mut self, head: &ResponseHeader) {
        if let Self::Whole(bodies) = self {
            bodies.response_head = Lines::of(&head.headers);
            if head.status.as_u16() == 101 {
                bodies.response = None;
            }
        }
    }

    /// A piece of its body does.
    pub fn piece(&mut self, piece: &Bytes) {
        if let Self::Whole(bodies) = self
            && let Some(response) = &mut bodies.response
        {
            response.push(piece);
        }
    }

    /// What there is at the end. `request` is the body of the request.
    pub fn take(&mut self, request: Begun) -> Logged {
        let bodies = match self {
            Self::Nothing => return Logged::Nothing,
            Self::Facts => return Logged::Facts,
            Self::Whole(bodies) => bodies,
        };
        Logged::Whole(Box::new(Seen {
            request_head: std::mem::take(&mut bodies.request_head),
            request: shortened(request, bodies.most),
            response_head: std::mem::take(&mut bodies.response_head),
            response: bodies.response.as_mut().map(Kept::take).unwrap_or_default(),
        }))
    }
}

/// A held body may be far larger than what is kept of it.
fn shortened(mut body: Begun, most: usize) -> Begun {
    let mut room = most;
    for piece in body.pieces.iter_mut().flatten() {
        let length = piece.len().min(room);
        body.is_whole &= length == piece.len();
        *piece = kept::begin(piece, length);
        room -= length;
    }
    body
}

/// The body of the request, as far as it is there.
pub fn request(body: &mut Body) -> Begun {
    match body {
        Body::Held { bytes, .. } => Begun {
            pieces: Some(vec![bytes.clone()]),
            is_whole: true,
        },
        Body::Streaming { kept, .. } => kept.as_mut().map(Kept::take).unwrap_or_default(),
        Body::Unread => Begun::default(),
    }
}
