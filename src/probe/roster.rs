//! Whose turn it is to be probed, and what the last probe found. Time and chance are arguments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gateway::Snapshot;
use crate::provider::{Probe, Provider};
use crate::routing::health::Settings;
use crate::routing::known::{Known, OfProvider};

use super::request::Finding;

/// How often it is looked for a new configuration, where no turn comes sooner.
pub const LOOK: Duration = Duration::from_secs(1);

/// A turn comes up to such a share of its time later, so that processes that were started
/// together do not ask together for ever. Never sooner: a provider is asked by one probe at a
/// time, as no probe takes longer than a turn.
const LATER: f64 = 0.1;

/// A provider that is probed.
#[derive(Debug)]
pub struct Watched {
    /// The provider.
    pub provider: Arc<Provider>,
    /// How it is.
    pub probe: Probe,
    /// What is known of it in every gateway with a route to it, and what that goes by.
    pub places: Vec<(Settings, Arc<OfProvider>)>,
}

/// Those that `snapshot` wants probed, each once: those that some route has as a target.
pub fn watched(snapshot: &Snapshot, known: &Known) -> Vec<Watched> {
    let mut watched = BTreeMap::<&str, Watched>::new();
    let gateways = snapshot.accounts.values().flat_map(|ids| ids.values());
    for gateway in gateways {
        for target in gateway.routes.all().flat_map(|plan| &plan.targets) {
            let provider = &target.mounted.provider;
            let Some(probe) = &provider.probe else {
                continue;
            };
            let of_it = target.mounted.known(known, gateway);
            let entry = watched.entry(&provider.slug).or_insert_with(|| Watched {
                provider: Arc::clone(provider),
                probe: probe.clone(),
                places: Vec::new(),
            });
            if whose_key(provider) < whose_key(&entry.provider) {
                entry.provider = Arc::clone(provider);
                entry.probe = probe.clone();
            }
            if !entry
                .places
                .iter()
                .any(|(_, other)| Arc::ptr_eq(other, of_it))
            {
                entry.places.push((gateway.health, Arc::clone(of_it)));
            }
        }
    }
    watched.into_values().collect()
}

/// Whose key a probe goes with, the least one first: the deployment's before a gateway's own, and
/// none last.
fn whose_key(provider: &Provider) -> (bool, &str) {
    let key = provider.keyring.own();
    (key.is_none(), key.map_or("", |key| &key.owner))
}

/// That a probe found something else than the one before.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It fails.
    Fails,
    /// It failed before, and does no more.
    IsBack,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Roster(BTreeMap<Box<str>, Turn>);

#[derive(Debug)]
struct Turn {
    watched: Arc<Watched>,
    next: Instant,
    failed: bool,
}

impl Roster {
    /// Those and no others are probed from now on. Who is new is at once; the others keep their
    /// turn, unless it would come later than they are to wait now.
    pub fn follow(&mut self, watched: Vec<Watched>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for watched in watched {
            let slug = watched.provider.slug.clone();
            let latest = now + watched.probe.every;
            let (next, failed) = match before.remove(&slug) {
                Some(turn) => (turn.next.min(latest), turn.failed),
                None => (now, false),
            };
            let turn = Turn {
                watched: Arc::new(watched),
                next,
                failed,
            };
            self.0.insert(slug, turn);
        }
    }

    /// The one who waits the longest of those whose turn has come; it is over with this. Its next
    /// one comes after its time and, by `chance` (0 to 1), a bit more.
    pub fn take_due(&mut self, now: Instant, chance: f64) -> Option<Arc<Watched>> {
        let turn = self.0.values_mut().min_by_key(|turn| turn.next)?;
        if turn.next > now {
            return None;
        }
        let every = turn.watched.probe.every;
        turn.next = now + every.mul_f64(1.0 + LATER * chance);
        Some(Arc::clone(&turn.watched))
    }

    /// How long there is nothing to do, up to [`LOOK`].
    pub fn pause(&self, now: Instant) -> Duration {
        let next = self.0.values().map(|turn| turn.next).min();
        next.map_or(LOOK, |next| next.saturating_duration_since(now).min(LOOK))
    }

    /// What a probe found, and whether that is news.
    pub fn learn(&mut self, slug: &str, finding: &Finding) -> Option<News> {
        let turn = self.0.get_mut(slug)?;
        let failed = match finding {
            Finding::There => false,
            Finding::Failed(_) => true,
            Finding::Busy => return None,
        };
        let before = std::mem::replace(&mut turn.failed, failed);
        match (before, failed) {
            (false, true) => Some(News::Fails),
            (true, false) => Some(News::IsBack),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two gateways with routes and one without; `probes`: who is probed every so many seconds.
    fn snapshot(probes: &[(&str, u64)]) -> Snapshot {
        let provider = |slug: &str| {
            let probed = probes.iter().find(|(probed, _)| *probed == slug);
            let probe = probed.map(|(_, every)| format!(", probe: {{ path: m, every: {every}s }}"));
            format!("{slug}: {{ auth: none{} }}, ", probe.unwrap_or_default())
        };
        let providers: String = ["openai", "groq", "mistral"].map(provider).concat();
        let target = |slug, model| format!("{{ provider: {slug}, model: {model} }}");
        let (m, n, other) = (
            target("openai", "m"),
            target("openai", "n"),
            target("groq", "m"),
        );
        let yaml = format!(
            "providers: {{ {providers} }}\naccounts: {{ a: {{ gateways: {{ \
             g: {{ health: {{ failures: 2 }}, \
                   routes: {{ r: {{ targets: [{m}, {n}] }}, s: {{ targets: [{other}, {n}] }} }} }}, \
             h: {{ routes: {{ r: {{ targets: [{m}] }} }} }}, \
             i: {{ }} }} }} }}"
        );
        let config = crate::config::load::parse(&yaml, &|_| None).unwrap();
        let resolved = crate::config::resolve::resolve(&config, ([127, 0, 0, 1], 1).into());
        resolved.unwrap().snapshot
    }

    fn probed(probes: &[(&str, u64)]) -> Vec<Watched> {
        watched(&snapshot(probes), &Known::default())
    }

    fn due(roster: &mut Roster, now: Instant) -> Vec<String> {
        let next = || roster.take_due(now, 0.5);
        let due = std::iter::from_fn(next);
        due.map(|watched| watched.provider.slug.to_string())
            .collect()
    }

    #[test]
    fn those_are_probed_that_say_so_and_that_a_route_has_as_a_target() {
        let found = probed(&[("mistral", 1), ("openai", 1)]);
        let [openai] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(&*openai.provider.slug, "openai");
        // Once for both of its routes, with the settings of its gateway.
        let places = openai.places.iter();
        let mut places: Vec<_> = places
            .map(|(settings, known)| (&*known.gateway, settings.failures))
            .collect();
        places.sort_unstable();
        assert_eq!(places, [("a/g", 2), ("a/h", 5)]);
        assert!(probed(&[]).is_empty());
    }

    #[test]
    fn everybody_has_a_turn_at_once_and_then_at_its_own_time_or_a_bit_later() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.follow(probed(&[("openai", 2), ("groq", 10)]), start);
        assert_eq!(due(&mut roster, start), ["groq", "openai"]);
        assert!(due(&mut roster, start + 2 * SECOND).is_empty());
        assert_eq!(due(&mut roster, start + SECOND.mul_f64(2.1)), ["openai"]);
        // Who waits the longest comes first.
        assert_eq!(due(&mut roster, start + 11 * SECOND), ["openai", "groq"]);
        assert_eq!(roster.pause(start + 12 * SECOND), LOOK);
        let pause = roster.pause(start + 13 * SECOND);
        assert!(pause.abs_diff(SECOND / 10) < SECOND / 100, "{pause:?}");
    }

    #[test]
    fn with_nobody_to_probe_it_only_looks_for_a_new_configuration() {
        let mut roster = Roster::default();
        assert!(due(&mut roster, Instant::now()).is_empty());
        assert_eq!(roster.pause(Instant::now()), LOOK);
    }

    #[test]
    fn a_new_configuration_takes_out_adds_and_hurries() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.follow(probed(&[("openai", 3600)]), start);
        assert_eq!(due(&mut roster, start), ["openai"]);
        let failed = Finding::Failed("down".into());
        assert_eq!(roster.learn("openai", &failed), Some(News::Fails));
        roster.follow(probed(&[("openai", 5), ("groq", 5)]), start + SECOND);
        assert_eq!(due(&mut roster, start + SECOND), ["groq"]);
        assert_eq!(roster.learn("openai", &failed), None, "it is known");
        assert!(due(&mut roster, start + 5 * SECOND).is_empty());
        assert_eq!(due(&mut roster, start + 6 * SECOND), ["openai"]);
        roster.follow(probed(&[("groq", 5)]), start + 60 * SECOND);
        assert_eq!(due(&mut roster, start + 60 * SECOND), ["groq"]);
        assert_eq!(roster.learn("openai", &Finding::There), None);
        roster.follow(Vec::new(), start + 120 * SECOND);
        assert!(due(&mut roster, start + 3600 * SECOND).is_empty());
    }

    #[test]
    fn only_what_changes_is_news() {
        let mut roster = Roster::default();
        roster.follow(probed(&[("openai", 1)]), Instant::now());
        let failed = || Finding::Failed("down".into());
        let news = [
            Finding::There,
            failed(),
            failed(),
            Finding::Busy,
            failed(),
            Finding::There,
            Finding::There,
            Finding::Busy,
        ]
        .map(|finding| roster.learn("openai", &finding));
        let (fails, back) = (Some(News::Fails), Some(News::IsBack));
        assert_eq!(news, [None, fails, None, None, None, back, None, None]);
    }
}
