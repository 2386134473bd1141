//! What is added up over requests.
//!
//! Figures can be added to each other in any order, which is what makes hours out of minutes, and
//! be written to a few hundred bytes (`blob`). Every number is exact but for the percentiles
//! ([`histogram`]).

mod blob;
pub mod counts;
pub mod histogram;
mod shown;
pub mod words;

use std::sync::LazyLock;

use counts::Counts;
use histogram::Histogram;
use words::Name;

use super::facts::Facts;
use crate::usage::Usage;

pub use blob::Damaged;

/// The names of the numbers in usage, in their order.
static KINDS: LazyLock<[Name; Usage::KINDS]> =
    LazyLock::new(|| Usage::default().by_kind().map(|(kind, _)| Name::of(kind)));

/// What requests came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Finished requests.
    pub requests: u64,
    /// Those with a status below 400 and no error.
    pub succeeded: u64,
    /// Those with an answer of events, or a protocol upgrade.
    pub streamed: u64,
    /// Attempts at providers.
    pub attempts: u64,
    /// Requests that another target was asked for than the first: [`super::facts`] says which.
    pub fell_back: u64,
    /// Answers whose provider did not say how many tokens they took.
    pub usage_estimated: u64,
    /// Answers with tokens for which no price is known: they are missing in `cost`.
    pub unpriced: u64,
    /// What answers cost, in pico-dollars.
    pub cost: u128,
    /// What answers that no provider was asked for would have cost, in pico-dollars.
    pub saved: u128,
    /// Errors by `source:kind`.
    pub errors: Counts,
    /// What the cache had to do with requests, by the name of its status.
    pub cache: Counts,
    /// Tokens of answers that providers gave, by kind.
    pub tokens: Counts,
    /// From the head of the request to the end of the answer.
    pub latency: Histogram,
    /// To the first body byte of a streamed answer.
    pub ttft: Histogram,
    /// Time spent in the gateway itself.
    pub overhead: Histogram,
}

impl Figures {
    /// Adds one request.
    pub fn count(&mut self, facts: &Facts) {
        self.requests = self.requests.saturating_add(1);
        let flags = [
            (&mut self.succeeded, facts.succeeded),
            (&mut self.streamed, facts.streamed),
            (&mut self.fell_back, facts.fell_back),
            (&mut self.usage_estimated, facts.usage_estimated),
            (&mut self.unpriced, facts.unpriced),
        ];
        for (count, flag) in flags {
            *count = count.saturating_add(flag.into());
        }
        self.attempts = self.attempts.saturating_add(facts.attempts);
        self.cost = self.cost.saturating_add(facts.cost.into());
        self.saved = self.saved.saturating_add(facts.saved.into());
        if let Some(error) = &facts.error {
            self.errors.count(error, 1);
        }
        if let Some(status) = &facts.cache {
            self.cache.count(status, 1);
        }
        for (kind, tokens) in KINDS.iter().zip(facts.tokens.iter().flatten()) {
            if *tokens > 0 {
                self.tokens.count(kind, *tokens);
            }
        }
        self.latency.record(facts.latency);
        self.overhead.record(facts.overhead);
        if let Some(ttft) = facts.ttft {
            self.ttft.record(ttft);
        }
    }

    /// Adds all of other figures.
    pub fn add(&mut self, other: &Self) {
        for (number, more) in self.numbers_mut().into_iter().zip(other.numbers()) {
            *number = number.saturating_add(more);
        }
        self.cost = self.cost.saturating_add(other.cost);
        self.saved = self.saved.saturating_add(other.saved);
        for (counts, more) in self.counts_mut().into_iter().zip(other.counts()) {
            counts.add(more);
        }
        for (times, more) in self.times_mut().into_iter().zip(other.times()) {
            times.add(more);
        }
    }

    /// Takes away figures that were added before; never below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (number, less) in self.numbers_mut().into_iter().zip(other.numbers()) {
            *number = number.saturating_sub(less);
        }
        self.cost = self.cost.saturating_sub(other.cost);
        self.saved = self.saved.saturating_sub(other.saved);
        for (counts, less) in self.counts_mut().into_iter().zip(other.counts()) {
            counts.subtract(less);
        }
        for (times, less) in self.times_mut().into_iter().zip(other.times()) {
            times.subtract(less);
        }
    }

    /// Forgets all, not the memory.
    fn clear(&mut self) {
        self.numbers_mut()
            .into_iter()
            .for_each(|number| *number = 0);
        (self.cost, self.saved) = (0, 0);
        self.counts_mut().into_iter().for_each(Counts::clear);
        self.times_mut().into_iter().for_each(Histogram::clear);
    }

    /// The plain numbers, in the order of the blob.
    fn numbers(&self) -> [u64; 7] {
        // Exhaustive: a new figure does not compile until it is somewhere.
        let Self {
            requests,
            succeeded,
            streamed,
            attempts,
            fell_back,
            usage_estimated,
            unpriced,
            cost: _, // of their own, because they are wider
            saved: _,
            errors: _, // counts
            cache: _,
            tokens: _,
            latency: _, // times
            ttft: _,
            overhead: _,
        } = self;
        [
            *requests,
            *succeeded,
            *streamed,
            *attempts,
            *fell_back,
            *usage_estimated,
            *unpriced,
        ]
    }

    fn numbers_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.requests,
            &mut self.succeeded,
            &mut self.streamed,
            &mut self.attempts,
            &mut self.fell_back,
            &mut self.usage_estimated,
            &mut self.unpriced,
        ]
    }

    /// Counts by name, in the order of the blob.
    fn counts(&self) -> [&Counts; 3] {
        [&self.errors, &self.cache, &self.tokens]
    }

    fn counts_mut(&mut self) -> [&mut Counts; 3] {
        [&mut self.errors, &mut self.cache, &mut self.tokens]
    }

    /// Durations, in the order of the blob.
    fn times(&self) -> [&Histogram; 3] {
        [&self.latency, &self.ttft, &self.overhead]
    }

    fn times_mut(&mut self) -> [&mut Histogram; 3] {
        [&mut self.latency, &mut self.ttft, &mut self.overhead]
    }
}
