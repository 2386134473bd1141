//! Hedging: where a route's first target is late, the next one is asked too, and the first head
//! that comes is the client's answer.
//!
//! Pingora asks one upstream at a time for a request, so each of the two runs as a subrequest with
//! a state of its own ([`Racer`]), and the request itself only carries the bytes of the one that
//! wins. Who wins is decided where the heads arrive ([`Race`]): an answer that does not win goes
//! no further, so nobody is given bytes of two answers. The loser's channel is closed, which ends
//! its call. The winner's record tells of both.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::subrequest::server::SubrequestHandle;
use pingora_proxy::{Session, SubrequestSpawner};

use crate::error::{Failure, Kind};
use crate::gateway::Mounted;
use crate::record::{Hedged, Tried};

use super::carry::{self, Carrier};
use super::context::{Body, Context};
use super::settle::{Asked, Unsettled};
use super::{Door, caching, planning, subrequest};

/// A request of which two targets are asked.
pub struct Race(Mutex<State>);

#[derive(Default)]
struct State {
    /// Who gives the answer.
    winner: Option<usize>,
    /// The second has been sent off, and the one that has not ended yet.
    started: [bool; 2],
    ended: [bool; 2],
    /// Targets that are being asked, or were: by place, a bit for each.
    taken: u32,
    /// The record is written: what the loser did later is counted without it.
    settled: bool,
    /// Attempts of the one that did not win.
    tried: Vec<Tried>,
    asked: Vec<(Arc<Mounted>, u32)>,
}

/// One of the two, in the state of its subrequest.
pub struct Racer {
    race: Arc<Race>,
    /// 0 began, 1 came later.
    number: usize,
}

impl Racer {
    /// Whether this one may ask the target at `place`: the other one may have before.
    pub fn takes(&self, place: usize) -> bool {
        let mut state = self.race.0.lock();
        let bit = 1 << place;
        let free = state.taken & bit == 0;
        state.taken |= bit;
        free
    }

    /// It has a good answer. False: the other one had one before.
    fn wins(&self) -> bool {
        let mut state = self.race.0.lock();
        *state.winner.get_or_insert(self.number) == self.number
    }

    /// It has failed for good. False: the other one may still do better.
    fn is_last(&self) -> bool {
        let mut state = self.race.0.lock();
        state.ended[self.number] = true;
        let other = 1 - self.number;
        if state.winner.is_none() && (!state.started[other] || state.ended[other]) {
            state.winner = Some(self.number);
        }
        state.winner == Some(self.number)
    }

    /// How the race ended, from the view of the one that gave the answer.
    fn outcome(&self) -> Option<Hedged> {
        let started = self.race.0.lock().started[1];
        started.then_some(match self.number {
            0 => Hedged::First,
            _ => Hedged::Second,
        })
    }
}

/// What the target's hedge says, where this request may be hedged: its body is held, another
/// target is left, and nobody else waits for its answer.
fn hedge(door: &Door, session: &Session, ctx: &mut Context) -> Option<Duration> {
    if ctx.is_subrequest || caching::is_leading(ctx) {
        return None;
    }
    // It is asked for certain now: who is left alone does not come first.
    planning::put_well_first(door, session, ctx);
    let planned = ctx
        .planned
        .as_ref()
        .filter(|planned| planned.has_another())?;
    let hedge = planned.plan.hedge.as_ref()?;
    let held = matches!(ctx.body, Body::Held { .. });
    if !held {
        return None;
    }
    let known = planned
        .plan
        .known(&door.known, ctx.gateway.as_ref()?.label.as_ref());
    known.hedges.earn(hedge.budget);
    known
        .targets
        .get(planned.at())
        .and_then(|target| hedge.after(&target.latencies))
}

/// Runs a request that may be hedged; `None` when it is none of these.
pub async fn run(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
) -> Option<Result<(), Failure>> {
    let after = hedge(door, session, ctx)?;
    let spawner = session.subrequest_spawner.take()?;
    Some(race(door, session, ctx, &spawner, after).await)
}

async fn race(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
    spawner: &SubrequestSpawner,
    after: Duration,
) -> Result<(), Failure> {
    let race = Arc::new(Race(Mutex::default()));
    ctx.client_version = Some(session.req_header().version);
    // Made while the state is here; it asks for nothing before its time.
    let mut spare = ctx.twin(door);
    let carrier = Carrier::new(door, ctx);
    let outer = Context::new(Arc::clone(&ctx.snapshot));
    let state = std::mem::replace(ctx, outer);
    ctx.handed_over = true;
    let mut both = [Some(start(door, session, spawner, state, &race, 0)?), None];
    let mut late = std::pin::pin!(pingora_timeout::sleep(after));
    loop {
        let [first, second] = &mut both;
        let (number, task) = tokio::select! {
            task = next(first) => (0, task),
            task = next(second) => (1, task),
            () = &mut late, if spare.is_some() => {
                if let Some(spare) = spare.take() {
                    both[1] = start_second(door, session, spawner, spare, &race)?;
                }
                continue;
            }
            idle = session.as_downstream_mut().read_body_or_idle(true) => {
                idle.map_err(gone)?;
                continue;
            }
        };
        match task {
            Some(HttpTask::Header(head, _)) if head.status.is_informational() => {}
            Some(task) => {
                let Some(handle) = both[number].take() else {
                    return Err(carry::cut());
                };
                // The other one's channel closes here, and its call ends with it.
                drop(both);
                return finish(session, carrier, task, handle).await;
            }
            // It ended without a word: the other one does better, or is to.
            None => {
                both[number] = None;
                if both.iter().all(Option::is_none) {
                    return Err(carry::cut());
                }
            }
        }
    }
}

fn gone(error: Box<pingora_core::Error>) -> Failure {
    Failure::new(Kind::ClientGone).with_detail(error.to_string())
}

async fn next(handle: &mut Option<SubrequestHandle>) -> Option<HttpTask> {
    match handle {
        Some(handle) => handle.rx.recv().await,
        None => std::future::pending().await,
    }
}

/// Carries the answer whose first task is there.
async fn finish(
    session: &mut Session,
    mut carrier: Carrier,
    task: HttpTask,
    handle: SubrequestHandle,
) -> Result<(), Failure> {
    if carrier.take(session, task).await? {
        carry::let_end(handle);
        return Ok(());
    }
    let carried = carrier.carry(session, handle, |_| false).await;
    carried.map(|_| ())
}

fn start(
    door: &Door,
    session: &mut Session,
    spawner: &SubrequestSpawner,
    mut state: Context,
    race: &Arc<Race>,
    number: usize,
) -> Result<SubrequestHandle, Failure> {
    let racer = Racer {
        race: Arc::clone(race),
        number,
    };
    race.0.lock().started[number] = true;
    if let Some(planned) = &state.planned {
        racer.takes(planned.at());
    }
    // Whatever ends it, it is settled.
    state.unsettled = Some(Box::new(Unsettled {
        ledger: Arc::clone(&door.ledger),
        asked: Asked::of(session, &state),
    }));
    state.racer = Some(racer);
    subrequest::start_on_stand_in(door, session, spawner, state)
}

/// Sends the second one off: if the budget allows it, a target is left, and there is memory.
fn start_second(
    door: &Door,
    session: &mut Session,
    spawner: &SubrequestSpawner,
    mut spare: Context,
    race: &Arc<Race>,
) -> Result<Option<SubrequestHandle>, Failure> {
    let decided = race.0.lock().winner.is_some();
    if decided || !is_in_budget(door, &spare) || !spare.reserves_its_body() {
        return Ok(None);
    }
    // The one that began may have moved on meanwhile.
    spare.racer = Some(Racer {
        race: Arc::clone(race),
        number: 1,
    });
    // A second one that is left alone would only cost.
    if !planning::next(session, &mut spare) || planning::is_left_alone(door, &spare) {
        spare.racer = None;
        return Ok(None);
    }
    start(door, session, spawner, spare, race, 1).map(Some)
}

fn is_in_budget(door: &Door, ctx: &Context) -> bool {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return false;
    };
    let (plan, label) = (&planned.plan, &gateway.label);
    let allowed = plan.known(&door.known, label).hedges.spend();
    if !allowed {
        door.metrics.hedge(label, &plan.name, "over_budget");
    }
    allowed
}

/// The head of an answer is there. False: the other one's came before, and this one goes no
/// further.
pub fn wins(ctx: &mut Context) -> bool {
    let won = ctx.racer.as_ref().is_none_or(Racer::wins);
    if !won {
        lose(ctx, true);
    }
    won
}

/// It has failed for good, or (`cancelled`) was ended. False: the other one is still to be waited
/// for, or has won.
pub fn is_last(ctx: &mut Context, cancelled: bool) -> bool {
    let last = ctx.racer.as_ref().is_none_or(Racer::is_last);
    if !last {
        lose(ctx, cancelled);
    }
    last
}

/// Leaves its attempts to the one that gives the answer, and settles nothing itself.
fn lose(ctx: &mut Context, was_waiting: bool) {
    let (Some(racer), unsettled) = (ctx.racer.take(), ctx.unsettled.take()) else {
        return;
    };
    // It took at least so long: otherwise what is slow would never be known to be.
    let began = ctx.attempt.started.unwrap_or(ctx.clock);
    let waited = was_waiting && ctx.attempt.in_flight.is_some();
    let target = ctx.planned.as_ref().and_then(|planned| planned.known());
    if let Some(target) = target.filter(|_| waited) {
        target.latencies.record(began.elapsed());
    }
    if was_waiting && ctx.attempt.body_sent {
        ctx.limited.give_up();
    }
    ctx.leave_provider();
    ctx.handed_over = true;
    let mut state = racer.race.0.lock();
    state.ended[racer.number] = true;
    if !state.settled {
        state.tried.append(&mut ctx.tried);
        state.asked.append(&mut ctx.asked_before);
    } else if let (Some(unsettled), Some(gateway)) = (unsettled, &ctx.gateway) {
        let metrics = unsettled.ledger.metrics();
        metrics.observe_attempts(&gateway.label, &ctx.asked_before, &ctx.tried);
    }
}

/// At the end of the one that gives the answer: what the other one did so far is part of its
/// record.
pub fn settle(door: &Door, ctx: &mut Context) {
    let Some(racer) = ctx.racer.take() else {
        return;
    };
    let failure = ctx.failure.as_ref();
    let left = failure.is_some_and(|failure| failure.kind == Kind::ClientGone);
    ctx.hedged = racer.outcome().filter(|_| !left);
    if let (Some(hedged), Some(planned), Some(gateway)) = (ctx.hedged, &ctx.planned, &ctx.gateway) {
        let metrics = &door.metrics;
        metrics.hedge(&gateway.label, &planned.plan.name, hedged.name());
    }
    ctx.leave_provider();
    let mut state = racer.race.0.lock();
    state.settled = true;
    ctx.tried.append(&mut state.tried);
    for (mounted, attempts) in state.asked.drain(..) {
        ctx.attempt.count += attempts;
        ctx.asked_before.push((mounted, attempts));
    }
}
