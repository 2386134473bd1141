//! Which targets may answer a request, and moving on to the next one.
//!
//! A request that no route serves has one target: what its URL names. One that a route serves is
//! turned into a request of its first target here, and of the next one when that fails: the
//! model's name, the address and the credential change, everything else stays.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::call::{self, ModelScan};
use crate::config::schema::{Auth, Format};
use crate::credential::KeyPlaces;
use crate::endpoint::Endpoint;
use crate::error::{Failure, Kind};
use crate::gateway::{Gateway, Mounted};
use crate::provider::{Ask, Keyring, Provider};
use crate::record::Source;
use crate::routing::known::OfTarget;
use crate::routing::plan::{DYNAMIC, Plan, Target};
use crate::routing::strategy::{self, Order};
use crate::wire;

use super::admission::{self, route};
use super::context::{Body, Context, Route, Spend};
use super::{Door, attempt, blame, caching, keys};

/// The provider in a URL that stands for whichever the model's name begins with.
pub const COMPAT: &str = "compat";
/// The only path under it.
const COMPAT_PATH: &str = "chat/completions";

/// A request that a route serves.
#[derive(Clone)]
pub struct Planned {
    /// The route.
    pub plan: Arc<Plan>,
    /// In which order its targets are asked.
    order: Order,
    /// How many of them were asked before.
    pub tried: usize,
    /// The one that is asked now may be.
    has_turn: bool,
    /// The target as which the request was looked up in the cache: its place.
    looked_up: usize,
    /// Those that are left alone have been put last.
    sorted: bool,
    asked: Asked,
}

/// What the client asked for, to ask it of another target.
#[derive(Clone)]
struct Asked {
    /// The provider that it named: its key is for no other.
    provider: Option<Arc<Mounted>>,
    /// Where keys stand in calls of the API that it named.
    keyring: Option<Arc<Keyring>>,
    /// It brought a key of its own.
    pays: bool,
    /// The path after the provider, and the raw query.
    path: Box<str>,
    query: Option<Box<str>>,
}

impl Planned {
    /// The place of the target that is asked, or answered.
    pub fn at(&self) -> usize {
        self.order.get(self.tried).unwrap_or_default()
    }

    /// The target that is asked.
    pub fn target(&self) -> Option<&Target> {
        self.plan.targets.get(self.at())
    }

    /// What is known of the target that is asked.
    pub fn known(&self) -> Option<&OfTarget> {
        let known = self.plan.known.get()?;
        known.targets.get(self.at()).map(|target| &**target)
    }

    /// Another one is left to ask.
    pub fn has_another(&self) -> bool {
        self.tried + 1 < self.plan.targets.len()
    }

    /// The answer is not of the target as which the request was looked up in the cache.
    pub fn is_fallback(&self) -> bool {
        self.at() != self.looked_up
    }

    /// The target that is called so becomes the one that answered, if it is one of these.
    fn answered(&mut self, provider: &str, model: Option<&str>) -> bool {
        let is = |target: &Target| {
            *target.mounted.provider.slug == *provider && Some(&*target.model) == model
        };
        let place = self.plan.targets.iter().position(is);
        let found = place.and_then(|place| self.order.iter().position(|at| at == place));
        self.tried = found.unwrap_or(self.tried);
        found.is_some()
    }

    /// Whether a stored key pays for the target at `place`.
    fn spends(&self, place: usize) -> bool {
        let target = self.plan.targets.get(place);
        target.is_none_or(|target| {
            let asked = self.asked.provider.as_ref();
            let own = asked.is_some_and(|asked| Arc::ptr_eq(asked, &target.mounted));
            !(own && self.asked.pays && target.key.is_none())
        })
    }

    /// The target is not of the provider that the client named, and whose key it may have sent.
    fn is_foreign(&self) -> bool {
        match (self.target(), &self.asked.provider) {
            (Some(target), Some(asked)) => !Arc::ptr_eq(&target.mounted, asked),
            _ => true,
        }
    }
}

/// Whether the body says where a request goes, and so must be held.
pub fn reads_body(ctx: &Context) -> bool {
    let routes = ctx.gateway.as_ref().map(|gateway| &gateway.routes);
    routes.is_some_and(|routes| !routes.is_empty())
}

/// Who is asked.
pub enum Choice {
    /// Whom the URL names.
    AsNamed,
    /// Somebody else, or for something else.
    Chosen,
}

/// Decides who is asked, now that the body is there.
pub fn choose(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    endpoint: &Endpoint<'_>,
) -> Result<Choice, Failure> {
    let Some(gateway) = ctx.gateway.clone() else {
        return Ok(Choice::AsNamed);
    };
    let is_compat = endpoint.provider == COMPAT;
    let held = matches!(ctx.body, Body::Held { .. });
    if !is_compat && (gateway.routes.is_empty() || !held || !may_be_planned(session)) {
        return Ok(Choice::AsNamed);
    }
    let in_body = in_body(ctx);
    let named = in_body
        .as_deref()
        .and_then(|model| model.strip_prefix(DYNAMIC));
    let plan = match named {
        Some(name) => Some(dynamic(&gateway, name, ctx.provider.as_ref())?),
        None if is_compat => {
            compat(door, session, ctx, &gateway, endpoint, in_body.as_deref())?;
            return Ok(Choice::Chosen);
        }
        None => matching(&gateway, ctx, in_body.as_deref()),
    };
    let Some(plan) = plan else {
        return Ok(Choice::AsNamed);
    };
    begin(door, session, ctx, plan, endpoint)?;
    Ok(Choice::Chosen)
}

/// The model that a held body names. It is remembered.
fn in_body(ctx: &mut Context) -> Option<Box<str>> {
    let Body::Held { bytes, model, .. } = &mut ctx.body else {
        return None;
    };
    if model.is_none() {
        *model = ModelScan::default().of(bytes);
    }
    model.clone()
}

fn may_be_planned(session: &Session) -> bool {
    session.req_header().method == http::Method::POST && !attempt::is_websocket(session)
}

/// The route that a call names itself. `asked`: the provider whose API is called, on its own path.
fn dynamic(
    gateway: &Gateway,
    name: &str,
    asked: Option<&Arc<Mounted>>,
) -> Result<Arc<Plan>, Failure> {
    let plan = gateway.routes.named(name).cloned().ok_or_else(|| {
        Failure::because(
            Kind::UnknownRoute,
            format!(
                "No route is called `{}`; routes are configured under accounts.<account>.gateways.<gateway>.routes",
                shown(name)
            ),
        )
    })?;
    let format = asked.map_or(Format::OpenaiChat, |asked| asked.provider.format);
    let speaks = |target: &Target| target.mounted.provider.format == format;
    match plan.targets.iter().all(speaks) {
        true => Ok(plan),
        false if asked.is_none() => Err(not_translated("A target of this route")),
        false => Err(Failure::because(
            Kind::BadRequest,
            "The targets of this route speak another format than this path; call it on a path of theirs, or on compat",
        )),
    }
}

fn not_translated(who: &str) -> Failure {
    Failure::because(
        Kind::BadRequest,
        format!(
            "{who} does not speak OpenAI's chat format, and calls to compat are not translated by this version; call the provider's own path"
        ),
    )
}

/// What of a client's word may stand in an answer.
fn shown(word: &str) -> String {
    word.chars()
        .filter(char::is_ascii_graphic)
        .take(64)
        .collect()
}

/// The route that a call takes without asking for it.
fn matching(gateway: &Gateway, ctx: &Context, in_body: Option<&str>) -> Option<Arc<Plan>> {
    let provider = &ctx.provider.as_ref()?.provider.slug;
    let in_path = ctx.route.as_ref().and_then(|route| route.model.as_deref());
    let model = in_path.map(call::decoded).or(in_body.map(Cow::Borrowed))?;
    gateway.routes.matching(provider, &model).cloned()
}

/// A call whose model names its provider: `{provider}/{model}`. It goes on as if the URL had.
fn compat(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    gateway: &Gateway,
    endpoint: &Endpoint<'_>,
    model: Option<&str>,
) -> Result<(), Failure> {
    check_compat_path(endpoint)?;
    let wrong = || {
        Failure::because(
            Kind::ModelWithoutProvider,
            "The body of a call to compat must be JSON whose model is `{provider}/{model}` or `dynamic/{route}`, for example openai/gpt-5-mini",
        )
    };
    let (slug, model) = model
        .and_then(|model| model.split_once('/'))
        .ok_or_else(wrong)?;
    let mounted = gateway.providers.get(slug).cloned();
    let mounted = mounted.ok_or_else(|| admission::no_provider(slug))?;
    if mounted.provider.format != Format::OpenaiChat {
        return Err(not_translated("This provider"));
    }
    let native = Endpoint {
        provider: slug,
        ..*endpoint
    };
    ctx.route = Some(route(session, ctx, gateway, &mounted.provider, &native)?);
    ctx.provider = Some(mounted);
    ask_for(ctx, model);
    match matching(gateway, ctx, Some(model)) {
        Some(plan) => begin(door, session, ctx, plan, endpoint),
        None => Ok(()),
    }
}

fn check_compat_path(endpoint: &Endpoint<'_>) -> Result<(), Failure> {
    let path = endpoint.path.trim_end_matches('/');
    match path.strip_prefix("v1/").unwrap_or(path) == COMPAT_PATH {
        true => Ok(()),
        false => Err(Failure::because(
            Kind::BadPath,
            "Under compat only chat/completions is served",
        )),
    }
}

/// Turns the request into one of its route's first target.
fn begin(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    plan: Arc<Plan>,
    endpoint: &Endpoint<'_>,
) -> Result<(), Failure> {
    if endpoint.provider == COMPAT {
        check_compat_path(endpoint)?;
    }
    let route = ctx.route.as_ref();
    let asked = Asked {
        // Who asks compat for a route by its name has named none.
        provider: ctx.provider.clone(),
        keyring: route.and_then(|route| route.target.keyring.clone()),
        pays: route.is_some_and(|route| matches!(route.spend, Spend::AsSent | Spend::Account(_))),
        path: endpoint.path.into(),
        query: endpoint.query.map(Into::into),
    };
    let order = order(door, session, ctx, &plan);
    ctx.planned = Some(Box::new(Planned {
        plan,
        order,
        tried: 0,
        has_turn: false,
        looked_up: order.get(0).unwrap_or_default(),
        sorted: false,
        asked,
    }));
    match ask(session, ctx) {
        Ok(()) => Ok(()),
        // What is wrong with the request is told, and not hidden by another target.
        Err(failure) if failure.kind.source() == Source::Client => Err(failure),
        Err(_) if next(session, ctx) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// In which order the targets are asked, by the strategy. Who is left alone does not count yet: an
/// answer that the cache has is found all the same.
fn order(door: &Door, session: &Session, ctx: &Context, plan: &Plan) -> Order {
    let now = Instant::now();
    let Some(gateway) = &ctx.gateway else {
        return strategy::order(plan.strategy, &[], None, || 0.0, now);
    };
    let session = plan.affinity.as_ref().and_then(|affinity| {
        let body = match &ctx.body {
            Body::Held { bytes, .. } => bytes,
            Body::Unread | Body::Streaming { .. } => &Bytes::new(),
        };
        affinity.session(&session.req_header().headers, body)
    });
    let candidates = &plan.known(&door.known, &gateway.label).candidates;
    strategy::order(plan.strategy, candidates, session, caching::chance, now)
}

/// Before an attempt: a target that was left alone is tried with one call first. True where that
/// is another one's, and the next target is asked instead.
pub fn passes_over(door: &Door, session: &Session, ctx: &mut Context) -> bool {
    let (Some(planned), Some(gateway)) = (&mut ctx.planned, &ctx.gateway) else {
        return false;
    };
    if std::mem::replace(&mut planned.has_turn, true) {
        return false;
    }
    let place = planned.at();
    !blame::may_ask(door, gateway, &planned.plan, place, Instant::now()) && next(session, ctx)
}

/// Before the first attempt: those that are left alone come last.
pub fn put_well_first(door: &Door, session: &Session, ctx: &mut Context) {
    let (Some(planned), Some(gateway)) = (&mut ctx.planned, &ctx.gateway) else {
        return;
    };
    if std::mem::replace(&mut planned.sorted, true) {
        return;
    }
    let (now, before) = (Instant::now(), planned.at());
    let until = |place| {
        let spends = planned.spends(place);
        blame::cooled_until(door, gateway, &planned.plan, place, spends, now)
    };
    let order = planned.order.well_first(until);
    planned.order = order;
    if planned.at() != before && ask(session, ctx).is_err() {
        next(session, ctx);
    }
}

/// Whether the target that is asked is left alone.
pub fn is_left_alone(door: &Door, ctx: &Context) -> bool {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return false;
    };
    let (place, now) = (planned.at(), Instant::now());
    let spends = planned.spends(place);
    blame::cooled_until(door, gateway, &planned.plan, place, spends, now).is_some()
}

/// An answer that was not asked for by this request is of this provider and model.
pub fn was_answered_by(ctx: &mut Context, provider: &str, named: Option<&str>) {
    let Some(planned) = ctx.planned.as_mut() else {
        return;
    };
    if !planned.answered(provider, named) {
        return;
    }
    let target = planned.target().map(|target| Arc::clone(&target.mounted));
    ctx.provider = target.or(ctx.provider.take());
    if let Some(route) = &mut ctx.route
        && route.model.is_some()
    {
        route.model = named.map(Into::into);
    }
    if let Body::Held { model, .. } = &mut ctx.body {
        *model = named.map(Into::into);
    }
}

/// Moves on to the next target that can be asked; false when there is none.
pub fn next(session: &Session, ctx: &mut Context) -> bool {
    let Some(stood) = ctx.planned.as_ref().map(|planned| planned.tried) else {
        return false;
    };
    ctx.leave_provider();
    while let Some(planned) = ctx.planned.as_mut().filter(|planned| planned.has_another()) {
        planned.tried += 1;
        let place = planned.at();
        if ctx.racer.as_ref().is_some_and(|racer| !racer.takes(place)) {
            continue;
        }
        match ask(session, ctx) {
            Ok(()) => return true,
            // A client can make it so, as often as it likes.
            Err(failure) => log::debug!("a route's target is passed over: {failure}"),
        }
    }
    if let Some(planned) = &mut ctx.planned {
        planned.tried = stood;
    }
    false
}

/// Turns the request into one of the target that its plan stands at.
fn ask(session: &Session, ctx: &mut Context) -> Result<(), Failure> {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return Ok(());
    };
    let (plan, gateway, at) = (Arc::clone(&planned.plan), Arc::clone(gateway), planned.at());
    let Some(target) = plan.targets.get(at) else {
        return Ok(());
    };
    let route = route_to(session, ctx, &gateway, planned, target)?;
    keys::forget(ctx);
    if let Some(planned) = &mut ctx.planned {
        planned.has_turn = false;
    }
    ctx.provider = Some(Arc::clone(&target.mounted));
    let in_path = route.model.is_some();
    ctx.route = Some(route);
    if !in_path {
        ask_for(ctx, &target.model);
    }
    Ok(())
}

fn route_to(
    session: &Session,
    ctx: &Context,
    gateway: &Gateway,
    planned: &Planned,
    target: &Target,
) -> Result<Route, Failure> {
    let (provider, asked) = (&target.mounted.provider, &planned.asked);
    let endpoint = Endpoint {
        account: &gateway.account,
        gateway: &gateway.id,
        provider: &provider.slug,
        path: &asked.path,
        query: asked.query.as_deref(),
    };
    let foreign = planned.is_foreign();
    let mut route = match foreign || target.key.is_some() {
        true => stored(gateway, provider, &endpoint, target.key.as_deref())?,
        false => route(session, ctx, gateway, provider, &endpoint)?,
    };
    let path = &mut route.target.path_and_query;
    if foreign && path.contains('?') {
        *path = crate::credential::without_who_pays(asked.places(), path);
    }
    if let Some(changed) = call::with_model_in_path(path, &target.model) {
        *path = changed;
        route.model = Some(target.model.clone());
    }
    Ok(route)
}

/// A stored key pays, or nothing, where the provider takes none.
fn stored(
    gateway: &Gateway,
    provider: &Provider,
    endpoint: &Endpoint<'_>,
    alias: Option<&str>,
) -> Result<Route, Failure> {
    let target = provider.target(&Ask {
        account: endpoint.account,
        path: endpoint.path,
        query: endpoint.query,
        upgrade: false,
        target_header: None,
    })?;
    let keyring = provider.keyring(&target);
    let spend = match keyring.auth {
        Auth::None => Spend::AsSent,
        _ if !gateway.anyone_may_spend_stored_keys => return Err(not_permitted(provider)),
        _ => admission::default_key(keyring, alias)?,
    };
    Ok(Route {
        format: wire::format_of(&target.path_and_query, provider.format),
        model: call::model_in_path(&target.path_and_query).map(Into::into),
        spend,
        target,
    })
}

fn not_permitted(provider: &Provider) -> Failure {
    let slug = &provider.slug;
    Failure::because(
        Kind::UnknownKey,
        format!(
            "This target is paid with a stored key of {slug}, which this gateway does not permit: bring a key for it on {slug}'s own path; see authentication.anyone_may_spend_stored_keys"
        ),
    )
}

/// `model` takes the place of the one in the held body.
fn ask_for(ctx: &mut Context, asked: &str) {
    let Body::Held { bytes, model, .. } = &mut ctx.body else {
        return;
    };
    let named = model.take().or_else(|| ModelScan::default().of(bytes));
    if named.as_deref() != Some(asked)
        && let Some((_, places)) = call::model_places(bytes)
    {
        *bytes = call::with_model(bytes, &places, asked);
    }
    *model = Some(asked.into());
}

/// The attempt counts as in flight at its target.
pub fn enter(door: &Door, ctx: &mut Context) {
    let (Some(planned), Some(gateway)) = (&ctx.planned, &ctx.gateway) else {
        return;
    };
    let known = planned.plan.known(&door.known, &gateway.label);
    let target = known.targets.get(planned.at());
    ctx.attempt.in_flight = target.map(|target| target.load.enter());
}

/// What pays one provider is not shown to another.
pub fn withhold(request: &mut RequestHeader, ctx: &Context) {
    let Some(planned) = ctx.planned.as_ref().filter(|planned| planned.is_foreign()) else {
        return;
    };
    let asked = &planned.asked;
    for name in crate::credential::names_who_pays(asked.places(), &request.headers) {
        request.remove_header(&name);
    }
    let provider = asked.provider.as_ref().map(|mounted| &mounted.provider);
    if let Some(header) = provider.and_then(|provider| provider.target_header.as_ref()) {
        request.remove_header(&header.name);
    }
}

impl Asked {
    /// Where the client's key may stand.
    fn places(&self) -> Option<&KeyPlaces> {
        let provider = self
            .provider
            .as_ref()
            .map(|mounted| &mounted.provider.keyring);
        let keyring = self.keyring.as_ref().or(provider)?;
        Some(&keyring.places)
    }
}
