//! The universal endpoint: steps that are asked in order until one succeeds.
//!
//! Each step is a request of its own, with its own provider, head, body, cache and tries: it
//! enters Pingora as a subrequest and runs as any other. The state of the request goes with it,
//! and comes back when the step fails and another is left; then that one goes on with what is
//! known. So the request has one record, however many steps it took.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Version};
use pingora_http::RequestHeader;
use pingora_proxy::{Session, SubrequestSpawner};
use tokio::sync::oneshot;

use crate::error::{Failure, Kind};
use crate::universal::{self, Step};

use super::attempt::is_websocket;
use super::carry::{Carried, Carrier};
use super::context::Context;
use super::settle::{Asked, Unsettled};
use super::{Door, body, subrequest};

/// One of several steps, while it runs.
pub struct Running {
    /// Its place, from 0.
    pub index: u32,
    /// No other is left.
    pub is_last: bool,
    /// Takes the state back for the next step.
    back: Option<oneshot::Sender<Box<Context>>>,
}

/// Answers a request to the universal endpoint.
pub async fn run(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<(), Failure> {
    if session.req_header().method != Method::POST || is_websocket(session) {
        return Err(Failure::because(
            Kind::BadPath,
            "The universal endpoint takes POST with an array of steps; other requests go to /v1/{account}/{gateway}/{provider}/{path}",
        ));
    }
    let bytes = body::hold_for_steps(door, session, ctx).await?;
    let steps = universal::parse(&bytes)?;
    let spawner = session.subrequest_spawner.take();
    let spawner = spawner.ok_or_else(|| {
        Failure::new(Kind::Internal).with_detail("no subrequest can be made for a step")
    })?;
    run_all(door, session, ctx, &spawner, steps).await
}

async fn run_all(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    spawner: &SubrequestSpawner,
    steps: Vec<Step>,
) -> Result<(), Failure> {
    let (outer, count) = (session.req_header().clone(), steps.len());
    ctx.client_version = Some(outer.version);
    for (index, step) in steps.into_iter().enumerate() {
        let is_last = index + 1 == count;
        let (back, returned) = oneshot::channel();
        let head = head(&outer, &step, ctx)?;
        let running = Running {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            is_last,
            back: Some(back),
        };
        let carrier = Carrier::new(door, ctx);
        let state = begin(door, session, ctx, running, step.body);
        *session.req_header_mut() = head;
        let handle = subrequest::start(door, session, spawner, state);
        subrequest::give_placeholder(&handle)?;
        *session.req_header_mut() = outer.clone();
        let given_up = |status| !is_last && is_failure(status);
        match carrier.carry(session, handle, given_up).await? {
            Carried::Whole => return Ok(()),
            Carried::GivenUp => *ctx = *returned.await.map_err(|_| lost())?,
        }
    }
    Ok(())
}

fn lost() -> Failure {
    Failure::new(Kind::Internal).with_detail("a step ended without a trace")
}

/// Every step has a body of its own: what one provider refuses may suit the next.
fn is_failure(status: u16) -> bool {
    status >= 400
}

/// The head of a step's own request.
fn head(outer: &RequestHeader, step: &Step, ctx: &Context) -> Result<RequestHeader, Failure> {
    let internal = |error: Box<pingora_core::Error>| {
        Failure::new(Kind::Internal).with_detail(error.to_string())
    };
    let labels = ctx.gateway.as_ref();
    let (account, gateway) = labels.map_or(("", ""), |gateway| (&*gateway.account, &*gateway.id));
    let path = format!("/v1/{account}/{gateway}/{}/{}", step.provider, step.target);
    let mut head = RequestHeader::build(Method::POST, path.as_bytes(), None).map_err(internal)?;
    head.set_version(Version::HTTP_11);
    for (name, value) in &universal::merged(&outer.headers, &step.headers) {
        head.append_header(name.clone(), value.clone())
            .map_err(internal)?;
    }
    head.insert_header(HOST, "tollgate").map_err(internal)?;
    head.insert_header(CONTENT_LENGTH, 1).map_err(internal)?;
    Ok(head)
}

/// The state of the request, as one of this step. What stays behind only carries bytes.
fn begin(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    running: Running,
    bytes: Bytes,
) -> Context {
    let mut behind = Context::new(Arc::clone(&ctx.snapshot));
    behind.handed_over = true;
    let mut state = std::mem::replace(ctx, behind);
    state.body.replace(bytes);
    // Whatever ends it, it is settled.
    state.unsettled = Some(Box::new(Unsettled {
        ledger: Arc::clone(&door.ledger),
        asked: Asked::of(session, &state),
    }));
    state.step = Some(running);
    state
}

/// The end of a step: gives the state of the request back, if the next step is asked.
pub fn hand_back(session: &Session, ctx: &mut Context) -> bool {
    let head = session.response_written();
    hand_back_after(head.map_or(0, |head| head.status.as_u16()), ctx)
}

/// The same for a step that is ended from outside, because all who had asked for its answer have
/// given it up at its head.
pub fn hand_back_cancelled(ctx: &mut Context) -> bool {
    hand_back_after(ctx.answer.status, ctx)
}

fn hand_back_after(status: u16, ctx: &mut Context) -> bool {
    let failed = is_failure(status);
    let step = ctx.step.as_mut().filter(|step| failed && !step.is_last);
    let Some(back) = step.and_then(|step| step.back.take()) else {
        return false;
    };
    let next = ctx.for_next_step();
    ctx.handed_over = true;
    // Nobody takes it when the client has left: then it settles itself.
    let _ = back.send(Box::new(next));
    true
}
