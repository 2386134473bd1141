//! What requests may cost: before each try at a target the most that it can cost is set aside in all
//! budgets that pay for it, and it is settled with the real cost by the ledger when the request is
//! over, however it ends.

use std::fmt::Write;
use std::time::SystemTime;

use http::header::CONTENT_ENCODING;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::call;
use crate::config::schema::{SpendAction, Unpriced};
use crate::error::{Failure, Kind};
use crate::limits::bounds::Bounds;
use crate::limits::facts::Facts;
use crate::limits::spend::{Ask, Exceeded, Left, Reservation, Rule};
use crate::limits::worst::Worst;
use crate::pricing::{Cost, Scale, Seller};
use crate::spending::Reserved;

use super::Door;
use super::context::Context;
use super::permitting::{asks_a_model, bounds, facts, named};

/// What is left of the budgets that pay for a request, as it was set aside:
/// `team;limit=500;remaining=312.5`, a rule each.
const BUDGET: &str = "tollgate-budget";

/// Money that is set aside for a call.
pub struct Aside {
    reservation: Reservation,
    /// Why it may not be enough.
    unbounded: Option<&'static str>,
    /// What reading the request costs, about.
    input: Cost,
    /// Nothing is written for it.
    writes_nothing: bool,
}

/// A budget has refused a call.
pub struct Refused {
    /// What the client is told.
    pub failure: Failure,
    /// Another target may fit.
    pub elsewhere: bool,
}

impl Aside {
    /// What is set aside, for who settles it. `asked`: the provider has the request.
    pub fn into_reserved(self, asked: bool) -> Reserved {
        Reserved {
            reservation: self.reservation,
            least: if asked { self.input } else { Cost::ZERO },
            writes_nothing: self.writes_nothing,
        }
    }

    /// The call's provider was asked, and its answer is not waited for.
    pub fn give_up(self, now: SystemTime) {
        self.reservation.settle(self.input, now);
    }

    /// Why it may not be enough, in words that follow "because".
    pub fn unbounded(&self) -> Option<&'static str> {
        self.unbounded
    }
}

/// Whether the body must be known.
pub fn reads_body(ctx: &Context) -> bool {
    bounds(ctx).any(|bounds| !bounds.spends.is_empty())
}

/// Sets aside what a call at the request's target can cost at most; `None` where no budget pays, or
/// nothing is to be paid.
pub fn set_aside(door: &Door, session: &Session, ctx: &Context) -> Result<Option<Aside>, Refused> {
    let is_free = path(ctx).is_some_and(call::only_counts_tokens);
    if is_free || !reads_body(ctx) || !asks_a_model(session) {
        return Ok(None);
    }
    let model = ctx.model().map(call::decoded);
    let facts = facts(ctx, model.as_deref());
    let paying: Vec<_> = bounds(ctx)
        .flat_map(|bounds| bounds.spends.iter().map(move |rule| (bounds, rule)))
        .filter(|(_, rule)| rule.applies(&facts))
        .collect();
    if paying.is_empty() {
        return Ok(None);
    }
    sold(ctx, |seller| {
        let most = Most::of(session, ctx, seller);
        reserve(door, ctx, &facts, &paying, &most).map(Some)
    })
}

/// Sets aside what `most` says in the budgets that pay.
fn reserve(
    door: &Door,
    ctx: &Context,
    facts: &Facts<'_>,
    paying: &[(&Bounds, &Rule)],
    most: &Most<'_>,
) -> Result<Aside, Refused> {
    let mut asks = Vec::with_capacity(paying.len());
    let mut is_priced = false;
    let mut unbounded = None;
    for (bounds, rule) in paying {
        let listed = most.listed(ctx, rule);
        let open = most.open(ctx, rule);
        let unknown = open.or(listed.is_none().then_some(NO_PRICE));
        if let Some(why) = unknown
            && rule.unpriced == Unpriced::Refuse
        {
            return Err(not_known(bounds, rule, why));
        }
        // What its client says can only make it dearer. What is not known does not fit into a budget
        // that is used up.
        let least = unknown.map_or(Cost::ZERO, |_| LEAST);
        let cost = listed.max(most.custom(ctx, rule)).unwrap_or(Cost::ZERO);
        is_priced |= listed.is_some();
        unbounded = unbounded.or(open);
        asks.push(Ask {
            scope: &bounds.scope,
            rule,
            cost: cost.max(least),
        });
    }
    let reserved = door.budgets.reserve(&asks, facts, SystemTime::now());
    let reservation = reserved.map_err(|exceeded| refused(&exceeded, &asks))?;
    Ok(Aside {
        reservation,
        unbounded: unbounded.or((!is_priced).then_some(NO_PRICE)),
        input: most.read(),
        writes_nothing: most.worst.output == Some(0),
    })
}

/// What a call of unknown cost must find left.
const LEAST: Cost = Cost(1);
/// Bytes of a token of the input, about, where nobody has counted them (docs/costs.md).
const BYTES_PER_TOKEN: u64 = 4;

const NO_MAXIMUM: &str = "it sets no maximum, and nobody knows how much its model can write";
const NO_SURE_MAXIMUM: &str =
    "its model may ignore the maximum that it sets, and nobody knows how much the model can write";
const NO_PRICE: &str = "no price is known for it";
const COMPRESSED: &str = "its body is compressed";
const NOT_HELD: &str = "its body is not JSON, and not read before it is sent";
const TUNNEL: &str = "a WebSocket goes on for as long as its ends like";

/// The most that a call can take, and what there is to price it.
struct Most<'a> {
    worst: Worst,
    scale: Scale,
    seller: Seller<'a>,
}

/// Does something with whom the request asks for what.
fn sold<T>(ctx: &Context, work: impl FnOnce(Seller<'_>) -> T) -> T {
    let provider = ctx.provider.as_ref().map(|mounted| &mounted.provider);
    let model = ctx.model().map(call::decoded);
    let models: Vec<&str> = model.as_deref().into_iter().collect();
    work(Seller {
        provider: provider.map_or("", |provider| &provider.slug),
        id: provider.and_then(|provider| provider.prices.as_deref()),
        models: &models,
    })
}

impl<'a> Most<'a> {
    fn of(session: &Session, ctx: &Context, seller: Seller<'a>) -> Self {
        let scale = ctx.snapshot.prices.scale(seller, ctx.started);
        let model = seller.models.first().copied().unwrap_or_default();
        Self {
            worst: worst_of(session, ctx).of_model(model, scale.sells_searches()),
            scale,
            seller,
        }
    }

    /// By the lists, as far as a rule assumes; `None` where nobody knows a price.
    fn listed(&self, ctx: &Context, rule: &Rule) -> Option<Cost> {
        let output = self.output(ctx, rule);
        self.scale.most(self.worst.input, output)
    }

    /// By what its client says.
    fn custom(&self, ctx: &Context, rule: &Rule) -> Option<Cost> {
        let custom = ctx.directives.custom_cost.as_ref()?;
        Some(custom.most(self.worst.input, self.output(ctx, rule)))
    }

    fn output(&self, ctx: &Context, rule: &Rule) -> u64 {
        let most = self.can_write(ctx, rule);
        self.worst.most_output(rule.assumed_output(most))
    }

    /// The most that the model can write, for rules that ask.
    fn can_write(&self, ctx: &Context, rule: &Rule) -> Option<u64> {
        let can_write = || ctx.snapshot.prices.most_output(self.seller);
        rule.strict.then(can_write).flatten()
    }

    /// Why a rule cannot know beforehand how much is read and written at most.
    fn open(&self, ctx: &Context, rule: &Rule) -> Option<&'static str> {
        let is_at_a_loss = || rule.is_at_a_loss(self.can_write(ctx, rule));
        let says_nothing = self.worst.output.is_none() && is_at_a_loss();
        let why = match self.worst.doubtful {
            0 => NO_MAXIMUM,
            _ => NO_SURE_MAXIMUM,
        };
        self.worst.unbounded.or(says_nothing.then_some(why))
    }

    /// What reading it costs, about: as much as is used of a call whose client leaves before there is
    /// an answer.
    fn read(&self) -> Cost {
        let tokens = self.worst.input / BYTES_PER_TOKEN;
        self.scale.most(tokens, 0).unwrap_or(Cost::ZERO)
    }
}

fn worst_of(session: &Session, ctx: &Context) -> Worst {
    let headers = &session.req_header().headers;
    let format = ctx.route.as_ref().map(|route| route.format);
    let held = format.and_then(|format| ctx.body.worst(format));
    let mut worst = held.unwrap_or_else(|| unbounded(NOT_HELD));
    if let Some(path) = path(ctx) {
        worst = worst.at(&call::decoded(path));
        if call::writes_no_text(path) && !path.contains("/images/") {
            worst = worst.writing_nothing();
        }
    }
    let is_plain = |value: &http::HeaderValue| value.as_bytes() == b"identity";
    if super::attempt::is_websocket(session) {
        worst.unbounded = Some(TUNNEL);
    } else if !headers.get(CONTENT_ENCODING).is_none_or(is_plain) {
        worst.unbounded = Some(COMPRESSED);
    }
    worst
}

/// Where the request goes to at its provider.
fn path(ctx: &Context) -> Option<&str> {
    let route = ctx.route.as_ref()?;
    Some(&route.target.path_and_query)
}

fn unbounded(why: &'static str) -> Worst {
    Worst {
        input: 0,
        output: None,
        doubtful: 0,
        choices: 1,
        unbounded: Some(why),
        other_models: false,
    }
}

fn refused(exceeded: &Exceeded, asks: &[Ask<'_>]) -> Refused {
    let is_its = |ask: &&Ask<'_>| ask.rule.id == exceeded.rule && *ask.scope == exceeded.scope;
    let rule = asks.iter().find(is_its).map(|ask| ask.rule);
    let is_of_key = matches!(exceeded.scope, crate::limits::spend::Scope::Key(_));
    let mut failure = Failure::because(Kind::SpendLimited, exceeded.to_string())
        .denied_by(named(&exceeded.rule, is_of_key));
    if let Some(seconds) = exceeded.retry_after {
        failure = failure.with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX));
    }
    Refused {
        failure,
        elsewhere: rule.is_some_and(|rule| rule.action == SpendAction::Fallback),
    }
}

/// The rule refuses what cannot be known beforehand.
fn not_known(bounds: &Bounds, rule: &Rule, why: &str) -> Refused {
    let id = &rule.id;
    let message = format!(
        "Access denied by policy: spend rule '{id}' refuses requests whose cost is not known beforehand, and of this one it is not because {why} (unpriced: refuse)"
    );
    Refused {
        failure: Failure::because(Kind::Denied, message).denied_by(named(id, bounds.are_a_key_s())),
        elsewhere: rule.action == SpendAction::Fallback,
    }
}

/// Tells a client what is left.
pub fn tell(response: &mut ResponseHeader, aside: &Aside) -> pingora_core::Result<()> {
    let mut all = String::with_capacity(64); // most budgets are alone
    for Left {
        rule,
        limit,
        remaining,
    } in aside.reservation.left()
    {
        let comma = if all.is_empty() { "" } else { ", " };
        // A String takes whatever is written to it.
        let _ = write!(all, "{comma}{rule};limit={limit};remaining={remaining}");
    }
    match all.is_empty() {
        true => Ok(()),
        false => response.insert_header(BUDGET, all),
    }
}
