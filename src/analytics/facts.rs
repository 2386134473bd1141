//! What of one finished request is added up: taken out of its record once, however many series it
//! is added to.

use std::time::SystemTime;

use super::figures::histogram::Sample;
use super::figures::words::Name;
use crate::pricing::CostSource;
use crate::record::{Hedged, RequestRecord};
use crate::usage::Usage;

/// A request's part of [`super::figures::Figures`].
pub struct Facts {
    /// When it ended: that is when it is known, so that minutes that are over stay as they are,
    /// however long requests run.
    pub ended: SystemTime,
    /// The client received a status below 400, and nothing went wrong. Without a status it
    /// received nothing.
    pub succeeded: bool,
    /// An answer of events or a protocol upgrade.
    pub streamed: bool,
    /// Another target was asked than the first: see `fell_back`.
    pub fell_back: bool,
    /// The tokens are an estimate.
    pub usage_estimated: bool,
    /// There are tokens, and no price for them.
    pub unpriced: bool,
    /// Who was at fault and what happened: `provider:provider_429`.
    pub error: Option<Name>,
    /// What the cache had to do with it.
    pub cache: Option<Name>,
    /// Attempts, at whatever provider.
    pub attempts: u64,
    /// Tokens of an answer that a provider gave, in the order of [`Usage::by_kind`].
    pub tokens: Option<[u64; Usage::KINDS]>,
    /// Pico-dollars.
    pub cost: u64,
    /// Pico-dollars.
    pub saved: u64,
    /// From the head to the end.
    pub latency: Sample,
    /// To the first body byte of a streamed answer.
    pub ttft: Option<Sample>,
    /// Time in the gateway itself.
    pub overhead: Sample,
}

impl Facts {
    /// Of a finished request.
    pub fn of(record: &RequestRecord) -> Self {
        let error = record.error();
        let spent = &record.spent;
        // As the metrics have it: what the cache gives again was bought before.
        let bought = spent
            .source
            .filter(|source| *source != CostSource::Cached)
            .and(spent.usage);
        let ended = record.started.checked_add(record.duration);
        Self {
            ended: ended.unwrap_or(record.started),
            succeeded: error.is_none() && (100..400).contains(&record.status),
            streamed: record.streamed,
            fell_back: fell_back(record),
            usage_estimated: bought.is_some() && spent.is_estimate,
            unpriced: bought.is_some() && spent.source == Some(CostSource::Unpriced),
            error: error.map(|(source, kind)| Name::of_pair(source.name(), kind)),
            cache: record.cache.status.map(|status| Name::of(status.name())),
            attempts: record.attempts.into(),
            tokens: bought.map(Usage::to_array),
            cost: spent.cost.map_or(0, |cost| cost.0),
            saved: spent.saved.map_or(0, |saved| saved.0),
            latency: Sample::of(record.duration),
            ttft: record.first_token.map(Sample::of),
            overhead: Sample::of(record.overhead()),
        }
    }
}

/// Whether another target than the first gave the answer, or was asked last.
///
/// Places do not tell it: a route may begin with any of its targets. What does are the attempts
/// that were made before the request went on to another target (`asked_before`), the second of
/// two that were asked at once, and a step of the universal endpoint behind the first. Not told
/// apart, and not counted: a target that was passed over without an attempt because it is left
/// alone, and a fallback within the first of two that were asked at once.
fn fell_back(record: &RequestRecord) -> bool {
    match record.hedged {
        Some(Hedged::First) => false,
        Some(Hedged::Second) => true,
        None => {
            let before = record.asked_before.iter().map(|(_, attempts)| *attempts);
            let before = before.fold(0, u32::saturating_add);
            // One that left nobody behind but itself is listed too, with all attempts.
            let another_was_asked = match record.asked_before.len() {
                0 => false,
                1 => before < record.attempts,
                _ => true,
            };
            another_was_asked || (record.step > 0 && record.route.is_none())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::analytics::tests::Maker;
    use crate::pricing::Cost;
    use crate::record::Spent;
    use crate::telemetry::access::tests::record;

    #[test]
    fn success_is_a_good_status_and_no_error() {
        for (status, succeeded) in [
            (200, true),
            (101, true),
            (304, true),
            (0, false),
            (404, false),
        ] {
            let mut record = record();
            record.status = status;
            assert_eq!(Facts::of(&record).succeeded, succeeded, "{status}");
        }
        let mut record = record();
        record.cache.stood_in_for = Some(crate::record::Fault::Status(503));
        let facts = Facts::of(&record);
        assert!(!facts.succeeded && facts.error.is_some());
        assert_eq!(facts.ended, record.started + Duration::from_micros(1500));
    }

    #[test]
    fn tokens_are_those_that_were_bought() {
        let mut record = record();
        record.spent = Spent {
            usage: Some(Usage {
                input: 7,
                ..Usage::default()
            }),
            is_estimate: true,
            source: Some(CostSource::Unpriced),
            ..Spent::default()
        };
        let facts = Facts::of(&record);
        assert_eq!(facts.tokens.unwrap()[0], 7);
        assert!(facts.usage_estimated && facts.unpriced);
        record.spent.source = Some(CostSource::Cached);
        (record.spent.cost, record.spent.saved) = (Some(Cost::ZERO), Some(Cost(9)));
        let facts = Facts::of(&record);
        assert!(facts.tokens.is_none() && !facts.usage_estimated && !facts.unpriced);
        assert_eq!((facts.cost, facts.saved), (0, 9));
    }

    #[test]
    fn another_target_is_told_by_what_was_asked_before() {
        let mounted = Maker::new(1).mounted();
        let told = |step, route: Option<&str>, attempts, before: &[u32], hedged| {
            let mut record = record();
            (record.step, record.attempts, record.hedged) = (step, attempts, hedged);
            record.route = route.map(Into::into);
            record.asked_before = before.iter().map(|n| (mounted.clone(), *n)).collect();
            Facts::of(&record).fell_back
        };
        assert!(!told(0, None, 3, &[], None), "retries are no fallback");
        assert!(!told(2, Some("route"), 1, &[], None), "it began there");
        assert!(!told(0, Some("route"), 2, &[2], None), "its own attempts");
        assert!(told(1, Some("route"), 2, &[1], None));
        assert!(told(1, Some("route"), 2, &[1, 1], None));
        assert!(told(1, None, 1, &[], None), "a later step");
        assert!(!told(0, Some("route"), 2, &[1, 1], Some(Hedged::First)));
        assert!(told(1, Some("route"), 2, &[1, 1], Some(Hedged::Second)));
    }
}
