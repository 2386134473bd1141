//! How fast requests may pass: rules that count requests are asked at admission, those that need
//! neither target nor body before the body is read; rules for tokens and for calls at the same time
//! before each try at a target, so that answers from the cache cost neither.
//!
//! What calls took is counted when it is known, by the ledger ([`crate::ledger`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::call;
use crate::config::schema::Counted;
use crate::error::{Failure, Kind};
use crate::gateway::Mounted;
use crate::limits::rate::{self, Permit, Refused, Rule, Standing};
use crate::routing::verdict::Cause;
use crate::spending::Reserved;

use super::budgeting::Aside;
use super::context::{Body, Context};
use super::permitting::facts;
use super::{Door, again, budgeting, permitting, planning};

/// Headers that tell where a client stands (IETF draft "RateLimit header fields for HTTP", version 06;
/// later ones have none that clients read yet): a number, a number, seconds.
const LIMIT: &str = "ratelimit-limit";
const REMAINING: &str = "ratelimit-remaining";
const RESET: &str = "ratelimit-reset";

/// What rates have to do with a request.
#[derive(Default)]
pub struct Limited {
    /// Where it stands with the rule for requests that leaves it least, or with the one that
    /// refused it.
    standing: Option<Standing>,
    /// Its call, which counts among those at the same time, and has money set aside.
    call: Option<Call>,
}

/// A call at a target.
struct Call {
    provider: Option<Arc<Mounted>>,
    model: Option<Box<str>>,
    /// Where it stands with the rule for tokens that leaves it least.
    standing: Option<Standing>,
    /// That it counts; `None` once it does not: for another try it is to be entered again.
    permits: Option<Vec<Permit>>,
    aside: Option<Aside>,
    unbounded: Option<&'static str>,
}

/// Where a call stands with rules for tokens, and that it counts.
type Entered = (Option<Standing>, Vec<Permit>);

impl Call {
    /// At the request's target, with nothing set aside yet.
    fn entered(ctx: &Context, (standing, permits): Entered) -> Self {
        Self {
            provider: ctx.provider.clone(),
            model: ctx.model().map(Into::into),
            standing,
            permits: Some(permits),
            aside: None,
            unbounded: None,
        }
    }
}

impl Limited {
    /// No call is made any more. What is set aside for it stays so until it is settled.
    pub fn leave(&mut self) {
        if let Some(call) = &mut self.call {
            call.permits = None;
        }
    }

    /// A try is given up: the provider has the request, may have read it, and its answer is not waited
    /// for. It costs about what reading it does; for another one money is set aside anew.
    pub fn give_up(&mut self) {
        let call = self.call.as_mut();
        if let Some(aside) = call.and_then(|call| call.aside.take()) {
            aside.give_up(SystemTime::now());
        }
    }

    /// What is set aside for it, for who settles it. `asked`: the provider has the request.
    pub fn reserved(&mut self, asked: bool) -> Option<Reserved> {
        let aside = self.call.as_mut()?.aside.take()?;
        Some(aside.into_reserved(asked))
    }

    /// Why that may not be enough, in words that follow "because".
    pub fn unbounded(&self) -> Option<&'static str> {
        self.call.as_ref()?.unbounded
    }

    /// What is known of it, for the request's next step.
    pub fn for_next_step(&self) -> Self {
        Self {
            standing: self.standing,
            call: None,
        }
    }
}

/// The client's address. A subrequest has none: it has the one of its request.
pub fn client(session: &Session) -> Option<IpAddr> {
    let address = session.client_addr()?.as_inet()?;
    Some(address.ip())
}

/// Before the body is read: counts the request, or refuses it. Where some rule needs to know the
/// target, all are counted with that one, and only looked at here.
pub fn head(door: &Door, ctx: &mut Context) -> Result<(), Failure> {
    permitting::head(ctx)?;
    if rules(ctx).next().is_none() {
        return Ok(());
    }
    match waits_for_target(ctx) {
        false => take(door, ctx),
        true => look(door, ctx),
    }
}

/// Whether the rules that need no target have something left.
fn look(door: &Door, ctx: &mut Context) -> Result<(), Failure> {
    let early = requests(ctx).filter(|rule| !rule.needs_target());
    let looked = rate::check(early, &door.rates, &facts(ctx, None), SystemTime::now());
    looked.map_err(|refused| refuse(ctx, &refused))?;
    Ok(())
}

/// Where the target is known: counts the request if that has not been done, or refuses it.
pub fn target(door: &Door, session: &Session, ctx: &mut Context) -> Result<(), Failure> {
    if reads_body(ctx) {
        planning::look_for_model(ctx);
        names_one_model(ctx)?;
    }
    permitting::target(session, ctx)?;
    match waits_for_target(ctx) {
        true => take(door, ctx),
        false => Ok(()),
    }
}

/// Whether some rule needs to know what the body asks for.
pub fn reads_body(ctx: &Context) -> bool {
    rules(ctx).any(Rule::needs_model) || permitting::reads_body(ctx) || budgeting::reads_body(ctx)
}

/// Before the steps of a universal call are read: whether its client may ask at all.
pub fn before_steps(door: &Door, ctx: &mut Context) -> Result<(), Failure> {
    permitting::head(ctx)?;
    look(door, ctx)
}

/// Refuses what one server could read as a request for one model and another for another.
fn names_one_model(ctx: &Context) -> Result<(), Failure> {
    let path = ctx
        .route
        .as_ref()
        .map(|route| &*route.target.path_and_query);
    if path.is_some_and(|path| !call::is_plainly_written(path)) {
        return Err(Failure::because(
            Kind::BadRequest,
            "The path encodes characters that need no encoding, and this gateway has rules for what it names: write letters, digits, -, ., _ and ~ as they are",
        ));
    }
    let one = match &ctx.body {
        Body::Held {
            read: Some(read), ..
        } if read.canonical => !read.names_several,
        Body::Held { bytes, .. } => call::names_one_model(bytes),
        Body::Unread | Body::Streaming { .. } => true,
    };
    match one {
        true => Ok(()),
        false => Err(Failure::because(
            Kind::BadRequest,
            "The body names several models, and this gateway has rules for models: name one",
        )),
    }
}

fn waits_for_target(ctx: &Context) -> bool {
    requests(ctx).any(Rule::needs_target)
}

fn take(door: &Door, ctx: &mut Context) -> Result<(), Failure> {
    let model = ctx.model().map(call::decoded);
    let taken = rate::take(
        requests(ctx),
        &door.rates,
        &facts(ctx, model.as_deref()),
        SystemTime::now(),
    );
    ctx.limited.standing = taken.map_err(|refused| refuse(ctx, &refused))?;
    Ok(())
}

/// Before a place is waited for at the next target: the call at the one that failed counts no more.
/// What is set aside for it stays so until the next one is asked.
pub fn leave_others(ctx: &mut Context) {
    if !is_at_its_target(ctx) {
        ctx.limited.leave();
    }
}

/// Before a try: whether the next target is to be asked instead, because this one is beyond a rule
/// that others may be within. The call counts among those at the same time from here on.
pub fn leads_on(door: &Door, session: &Session, ctx: &mut Context) -> Result<bool, Failure> {
    match permitting::may_ask(ctx) {
        Ok(()) => {}
        Err(_) if goes_elsewhere(door, session, ctx) => return Ok(true),
        Err(failure) => return Err(failure),
    }
    let is_free =
        rules(ctx).all(|rule| rule.counted == Counted::Requests) && !budgeting::reads_body(ctx);
    if is_free {
        return Ok(false);
    }
    if !is_at_its_target(ctx) {
        ctx.limited.call = None;
        let entered = match enter(door, ctx) {
            Ok(entered) => entered,
            Err(refused) if refused.elsewhere && goes_elsewhere(door, session, ctx) => {
                return Ok(true);
            }
            Err(refused) => return Err(refuse(ctx, &refused)),
        };
        ctx.limited.call = Some(Call::entered(ctx, entered));
    }
    match set_aside(door, session, ctx) {
        Ok(()) => Ok(false),
        Err(refused) => {
            ctx.limited.call = None;
            match refused.elsewhere && goes_elsewhere(door, session, ctx) {
                true => Ok(true),
                false => Err(refused.failure),
            }
        }
    }
}

/// Sets money aside for the call, unless some is.
fn set_aside(door: &Door, session: &Session, ctx: &mut Context) -> Result<(), budgeting::Refused> {
    let has_some = |call: &Call| call.aside.is_some();
    if ctx.limited.call.as_ref().is_some_and(has_some) {
        return Ok(());
    }
    let aside = budgeting::set_aside(door, session, ctx)?;
    if let Some(call) = &mut ctx.limited.call {
        call.unbounded = aside.as_ref().and_then(Aside::unbounded);
        call.aside = aside;
    }
    Ok(())
}

fn enter(door: &Door, ctx: &Context) -> Result<Entered, Refused> {
    let model = ctx.model().map(call::decoded);
    let facts = facts(ctx, model.as_deref());
    let of_tokens = |rule: &&Rule| {
        matches!(
            rule.counted,
            Counted::InputTokens | Counted::OutputTokens | Counted::TotalTokens
        )
    };
    let tokens = rules(ctx).filter(of_tokens);
    let standing = rate::check(tokens, &door.rates, &facts, SystemTime::now())?;
    let calls = rules(ctx).filter(|rule| rule.counted == Counted::Concurrent);
    Ok((standing, rate::enter(calls, &door.rates, &facts)?))
}

/// Another try at the same target is the same call, unless that was left in between.
fn is_at_its_target(ctx: &Context) -> bool {
    ctx.limited.call.as_ref().is_some_and(|call| {
        let provider = match (&call.provider, &ctx.provider) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        provider && call.model.as_deref() == ctx.model() && call.permits.is_some()
    })
}

fn goes_elsewhere(door: &Door, session: &Session, ctx: &mut Context) -> bool {
    ctx.has_another() && again::is_worth_it(door, session, ctx, Cause::Limited, None)
}

/// The rules that are about a request: its gateway's, and its key's.
fn rules(ctx: &Context) -> impl Iterator<Item = &Rule> {
    permitting::bounds(ctx).flat_map(|bounds| &bounds.rates)
}

fn requests(ctx: &Context) -> impl Iterator<Item = &Rule> {
    rules(ctx).filter(|rule| rule.counted == Counted::Requests)
}

fn refuse(ctx: &mut Context, refused: &Refused) -> Failure {
    ctx.limited.standing = Some(refused.standing);
    let seconds = u32::try_from(refused.retry_after).unwrap_or(u32::MAX);
    Failure::because(Kind::RateLimited, refused.to_string())
        .with_retry_after(seconds)
        .denied_by(permitting::named(&refused.rule, refused.is_of_key))
}

/// Tells a client where it stands, unless its provider does.
pub fn tell(response: &mut ResponseHeader, ctx: &Context) -> pingora_core::Result<()> {
    let call = ctx.limited.call.as_ref();
    if let Some(aside) = call.and_then(|call| call.aside.as_ref()) {
        budgeting::tell(response, aside)?;
    }
    let of_tokens = call.and_then(|call| call.standing);
    let Some(standing) = rate::tightest(ctx.limited.standing, of_tokens) else {
        return Ok(());
    };
    if response.headers.contains_key(LIMIT) {
        return Ok(());
    }
    response.insert_header(LIMIT, standing.limit)?;
    response.insert_header(REMAINING, standing.left)?;
    response.insert_header(RESET, standing.reset)?;
    Ok(())
}
