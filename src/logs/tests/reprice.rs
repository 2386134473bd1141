//! Entries by other prices.

use std::sync::Arc;
use std::time::Instant;

use super::super::filter::Filter;
use super::super::query::{Patch, Query, Repricing};
use super::super::reprice::{Book, Step, Sums};
use super::super::{entry, shown};
use super::*;
use crate::config::resolve::resolve;
use crate::gateway::Snapshot;
use crate::pricing::{CostSource, CustomCost, Sale};
use crate::record::{RequestRecord, Spent};
use crate::telemetry::access::tests::record;
use crate::usage::{ServiceTier, Usage};

/// More than any step takes.
const UNBOUNDED: Duration = Duration::from_secs(600);

/// Our own providers, one of them with a price list.
const PROVIDERS: &str = "custom-acme: { base_url: \"https://acme.test/v1\" }, \
    custom-resold: { base_url: \"https://resold.test/v1\", prices: openai }";

const ACME: &str = "{ provider: custom-acme, model: \"acme-*\", rates: { input: 3, output: 15 } }";
const DEAR: &str = "{ provider: openai, model: \"gpt-5*\", rates: { input: 70, output: 0.3 } }";

fn snapshot(overrides: &[&str], providers: &str) -> Snapshot {
    let yaml = format!(
        "prices: {{ overrides: [ {} ] }}\n\
         providers: {{ {providers} }}\n\
         accounts: {{ acme: {{ gateways: {{ main: {{}} }} }} }}",
        overrides.join(", ")
    );
    let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
    let resolved = resolve(&config, ([127, 0, 0, 1], 1).into());
    resolved.unwrap().snapshot
}

/// A call, before it is known what it cost.
#[derive(Debug, Clone, Default)]
struct Call {
    provider: Option<&'static str>,
    asked: Option<&'static str>,
    answered: Option<&'static str>,
    tier: ServiceTier,
    usage: Option<Usage>,
    cached: bool,
    custom: Option<&'static str>,
}

impl Call {
    fn of(provider: &'static str, asked: &'static str) -> Self {
        Self {
            provider: Some(provider),
            asked: Some(asked),
            usage: Some(Usage {
                input: 1000,
                output: 100,
                ..Usage::default()
            }),
            ..Self::default()
        }
    }

    /// Its entry, priced as the ledger does.
    fn ended(&self, snapshot: &Snapshot, milliseconds: u64) -> Entry {
        let mut record = record();
        record.id = id_at(milliseconds);
        // Entries keep milliseconds of it.
        record.started = UNIX_EPOCH + Duration::from_millis(milliseconds) + Duration::from_nanos(7);
        record.model = self.asked.map(Into::into);
        record.gateway = snapshot.gateway("acme", "main").cloned();
        record.provider = self.provider.map(|slug| {
            let gateway = snapshot.gateway("acme", "main").unwrap();
            Arc::clone(&gateway.providers[slug])
        });
        record.spent = self.spent(&record, snapshot);
        if self.cached {
            record.cache.from = Some(crate::record::AnsweredFrom::Flight);
        }
        entry(&record, None)
    }

    fn spent(&self, record: &RequestRecord, snapshot: &Snapshot) -> Spent {
        let sale = record.provider.as_ref().map(|mounted| Sale {
            provider: &mounted.provider.slug,
            id: mounted.provider.prices.as_deref(),
            answered: self.answered.filter(|_| !self.cached),
            asked: self.asked,
            tier: self.tier,
            at: record.started,
        });
        let custom = self.custom.map(|custom| CustomCost::parse(custom).unwrap());
        let bill = match (self.usage, self.cached) {
            (usage, true) => snapshot.prices.given_again(sale, usage.as_ref()),
            (Some(usage), false) => snapshot.prices.bought(sale, &usage, custom.as_ref()),
            (None, false) => return Spent::default(),
        };
        Spent {
            usage: self.usage,
            is_estimate: false,
            untold: None,
            tier: self.tier,
            model: self.answered.filter(|_| !self.cached).map(Into::into),
            cost: bill.cost,
            source: Some(bill.source),
            saved: bill.saved,
        }
    }
}

/// All steps, each as short as can be.
fn reprice(store: &Store, snapshot: &Snapshot, mut repricing: Repricing) -> Step {
    let book = Book::of(snapshot);
    let mut all = Sums::default();
    loop {
        let step = store.reprice(&scope(), &repricing, &book, Duration::ZERO);
        let step = step.unwrap();
        all.add(&step.sums);
        if step.cursor.is_none() {
            return Step { sums: all, ..step };
        }
        let cursor = step.cursor.unwrap();
        let next = Repricing::parse([("cursor", &*cursor)]).unwrap();
        assert!(next.cursor > repricing.cursor, "every step gets somewhere");
        repricing.cursor = next.cursor;
    }
}

fn parsed(parameters: &[(&str, &str)]) -> Repricing {
    Repricing::parse(parameters.iter().copied()).unwrap()
}

/// An entry's id, and its cost, saving and source.
type Priced = (Uuid, Option<f64>, Option<f64>, Option<String>);

/// Every entry, the oldest first.
fn money(dir: &Path) -> Vec<Priced> {
    let mut reader = reader(dir);
    let export = reader.export(&scope(), &Filter::default(), true).unwrap();
    let shown = |entry: shown::LogEntry| (entry.id, entry.cost, entry.saved, entry.cost_source);
    export.map(|entry| shown(entry.unwrap())).collect()
}

fn store_of(dir: &Path, calls: &[Call], snapshot: &Snapshot) -> Store {
    let store = open(dir);
    for (call, at) in calls.iter().zip(0..) {
        store.offer(call.ended(snapshot, TIME + at));
    }
    store.flush(SOON).unwrap();
    store
}

fn random(chance: &mut Chance) -> Call {
    let mut usage = [0; Usage::KINDS];
    for (at, count) in usage.iter_mut().enumerate() {
        // Wholes are usually larger than their parts.
        let bound = if at < 2 { 500_000 } else { 100_000 };
        *count = chance.below(bound) * chance.below(2);
    }
    let models = [
        None,
        Some("gpt-5"),
        Some("gpt-5-mini-2025-08-07"),
        Some("claude-sonnet-4-5"),
        Some("gemini-2.5-pro"),
        Some("deepseek-chat"),
        Some("acme-large"),
        Some("a file.gguf"),
    ];
    let providers = [
        None,
        Some("openai"),
        Some("anthropic"),
        Some("google-ai-studio"),
        Some("deepseek"),
        Some("custom-acme"),
        Some("custom-resold"),
    ];
    let tiers = [
        ServiceTier::Standard,
        ServiceTier::Batch,
        ServiceTier::Flex,
        ServiceTier::Priority,
    ];
    let cached = chance.below(4) == 0;
    Call {
        provider: chance.pick(&providers),
        asked: chance.pick(&models),
        answered: chance.pick(&models),
        tier: match cached {
            true => ServiceTier::Standard,
            false => chance.pick(&tiers),
        },
        usage: (chance.below(8) > 0).then(|| Usage::from_array(usage)),
        cached,
        custom: chance.pick(&[None, None, None, Some(r#"{"total_cost":0.123456789012}"#)]),
    }
}

#[test]
fn without_other_prices_nothing_changes_and_there_and_back_is_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let before = snapshot(&[ACME], PROVIDERS);
    let mut chance = Chance(0x00c0_ffee);
    let calls: Vec<_> = (0..3_000).map(|_| random(&mut chance)).collect();
    let store = store_of(dir.path(), &calls, &before);
    let ended = money(dir.path());
    let sources: std::collections::BTreeSet<_> = ended
        .iter()
        .map(|(.., source)| source.clone().unwrap_or_default())
        .collect();
    let every = ["", "cached", "catalogue", "custom", "override", "unpriced"];
    assert!(sources.iter().eq(every), "{sources:?}");
    let same = reprice(&store, &before, Repricing::default()).sums;
    assert_eq!((same.looked_at, same.changed), (3_000, 0));
    assert_eq!(same.cost.before, same.cost.after);
    assert_eq!(money(dir.path()), ended);

    let other = snapshot(&[DEAR], PROVIDERS);
    let dry = reprice(&store, &other, parsed(&[("dry_run", "true")])).sums;
    assert_eq!(money(dir.path()), ended, "a dry run changes nothing");
    let done = reprice(&store, &other, Repricing::default()).sums;
    assert_eq!(dry, done, "and tells what would");
    assert!(done.changed > 100 && done.newly_priced > 0 && done.now_unpriced > 0);
    let again = reprice(&store, &other, Repricing::default()).sums;
    assert_eq!((again.changed, again.cost.before), (0, done.cost.after));
    let back = reprice(&store, &before, Repricing::default()).sums;
    assert_eq!(back.changed, done.changed);
    assert_eq!(
        (back.cost.after, back.saved.after),
        (done.cost.before, done.saved.before)
    );
    assert_eq!(money(dir.path()), ended);
}

#[test]
fn what_is_priced_again_is_as_if_it_had_ended_by_these_prices() {
    let (before, after) = (snapshot(&[], PROVIDERS), snapshot(&[ACME, DEAR], PROVIDERS));
    let mut chance = Chance(0x5eed);
    let calls: Vec<_> = (0..1_000)
        .map(|_| Call {
            custom: None,
            ..random(&mut chance)
        })
        .collect();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store_of(dir.path(), &calls, &before);
    drop(store_of(other.path(), &calls, &after));
    reprice(&store, &after, Repricing::default());
    let sums = |(_, cost, saved, source)| (cost, saved, source);
    let again: Vec<_> = money(dir.path()).into_iter().map(sums).collect();
    let ended: Vec<_> = money(other.path()).into_iter().map(sums).collect();
    for ((again, ended), call) in again.iter().zip(&ended).zip(&calls) {
        assert_eq!(again, ended, "{call:?}");
    }
}

#[test]
fn what_is_not_priced_by_lists_is_left_alone_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let before = snapshot(&[ACME], PROVIDERS);
    let calls = [
        Call {
            custom: Some(r#"{"total_cost":0.5}"#),
            ..Call::of("openai", "gpt-5")
        },
        Call {
            usage: None,
            ..Call::of("openai", "gpt-5")
        },
        Call {
            usage: None,
            cached: true,
            ..Call::of("openai", "gpt-5")
        },
        Call::of("custom-acme", "acme-1"),
        Call {
            cached: true,
            ..Call::of("custom-resold", "gpt-4o-mini")
        },
        Call::of("custom-resold", "own-1"),
    ];
    let store = store_of(dir.path(), &calls, &before);
    let ended = money(dir.path());
    let gone = snapshot(&[DEAR], "");
    let sums = reprice(&store, &gone, Repricing::default()).sums;
    assert_eq!((sums.looked_at, sums.changed), (6, 0));
    let left = &sums.left_alone;
    assert_eq!(
        (left.custom_cost, left.no_usage, left.unknown_provider),
        (1, 2, 3)
    );
    assert_eq!(money(dir.path()), ended);
    // Half a dollar, and 1,000 tokens at 3 and 100 at 15 dollars for a million.
    assert_eq!(sums.cost.after.to_string(), "0.5045");
    assert_eq!(sums.saved.after.to_string(), "0.00021");
    // An override of any provider has a price for those too.
    let any = snapshot(&["{ model: \"*-1\", rates: { input: 1 } }"], "");
    let sums = reprice(&store, &any, Repricing::default()).sums;
    assert_eq!((sums.changed, sums.newly_priced), (2, 1));
    assert_eq!(sums.left_alone.unknown_provider, 1);
    assert_eq!(sums.cost.after.to_string(), "0.502");
}

#[test]
fn sources_change_as_prices_do() {
    let dir = tempfile::tempdir().unwrap();
    let calls = [
        Call::of("custom-acme", "acme-1"),
        Call::of("custom-acme", "other"),
        Call::of("openai", "gpt-5"),
        Call {
            cached: true,
            ..Call::of("custom-acme", "acme-1")
        },
    ];
    let before = snapshot(&[], PROVIDERS);
    let store = store_of(dir.path(), &calls, &before);
    let sums = reprice(
        &store,
        &snapshot(&[ACME, DEAR], PROVIDERS),
        Repricing::default(),
    )
    .sums;
    assert_eq!(
        (sums.changed, sums.newly_priced, sums.now_unpriced),
        (3, 2, 0)
    );
    let now: Vec<_> = money(dir.path())
        .into_iter()
        .map(|(_, cost, saved, source)| (cost, saved, source.unwrap()))
        .collect();
    let named = |source: CostSource| source.name().to_owned();
    assert_eq!(
        now,
        [
            (Some(0.0045), None, named(CostSource::Override)),
            (None, None, named(CostSource::Unpriced)),
            (Some(0.07003), None, named(CostSource::Override)),
            (Some(0.0), Some(0.0045), named(CostSource::Cached)),
        ]
    );
    let sums = reprice(&store, &before, Repricing::default()).sums;
    assert_eq!(
        (sums.changed, sums.newly_priced, sums.now_unpriced),
        (3, 0, 2)
    );
    assert_eq!(sums.saved.after.to_string(), "0");
}

#[test]
fn filters_times_and_gateways_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let calls: Vec<_> = (0..2_500)
        .map(|at| {
            Call::of(
                "custom-acme",
                if at % 2 == 0 { "acme-even" } else { "acme-odd" },
            )
        })
        .collect();
    let store = store_of(dir.path(), &calls, &snapshot(&[], PROVIDERS));
    let by = snapshot(&[ACME], PROVIDERS);
    let (since, until) = (
        super::super::times::shown(TIME as i64 + 700),
        super::super::times::shown(TIME as i64 + 1_699),
    );
    let model = r#"[{"key":"model","operator":"eq","value":["acme-odd"]}]"#;
    let one = format!(
        r#"[{{"key":"id","operator":"eq","value":["{}"]}}]"#,
        money(dir.path())[3].0
    );
    for (parameters, expected) in [
        (&[("filters", &*one)][..], 1),
        (&[("start_date", &*since), ("end_date", &*until)], 1_000),
        (
            &[
                ("start_date", &*since),
                ("end_date", &*until),
                ("filters", model),
            ],
            500,
        ),
        (&[("start_date", &*since)], 1_800),
        (&[("end_date", &*until)], 1_700),
        (&[("filters", model)], 1_250),
        (&[("model", "nobody")], 0),
        (&[("start_date", "2026-11-29")], 0),
        (&[("end_date", "2026-11-28")], 0),
    ] {
        let repricing = Repricing {
            dry_run: true,
            ..parsed(parameters)
        };
        let sums = reprice(&store, &by, repricing).sums;
        assert_eq!(
            (sums.looked_at, sums.changed),
            (expected, expected),
            "{parameters:?}"
        );
    }
    let book = Book::of(&by);
    let other = Scope::gateway("acme", "other");
    let step = store.reprice(&other, &Repricing::default(), &book, UNBOUNDED);
    assert_eq!(step.unwrap().sums.looked_at, 0);
    // What has just been priced is not found as unpriced any more, and paging is not lost by it.
    let unpriced = parsed(&[(
        "filters",
        r#"[{"key":"cost_source","operator":"eq","value":["unpriced"]}]"#,
    )]);
    let sums = reprice(&store, &by, unpriced.clone()).sums;
    assert_eq!((sums.looked_at, sums.changed), (2_500, 2_500));
    assert_eq!(reprice(&store, &by, unpriced).sums.looked_at, 0);
}

#[test]
fn a_step_ends_in_time_and_new_entries_are_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let calls = vec![Call::of("custom-acme", "acme-1"); 6_000];
    let before = snapshot(&[], PROVIDERS);
    let store = store_of(dir.path(), &calls, &before);
    let by = snapshot(&[ACME], PROVIDERS);
    let book = Book::of(&by);
    let step = store.reprice(&scope(), &Repricing::default(), &book, Duration::ZERO);
    let step = step.unwrap();
    assert_eq!((step.sums.looked_at, step.sums.changed), (1_000, 1_000));
    assert_eq!(step.reached.unwrap(), "2026-11-28T06:30:01.122Z");
    // Interrupted here: what is done is done.
    let unpriced = Query::parse([(
        "filters",
        r#"[{"key":"cost_source","operator":"eq","value":["unpriced"]}]"#,
    )]);
    let left = reader(dir.path())
        .list(&scope(), &unpriced.unwrap())
        .unwrap();
    assert_eq!(left.result_info.total_count, 5_000);
    let late = Call::of("openai", "gpt-5").ended(&before, TIME + 7_000);
    let id = late.id;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            store.offer(late);
            store.flush(SOON).unwrap();
            let patch = Patch::parse(br#"{"feedback":1}"#).unwrap();
            assert!(store.patch(&scope(), id, patch).unwrap());
        });
        let began = Instant::now();
        let sums = reprice(&store, &by, Repricing::default()).sums;
        assert!(sums.looked_at >= 6_000 && sums.changed == 5_000, "{sums:?}");
        assert!(began.elapsed() < SOON);
    });
    let entry = reader(dir.path()).get(&scope(), id).unwrap().unwrap();
    assert_eq!((entry.feedback, entry.cost), (Some(1), Some(0.00225)));
}

#[test]
fn a_store_that_cannot_be_read_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.flush(SOON).unwrap();
    let file = super::super::schema::path(dir.path());
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    let by = snapshot(&[], "");
    let step = store.reprice(&scope(), &Repricing::default(), &Book::of(&by), UNBOUNDED);
    assert!(step.unwrap_err().contains("logs.db"));
}
