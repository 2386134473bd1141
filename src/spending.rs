//! What a request took and cost.
//!
//! Worked out once for each request: beside the requests by the [ledger](crate::ledger), or at its
//! end where its client is told too. So client, record, metrics and log never disagree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

use crate::config::schema::Format;
use crate::gateway::Mounted;
use crate::limits::spend::Reservation;
use crate::pricing::{Cost, CostSource, CustomCost, Prices, Sale};
use crate::record::{RequestRecord, Spent};
use crate::usage::{Form, Observed, Observer, ServiceTier, Told, estimate};

/// Largest request, in bytes, whose tokens may be estimated while its client waits: that takes some
/// milliseconds.
const QUICK: usize = 256 << 10;

/// How far it is known what a request took.
pub enum Spending {
    /// There is no answer of a provider's that could tell.
    Nothing,
    /// Its answer tells, and has not been read.
    Unread(Evidence),
    /// Its answer has been read.
    Read(Findings),
    /// It has been worked out, and its client knows.
    Known(Box<Spent>),
}

/// What tells how many tokens an answer took.
pub struct Evidence {
    /// Has seen the answer.
    pub observer: Observer,
    /// In which dialect.
    pub format: Format,
    /// The body of the request, or its beginning, in pieces; none where nothing of it was kept.
    pub request: Vec<Bytes>,
}

/// What an answer told.
pub struct Findings {
    seen: Observed,
    format: Format,
    request: Vec<Bytes>,
}

/// All that a price depends on but the answer.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Who answered.
    pub provider: Option<&'a Mounted>,
    /// The model that was asked for.
    pub model: Option<&'a str>,
    /// What the client says that it costs.
    pub custom: Option<&'a CustomCost>,
    /// When it was asked.
    pub at: SystemTime,
    /// The lists.
    pub prices: &'a Prices,
}

impl Spending {
    /// Bytes that it holds in memory.
    pub fn held(&self) -> usize {
        let length = |request: &[Bytes]| request.iter().map(Bytes::len).sum::<usize>();
        match self {
            Self::Nothing | Self::Known(_) => 0,
            Self::Unread(evidence) => evidence.observer.held() + length(&evidence.request),
            Self::Read(findings) => length(&findings.request),
        }
    }
}

impl Evidence {
    /// Reads the answer: it has told all that it will.
    pub fn read(self) -> Findings {
        Findings {
            seen: self.observer.finish(),
            format: self.format,
            request: self.request,
        }
    }
}

impl Findings {
    /// Whether nobody who waits for it has to wait long: what is not reported has to be estimated.
    pub fn is_quick(&self) -> bool {
        let request: usize = self.request.iter().map(Bytes::len).sum();
        self.seen.usage.is_some() || request <= QUICK
    }
}

impl<'a> Terms<'a> {
    /// Those of a request that is over.
    pub fn of(record: &'a RequestRecord, prices: &'a Prices) -> Self {
        Self {
            provider: record.provider.as_deref(),
            model: record.model.as_deref(),
            custom: record.custom_cost.as_deref(),
            at: record.started,
            prices,
        }
    }

    /// What the provider's answer took.
    pub fn bought(self, findings: Findings) -> Spent {
        let Findings {
            seen,
            format,
            request,
        } = findings;
        let settled = estimate::settled(&seen, &request, self.model, format);
        let Some((usage, is_estimate)) = settled else {
            return Spent::default();
        };
        let sale = self.sale(seen.tier, seen.model.as_deref());
        let bill = self.prices.bought(sale, &usage, self.custom);
        Spent {
            usage: Some(usage),
            is_estimate,
            untold: seen.usage.is_none().then_some(seen.form),
            tier: seen.tier,
            cost: bill.cost,
            source: Some(bill.source),
            saved: bill.saved,
            model: seen.model,
        }
    }

    /// An answer that the provider was not asked for costs nothing, and saves what it cost
    /// whoever was given it first. `told` is what it says of itself.
    pub fn given_again(self, told: Option<&Told>) -> Spent {
        let tier = told.map_or(ServiceTier::Standard, |told| told.tier);
        let model = told.and_then(|told| told.model.as_deref());
        let usage = told.map(|told| told.usage);
        let sale = self.sale(tier, model);
        let bill = self.prices.given_again(sale, usage.as_ref());
        Spent {
            usage,
            is_estimate: false,
            untold: None,
            tier,
            cost: bill.cost,
            source: Some(bill.source),
            saved: bill.saved,
            model: model.map(Into::into),
        }
    }

    fn sale<'b>(self, tier: ServiceTier, answered: Option<&'b str>) -> Option<Sale<'b>>
    where
        'a: 'b,
    {
        let provider = &self.provider?.provider;
        Some(Sale {
            provider: &provider.slug,
            id: provider.prices.as_deref(),
            answered,
            asked: self.model,
            tier,
            at: self.at,
        })
    }
}

/// What a request that is over took.
pub fn spent(record: &RequestRecord, spending: Spending, prices: &Prices) -> Spent {
    let terms = Terms::of(record, prices);
    carefully(record.id, || match (record.cache.from, spending) {
        (_, Spending::Known(spent)) => *spent,
        // It was given to others at the same time, and tells what it took as theirs does.
        (Some(_), Spending::Unread(evidence)) => {
            terms.given_again(evidence.read().seen.told().as_ref())
        }
        (Some(_), _) => terms.given_again(record.cache.told.as_ref()),
        (None, Spending::Unread(evidence)) => terms.bought(evidence.read()),
        (None, Spending::Read(findings)) => terms.bought(findings),
        (None, Spending::Nothing) => Spent::default(),
    })
    .unwrap_or_default()
}

/// Money that is set aside for a request.
pub struct Reserved {
    /// In its budgets.
    pub reservation: Reservation,
    /// What is used of it where the provider was asked and there is no answer: about what reading the
    /// request costs.
    pub least: Cost,
    /// It has nothing written: all that can be counted is what it sends.
    pub writes_nothing: bool,
}

impl Reserved {
    /// Books what the request did cost, and frees the rest.
    pub fn settle(self, record: &RequestRecord, prices: &Prices, now: SystemTime) {
        let counted = is_counted(record, self.writes_nothing);
        let Self {
            reservation, least, ..
        } = self;
        let asked = record.cache.from.is_none();
        // Of what passes a WebSocket nobody knows what it takes.
        let is_given = matches!(record.status, 101 | 200..=299);
        match charged(record, prices) {
            Some(cost) if counted => reservation.settle(cost, now),
            _ if !asked => drop(reservation),
            // An answer that does not tell costs all that it may.
            _ if is_given => reservation.settle_whole(now),
            Some(cost) => reservation.settle(cost, now),
            // Nobody has waited for it: the provider has read it, and perhaps more.
            None if record.status == 0 => reservation.settle(least, now),
            None => drop(reservation),
        }
    }
}

/// Whether what a request took is more than an estimate of what it asked: of a stream, and of a
/// document that broke off, it is what was written by then, of what writes nothing there is no more, and
/// of any other answer it is what it says.
fn is_counted(record: &RequestRecord, writes_nothing: bool) -> bool {
    match record.spent.untold {
        None | Some(Form::Events) => true,
        Some(Form::Document) => writes_nothing || record.failure.is_some(),
        Some(Form::Unreadable) => false,
    }
}

/// What a request is charged to budgets: what it cost, and no less than by the lists, whatever its
/// client says that it costs; `None` where nobody knows what it took.
fn charged(record: &RequestRecord, prices: &Prices) -> Option<Cost> {
    let spent = &record.spent;
    let usage = spent.usage.as_ref()?;
    // What has no price costs nothing that could be booked.
    let own = spent.cost.unwrap_or(Cost::ZERO);
    if spent.source != Some(CostSource::Custom) {
        return Some(own);
    }
    let terms = Terms::of(record, prices);
    let listed = prices.bought(terms.sale(spent.tier, spent.model.as_deref()), usage, None);
    Some(listed.cost.map_or(own, |cost| own.max(cost)))
}

/// A mistake in reading one answer must not cost its record, nor its client the answer.
pub fn carefully<T>(id: Uuid, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        log::error!("the tokens of request {id} could not be read: this is a bug in tollgate");
    }
    done.ok()
}
