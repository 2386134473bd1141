//! What one request carries from phase to phase.

mod answer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use pingora_core::{Error, ErrorType};
use pingora_http::ResponseHeader;
use uuid::Uuid;

use crate::auth::Consumer;
use crate::cache::canonical;
use crate::call::{MAX_MODEL, ModelScan};
use crate::config::schema::Format;
use crate::credential::{Credential, ServiceAccount};
use crate::directives::Directives;
use crate::error::Failure;
use crate::gateway::{Gateway, Mounted, Snapshot};
use crate::limits::worst::{self, Worst};
use crate::memory::Reservation;
use crate::metadata::Metadata;
use crate::provider::{StoredKey, Target};
use crate::record::{CacheFacts, Hedged, Tried};
use crate::routing::load::InFlight;
use crate::wire::{Framing, Watch};

pub use answer::Answer;

use super::Door;
use super::body::Limit;
use super::caching::Caching;
use super::cancel::Switch;
use super::copied::Copied;
use super::hedge::{self, Racer};
use super::kept::Kept;
use super::limiting::Limited;
use super::overload::Places;
use super::planning::Planned;
use super::settle::Unsettled;
use super::steps::{self, Running};
use super::told::Telling;
use super::tunnel;

/// The state of one request.
pub struct Context {
    /// The configuration it runs under, to its end.
    pub snapshot: Arc<Snapshot>,
    /// When its head had been read.
    pub clock: Instant,
    /// The same moment on the calendar.
    pub started: SystemTime,
    /// Its identity.
    pub id: Uuid,
    /// The path it asked for, without the query.
    pub path: Box<str>,
    /// The gateway in its URL.
    pub gateway: Option<Arc<Gateway>>,
    /// Whose token it brought.
    pub consumer: Option<Arc<Consumer>>,
    /// The provider that is asked: the one in its URL, or a target of its route.
    pub provider: Option<Arc<Mounted>>,
    /// What it asks of the gateway itself.
    pub directives: Directives,
    /// Where it goes, once that is decided.
    pub route: Option<Route>,
    /// The targets that may answer it, where a route serves it.
    pub planned: Option<Box<Planned>>,
    /// The step of a request to the universal endpoint that it is.
    pub step: Option<Running>,
    /// One of two that are asked for the answer of a request.
    pub racer: Option<Racer>,
    /// Which of the two gave it.
    pub hedged: Option<Hedged>,
    /// Its body.
    pub body: Body,
    /// Where its client is.
    pub address: Option<IpAddr>,
    /// Its places among the calls in flight.
    pub places: Places,
    /// What rates have to do with it.
    pub limited: Limited,
    /// The current try.
    pub attempt: Attempt,
    /// Attempts that failed, at most [`MAX_TRIES`](crate::routing::plan::MAX_TRIES).
    pub tried: Vec<Tried>,
    /// Providers in whose place another one was asked, and the attempts made there.
    pub asked_before: Vec<(Arc<Mounted>, u32)>,
    /// What came back.
    pub answer: Answer,
    /// Length of the body that the client sent, where it is held: others may go to providers.
    pub received: Option<u64>,
    /// Time spent reading a body that is held: the client's, not the gateway's.
    pub reading: Duration,
    /// When an answer of the gateway's own was written.
    pub answered: Option<Instant>,
    /// What went wrong, when the gateway knows it better than Pingora.
    pub failure: Option<Failure>,
    /// A subrequest has taken the request over and will settle it.
    pub handed_over: bool,
    /// A subrequest runs this.
    pub is_subrequest: bool,
    /// The client's HTTP version, where a subrequest's head says another.
    pub client_version: Option<http::Version>,
    /// What its client says of it.
    pub metadata: Metadata,
    /// What the log store is to have of it.
    pub copied: Copied,
    /// What the cache has to do with it.
    pub cache: CacheFacts,
    /// How it meets the cache, where it does.
    pub caching: Option<Box<Caching>>,
    /// How its client is told what it took and cost, where it is.
    pub telling: Option<Telling>,
    /// Settles a request that is ended from outside.
    pub unsettled: Option<Box<Unsettled>>,
}

/// Where a request goes, and how it pays.
#[derive(Clone)]
pub struct Route {
    /// Origin, path and query.
    pub target: Target,
    /// The dialect of the answer.
    pub format: Format,
    /// The model, when the path names it.
    pub model: Option<Box<str>>,
    /// Which credential it goes with.
    pub spend: Spend,
}

/// Which credential a request goes with.
#[derive(Clone)]
pub enum Spend {
    /// The one it brought, or none.
    AsSent,
    /// A stored key: its index in the provider's list.
    Stored(usize),
    /// One of the provider's pool, chosen with each attempt.
    Pool,
    /// A service account that the client sent, to be exchanged for a token.
    Account(Arc<ServiceAccount>),
}

/// The request's body.
pub enum Body {
    /// Not looked at yet.
    Unread,
    /// It streams through.
    Streaming {
        /// Bytes of this attempt so far.
        passed: u64,
        /// Most bytes it may have.
        limit: Limit,
        /// Looks for the model's name as it passes.
        scan: Option<ModelScan>,
        /// What is kept of it for the record.
        kept: Option<Kept>,
    },
    /// It is held whole, and goes out whole with every attempt.
    Held {
        /// The bytes.
        bytes: Bytes,
        /// The model it names, where that was looked for.
        model: Option<Box<str>>,
        /// What the cache needs of it, once it has been read for that.
        read: Option<canonical::Body>,
        /// What it can take at most as a body of that format, where that was learnt in passing.
        worst: Option<(Format, Worst)>,
        /// Keeps their memory accounted for.
        _memory: Reservation,
    },
}

impl Body {
    /// Other bytes take the place of those that are held, in the memory reserved for them.
    pub fn replace(&mut self, other: Bytes) {
        if let Self::Held {
            bytes,
            model,
            read,
            worst,
            ..
        } = self
        {
            (*bytes, *model, *read, *worst) = (other, None, None, None);
        }
    }

    /// What it can take at most as a body of that format; `None` where it is not held.
    pub fn worst(&self, format: Format) -> Option<Worst> {
        let Self::Held { bytes, worst, .. } = self else {
            return None;
        };
        let known = worst.filter(|(known, _)| *known == format);
        Some(known.map_or_else(|| worst::of(bytes, format), |(_, worst)| worst))
    }
}

/// The current try at the provider.
pub struct Attempt {
    /// Connections asked for so far, this one included, for whatever reason.
    pub count: u32,
    /// Those of them that were made for earlier steps of the request.
    pub earlier: u32,
    /// Tries at the target, this one included: what `retry` counts.
    pub tries: u32,
    /// Connections to this target that had been kept and turned out to be closed.
    pub stale: u32,
    /// When this target was first tried.
    pub target_began: Option<Instant>,
    /// How long to wait before this one.
    pub wait: Duration,
    /// When the first began.
    pub began: Option<Instant>,
    /// When this one began.
    pub started: Option<Instant>,
    /// The socket of a request that asks for a tunnel.
    pub tunnel: Option<tunnel::Known>,
    /// Ends it when it takes too long, where Pingora's own timeouts do not do.
    pub watched: Option<Arc<Switch>>,
    /// Its answer is given up for another try.
    pub given_up: bool,
    /// Connections that failed, each to another address.
    pub failed_connections: u32,
    /// Addresses that the name has.
    pub addresses: u32,
    /// It runs over a connection that was already open.
    pub reused: bool,
    /// The head of this attempt is written, and the held body on its way.
    pub body_sent: bool,
    /// A token exchanged for this attempt.
    pub token: Option<Arc<str>>,
    /// The key of the pool that it spends: its index in the provider's list.
    pub key: Option<usize>,
    /// Keys of the pool with which this target was tried, a bit for each.
    pub keys_tried: u64,
    /// Counts as in flight at its target.
    pub in_flight: Option<InFlight>,
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            count: 0,
            earlier: 0,
            tries: 1,
            stale: 0,
            target_began: None,
            wait: Duration::ZERO,
            began: None,
            started: None,
            tunnel: None,
            watched: None,
            given_up: false,
            failed_connections: 0,
            addresses: 0,
            reused: false,
            body_sent: false,
            token: None,
            key: None,
            keys_tried: 0,
            in_flight: None,
        }
    }
}

impl Context {
    /// A head goes to the client.
    pub fn begins(&mut self, head: &ResponseHeader) {
        self.answer.given.status = head.status.as_u16();
        self.answer.given.content_type = head.headers.get(CONTENT_TYPE).cloned();
        self.copied.head(head);
    }

    /// A piece of a body does.
    pub fn gives(&mut self, piece: &Bytes) {
        self.answer.given.bytes += piece.len() as u64;
        self.copied.piece(piece);
    }

    /// For a request whose head has just been read.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            clock: Instant::now(),
            started: SystemTime::now(),
            id: Uuid::now_v7(),
            path: "".into(),
            gateway: None,
            consumer: None,
            provider: None,
            directives: Directives::default(),
            route: None,
            planned: None,
            step: None,
            racer: None,
            hedged: None,
            body: Body::Unread,
            address: None,
            places: Places::default(),
            limited: Limited::default(),
            attempt: Attempt::default(),
            tried: Vec::new(),
            asked_before: Vec::new(),
            answer: Answer::default(),
            received: None,
            reading: Duration::ZERO,
            answered: None,
            failure: None,
            handed_over: false,
            is_subrequest: false,
            client_version: None,
            metadata: Metadata::new(),
            copied: Copied::Facts,
            cache: CacheFacts::default(),
            caching: None,
            telling: None,
            unsettled: None,
        }
    }

    /// The same request once more, asked by nobody: for fetching its answer anew. `None` when
    /// its body cannot be held twice.
    pub fn again(&self, door: &Door) -> Option<Self> {
        let Body::Held { bytes, model, .. } = &self.body else {
            return None;
        };
        let mut memory = door.memory.reserve_nothing();
        let limit = self.snapshot.limits.max_buffered;
        memory.grow(bytes.len() as u64, limit).then_some(())?;
        let mut again = Self::new(Arc::clone(&self.snapshot));
        again.path = self.path.clone();
        again.gateway = self.gateway.clone();
        again.consumer = self.consumer.clone();
        again.address = self.address;
        again.provider = self.provider.clone();
        again.directives = self.directives.clone();
        // Nobody is there to be told.
        again.directives.usage = false;
        again.metadata = self.metadata.clone();
        again.copied = self.copied.again();
        again.route = self.route.clone();
        again.planned = self.planned.clone();
        again.client_version = self.client_version;
        again.received = self.received;
        again.body = Body::Held {
            bytes: bytes.clone(),
            model: model.clone(),
            read: None,
            worst: None,
            _memory: memory,
        };
        Some(again)
    }

    /// The same request, for another target to be asked at the same time. `None` when its body is
    /// not held. What its body takes is to be reserved before it is asked
    /// ([`Self::reserves_its_body`]).
    pub fn twin(&self, door: &Door) -> Option<Self> {
        let Body::Held { bytes, model, .. } = &self.body else {
            return None;
        };
        let mut twin = Self::new(Arc::clone(&self.snapshot));
        (twin.clock, twin.started, twin.id) = (self.clock, self.started, self.id);
        twin.path = self.path.clone();
        twin.gateway = self.gateway.clone();
        twin.consumer = self.consumer.clone();
        twin.address = self.address;
        twin.limited = self.limited.for_next_step();
        twin.provider = self.provider.clone();
        twin.directives = self.directives.clone();
        twin.metadata = self.metadata.clone();
        twin.copied = self.copied.again();
        twin.route = self.route.clone();
        twin.planned = self.planned.clone();
        twin.reading = self.reading;
        twin.received = self.received;
        twin.client_version = self.client_version;
        twin.cache = self.cache.clone();
        twin.body = Body::Held {
            bytes: bytes.clone(),
            model: model.clone(),
            read: None,
            worst: None,
            _memory: door.memory.reserve_nothing(),
        };
        Some(twin)
    }

    /// Reserves memory for the held body; false when there is none.
    pub fn reserves_its_body(&mut self) -> bool {
        let limit = self.snapshot.limits.max_buffered;
        match &mut self.body {
            Body::Held { bytes, _memory, .. } => _memory.grow(bytes.len() as u64, limit),
            Body::Unread | Body::Streaming { .. } => true,
        }
    }

    /// Remembers why, and gives Pingora an error to carry.
    pub fn fail(&mut self, failure: Failure) -> Box<Error> {
        let name = failure.kind.name();
        self.failure = Some(failure);
        Error::new(ErrorType::new(name))
    }

    /// The model's name, from the path or from the body as far as it has passed.
    pub fn model(&self) -> Option<&str> {
        let in_path = self.route.as_ref().and_then(|route| route.model.as_deref());
        let in_path = in_path.filter(|model| model.len() <= MAX_MODEL);
        in_path.or(match &self.body {
            Body::Streaming {
                scan: Some(scan), ..
            } => scan.model(),
            Body::Held { model, .. } => model.as_deref(),
            _ => None,
        })
    }

    /// Which of several targets is asked, or answered: its place, from 0 (`cf-aig-step`).
    pub fn place(&self) -> u32 {
        if let Some(step) = &self.step {
            return step.index;
        }
        let at = self.planned.as_ref().map_or(0, |planned| planned.at());
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Another target may be asked, when this one fails.
    pub fn has_another(&self) -> bool {
        let planned = self.planned.as_ref();
        planned.is_some_and(|planned| planned.has_another())
            || self.step.as_ref().is_some_and(|step| !step.is_last)
    }

    /// What is known of the request, for its next step.
    pub fn for_next_step(&mut self) -> Self {
        self.leave_provider();
        let mut next = Self::new(Arc::clone(&self.snapshot));
        (next.clock, next.started, next.id) = (self.clock, self.started, self.id);
        next.path = std::mem::take(&mut self.path);
        next.gateway = self.gateway.clone();
        next.consumer = self.consumer.clone();
        next.address = self.address;
        next.body = std::mem::replace(&mut self.body, Body::Unread);
        next.tried = std::mem::take(&mut self.tried);
        next.asked_before = std::mem::take(&mut self.asked_before);
        next.reading = self.reading;
        next.received = self.received;
        next.places = self.places.for_next_step();
        next.limited = self.limited.for_next_step();
        next.client_version = self.client_version;
        next.attempt.count = self.attempt.count;
        next.attempt.earlier = self.attempt.count;
        next.attempt.began = self.attempt.began;
        next.unsettled = self.unsettled.take();
        next
    }

    /// The attempts so far were made where the request goes no more.
    pub fn leave_provider(&mut self) {
        let before = self.asked_before.iter().map(|(_, attempts)| attempts);
        let attempts = self.attempt.count - before.sum::<u32>();
        if attempts > 0
            && let Some(mounted) = &self.provider
        {
            self.asked_before.push((Arc::clone(mounted), attempts));
        }
    }

    /// The stored credential that the request goes with, if it can be used.
    pub fn stored_credential(&self) -> Option<&Credential> {
        self.stored_key()?.credential.as_ref().ok()
    }

    /// The stored key that the request spends.
    pub fn stored_key(&self) -> Option<&StoredKey> {
        let (route, mounted) = (self.route.as_ref()?, self.provider.as_ref()?);
        let keys = &mounted.provider.keyring(&route.target).keys;
        match route.spend {
            Spend::Stored(index) => keys.get(index),
            // Before one is chosen any tells how they go onto a request: all alike.
            Spend::Pool => match self.attempt.key {
                Some(index) => keys.get(index),
                None => keys
                    .iter()
                    .find(|key| key.weight > 0 && key.credential.is_ok()),
            },
            Spend::AsSent | Spend::Account(_) => None,
        }
    }

    /// The stored key that was spent, if it is known which.
    pub fn spent_key(&self) -> Option<&StoredKey> {
        let spend = self.route.as_ref().map(|route| &route.spend);
        let undecided = matches!(spend, Some(Spend::Pool)) && self.attempt.key.is_none();
        self.stored_key().filter(|_| !undecided)
    }

    /// The framing of the answer, to know how a break can be told.
    pub fn watch(&mut self, framing: Framing) {
        self.answer.watch = Some(Watch::new(framing));
    }

    /// How long after the request's head `moment` was.
    pub fn since_start(&self, moment: Option<Instant>) -> Option<Duration> {
        moment.map(|moment| moment.saturating_duration_since(self.clock))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Before the next step asks for one.
        self.places.leave();
        self.limited.leave();
        if self.unsettled.is_none()
            || steps::hand_back_cancelled(self)
            || !hedge::is_last(self, true)
        {
            return;
        }
        if let Some(unsettled) = self.unsettled.take() {
            unsettled.settle(self);
        }
    }
}
