//! Analytics as a whole.

mod bench;
mod broken;
mod flood;
mod kill;
mod marginals;
mod naive;
mod recount;
mod time;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::query::Query;
use super::reader::Reader;
use super::store::{Options, Store};
use crate::auth::Consumer;
use crate::error::{Failure, Kind};
use crate::gateway::{Gateway, Mounted};
use crate::metadata;
use crate::pricing::{Cost, CostSource};
use crate::record::{CacheStatus, Hedged, RequestRecord, Spent};
use crate::usage::Usage;

/// Seconds since 1970: 2026-11-28T00:00:00Z.
const DAY_0: i64 = 1_795_824_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// Numbers of chance that are the same in every run.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

const MODELS: [&str; 6] = ["gpt-5", "gpt-5-mini", "o4", "opus-5", "sonnet-5", "haiku-5"];
const AGENTS: [&str; 5] = [
    "OpenAI/Python 1.2.3",
    "Anthropic/JS 0.9 extra",
    "curl/8.5.0",
    "Mozilla/5.0 (X11) Chrome/120.0.0.0 Safari/537.36",
    "",
];

/// Makes records of chance.
pub struct Maker {
    chance: Chance,
    gateways: Vec<Arc<Gateway>>,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        let yaml = "providers: { openai: {}, anthropic: {} }\n\
             accounts: { acme: { gateways: { main: {}, side: {} } }, beta: { gateways: { main: {} } } }";
        let config = crate::config::load::parse(yaml, &|_| None).unwrap();
        let resolved = crate::config::resolve::resolve(&config, ([127, 0, 0, 1], 1).into());
        let snapshot = resolved.map_err(|_| "config").unwrap().snapshot;
        let names = [("acme", "main"), ("acme", "side"), ("beta", "main")];
        let gateways =
            names.map(|(account, id)| Arc::clone(snapshot.gateway(account, id).unwrap()));
        Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            gateways: gateways.into(),
        }
    }

    pub fn mounted(&self) -> Arc<Mounted> {
        Arc::clone(&self.gateways[0].providers["openai"])
    }

    /// A request that starts at a time, in seconds since 1970, and takes less than 20 seconds.
    pub fn record(&mut self, at: i64) -> RequestRecord {
        let gateway = {
            let place = self.chance.below(4) as usize;
            self.gateways.get(place).cloned()
        };
        let chance = &mut self.chance;
        let slug = chance.pick(&["openai", "anthropic"]);
        let provider = gateway
            .as_ref()
            .map(|gateway| Arc::clone(&gateway.providers[slug]));
        let duration = Duration::from_micros(1 + chance.below(20_000_000));
        let mut record = RequestRecord {
            started: UNIX_EPOCH + Duration::from_secs(at as u64),
            model: (!chance.one_in(8)).then(|| chance.pick(&MODELS).into()),
            consumer: chance
                .pick(&[None, Some(None), Some(Some("team-a")), Some(Some("team-b"))])
                .map(|owner| {
                    Arc::new(Consumer {
                        owner: owner.map(Into::into),
                        ..Consumer::named("ci")
                    })
                }),
            key_alias: chance
                .one_in(2)
                .then(|| chance.pick(&["default", "spare"]).into()),
            route: chance
                .one_in(3)
                .then(|| chance.pick(&["support", "search"]).into()),
            user_agent: (!chance.one_in(6)).then(|| chance.pick(&AGENTS).into()),
            status: chance.pick(&[200, 200, 200, 200, 304, 404, 429, 503, 0]),
            streamed: chance.one_in(2),
            failure: None,
            attempts: chance.below(4) as u32,
            duration,
            upstream: Some(duration.mul_f64(chance.below(100) as f64 / 100.0)),
            gateway,
            ..RequestRecord::refused(Kind::Internal)
        };
        record.first_token = record.streamed.then(|| duration / 3);
        if chance.one_in(20) {
            record.failure = Some(Failure::new(chance.pick(&[Kind::ClientGone, Kind::Busy])));
        }
        record.cache.status = chance.pick(&[None, Some(CacheStatus::Hit), Some(CacheStatus::Miss)]);
        record.hedged = chance.one_in(20).then_some(Hedged::Second);
        if let Some(mounted) = provider {
            if record.attempts > 1 && chance.one_in(3) {
                record.asked_before = vec![(Arc::clone(&mounted), 1)];
            }
            record.provider = Some(mounted);
        }
        record.spent = spent(chance);
        record.metadata = labels(chance);
        record
    }
}

fn spent(chance: &mut Chance) -> Spent {
    if chance.one_in(5) {
        return Spent::default();
    }
    let source = chance.pick(&[
        CostSource::Catalogue,
        CostSource::Catalogue,
        CostSource::Unpriced,
        CostSource::Cached,
    ]);
    let cost = Cost(chance.below(1 << 50));
    Spent {
        usage: Some(Usage {
            input: chance.below(100_000),
            output: chance.below(10_000),
            cached_input: chance.below(2) * 7,
            ..Usage::default()
        }),
        is_estimate: chance.one_in(3),
        model: Some(chance.pick(&["gpt-5-2026", "opus-5-2026"]).into()),
        cost: match source {
            CostSource::Catalogue => Some(cost),
            CostSource::Cached => Some(Cost::ZERO),
            _ => None,
        },
        saved: (source == CostSource::Cached).then_some(cost),
        source: Some(source),
        ..Spent::default()
    }
}

fn labels(chance: &mut Chance) -> metadata::Metadata {
    let mut labels = metadata::Metadata::new();
    if chance.one_in(2) {
        let team = chance.pick(&["red", "green", "blue", ""]);
        labels.push(("team".into(), metadata::Value::Text(team.into())));
    }
    if chance.one_in(3) {
        let number = chance.below(4).into();
        labels.push(("number".into(), metadata::Value::Number(number)));
    }
    if chance.one_in(4) {
        labels.push(("vip".into(), metadata::Value::Flag(chance.one_in(2))));
    }
    labels
}

/// A clock that is set by hand, in seconds since 1970.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new(at: i64) -> Self {
        Self(Arc::new(AtomicI64::new(at)))
    }

    fn set(&self, at: i64) {
        self.0.store(at, Ordering::SeqCst);
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst) as u64)
    }

    fn options(&self) -> Options {
        let hand = self.clone();
        Options {
            clock: Arc::new(move || hand.now()),
            retry: Duration::from_millis(1),
            ..Options::default()
        }
    }
}

fn open(dir: &Path, hand: &Hand) -> Store {
    Store::open(dir, hand.options()).unwrap()
}

/// Between two times, in seconds since 1970.
fn query(start: i64, end: i64, more: &[(&str, &str)]) -> Query {
    let (start, end) = (start.to_string(), end.to_string());
    let times = [("start", &*start), ("end", &*end)];
    let all = times.iter().chain(more).copied();
    Query::parse(all, SystemTime::now()).unwrap()
}

/// The answer as clients see it.
fn ask(dir: &Path, query: &Query) -> Value {
    let mut reader = Reader::open(dir, Duration::from_secs(60)).unwrap();
    let answer = reader.answer(query).unwrap();
    serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap()
}

fn requests(dir: &Path, start: i64, end: i64, more: &[(&str, &str)]) -> u64 {
    let answer = ask(dir, &query(start, end, more));
    answer["totals"]["requests"].as_u64().unwrap()
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    let holds_soon = (0..2_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        holds()
    });
    assert!(holds_soon, "it does not come to be");
}
