//! What clients, gateway and providers say of the same requests, side by side.
//!
//! Every request carries its number in `traceparent`, which the client knows, the provider gets
//! and the access log shows. So each is followed from end to end, and what the sides count must
//! agree request by request; the log store has what the log has line by line, metrics and analytics
//! are sums of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Who;
use super::entry::Entry;
use super::journal::Journal;
use super::judge::{Outcome, Told};
use super::provider::{Attempt, State};
use super::script::Act;
use super::stores::Stores;
use super::sums::Sums;
use crate::support::metrics::Metrics;

/// All that is known when the storm is over.
pub struct Ledger<'a> {
    pub told: BTreeMap<u64, Told>,
    pub journal: Journal,
    pub metrics: Metrics,
    pub stores: Stores,
    pub providers: [&'a Arc<State>; 2],
    heard: BTreeMap<u64, Vec<Attempt>>,
}

/// The attempts at one provider.
pub struct Attempts {
    pub provider: &'static str,
    /// As the gateway counts them.
    pub counted: f64,
    /// Heads that arrived.
    pub heads: f64,
    /// Connections that ended without one.
    pub headless: f64,
    /// Connections that were refused: only the gateway knows.
    pub refused: f64,
    /// The rest that nobody may know of.
    pub most_unknown: f64,
}

impl Attempts {
    pub fn unknown(&self) -> f64 {
        self.counted - self.heads - self.headless - self.refused
    }
}

impl<'a> Ledger<'a> {
    pub fn new(
        told: Vec<Told>,
        log: &str,
        metrics: Metrics,
        stores: Stores,
        providers: [&'a Arc<State>; 2],
    ) -> Self {
        let mut heard: BTreeMap<u64, Vec<Attempt>> = BTreeMap::new();
        for attempt in providers.iter().flat_map(|state| state.attempts()) {
            heard.entry(attempt.number).or_default().push(attempt);
        }
        Self {
            told: told.into_iter().map(|told| (told.number, told)).collect(),
            journal: Journal::read(log),
            metrics,
            stores,
            providers,
            heard,
        }
    }

    /// Compares everything with everything; what does not agree.
    pub fn settle(&self) -> Vec<String> {
        let providers = self.providers.iter().flat_map(|state| state.wrongs());
        let mut wrongs: Vec<String> = providers.collect();
        wrongs.extend(self.journal.wrongs.iter().cloned());
        wrongs.extend(self.without_a_line());
        wrongs.extend(self.without_a_request());
        wrongs.extend(
            self.told
                .iter()
                .filter_map(|(number, told)| self.entry(*number, told)),
        );
        let lines = self.journal.lines.values();
        wrongs.extend(Sums::of(lines.clone()).differ_from(&self.metrics));
        wrongs.extend(self.stores.differ_from(lines, &self.metrics));
        wrongs.extend(self.faults());
        wrongs.extend(self.unexplained_attempts());
        wrongs
    }

    /// Each request has a line. A client that leaves may be gone before its request was one.
    fn without_a_line(&self) -> Vec<String> {
        let missing = self.told.iter().filter(|(number, told)| {
            told.outcome != Outcome::Left(None) && !self.journal.lines.contains_key(number)
        });
        let missing =
            missing.map(|(number, told)| format!("no line for {number}: {:?}", told.outcome));
        missing.collect()
    }

    /// Each line is of a request.
    fn without_a_request(&self) -> Vec<String> {
        let lines = self.journal.lines.keys();
        let unasked = lines.filter(|number| !self.told.contains_key(number));
        unasked
            .map(|number| format!("a line for {number}, whom nobody sent"))
            .collect()
    }

    fn entry(&self, number: u64, told: &Told) -> Option<String> {
        let line = self.journal.lines.get(&number)?;
        let heard = self.heard.get(&number).map_or(&[][..], Vec::as_slice);
        let wrongs = Entry { told, line, heard }.wrongs();
        let acts: Vec<_> = heard.iter().map(|one| (one.act, one.status)).collect();
        let (outcome, text) = (&told.outcome, &line.text);
        let what = wrongs.join("; ");
        (!wrongs.is_empty()).then(|| format!("{what}:\n    {outcome:?}\n    {text}\n    {acts:?}"))
    }

    /// What must never be counted.
    fn faults(&self) -> Vec<String> {
        let internal = self
            .metrics
            .sum("tollgate_errors_total", &[("kind", "internal")]);
        let dropped = self.metrics.sum("tollgate_log_lines_dropped_total", &[]);
        let faults = [
            ("faults of the gateway", internal),
            ("lines lost of the log", dropped),
        ];
        let faults = faults.iter().filter(|(_, count)| *count != 0.0);
        faults
            .map(|(what, count)| format!("{count} {what}"))
            .collect()
    }

    /// Each attempt that the gateway counts is a head that arrived at its provider, or a connection
    /// that ended without one, or one that was refused.
    fn unexplained_attempts(&self) -> Vec<String> {
        let all = self.attempts().into_iter();
        let unexplained = all.filter(|attempts| {
            let known = 0.0..=attempts.most_unknown;
            !known.contains(&attempts.unknown())
        });
        let unexplained = unexplained.map(|attempts| {
            let Attempts {
                provider,
                most_unknown,
                ..
            } = attempts;
            let unknown = attempts.unknown();
            format!("{provider}: nobody knows of {unknown} attempts, and may not of {most_unknown}")
        });
        unexplained.collect()
    }

    pub fn attempts(&self) -> [Attempts; 2] {
        self.providers.map(|state| {
            let (provider, tally) = (state.who.name(), &state.tally);
            let failed = "tollgate_upstream_attempts_failed_total";
            let refused = [("provider", provider), ("cause", "connect")];
            let counted = [("provider", provider)];
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
            Attempts {
                provider,
                counted: self
                    .metrics
                    .sum("tollgate_upstream_attempts_total", &counted),
                heads: read(&tally.heads),
                headless: read(&tally.headless),
                refused: self.metrics.sum(failed, &refused),
                most_unknown: read(&tally.absences) + self.never_sent(state) as f64,
            }
        })
    }

    /// How many heads may never have gone out, beside those on a connection that the kernel had
    /// taken when a listener closed: at most a few in each absence, and hardly ever one.
    ///
    /// Over HTTP/2 a head waits for its connection. It is dropped when its client leaves in that
    /// moment, or when the connection turns out to be at its end: at most once for each that the
    /// provider ended.
    fn never_sent(&self, state: &State) -> u64 {
        if state.who == Who::Openai {
            return 0;
        }
        let ends = [Act::ThenCloses, Act::ClosesMidway, Act::ClosesUnanswered];
        let acts = state.acts();
        let ended: u64 = ends.iter().filter_map(|act| acts.get(act)).sum();
        let left = self.told.values().filter(|told| !told.outcome.stayed());
        let unheard = left.filter(|told| {
            let heard = self.heard.get(&told.number).map_or(0, Vec::len) as u64;
            let line = self.journal.lines.get(&told.number);
            line.is_some_and(|line| line.attempts > heard)
        });
        ended + unheard.count() as u64
    }
}
