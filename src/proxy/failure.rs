//! What goes wrong: whether to try again, what the client is told, how a broken stream ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};

use crate::error::{Failure, Kind};
use crate::record::Source;
use crate::routing::verdict::Cause;

use super::admission::content_length;
use super::context::Context;
use super::reset;
use super::response::{ERROR_SOURCE, own_headers};
use super::{Door, again, blame, caching, hedge, outlet};

/// Connections tried per request at most, each to another address of the provider's name.
const MAX_CONNECTIONS: u32 = 3;
/// Connections per target that may turn out to be closed and are replaced at once.
const MAX_STALE: u32 = 2;
/// How long, and how much, a client that is refused early may go on sending, so that it can
/// read the refusal instead of a reset (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 8 << 20;
/// An unread body of at most this many bytes is read to keep the connection.
const DRAINED: u64 = 256 << 10;
/// How long a reset waits for what is queued before it: h2 drops that otherwise, and so does TCP.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// Nobody to connect to, or no token to go with: the name may resolve at another try, and another
/// key or target may do.
pub fn has_no_peer(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    failure: Failure,
) -> Box<Error> {
    let cause = match failure.kind {
        Kind::UpstreamUnreachable | Kind::UpstreamForbidden => Cause::Connect,
        Kind::UpstreamTimeout => Cause::Timeout,
        Kind::Credential => Cause::Credential,
        _ => return ctx.fail(failure),
    };
    match again::is_worth_it(door, session, ctx, cause, None) {
        true => again::again(),
        false => ctx.fail(failure),
    }
}

/// The connection could not be made: another address of the same name may do.
pub fn could_not_connect(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    mut error: Box<Error>,
) -> Box<Error> {
    ctx.attempt.failed_connections += 1;
    let others = ctx.attempt.addresses.min(MAX_CONNECTIONS);
    let cause = match again::cause(&error, ctx) {
        Cause::Reset => Cause::Connect,
        other => other,
    };
    let again = ctx.attempt.failed_connections < others
        || again::is_worth_it(door, session, ctx, cause, None);
    error.set_retry(again);
    error
}

/// The attempt failed. It is made again at once when its connection was an old one that the
/// provider had closed meanwhile, and otherwise as `retry` says: as long as nothing of an answer
/// has been seen, and the body can be sent again.
pub fn broke(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    again::ended(ctx);
    if std::mem::take(&mut ctx.attempt.given_up) {
        return error;
    }
    // Pingora marks what is safe to repeat: HTTP/1 errors on a reused connection, refused
    // HTTP/2 streams and those behind a GOAWAY. A stream that was reset is an answer.
    error.retry.decide_reuse(reused);
    let unanswered = ctx.answer.head.is_none() && !has_begun(session) && ctx.failure.is_none();
    let again = if !unanswered || error.esource() != &ErrorSource::Upstream {
        false
    } else if error.retry() && ctx.attempt.stale < MAX_STALE && !again::is_overdue(ctx) {
        ctx.attempt.stale += 1;
        again::can_be_sent_again(session, ctx)
    } else {
        let cause = again::cause(&error, ctx);
        // A provider that stops reading has not got all of it.
        let has_it = ctx.attempt.body_sent && error.etype() != &ErrorType::WriteTimedout;
        if cause == Cause::Timeout && has_it {
            ctx.limited.give_up();
        }
        again::is_worth_it(door, session, ctx, cause, None)
    };
    error.set_retry(again);
    error
}

/// Answers a request that is refused before anything was tried.
pub async fn refuse(
    session: &mut Session,
    ctx: &mut Context,
    failure: Failure,
) -> pingora_core::Result<()> {
    let begun = has_begun(session);
    let gone = failure.kind == Kind::ClientGone;
    caching::failed(ctx, &failure);
    ctx.failure = Some(failure.clone());
    if begun {
        cut(session).await;
    }
    if begun || gone {
        return Err(Error::new_down(ErrorType::ConnectionClosed));
    }
    write(session, ctx, &failure).await
}

/// The end of a request that failed.
pub async fn give_up(
    door: &Door,
    session: &mut Session,
    error: &Error,
    ctx: &mut Context,
) -> FailToProxy {
    let nothing = FailToProxy {
        error_code: 0,
        can_reuse_downstream: false,
    };
    if ctx.handed_over {
        return nothing;
    }
    ctx.places.leave();
    ctx.limited.leave();
    // What is queued goes out first: perhaps the head of an answer is among it.
    if session.has_pending_downstream_tasks()
        && let Err(error) = session.write_downstream_proxy_tasks().await
    {
        log::debug!("the client did not take its answer: {error}");
        ctx.failure
            .get_or_insert_with(|| Failure::new(Kind::ClientGone));
    }
    let begun = has_begun(session);
    let failure = ctx
        .failure
        .take()
        .unwrap_or_else(|| classify(error, begun, ctx));
    let kind = failure.kind;
    if !begun && !hedge::is_last(ctx, kind == Kind::ClientGone) {
        return nothing;
    }
    // The connection ends with this answer, and the client is to know.
    session.set_keepalive(None);
    if !begun && let Some(given) = caching::stand_in(door, session, ctx, &failure).await {
        ctx.failure = given.err();
        ctx.answered = Some(Instant::now());
        return nothing;
    }
    caching::failed(ctx, &failure);
    ctx.failure = Some(failure.clone());
    if begun && kind.source() == Source::Provider {
        blame::broke_off(door, ctx);
    }
    if kind == Kind::ClientGone {
        return nothing;
    }
    let written = if begun {
        end_begun(session, ctx).await
    } else {
        write(session, ctx, &failure).await
    };
    if let Err(error) = written {
        log::debug!("the client did not take the error: {error}");
    }
    FailToProxy {
        error_code: kind.status(),
        can_reuse_downstream: false,
    }
}

/// Whether the client has the head of its answer: from then on a status can no longer tell.
fn has_begun(session: &Session) -> bool {
    begun(session).is_some()
}

/// The head of its answer that the client has. An upgrade (101) is one, and no other interim head;
/// what follows it is no longer HTTP.
pub fn begun(session: &Session) -> Option<&ResponseHeader> {
    let head = session.response_written()?;
    let is_final = head.status.as_u16() == 101 || !head.status.is_informational();
    is_final.then_some(head)
}

/// What an error of Pingora's means.
pub fn classify(error: &Error, begun: bool, ctx: &Context) -> Failure {
    let kind = kind_of(error, begun, again::is_overdue(ctx));
    Failure::new(kind).with_detail(error.to_string())
}

fn kind_of(error: &Error, begun: bool, overdue: bool) -> Kind {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) if !begun => Kind::ClientTimeout,
        (
            ErrorSource::Downstream,
            ErrorType::ConnectionClosed
            | ErrorType::ReadError
            | ErrorType::ReadTimedout
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::H2Error,
        ) => Kind::ClientGone,
        (ErrorSource::Downstream, _) if begun => Kind::ClientGone,
        // What is left is a body whose framing is broken.
        (ErrorSource::Downstream, _) => Kind::BadRequest,
        // Pingora does not say whose connection it is when it flushes to the client what came
        // before an answer broke.
        (ErrorSource::Unset, ErrorType::WriteError) if begun => Kind::ClientGone,
        // It looks like a connection that the provider has closed.
        _ if overdue => Kind::UpstreamTimeout,
        (
            _,
            ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout,
        ) => Kind::UpstreamTimeout,
        (ErrorSource::Upstream, _) if begun => Kind::UpstreamCut,
        (
            _,
            ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError
            | ErrorType::TLSWantX509Lookup,
        ) => Kind::UpstreamTls,
        (
            ErrorSource::Upstream,
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2,
        ) => Kind::UpstreamInvalid,
        (ErrorSource::Upstream, _) => Kind::UpstreamUnreachable,
        _ => Kind::Internal,
    }
}

/// An answer of the gateway's own.
async fn write(
    session: &mut Session,
    ctx: &mut Context,
    failure: &Failure,
) -> pingora_core::Result<()> {
    let body = Bytes::from(failure.body());
    let mut head = ResponseHeader::build(failure.kind.status(), Some(12))?;
    head.insert_header(CONTENT_TYPE, "application/json")?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    head.insert_header(ERROR_SOURCE, Source::Gateway.name())?;
    if let Some(seconds) = failure.retry_after() {
        head.insert_header(RETRY_AFTER, seconds)?;
    }
    if let Some(methods) = failure.kind.allow() {
        head.insert_header(ALLOW, methods)?;
    }
    own_headers(&mut head, ctx)?;
    let unread = !session.is_body_done();
    let little = content_length(session).is_some_and(|length| length <= DRAINED);
    // Pingora reads what is left of a request on a connection that it keeps, and only then.
    let closes = session.as_http1().is_some() && session.get_keepalive().is_none();
    if unread && !little {
        // What is left of the request is not worth reading for the sake of the connection.
        session.set_keepalive(None);
    }
    session.set_close_on_response_before_downstream_finish(!little);
    ctx.begins(&head);
    session.write_response_header(Box::new(head), false).await?;
    ctx.gives(&body);
    finish(session, body).await?;
    ctx.answered = Some(Instant::now());
    if unread && (!little || closes) {
        linger(session).await;
    }
    Ok(())
}

/// Reads on for a while, so that the answer is not lost to a reset.
async fn linger(session: &mut Session) {
    let drain = async {
        let mut read = 0;
        while let Ok(Some(piece)) = session.read_request_body().await {
            read += piece.len();
            if read > LINGER_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Ends an answer that broke while it was given: what has come of it is given first.
async fn end_begun(session: &mut Session, ctx: &mut Context) -> pingora_core::Result<()> {
    if let Some(held) = outlet::let_go(session) {
        session.write_response_body(Some(held), false).await?;
    }
    for piece in caching::not_yet_given(ctx) {
        ctx.gives(&piece);
        session.write_response_body(Some(piece), false).await?;
    }
    end_broken(session, ctx).await
}

/// Ends an answer that broke after its first byte: in its own dialect where that is possible,
/// otherwise by breaking the framing. Never so that it looks complete.
async fn end_broken(session: &mut Session, ctx: &mut Context) -> pingora_core::Result<()> {
    session.set_keepalive(None);
    match error_frame(ctx) {
        Some(frame) => {
            ctx.gives(&frame);
            finish(session, frame).await
        }
        None => {
            cut(session).await;
            Ok(())
        }
    }
}

/// How an answer that broke says so in its own dialect, where that is possible.
pub fn error_frame(ctx: &Context) -> Option<Bytes> {
    let format = ctx.route.as_ref().map(|route| route.format)?;
    let message = match &ctx.failure {
        Some(failure) if failure.kind == Kind::UpstreamTimeout => {
            "The provider stopped sending before its answer was complete"
        }
        Some(failure) => &failure.public,
        None => Kind::UpstreamCut.message(),
    };
    let watch = ctx.answer.watch.as_ref()?;
    watch.error_frame(format, message).map(Bytes::from)
}

/// Writes the last piece of an answer, and its end.
pub async fn finish(session: &mut Session, piece: Bytes) -> pingora_core::Result<()> {
    session.write_response_body(Some(piece), true).await?;
    // A subrequest's end is not told by the flag.
    session.as_downstream_mut().finish_body().await
}

/// Breaks the framing: HTTP/1 closes the connection, HTTP/2 resets the stream, and where only
/// the end of the connection tells the end of the answer, that is reset.
async fn cut(session: &mut Session) {
    let unframed = ends_with_its_connection(session);
    if unframed || session.req_header().version == Version::HTTP_2 {
        tokio::time::sleep(BEFORE_RESET).await;
    }
    match session.as_http1().filter(|_| unframed) {
        // To shut it down first would be the plain end. It is closed when the session is dropped.
        Some(http1) => reset::when_closed(http1),
        None => session.as_downstream_mut().shutdown().await,
    }
}

/// Whether the answer's length is declared in no way: HTTP/1.0 knows no chunks.
fn ends_with_its_connection(session: &Session) -> bool {
    let answer = session.response_written();
    session.req_header().version == Version::HTTP_10
        && answer.is_some_and(|head| !head.headers.contains_key(CONTENT_LENGTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_gone_when_a_broken_answer_is_flushed_is_no_fault_of_ours() {
        let error = Error::explain(ErrorType::WriteError, "flushing response");
        assert_eq!(kind_of(&error, true, false), Kind::ClientGone);
        assert_eq!(kind_of(&error, true, true), Kind::ClientGone);
        let upstream = error.into_up();
        assert_eq!(kind_of(&upstream, true, false), Kind::UpstreamCut);
    }
}
