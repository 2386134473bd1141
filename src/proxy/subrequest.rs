//! Requests that enter Pingora once more.
//!
//! The steps of the universal endpoint ([`super::steps`]), targets that are asked at the same time
//! ([`super::hedge`]), requests that fetch a stored answer anew, and those whose answer is to tell
//! what it cost ([`super::told`]). Their bodies are held: the whole state of the request goes with
//! the subrequest, whose own body is one byte, and the outer request only carries bytes of its
//! answer ([`super::carry`]).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::subrequest::server::SubrequestHandle;
use pingora_http::RequestHeader;
use pingora_proxy::subrequest::{BodyMode, Ctx};
use pingora_proxy::{Session, SubrequestSpawner};

use crate::directives::USAGE;
use crate::endpoint;
use crate::error::{Failure, Kind};

use super::carry::{Carrier, hear_to_its_end};
use super::context::Context;
use super::{Door, caching, cancel};

/// What moves into the subrequest: the state of the request, and the head that it has here. Pingora
/// would give it the bytes of the head as they came from the client, with all that was taken off
/// since. `Sync` is asked for by Pingora.
type Handover = Mutex<Option<(Context, RequestHeader)>>;

/// Whether a request may have to run as a subrequest, its body being made of steps, or its answer to
/// tell what it cost, or may begin one, to fetch a stored answer anew.
pub fn may_be_needed(session: &Session, ctx: &Context) -> bool {
    if ctx.is_subrequest {
        return ctx.step.is_some() && ctx.snapshot.revalidates;
    }
    ctx.snapshot.revalidates
        || ctx.snapshot.hedges
        || session.req_header().headers.contains_key(USAGE)
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
    if let Some((state, head)) = state {
        *ctx = state;
        ctx.is_subrequest = true;
        *session.req_header_mut() = head;
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
    let carrier = Carrier::new(door, ctx);
    let outer = Context::new(ctx.snapshot.clone());
    let state = std::mem::replace(ctx, outer);
    ctx.handed_over = true;
    let handle = start_on_stand_in(door, session, &spawner, state)?;
    // A client that leaves ends the carrying; the subrequest finds its channel closed, cancels
    // the call and settles the request.
    let carried = carrier.carry(session, handle, |_| false).await;
    carried.map(|_| ())
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
    let handover: Handover = Mutex::new(Some((state, session.req_header().clone())));
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
