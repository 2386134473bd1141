//! Whether a request may be answered from the cache, and for how long its answer is kept.
//!
//! Rules: contract of Cloudflare AI Gateway, caching; where it is silent, its section on
//! ambiguities. Pure: headers and configuration in, [`Terms`] out.

use std::time::Duration;

use super::flight::WhenAlone;
use super::pointers::Pointers;

/// Shortest and longest time for which an answer may be kept.
pub const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);
/// For gateways that switch the cache on and do not say for how long, and for requests that
/// bring a key of their own and no time.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// What a gateway says about its cache. The default caches nothing.
#[derive(Debug, Default)]
pub struct Policy {
    /// How long answers are kept. `None`: only what a request asks for is cached.
    pub ttl: Option<Duration>,
    /// One entry for all who send the same, whoever pays.
    pub shared: bool,
    /// Parts of the body that are left out of the key.
    pub ignore: Pointers,
    /// Largest answer that is stored, in bytes.
    pub max_body: u64,
    /// How streams are replayed.
    pub replay: Replay,
    /// How long after its end an answer is still served while a new one is fetched.
    pub stale_while_revalidate: Duration,
    /// How long after its end an answer is still served when the provider fails.
    pub stale_if_error: Duration,
    /// A fallback's answer is stored as that of the target that was asked for, too.
    pub store_fallback: bool,
    /// What happens to a call when nobody waits for it any more.
    pub when_alone: WhenAlone,
}

/// How a stored stream is replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// At once.
    #[default]
    Instant,
    /// With the pauses with which it came.
    Paced,
}

/// What a request says about the cache.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// `cf-aig-cache-ttl`, in seconds.
    pub ttl: Option<u64>,
    /// `cf-aig-skip-cache`.
    pub skip: bool,
    /// `cf-aig-cache-key`: stands for model and body.
    pub key: Option<Box<str>>,
    /// `cf-aig-cache-tag`: names by which the answer can be purged.
    pub tags: Vec<Box<str>>,
}

/// On which terms a request meets the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terms {
    /// Not at all.
    Off,
    /// It neither reads nor stores, and is told so.
    Bypass,
    /// It reads, and stores what it gets.
    On {
        /// How long its answer is kept.
        ttl: Duration,
        /// What the client should know about its wish.
        note: Option<String>,
    },
}

impl Terms {
    /// The request's wish goes before the gateway's setting. A time of 0 means neither read
    /// nor write.
    pub fn of(policy: &Policy, wishes: &Wishes) -> Self {
        let wished = wishes.ttl.map(Duration::from_secs);
        let with_key = wishes.key.as_ref().map(|_| DEFAULT_TTL);
        let Some(ttl) = wished.or(policy.ttl).or(with_key) else {
            return Self::Off;
        };
        if ttl.is_zero() {
            return Self::Off;
        }
        if wishes.skip {
            return Self::Bypass;
        }
        let (ttl, note) = clamp(ttl);
        Self::On { ttl, note }
    }
}

fn clamp(ttl: Duration) -> (Duration, Option<String>) {
    let clamped = ttl.clamp(*TTL.start(), *TTL.end());
    let note = (clamped != ttl).then(|| {
        format!(
            "cf-aig-cache-ttl must be {} to {} seconds; {} was taken",
            TTL.start().as_secs(),
            TTL.end().as_secs(),
            clamped.as_secs()
        )
    });
    (clamped, note)
}

/// Whether a stored answer may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may.
    Fresh,
    /// It may, while a new one is fetched.
    Revalidate,
    /// It may if the provider fails.
    IfError,
    /// It may not.
    Gone,
}

impl Freshness {
    /// Of an answer of this age that may be given for `ttl`.
    pub fn of(policy: &Policy, age: Duration, ttl: Duration) -> Self {
        match age.checked_sub(ttl) {
            None => Self::Fresh,
            Some(over) if over < policy.stale_while_revalidate => Self::Revalidate,
            Some(over) if over < policy.stale_if_error => Self::IfError,
            Some(_) => Self::Gone,
        }
    }
}

/// Whether requests to this upstream path ask a model for an answer that can be kept: chat,
/// responses, messages, generateContent, embeddings, rerank, images, speech. Others (files,
/// batches, lists, threads) change something or show what changes.
pub fn is_cacheable(path: &str) -> bool {
    const ENDINGS: [&str; 21] = [
        "/chat/completions",
        "/completions",
        "/responses",
        "/messages",
        ":generateContent",
        ":streamGenerateContent",
        "/embeddings",
        ":embedContent",
        ":batchEmbedContents",
        "/embed",
        "/rerank",
        "/images/generations",
        "/audio/speech",
        "/chat",
        "/converse",
        "/converse-stream",
        "/invoke",
        "/invoke-with-response-stream",
        "/api/generate",
        "/tts/bytes",
        "/tts/sse",
    ];
    const PARTS: [&str; 2] = ["/text-to-speech/", "/run/@cf/"];
    // OpenAI's threads have messages too: adding one is no question.
    const NEVER: [&str; 1] = ["/threads/"];
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    let has = |part: &&str| path.contains(*part);
    let ends = ENDINGS.iter().any(|ending| path.ends_with(ending));
    (ends || PARTS.iter().any(has)) && !NEVER.iter().any(has)
}

/// What a provider's status means for others who wait for the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An answer: it is stored and shared.
    Answer,
    /// The request is at fault: everybody who sent it gets the same.
    Blame,
    /// The provider had a bad moment, or the key of the one who asked is at fault: another may
    /// try.
    Transient,
}

impl Verdict {
    /// By the status. With `shared` entries those who wait may have other keys.
    pub fn of(status: u16, shared: bool) -> Self {
        match status {
            200..=299 => Self::Answer,
            401..=403 if shared => Self::Transient,
            408 | 409 | 425 | 429 => Self::Transient,
            300..=499 => Self::Blame,
            _ => Self::Transient,
        }
    }
}

/// Longest time for which those who wait are kept waiting before another tries.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// How long the next one waits before it tries, after `turns` that failed. `None` when the
/// provider asks for more patience than anyone should be kept waiting for.
pub fn delay(turns: u32, retry_after: Option<Duration>, chance: f64) -> Option<Duration> {
    match retry_after {
        Some(wished) => (wished <= LONGEST_DELAY).then_some(wished),
        None => {
            let base = Duration::from_millis(250) * 2_u32.saturating_pow(turns.saturating_sub(1));
            Some(base.min(LONGEST_DELAY).mul_f64(0.75 + chance / 2.0))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn policy(ttl: Option<Duration>) -> Policy {
        Policy {
            ttl,
            shared: false,
            ignore: Pointers::default(),
            max_body: 4 << 20,
            replay: Replay::Instant,
            stale_while_revalidate: MINUTE,
            stale_if_error: MINUTE * 5,
            store_fallback: false,
            when_alone: WhenAlone::Cancel,
        }
    }

    fn wishes(ttl: Option<u64>, key: Option<&str>) -> Wishes {
        Wishes {
            ttl,
            key: key.map(Into::into),
            ..Wishes::default()
        }
    }

    fn ttl(terms: Terms) -> Option<u64> {
        match terms {
            Terms::On { ttl, .. } => Some(ttl.as_secs()),
            Terms::Off | Terms::Bypass => None,
        }
    }

    #[test]
    fn the_request_goes_before_the_gateway_and_both_before_the_default() {
        let on = policy(Some(MINUTE * 10));
        let off = policy(None);
        let cases = [
            (&on, wishes(None, None), Some(600)),
            (&on, wishes(Some(120), None), Some(120)),
            (&on, wishes(Some(0), None), None),
            (&on, wishes(None, Some("k")), Some(600)),
            (&off, wishes(None, None), None),
            (&off, wishes(Some(120), None), Some(120)),
            (&off, wishes(None, Some("k")), Some(300)),
            (&off, wishes(Some(90), Some("k")), Some(90)),
            (&off, wishes(Some(0), Some("k")), None),
        ];
        for (policy, wishes, expected) in cases {
            assert_eq!(ttl(Terms::of(policy, &wishes)), expected, "{wishes:?}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_clamped_with_a_note() {
        let on = policy(Some(MINUTE));
        for (asked, taken) in [
            (1, 60),
            (59, 60),
            (9_999_999, 2_592_000),
            (u64::MAX, 2_592_000),
        ] {
            let Terms::On { ttl, note } = Terms::of(&on, &wishes(Some(asked), None)) else {
                panic!("{asked}")
            };
            assert_eq!(ttl.as_secs(), taken);
            assert!(note.unwrap().contains("cf-aig-cache-ttl"));
        }
        let Terms::On { note, .. } = Terms::of(&on, &wishes(Some(60), None)) else {
            panic!()
        };
        assert_eq!(note, None);
    }

    #[test]
    fn skipping_is_said_only_where_there_is_a_cache() {
        let skip = Wishes {
            skip: true,
            ..Wishes::default()
        };
        assert_eq!(Terms::of(&policy(Some(MINUTE)), &skip), Terms::Bypass);
        assert_eq!(Terms::of(&policy(None), &skip), Terms::Off);
    }

    #[test]
    fn an_answer_ages() {
        let policy = policy(Some(MINUTE));
        let at = |seconds| Freshness::of(&policy, Duration::from_secs(seconds), MINUTE);
        assert_eq!(at(0), Freshness::Fresh);
        assert_eq!(at(59), Freshness::Fresh);
        assert_eq!(at(60), Freshness::Revalidate);
        assert_eq!(at(119), Freshness::Revalidate);
        assert_eq!(at(120), Freshness::IfError);
        assert_eq!(at(359), Freshness::IfError);
        assert_eq!(at(360), Freshness::Gone);
    }

    #[test]
    fn questions_are_told_from_changes() {
        for yes in [
            "/v1/chat/completions",
            "/v1/messages?beta=true",
            "/v1/responses",
            "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
            "/v1/embeddings/",
            "/model/anthropic.claude/converse-stream",
            "/v1/text-to-speech/voice/stream",
            "/client/v4/accounts/0/ai/run/@cf/meta/llama",
            "/v2/chat",
            "/openai/deployments/x/images/generations?api-version=1",
        ] {
            assert!(is_cacheable(yes), "{yes}");
        }
        for no in [
            "/v1/files",
            "/v1/batches",
            "/v1/messages/batches",
            "/v1/messages/count_tokens",
            "/v1/models",
            "/v1/threads/t/messages",
            "/v1/responses/r/cancel",
            "/v1/images/edits",
            "/v1/audio/transcriptions",
            "/",
        ] {
            assert!(!is_cacheable(no), "{no}");
        }
    }

    #[test]
    fn only_the_requests_own_faults_are_shared() {
        let verdict = |status| Verdict::of(status, false);
        assert_eq!([verdict(200), verdict(206)], [Verdict::Answer; 2]);
        assert_eq!([400, 401, 404, 413, 422].map(verdict), [Verdict::Blame; 5]);
        assert_eq!(
            [408, 409, 425, 429, 500, 503, 529].map(verdict),
            [Verdict::Transient; 7]
        );
        assert_eq!(Verdict::of(401, true), Verdict::Transient);
        assert_eq!(Verdict::of(400, true), Verdict::Blame);
    }

    #[test]
    fn whoever_tries_next_waits_longer_each_time_and_as_the_provider_asks() {
        let millis = Duration::from_millis;
        assert_eq!(delay(1, None, 0.5), Some(millis(250)));
        assert_eq!(delay(2, None, 0.5), Some(millis(500)));
        assert!(delay(30, None, 1.0).unwrap() <= LONGEST_DELAY.mul_f64(1.25));
        assert_eq!(delay(1, Some(millis(0)), 0.5), Some(millis(0)));
        assert_eq!(delay(1, Some(MINUTE), 0.5), None);
    }
}
