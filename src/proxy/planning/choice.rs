//! Whom a call asks: a route that it names or matches, a provider that its model names, or whom its
//! URL names.

use std::borrow::Cow;
use std::sync::Arc;

use pingora_proxy::Session;

use super::asking::ask_for;
use super::begin;
use crate::call::{self, ModelScan};
use crate::config::schema::Format;
use crate::endpoint::Endpoint;
use crate::error::{Failure, Kind};
use crate::gateway::{Gateway, Mounted};
use crate::proxy::admission::{self, route};
use crate::proxy::context::{Body, Context};
use crate::proxy::{Door, attempt};
use crate::routing::plan::{DYNAMIC, Plan, Target};

/// The provider in a URL that stands for whichever the model's name begins with.
pub const COMPAT: &str = "compat";
/// The only path under it.
const COMPAT_PATH: &str = "chat/completions";

/// Who is asked.
pub enum Choice {
    /// Whom the URL names.
    AsNamed,
    /// Somebody else, or for something else.
    Chosen,
}

/// Whether the body says where a request goes, and so must be held.
pub fn reads_body(ctx: &Context) -> bool {
    let routes = ctx.gateway.as_ref().map(|gateway| &gateway.routes);
    routes.is_some_and(|routes| !routes.is_empty())
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

/// Looks for the model in a held body, where the path names none.
pub fn look_for_model(ctx: &mut Context) {
    if ctx.model().is_none() {
        in_body(ctx);
    }
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

pub(super) fn check_compat_path(endpoint: &Endpoint<'_>) -> Result<(), Failure> {
    let path = endpoint.path.trim_end_matches('/');
    match path.strip_prefix("v1/").unwrap_or(path) == COMPAT_PATH {
        true => Ok(()),
        false => Err(Failure::because(
            Kind::BadPath,
            "Under compat only chat/completions is served",
        )),
    }
}
