//! Answers that come from the cache: stored ones, and those that another request is being
//! given right now.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::cache::entry::Entry;
use crate::cache::flight::{Head, Reader};
use crate::cache::policy::Replay;
use crate::directives::PREFIX;
use crate::error::{Failure, Kind};
use crate::record::Source;
use crate::wire::Framing;

use super::context::Context;
use super::response::{ERROR_SOURCE, observer, own_headers};
use super::{cork, failure, planning, told};

/// The head as others than its first reader see it: those who wait for it now, and, if it is
/// `kept`, those who come later.
pub fn head_for_others(response: &ResponseHeader, kept: bool) -> Head {
    let mut headers = Vec::with_capacity(response.headers.len());
    // A head that came over HTTP/2 has no cases, and this iterator nothing.
    let mut cases = response.case_header_iter();
    for (name, value) in &response.headers {
        let as_it_came = cases.next().map(|(name, _)| name.as_slice());
        // Who waits for an error must know how long to wait before asking again.
        if is_shared(name.as_str()) || (!kept && name == RETRY_AFTER) {
            let name = as_it_came.unwrap_or(name.as_str().as_bytes());
            headers.push((String::from_utf8_lossy(name).into(), value.clone()));
        }
    }
    Head {
        status: response.status.as_u16(),
        headers,
        answerer: None,
    }
}

/// Whether a field is not for the answer's first reader only, as cookies are, the ids of its request,
/// what was left of its quota, and how it was carried. `name` is in lower case.
fn is_shared(name: &str) -> bool {
    const FAMILIES: [&str; 4] = ["x-ratelimit-", "anthropic-ratelimit-", "x-envoy-", PREFIX];
    // Compiled to a comparison of lengths first.
    let is_private = matches!(
        name,
        "age"
            | "alt-svc"
            | "apim-request-id"
            | "cf-cache-status"
            | "cf-ray"
            | "connection"
            | "content-length"
            | "date"
            | "keep-alive"
            | "nel"
            | "openai-processing-ms"
            | "proxy-authenticate"
            | "proxy-connection"
            | "report-to"
            | "request-id"
            | "retry-after"
            | "server-timing"
            | "set-cookie"
            | "set-cookie2"
            | "te"
            | "tollgate-error-source"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "via"
            | "x-amzn-requestid"
            | "x-cloud-trace-context"
            | "x-correlation-id"
            | "x-request-id"
            | "x-trace-id"
    );
    !is_private && !FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Gives a stored answer: a stream with the pauses with which it came where its pieces were
/// kept, everything else at once.
pub async fn entry(session: &mut Session, ctx: &mut Context, entry: &Entry) -> Result<(), Failure> {
    let gateway = ctx.gateway.as_ref();
    let wished = gateway.is_some_and(|gateway| gateway.cache.replay == Replay::Paced);
    let paced = wished && !entry.pieces.is_empty();
    let length = (!paced).then_some(entry.body.len());
    begin(session, ctx, entry.status, &entry.headers, length).await?;
    if paced {
        pace(session, ctx, entry).await?;
    }
    let rest = if paced {
        Bytes::new()
    } else {
        entry.body.clone()
    };
    note_bytes(ctx);
    end(session, ctx, rest).await
}

/// The pieces of a stream, each as long after the first as it came.
async fn pace(session: &mut Session, ctx: &mut Context, entry: &Entry) -> Result<(), Failure> {
    let began = Instant::now();
    let mut rest = entry.body.clone();
    for piece in &entry.pieces {
        let due = began + Duration::from_millis(piece.after.into());
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            tokio::select! {
                () = pingora_timeout::sleep(wait) => {}
                failure = client_left(session) => return Err(failure),
            }
        }
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
        let piece = rest.split_to(length.min(rest.len()));
        note_bytes(ctx);
        write(session, ctx, piece).await?;
    }
    Ok(())
}

/// Gives an answer that is coming: what has come at once, the rest as it comes. If it breaks
/// off, it ends as a provider's own broken answer does.
pub async fn live(
    session: &mut Session,
    ctx: &mut Context,
    mut reader: Reader,
) -> Result<(), Failure> {
    let head = reader.head().ok_or_else(|| Failure::new(Kind::Internal))?;
    ctx.cache.source = None;
    if let Some((provider, model)) = &head.answerer {
        planning::was_answered_by(ctx, provider, model.as_deref());
    }
    begin(session, ctx, head.status, &head.headers, None).await?;
    // What it took is known to nobody yet, and is what it saves.
    let given = session
        .response_written()
        .filter(|head| head.status.is_success());
    ctx.answer.observer = given.and_then(|head| observer(&head.headers, ctx));
    loop {
        let next = tokio::select! {
            biased;
            next = reader.next() => next,
            failure = client_left(session) => return Err(failure),
        };
        match next {
            Ok(Some(piece)) => {
                note_bytes(ctx);
                if let Some(watch) = &mut ctx.answer.watch {
                    watch.feed(&piece);
                }
                if let Some(observer) = &mut ctx.answer.observer {
                    observer.push(&piece);
                }
                write(session, ctx, piece).await?;
            }
            Ok(None) => return end(session, ctx, Bytes::new()).await,
            Err(_) => {
                let broken = Failure::new(Kind::UpstreamCut);
                ctx.failure = Some(broken.clone());
                session.set_keepalive(None);
                return match failure::error_frame(ctx) {
                    Some(frame) => end(session, ctx, frame).await,
                    // Pingora would end in order what is not said to have failed.
                    None => Err(broken),
                };
            }
        }
    }
}

/// Writes the head; without a length the body goes in chunks.
async fn begin(
    session: &mut Session,
    ctx: &mut Context,
    status: u16,
    headers: &[(Box<str>, HeaderValue)],
    length: Option<usize>,
) -> Result<(), Failure> {
    let head = build(session, ctx, status, headers, length);
    let head = head.map_err(|error| {
        Failure::new(Kind::Internal).with_detail(format!("a stored head: {error}"))
    })?;
    let header = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
    let framing = Framing::of(header(CONTENT_TYPE), header(http::header::CONTENT_ENCODING));
    ctx.answer.status = status;
    ctx.answer.streamed = framing != Framing::Other;
    ctx.answer.head = Some(Instant::now());
    ctx.watch(if length.is_none() {
        framing
    } else {
        Framing::Other
    });
    ctx.begins(&head);
    cork::answer(session);
    let written = session.write_response_header(Box::new(head), false).await;
    written.map_err(|error| gone(&error))
}

fn build(
    session: &mut Session,
    ctx: &mut Context,
    status: u16,
    headers: &[(Box<str>, HeaderValue)],
    length: Option<usize>,
) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(headers.len() + 10))?;
    for (name, value) in headers {
        head.append_header(name.to_string(), value.clone())?;
    }
    // These never have a body, and must not tell its length (RFC 9110, 8.6; RFC 9112, 6.1).
    let bodiless = matches!(status, 204 | 304);
    match length.filter(|_| !bodiless) {
        Some(length) => head.insert_header(CONTENT_LENGTH, length)?,
        // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
        None if session.req_header().version == http::Version::HTTP_10 => {
            session.set_keepalive(None);
        }
        None if session.as_http2().is_none() && !bodiless => {
            head.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        None => {}
    }
    if status >= 400 {
        head.insert_header(ERROR_SOURCE, Source::Provider.name())?;
    }
    own_headers(&mut head, ctx)?;
    if status < 400 {
        told::of_stored(&mut head, ctx)?;
    }
    Ok(head)
}

fn note_bytes(ctx: &mut Context) {
    let now = Instant::now();
    ctx.answer.first_byte.get_or_insert(now);
}

async fn write(session: &mut Session, ctx: &mut Context, piece: Bytes) -> Result<(), Failure> {
    ctx.gives(&piece);
    let written = session.write_response_body(Some(piece), false).await;
    written.map_err(|error| gone(&error))
}

async fn end(session: &mut Session, ctx: &mut Context, piece: Bytes) -> Result<(), Failure> {
    ctx.gives(&piece);
    let ended = failure::finish(session, piece).await;
    ended.map_err(|error| gone(&error))
}

/// Resolves when the client has left. Its request has been read.
pub async fn client_left(session: &mut Session) -> Failure {
    loop {
        if let Err(error) = session.as_downstream_mut().read_body_or_idle(true).await {
            return gone(&error);
        }
    }
}

fn gone(error: &pingora_core::Error) -> Failure {
    Failure::new(Kind::ClientGone).with_detail(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_for_the_first_reader_is_not_shared() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("Content-Encoding", "gzip"),
            ("X-Custom", "a"),
            ("Set-Cookie", "a=b"),
            ("x-request-id", "req_1"),
            ("X-RateLimit-Remaining-Tokens", "12"),
            ("cf-aig-step", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Retry-After", "3"),
        ] {
            response.append_header(name, value).unwrap();
        }
        let waiting = head_for_others(&response, false);
        assert_eq!(waiting.headers.last().unwrap().1, "3");
        let head = head_for_others(&response, true);
        let names: Vec<_> = head.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["Content-Type", "Content-Encoding", "X-Custom"]);
        let mut without_cases = ResponseHeader::build_no_case(200, None).unwrap();
        without_cases.append_header("content-type", "a/b").unwrap();
        let head = head_for_others(&without_cases, true);
        assert_eq!(&*head.headers[0].0, "content-type");
    }
}
