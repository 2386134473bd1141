//! A storm: two providers that do everything wrong at random, a thousand clients, and what
//! holds all the same. Every client gets an answer or an honest error, no answer is a mixture,
//! no provider gets half a body as a whole one, and the counts and costs of clients, providers,
//! access log, log store, analytics and metrics agree.
//!
//! `TOLLGATE_STORM_SECONDS` says how long it lasts; `TOLLGATE_STORM_SEED` repeats one.

mod ask;
mod chance;
mod client;
mod entry;
mod footprint;
mod journal;
mod judge;
mod ledger;
mod provider;
mod provider_h1;
mod provider_h2;
mod report;
mod script;
mod stores;
mod sums;
mod tap;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

use client::{Crowd, Line, Shared};
use footprint::Footprint;
use judge::Told;
use ledger::Ledger;
use provider::Provider;
use stores::Stores;

use crate::support::metrics::Metrics;
use crate::support::{Gateway, eventually};

const CLIENTS: usize = 1000;
/// Every so many of them speak HTTP/2, and as many of those share a connection.
const HTTP2: usize = 4;
const SHARING: usize = 10;
const SECONDS: u64 = 20;
/// The longest pause between two requests of a client: so much that two cores do both the
/// gateway's work and everybody else's.
const PAUSE: u64 = 2000;

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Speaks HTTP/1.1.
    Openai,
    /// Speaks HTTP/2.
    Groq,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Groq => "groq",
        }
    }

    /// The model of this provider's targets.
    pub fn routed_model(self) -> &'static str {
        match self {
            Self::Openai => "gpt-5-mini",
            Self::Groq => "llama-3.3-70b-versatile",
        }
    }

    /// One that takes no route.
    pub fn plain_model(self) -> &'static str {
        match self {
            Self::Openai => "gpt-plain",
            Self::Groq => "llama-plain",
        }
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |said| said.parse().expect(name))
}

fn yaml(openai: &Provider, groq: &Provider) -> String {
    format!(
        "log: {{ access: json }}
cache: {{ memory: 16MiB, disk: 0 }}
providers:
{}{}accounts:
  default:
    gateways:
      default:
        authentication: {{ anyone_may_spend_stored_keys: true }}
        retry: {{ max_attempts: 3, delay: 50ms }}
        timeouts: {{ connect: 1s, first_byte: 1s, idle: 1s, total: 15s }}
        routes:
          ahead:
            match: {{ provider: openai, model: gpt-5-mini }}
            targets:
              - {{ provider: openai, model: gpt-5-mini, retry: {{ max_attempts: 2 }} }}
              - {{ provider: groq, model: llama-3.3-70b-versatile }}
          back:
            targets:
              - {{ provider: groq, model: llama-3.3-70b-versatile }}
              - {{ provider: openai, model: gpt-5-mini, first_byte: 700ms }}
",
        openai.yaml(),
        groq.yaml()
    )
}

/// Everybody asks until the time is over, and tells.
async fn rage(crowd: Crowd) -> Vec<Told> {
    let crowd = Arc::new(crowd);
    let mut clients = JoinSet::new();
    let mut shared: Vec<Arc<Shared>> = Vec::new();
    for number in 0..CLIENTS {
        let line = if number % HTTP2 > 0 {
            Line::Http1(None)
        } else {
            if (number / HTTP2).is_multiple_of(SHARING) {
                shared.push(Arc::default());
            }
            Line::Http2(shared[shared.len() - 1].clone())
        };
        clients.spawn(client::run(crowd.clone(), line, number as u64));
    }
    let mut told = Vec::new();
    while let Some(client) = clients.join_next().await {
        told.extend(client.expect("a client never panics"));
    }
    for line in shared {
        line.close().await;
    }
    told
}

/// Every client has two sockets, every provider one for each attempt.
fn raise_the_limit_of_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit that may be raised");
}

fn seed() -> u64 {
    let now = UNIX_EPOCH.elapsed().expect("after 1970");
    from_environment("TOLLGATE_STORM_SEED", u64::from(now.subsec_nanos()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_an_answer_or_an_honest_error_and_all_counts_agree() {
    raise_the_limit_of_files();
    let seed = seed();
    let seconds = from_environment("TOLLGATE_STORM_SECONDS", SECONDS);
    println!("a storm of {seconds} s; TOLLGATE_STORM_SEED={seed} repeats it");
    let [openai, groq] = [Who::Openai, Who::Groq].map(|who| Provider::start(seed, who));
    let gateway = Gateway::start(&yaml(&openai, &groq)).await;
    let before = Footprint::of(&gateway);
    let told = rage(Crowd {
        seed,
        to: gateway.public(),
        until: Instant::now() + Duration::from_secs(seconds),
        numbers: AtomicU64::new(1),
        pause: PAUSE,
    })
    .await;
    calm(&gateway).await;
    let stores = Stores::read(&gateway).await;
    // After the stores were asked: they count what they have written.
    let metrics = calm(&gateway).await;
    let log = gateway.log();
    for provider in [&openai, &groq] {
        provider.state.end();
        let is_over = || (provider.state.open() == 0).then_some(());
        eventually("the end of all connections", is_over).await;
    }
    let after = before.returns(&gateway).await;
    // It would print all of its log when the test fails.
    drop(gateway);
    if let Ok(path) = std::env::var("TOLLGATE_STORM_LOG") {
        std::fs::write(path, &log).expect("a file for the log");
    }
    println!("before: {before:?}\nafter: {after:?}");
    let ledger = Ledger::new(told, &log, metrics, stores, [&openai.state, &groq.state]);
    report::print(&ledger);
    let mut wrongs = ledger.settle();
    if !after.is_back_to(&before) {
        wrongs.push(format!("not back: {after:?}"));
    }
    let first = wrongs.iter().take(30).cloned().collect::<Vec<_>>();
    assert!(
        wrongs.is_empty(),
        "{} wrongs:\n{}",
        wrongs.len(),
        first.join("\n")
    );
}

/// Waits until nothing is in flight any more.
async fn calm(gateway: &Gateway) -> Metrics {
    let gauges = [
        "tollgate_requests_in_flight",
        "tollgate_held_body_bytes",
        "tollgate_cache_flights",
    ];
    let is_calm = |metrics: &Metrics| gauges.iter().all(|gauge| metrics.sum(gauge, &[]) == 0.0);
    gateway.metrics_when("nothing in flight", is_calm).await
}
