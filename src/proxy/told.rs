//! What a client is told of what its call took and cost, in the words of the record: a header
//! `cf-aig-usage` where that is known in time, a comment in a stream of events.
//!
//! A request that asks for it runs as a subrequest where its body is held, and it is
//! [carried](super::carry): the head of an answer that is to have the header says so
//! ([`Waiting`]) to who carries it, and waits there for the end, when the request is settled and the
//! header known. A comment is put in by the [`super::outlet`], from what the observer has seen
//! by then. Either way it is worked out once: the ledger takes what the client was told.
//!
//! Left out: answers of other types than JSON and events, uploads (their bodies are not held), and
//! whatever is an error.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::context::{Body, Context};
use super::outlet;
use crate::call;
use crate::directives::USAGE;
use crate::gateway::Mounted;
use crate::ledger::Entry;
use crate::pricing::{CustomCost, Prices};
use crate::record::{Begun, Logged, Spent};
use crate::spending::{self, Evidence, Spending, Terms};
use crate::telemetry::access;
use crate::wire::Watch;

/// How a client is told.
pub enum Telling {
    /// By a header, at the end, through who carries the answer.
    AtTheEnd(oneshot::Sender<HeaderValue>),
    /// By a comment in the stream.
    InTheStream(Arc<Teller>),
    /// It has been told.
    Told(Box<Spent>),
}

/// In a head on its way to who carries it: it is to have the header, and waits for it.
#[derive(Clone)]
struct Waiting(Arc<Mutex<Option<oneshot::Receiver<HeaderValue>>>>);

/// Whether the request is to be carried, because its answer may have to wait for its end.
pub fn needs_a_carrier(session: &Session, ctx: &Context) -> bool {
    ctx.directives.usage
        && !ctx.is_subrequest
        && session.req_header().method == Method::POST
        && !session.is_upgrade_req()
        && matches!(ctx.body, Body::Held { .. })
}

/// Nothing can be put into a stream that is encoded. What the client has signed for AWS stays as it
/// is.
pub fn ask_for_identity(request: &mut RequestHeader) -> pingora_core::Result<()> {
    let authorization = request.headers.get(AUTHORIZATION);
    if authorization.is_some_and(|value| value.as_bytes().starts_with(b"AWS4-")) {
        return Ok(());
    }
    request.insert_header(ACCEPT_ENCODING, "identity")
}

/// The head of an answer leaves whose client has asked: how it is told.
pub fn begins(session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) {
    if !(200..300).contains(&response.status.as_u16()) || ctx.answer.observer.is_none() {
        return;
    }
    if matches!(ctx.answer.watch, Some(Watch::Sse(_))) {
        if let Some(teller) = Teller::of(ctx).map(Arc::new) {
            outlet::tell(session, Arc::clone(&teller));
            ctx.telling = Some(Telling::InTheStream(teller));
        }
    } else if ctx.is_subrequest && can_wait(session, response, ctx) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting(Arc::new(Mutex::new(Some(receiver))));
        response.extensions_mut().insert(waiting);
        ctx.telling = Some(Telling::AtTheEnd(sender));
    }
}

/// One document, and not one that Gemini sends piece by piece.
fn can_wait(session: &Session, response: &ResponseHeader, ctx: &Context) -> bool {
    let content_type = response.headers.get(CONTENT_TYPE);
    let path = ctx
        .route
        .as_ref()
        .map_or("", |route| &route.target.path_and_query);
    let path = path.split('?').next().unwrap_or(path);
    response.status.as_u16() != 204
        && session.req_header().method != Method::HEAD
        && content_type.is_some_and(|value| call::is_json(value.as_bytes()))
        && !path.ends_with(":streamGenerateContent")
}

/// What a head waits for that has come from a subrequest.
pub fn waits(head: &mut ResponseHeader) -> Option<oneshot::Receiver<HeaderValue>> {
    let Waiting(waiting) = head.extensions_mut().remove::<Waiting>()?;
    waiting.lock().take()
}

/// Puts on the header.
pub fn put(head: &mut ResponseHeader, told: HeaderValue) -> pingora_core::Result<()> {
    head.insert_header(USAGE, told)
}

/// The head of an answer that the provider is not asked for: what that took and cost is known.
pub fn of_stored(head: &mut ResponseHeader, ctx: &mut Context) -> pingora_core::Result<()> {
    let is_known = ctx.cache.told.is_some();
    let spent = terms(ctx).given_again(ctx.cache.told.as_ref());
    if let Some(told) = header(&spent) {
        put(head, told)?;
        // What an answer saves that is still coming is known at its end.
        ctx.telling = is_known.then(|| Telling::Told(Box::new(spent)));
    }
    Ok(())
}

/// How far it is known what a request took that is over.
pub fn spending(request: &Begun, ctx: &mut Context) -> Spending {
    match ctx.telling.take() {
        Some(Telling::InTheStream(teller)) => return teller.close(),
        Some(Telling::Told(spent)) => return Spending::Known(spent),
        at_the_end => ctx.telling = at_the_end,
    }
    let request = request.pieces.clone().unwrap_or_default();
    evidence(request, ctx).map_or(Spending::Nothing, Spending::Unread)
}

/// What the provider's answer tells of tokens; with the request, for an answer that tells nothing.
fn evidence(request: Vec<Bytes>, ctx: &mut Context) -> Option<Evidence> {
    let observer = ctx.answer.observer.take()?;
    let format = ctx.route.as_ref()?.format;
    Some(Evidence {
        observer,
        format,
        request,
    })
}

/// At the end of a request: who carries its answer is told.
pub fn at_the_end(telling: Option<Telling>, entry: &mut Entry) {
    let Some(Telling::AtTheEnd(sender)) = telling else {
        return;
    };
    let spending = std::mem::replace(&mut entry.spending, Spending::Nothing);
    let terms = Terms::of(&entry.record, &entry.prices);
    entry.spending = work_out(entry.record.id, spending, terms);
    let Spending::Known(spent) = &entry.spending else {
        return;
    };
    let told = header(spent).filter(|told| sender.send(told.clone()).is_ok());
    if let (Some(told), Logged::Whole(seen)) = (told, &mut entry.logged) {
        seen.response_head.push(USAGE.as_bytes(), told.as_bytes());
    }
}

/// Reads what was seen, and prices it if that takes no time.
fn work_out(id: Uuid, spending: Spending, terms: Terms<'_>) -> Spending {
    let worked_out = spending::carefully(id, || match spending {
        Spending::Unread(evidence) => {
            let findings = evidence.read();
            match findings.is_quick() {
                true => Spending::Known(Box::new(terms.bought(findings))),
                false => Spending::Read(findings),
            }
        }
        other => other,
    });
    worked_out.unwrap_or(Spending::Nothing)
}

fn header(spent: &Spent) -> Option<HeaderValue> {
    HeaderValue::try_from(access::spent(spent)?).ok()
}

/// The facts that a price depends on, while the request runs.
fn terms(ctx: &Context) -> Terms<'_> {
    Terms {
        provider: ctx.provider.as_deref(),
        model: ctx.model(),
        custom: ctx.directives.custom_cost.as_deref(),
        at: ctx.started,
        prices: &ctx.snapshot.prices,
    }
}

/// Sees a stream pass, and knows what it took when its last event is there.
pub struct Teller {
    id: Uuid,
    spending: Mutex<Spending>,
    provider: Option<Arc<Mounted>>,
    model: Option<Box<str>>,
    custom: Option<Box<CustomCost>>,
    at: SystemTime,
    prices: Arc<Prices>,
}

impl Teller {
    /// Takes over from the observer of the answer.
    fn of(ctx: &mut Context) -> Option<Self> {
        let request = match &ctx.body {
            Body::Held { bytes, .. } => vec![bytes.clone()],
            Body::Streaming { .. } | Body::Unread => Vec::new(),
        };
        let mut evidence = evidence(request, ctx)?;
        evidence.observer.read_alone();
        Some(Self {
            id: ctx.id,
            spending: Mutex::new(Spending::Unread(evidence)),
            provider: ctx.provider.clone(),
            model: ctx.model().map(Into::into),
            custom: ctx.directives.custom_cost.clone(),
            at: ctx.started,
            prices: Arc::clone(&ctx.snapshot.prices),
        })
    }

    /// A piece of the stream has come. What comes behind its last event is not looked at.
    pub fn push(&self, piece: &Bytes) {
        if let Spending::Unread(evidence) = &mut *self.spending.lock() {
            evidence.observer.push(piece);
        }
    }

    /// The last event is there: what is told of it.
    pub fn comment(&self) -> Option<Bytes> {
        let mut spending = self.spending.lock();
        let seen = std::mem::replace(&mut *spending, Spending::Nothing);
        *spending = work_out(self.id, seen, self.terms());
        let Spending::Known(spent) = &*spending else {
            return None;
        };
        let json = access::spent(spent)?;
        Some(format!(": {USAGE} {json}\n\n").into())
    }

    /// At the end of the request: what the ledger takes.
    fn close(&self) -> Spending {
        std::mem::replace(&mut *self.spending.lock(), Spending::Nothing)
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            provider: self.provider.as_deref(),
            model: self.model.as_deref(),
            custom: self.custom.as_deref(),
            at: self.at,
            prices: &self.prices,
        }
    }
}
