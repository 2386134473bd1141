//! Request bodies: held where they must be known before the first try (signing, routing, caching,
//! limits, replay) and where they are small; streamed through otherwise.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use pingora_core::ErrorType;
use pingora_proxy::Session;

use crate::call::{self, ModelScan};
use crate::config::schema::Format;
use crate::credential::Credential;
use crate::error::{Failure, Kind};
use crate::gateway::Limits;
use crate::memory::Reservation;

use super::admission::content_length;
use super::context::{Body, Context, Spend};
use super::kept::{self, Kept};
use super::permitting::MaxBody;
use super::{Door, again, attempt, copied, limiting, permitting, planning};

/// A call of at most this many bytes is held where there is room: it comes at once anyway, and takes
/// the shorter way ([`super::exchange`]). No more than what an HTTP/2 server takes at once.
const SMALL: u64 = 65_535;
/// Room that is made first for a body whose length is not declared, in bytes.
const FIRST_ROOM: u64 = 64 * 1024;

/// Decides whether the body streams or is held, and holds it. `for_cache`: the cache's key is
/// made of it.
pub async fn admit(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    for_cache: bool,
) -> Result<(), Failure> {
    let limits = ctx.snapshot.limits.clone();
    let content_type = session.req_header().headers.get(CONTENT_TYPE);
    let content_type = content_type.map(HeaderValue::as_bytes);
    let json = content_type.is_some_and(call::is_json);
    let may_be_json = call::may_be_json(content_type);
    let limited = may_be_json && limiting::reads_body(ctx);
    let held = for_cache || limited || must_be_held(ctx, json);
    let limit = Limit::of(&limits, json || held).within(permitting::max_body(ctx));
    let declared = content_length(session);
    if declared.is_some_and(|length| length > limit.bytes) {
        return Err(limit.exceeded());
    }
    if attempt::is_websocket(session) && !session.is_body_empty() {
        let why = "A request for a WebSocket must not have a body";
        return Err(Failure::because(Kind::BadRequest, why));
    }
    let expects_continue = session.req_header().headers.contains_key(EXPECT);
    if expects_continue && declared != Some(0) {
        session
            .write_continue_response()
            .await
            .map_err(|error| gone(&error))?;
    }
    let route = ctx.route.as_ref();
    let wants_model = may_be_json && route.is_some_and(|route| route.model.is_none());
    let scan = wants_model.then(ModelScan::default);
    let is_small = json && declared.is_some_and(|length| (1..=SMALL).contains(&length));
    let most = match held {
        true => limits.max_buffered,
        // What must be held finds room, however many do not send what they announce.
        false => limits.max_buffered / 2,
    };
    let mut memory = door.memory.reserve_nothing();
    let has_room = (held || is_small) && memory.grow(declared.unwrap_or(0), most);
    if held && !has_room {
        return Err(Failure::new(Kind::Overloaded));
    }
    if !has_room {
        let tells = may_be_json && route.is_some_and(|route| route.format != Format::Opaque);
        let most = copied::of_request(ctx).max(if tells { kept::TO_COUNT } else { 0 });
        let kept = || Kept::new(memory.another(), limits.max_buffered, most);
        let kept = (most > 0).then(kept);
        ctx.body = Body::Streaming {
            passed: 0,
            limit,
            scan,
            kept,
        };
        return Ok(());
    }
    let began = Instant::now();
    let bytes = Box::pin(hold(session, &mut memory, declared, limit, &limits)).await?;
    ctx.received = Some(bytes.len() as u64);
    ctx.reading = began.elapsed();
    ctx.body = Body::Held {
        // The cache reads the body anyway.
        model: scan.filter(|_| !for_cache).and_then(|scan| scan.of(&bytes)),
        read: None,
        worst: None,
        bytes,
        _memory: memory,
    };
    Ok(())
}

/// Signatures cover the body, and it may say where it goes; what is sent again must be there
/// again, and so must what enters Pingora again, for its answer to tell what it cost. Uploads are too large to wait for that.
fn must_be_held(ctx: &Context, json: bool) -> bool {
    ctx.provider.is_none()
        || matches!(ctx.stored_credential(), Some(Credential::Aws { .. }))
        || (json && (ctx.directives.usage || planning::reads_body(ctx) || may_be_sent_again(ctx)))
}

fn may_be_sent_again(ctx: &Context) -> bool {
    let spend = ctx.route.as_ref().map(|route| &route.spend);
    again::retry(ctx).max_attempts > 1 || matches!(spend, Some(Spend::Pool))
}

/// The most bytes a body may have, and the key that says so.
#[derive(Clone, Copy)]
pub struct Limit {
    bytes: u64,
    key: &'static str,
    /// Where that is an access rule: whether it is one of an API key.
    of_key: Option<bool>,
}

impl Limit {
    fn of(limits: &Limits, small: bool) -> Self {
        let (bytes, key) = match small {
            true => (limits.max_body, "server.max_body"),
            false => (limits.max_upload, "server.max_upload"),
        };
        Self {
            bytes,
            key,
            of_key: None,
        }
    }

    /// No more than a rule permits.
    fn within(self, permitted: Option<MaxBody>) -> Self {
        match permitted {
            Some(rule) if rule.bytes < self.bytes => Self {
                bytes: rule.bytes,
                key: "access.max_body",
                of_key: Some(rule.is_of_key),
            },
            _ => self,
        }
    }

    fn exceeded(self) -> Failure {
        let Self { bytes, key, .. } = self;
        let message = format!("The request body is larger than the {bytes} bytes of {key}");
        let failure = Failure::because(Kind::BodyTooLarge, message);
        match self.of_key {
            Some(is_of_key) => failure.denied_by(permitting::named(key, is_of_key)),
            None => failure,
        }
    }
}

/// Holds the body of a request to the universal endpoint.
pub async fn hold_for_steps(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
) -> Result<Bytes, Failure> {
    // Without a provider every body is held.
    admit(door, session, ctx, false).await?;
    match &ctx.body {
        Body::Held { bytes, .. } => Ok(bytes.clone()),
        Body::Unread | Body::Streaming { .. } => Ok(Bytes::new()),
    }
}

/// The body of a step is there already; what it asks for is looked up.
pub fn adopt(ctx: &mut Context) {
    let in_path = ctx
        .route
        .as_ref()
        .is_some_and(|route| route.model.is_some());
    if let Body::Held { bytes, model, .. } = &mut ctx.body
        && !in_path
    {
        *model = ModelScan::default().of(bytes);
    }
}

/// Reads the body whole, within the memory of all held bodies.
async fn hold(
    session: &mut Session,
    memory: &mut Reservation,
    declared: Option<u64>,
    limit: Limit,
    limits: &Limits,
) -> Result<Bytes, Failure> {
    let mut reserved = declared.unwrap_or(0);
    let mut body = BytesMut::new();
    loop {
        // Pingora's own read timeout is for HTTP/1 only.
        let read = pingora_timeout::timeout(limits.body_timeout, session.read_request_body());
        let read = read.await.map_err(|_| Failure::new(Kind::ClientTimeout))?;
        let Some(piece) = read.map_err(|error| read_failure(&error))? else {
            return Ok(body.freeze());
        };
        let length = (body.len() + piece.len()) as u64;
        if length > limit.bytes {
            return Err(limit.exceeded());
        }
        if declared == Some(piece.len() as u64) {
            // All of it at once: it need not be copied.
            return Ok(piece);
        }
        if length > reserved {
            // Grows as the buffer does, by doubling.
            let target = (reserved * 2)
                .max(FIRST_ROOM)
                .min(limits.max_body)
                .max(length);
            if !memory.grow(target - reserved, limits.max_buffered) {
                return Err(Failure::new(Kind::Overloaded));
            }
            reserved = target;
        }
        body.reserve(
            usize::try_from(reserved)
                .unwrap_or(0)
                .saturating_sub(body.len()),
        );
        body.extend_from_slice(&piece);
    }
}

/// In a subrequest: takes in the one byte that stands for the held body.
pub async fn read_placeholder(session: &mut Session) -> Result<(), Failure> {
    let read = |error: Box<pingora_core::Error>| read_failure(&error);
    while session.read_request_body().await.map_err(read)?.is_some() {}
    Ok(())
}

/// What goes to the provider of a body that streams through. `None` is the end of the body to
/// Pingora, wherever it stands: before that what has no bytes, such as a read that brought the head
/// of a chunk only, is an empty piece, which Pingora leaves out.
pub fn pass(
    piece: &mut Option<Bytes>,
    end_of_stream: bool,
    ctx: &mut Context,
) -> Result<(), Failure> {
    match &mut ctx.body {
        Body::Unread => Ok(()),
        // Only a WebSocket comes here with one, and it is empty.
        Body::Held { .. } => {
            ctx.attempt.body_sent |= end_of_stream;
            Ok(())
        }
        Body::Streaming {
            passed,
            limit,
            scan,
            kept,
        } => {
            // Pingora would write an empty last piece as a second end of a chunked body.
            if end_of_stream && piece.as_ref().is_some_and(Bytes::is_empty) {
                *piece = None;
            }
            let Some(piece) = piece else { return Ok(()) };
            *passed += piece.len() as u64;
            if *passed > limit.bytes {
                return Err(limit.exceeded());
            }
            if let Some(scan) = scan {
                scan.feed(piece);
            }
            if let Some(kept) = kept {
                kept.push(piece);
            }
            Ok(())
        }
    }
}

/// Begins a new attempt: the body passes again from its start.
pub fn rewind(ctx: &mut Context) {
    ctx.attempt.body_sent = false;
    if let Body::Streaming {
        passed, scan, kept, ..
    } = &mut ctx.body
    {
        *passed = 0;
        kept.iter_mut().for_each(Kept::rewind);
        if let Some(scan) = scan {
            *scan = ModelScan::default();
        }
    }
}

/// The head of a request whose body is held: its length is known.
pub fn frame(head: &mut pingora_http::RequestHeader, ctx: &Context) -> pingora_core::Result<()> {
    if let Body::Held { bytes, .. } = &ctx.body {
        head.remove_header(&TRANSFER_ENCODING);
        head.insert_header(http::header::CONTENT_LENGTH, bytes.len())?;
    }
    Ok(())
}

fn read_failure(error: &pingora_core::Error) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout => Failure::new(Kind::ClientTimeout),
        ErrorType::InvalidHTTPHeader => {
            Failure::because(Kind::BadRequest, "The request body's framing is broken")
        }
        _ => gone(error),
    }
}

fn gone(error: &pingora_core::Error) -> Failure {
    Failure::new(Kind::ClientGone).with_detail(error.to_string())
}
