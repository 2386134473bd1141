//! Requests that enter Pingora once more.
//!
//! One whose body must be held, is of a length that was not declared, and longer than Pingora's
//! replay buffer: Pingora can send a body that was read before the provider was chosen only out of
//! that buffer. So it runs as a subrequest with a body of one byte, which is replaced by the held
//! one on its way out. The whole state of the request goes with it; the outer request only carries
//! bytes. The same way run the steps of the universal endpoint ([`super::steps`]), and requests
//! that fetch a stored answer anew.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::subrequest::server::SubrequestHandle;
use pingora_http::RequestHeader;
use pingora_proxy::subrequest::{BodyMode, Ctx};
use pingora_proxy::{Session, SubrequestSpawner};

use crate::endpoint;
use crate::error::{Failure, Kind};

use super::admission::content_length;
use super::context::Context;
use super::steps::Running;
use super::{Door, caching, cancel};

/// How long a subrequest may take to end when its client has all of its answer.
const ENDING: std::time::Duration = std::time::Duration::from_secs(10);

/// The state that moves into the subrequest. `Sync` is asked for by Pingora.
type Handover = Mutex<Option<Context>>;

/// Whether a request may have to run as a subrequest, its body being of undeclared length or
/// made of steps, or may begin one, to fetch a stored answer anew.
pub fn may_be_needed(session: &Session, ctx: &Context) -> bool {
    if ctx.is_subrequest {
        return ctx.step.is_some() && ctx.snapshot.revalidates;
    }
    content_length(session).is_none()
        || ctx.snapshot.revalidates
        || ctx.snapshot.hedges
        || endpoint::is_universal(session.req_header().raw_path())
}

/// In a subrequest: takes the state of the request over.
pub fn take_over(session: &mut Session, ctx: &mut Context) {
    let handed = session
        .subrequest_ctx
        .as_mut()
        .and_then(|sub| sub.user_ctx_mut());
    let state = handed
        .and_then(|handed| handed.downcast_mut::<Handover>())
        .and_then(|handover| handover.get_mut().ok()?.take());
    if let Some(state) = state {
        *ctx = state;
        ctx.is_subrequest = true;
        // Pingora copies the bytes of an HTTP/1 head as they came from the client.
        match ctx.step.as_mut().and_then(Running::take_head) {
            Some(head) => *session.req_header_mut() = *head,
            None => framed_as_placeholder(session.req_header_mut()),
        }
        caching::watch_over(ctx);
    }
}

/// Runs the request as a subrequest and carries its answer to the client.
pub async fn run(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<(), Failure> {
    let internal = |detail: &str| Failure::new(Kind::Internal).with_detail(detail);
    let spawner = session
        .subrequest_spawner
        .take()
        .ok_or_else(|| internal("no subrequest can be made"))?;
    ctx.client_version = Some(session.req_header().version);
    stand_in(session).map_err(|error| internal(&error.to_string()))?;
    let outer = Context::new(ctx.snapshot.clone());
    let state = std::mem::replace(ctx, outer);
    ctx.handed_over = true;
    let handle = start(door, session, &spawner, state);
    give_placeholder(&handle)?;
    // A client that leaves ends the carrying; the subrequest finds its channel closed, cancels
    // the call and settles the request.
    carry(session, handle, |_| false).await.map(|_| ())
}

/// Runs a request that no client waits for, on the head of one that has come: `state` says what
/// is asked of whom. Its answer is recorded on the way.
pub fn run_in_background(door: &Door, session: &mut Session, state: Context) {
    let Some(spawner) = session.subrequest_spawner.take() else {
        return;
    };
    match start_on_stand_in(door, session, &spawner, state) {
        Ok(handle) => {
            tokio::spawn(hear_to_its_end(handle));
        }
        Err(failure) => log::error!("a stored answer is not fetched anew: {failure}"),
    }
}

/// Starts a subrequest whose body is held, and leaves the head of `session` as it is.
pub fn start_on_stand_in(
    door: &Door,
    session: &mut Session,
    spawner: &SubrequestSpawner,
    state: Context,
) -> Result<SubrequestHandle, Failure> {
    let head = session.req_header().clone();
    let internal = |error: Box<pingora_core::Error>| {
        Failure::new(Kind::Internal).with_detail(error.to_string())
    };
    stand_in(session).map_err(internal)?;
    let handle = start(door, session, spawner, state);
    *session.req_header_mut() = head;
    give_placeholder(&handle)?;
    Ok(handle)
}

/// Starts a subrequest on the head of `session` that takes `state` over. The process does not
/// end before it has: its client may have left while its answer goes on being recorded.
pub fn start(
    door: &Door,
    session: &Session,
    spawner: &SubrequestSpawner,
    state: Context,
) -> SubrequestHandle {
    let handover: Handover = Mutex::new(Some(state));
    let sub = Ctx::builder()
        .body_mode(BodyMode::ExpectBody)
        .user_ctx(Box::new(handover))
        .build();
    let (prepared, handle) = spawner.create_subrequest(session.as_downstream(), sub);
    let phase = Arc::clone(&door.phase);
    tokio::spawn(async move {
        let _counted = phase.request();
        cancel::until_cancelled(prepared.run()).await;
    });
    handle
}

fn framed_as_placeholder(head: &mut RequestHeader) {
    head.remove_header(&TRANSFER_ENCODING);
    // A length is a valid value.
    let _ = head.insert_header(CONTENT_LENGTH, 1);
}

/// Gives a subrequest the byte that stands for a held body. There is room for it.
pub fn give_placeholder(handle: &SubrequestHandle) -> Result<(), Failure> {
    let placeholder = HttpTask::Body(Some(Bytes::from_static(b"-")), true);
    handle.tx.try_send(placeholder).map_err(|_| {
        Failure::new(Kind::Internal).with_detail("the subrequest ended before it began")
    })
}

/// The head that the subrequest reads: HTTP/1.1, with a body of one byte.
fn stand_in(session: &mut Session) -> pingora_core::Result<()> {
    let head = session.req_header_mut();
    framed_as_placeholder(head);
    if head.version == Version::HTTP_2 {
        head.set_version(Version::HTTP_11);
        if let Some(authority) = head.uri.authority().map(|authority| authority.to_string()) {
            head.insert_header(HOST, authority)?;
        }
    }
    Ok(())
}

/// How the carrying of an answer ended.
pub enum Carried {
    /// The client has all of it.
    Whole,
    /// Its status was one with which it goes no further.
    GivenUp,
}

/// Carries the subrequest's answer to the client, watching whether it is still there. An answer
/// of a status that is `given_up` is left where it is.
pub async fn carry(
    session: &mut Session,
    mut handle: SubrequestHandle,
    given_up: impl Fn(u16) -> bool,
) -> Result<Carried, Failure> {
    let gone = |error: Box<pingora_core::Error>| {
        Failure::new(Kind::ClientGone).with_detail(error.to_string())
    };
    loop {
        tokio::select! {
            task = handle.rx.recv() => match task {
                Some(HttpTask::Header(head, _)) if given_up(head.status.as_u16()) => {
                    return Ok(Carried::GivenUp);
                }
                Some(task) => {
                    if session.write_response_tasks(vec![task]).await.map_err(gone)? {
                        let_end(handle);
                        return Ok(Carried::Whole);
                    }
                }
                None => return Err(cut()),
            },
            idle = session.as_downstream_mut().read_body_or_idle(true) => {
                idle.map_err(gone)?;
            }
        }
    }
}

/// An answer of a told length ends before the subrequest says so. If it could not say it, it would
/// take its client to be gone. The client does not wait for that, and may ask again; a subrequest
/// that does not end in time is ended.
pub fn let_end(handle: SubrequestHandle) {
    tokio::spawn(tokio::time::timeout(ENDING, hear_to_its_end(handle)));
}

/// Keeps both channels of a subrequest open until it has ended.
async fn hear_to_its_end(mut handle: SubrequestHandle) {
    while handle.rx.recv().await.is_some() {}
}

/// The subrequest ended without ending its answer: so must this one.
pub fn cut() -> Failure {
    Failure::new(Kind::UpstreamCut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use pingora_http::ResponseHeader;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_subrequest_is_heard_to_its_end() {
        let (mut client, server) = duplex(4096);
        let ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.write_all(ask).await.unwrap();
        let mut session = Session::new_h1(Box::new(server));
        session.as_downstream_mut().read_request().await.unwrap();
        let (tx, _input) = mpsc::channel(4);
        let (output, rx) = mpsc::channel(4);
        let handle = SubrequestHandle {
            tx,
            rx,
            subreq_wants_body: oneshot::channel().1,
            subreq_proxy_error: oneshot::channel().1,
        };
        let answering = tokio::spawn(async move {
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.insert_header(CONTENT_LENGTH, 2).unwrap();
            let body = HttpTask::Body(Some(Bytes::from_static(b"{}")), false);
            for task in [HttpTask::Header(Box::new(head), false), body] {
                output.send(task).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            output.send(HttpTask::Done).await.is_ok()
        });
        let carried = carry(&mut session, handle, |_| false).await;
        assert!(matches!(carried, Ok(Carried::Whole)));
        assert!(answering.await.unwrap());
        drop(session);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    }
}
