//! Probes: requests of the gateway's own that look whether providers are there, so that trouble is
//! seen before a client meets it, and its end without a client to try.
//!
//! A provider that says `probe` is asked while some route has it as a target, always and not only
//! when it is left alone. What is found goes to the breaker of the provider in each of those
//! gateways, as if it were a call of theirs; targets and keys learn nothing, for a probe asks for
//! no model and a refused key is no reason to leave anybody alone. It is no request: no record, no
//! line in the access log, no attempt.
//!
//! One task does it all, in a process that serves; a process on its way out asks nobody any more.
//! The configuration is looked at anew before anybody is asked, so a reload needs nothing here.

mod request;
mod roster;

use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::task::{JoinError, JoinSet};

use crate::dns::Dns;
use crate::gateway::Snapshot;
use crate::routing::health::{Opened, Settings};
use crate::routing::known::{Known, OfProvider};
use crate::telemetry::metrics::Metrics;

use request::{Client, Finding};
use roster::{News, Roster, Watched};

/// Probes at the same time, of all providers together.
const MOST_AT_ONCE: usize = 8;

/// Asks providers how they are, for as long as [`Self::run`] is polled.
pub struct Prober {
    live: Arc<ArcSwap<Snapshot>>,
    known: Arc<Known>,
    metrics: Arc<Metrics>,
    client: Arc<Client>,
}

/// A probe that is over.
struct Done {
    watched: Arc<Watched>,
    began: Instant,
    finding: Finding,
}

impl Prober {
    /// Asks whom the configuration in `live` names, at addresses that `dns` permits.
    pub fn new(
        live: Arc<ArcSwap<Snapshot>>,
        known: Arc<Known>,
        metrics: Arc<Metrics>,
        dns: Arc<Dns>,
    ) -> Self {
        Self {
            live,
            known,
            metrics,
            client: Arc::new(Client::new(dns)),
        }
    }

    /// Never returns. Probes that are under way end where this is dropped.
    pub async fn run(&self) {
        let (mut roster, mut seen) = (Roster::default(), Weak::new());
        let mut probes = JoinSet::new();
        loop {
            self.follow(&mut roster, &mut seen);
            let now = Instant::now();
            while probes.len() < MOST_AT_ONCE
                && let Some(watched) = roster.take_due(now, chance())
            {
                probes.spawn(ask(Arc::clone(&self.client), watched));
            }
            let pause = match probes.len() < MOST_AT_ONCE {
                true => roster.pause(now),
                false => roster::LOOK,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(done) = probes.join_next() => self.take_in(&mut roster, done),
            }
        }
    }

    /// Takes a configuration up that is not the one that was `seen`, without holding on to either.
    fn follow(&self, roster: &mut Roster, seen: &mut Weak<Snapshot>) {
        let snapshot = self.live.load_full();
        let current = Arc::downgrade(&snapshot);
        if !current.ptr_eq(seen) {
            roster.follow(roster::watched(&snapshot, &self.known), Instant::now());
            *seen = current;
        }
    }

    fn take_in(&self, roster: &mut Roster, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.report(roster, &done),
            Err(error) => log::error!("a probe: {error}"),
        }
    }

    fn report(&self, roster: &mut Roster, done: &Done) {
        let provider = &*done.watched.provider.slug;
        self.metrics.probed(provider, done.finding.name());
        match (roster.learn(provider, &done.finding), &done.finding) {
            (Some(News::Fails), Finding::Failed(why)) => {
                log::warn!("{provider} fails its probe: {why}");
            }
            (Some(News::IsBack), _) => log::info!("{provider} passes its probe again"),
            _ => {}
        }
        for (settings, known) in &done.watched.places {
            self.tell(known, settings, done);
        }
    }

    /// What was found, to the breaker of the provider in one gateway.
    fn tell(&self, known: &OfProvider, settings: &Settings, done: &Done) {
        let now = Instant::now();
        match &done.finding {
            Finding::There => drop(known.breaker.probe_succeeded(done.began, now)),
            Finding::Busy => {}
            Finding::Failed(_) => {
                if let Some(opened) = known.breaker.probe_failed(done.began, now, settings) {
                    self.is_left_alone(known, opened);
                }
            }
        }
    }

    fn is_left_alone(&self, known: &OfProvider, opened: Opened) {
        let (gateway, provider) = (&known.gateway, &known.provider);
        self.metrics.breaker_opened(gateway, provider, "");
        // That it still fails when its time is over is no news.
        if opened.in_row == 1 {
            log::warn!(
                "{provider} of {gateway} is left alone for {:?}: {} of {} calls and probes failed",
                opened.open_for,
                opened.failures,
                opened.calls
            );
        }
    }
}

async fn ask(client: Arc<Client>, watched: Arc<Watched>) -> Done {
    let began = Instant::now();
    let finding = client.ask(&watched.provider, &watched.probe).await;
    Done {
        watched,
        began,
        finding,
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    f64::from(random) / f64::from(u32::MAX)
}
