//! A request as one of a target: the address, the model and the credential change, everything else
//! stays.

use std::sync::Arc;

use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::Planned;
use crate::call::{self, ModelScan};
use crate::config::schema::Auth;
use crate::credential::KeyPlaces;
use crate::endpoint::Endpoint;
use crate::error::{Failure, Kind};
use crate::gateway::{Gateway, Mounted};
use crate::provider::{Ask, Keyring, Provider};
use crate::proxy::admission::{self, route};
use crate::proxy::authentication;
use crate::proxy::context::{Body, Context, Route, Spend};
use crate::routing::plan::Target;
use crate::wire;

/// What the client asked for, to ask it of another target.
#[derive(Clone)]
pub(super) struct Asked {
    /// The provider that it named: its key is for no other.
    pub(super) provider: Option<Arc<Mounted>>,
    /// Where keys stand in calls of the API that it named.
    pub(super) keyring: Option<Arc<Keyring>>,
    /// It brought a key of its own.
    pub(super) pays: bool,
    /// The path after the provider, and the raw query.
    pub(super) path: Box<str>,
    pub(super) query: Option<Box<str>>,
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

pub(super) fn route_to(
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
        true => {
            let may_spend = authentication::may_spend_stored_keys(gateway, ctx);
            stored(may_spend, provider, &endpoint, target.key.as_deref())?
        }
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
    may_spend: bool,
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
        _ if !may_spend => return Err(not_permitted(provider)),
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
            "This target is paid with a stored key of {slug}, which this gateway does not permit without one of its tokens (cf-aig-authorization): bring one, or a key for it on {slug}'s own path; see authentication.tokens and authentication.anyone_may_spend_stored_keys"
        ),
    )
}

/// `model` takes the place of the one in the held body.
pub(super) fn ask_for(ctx: &mut Context, asked: &str) {
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
