//! How long a provider asks to be left alone.
//!
//! Providers say it in many headers and many shapes; here is every one that is understood.
//! Leaves out what only a body says (Google's `RetryInfo`), and what is made of the answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Nobody is left alone for longer, whatever they ask for: a wrong clock or a wrong unit on their
/// side must not cost us a provider for good.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits that providers tell: what is left of each, and when it is full again.
const LIMITS: [(&str, &str); 6] = [
    // OpenAI, Azure, Groq.
    (
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    // Anthropic.
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    (
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ),
    (
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
];

/// The limit of those who have only one (Together, OpenRouter).
const PLAIN: (&str, &str) = ("x-ratelimit-remaining", "x-ratelimit-reset");

/// Where these are told, resets are bare milliseconds: Azure's recorded answers have 500 after
/// one of 120 requests in 60 s, and 7 after 14 of 120,000 tokens.
const PERIODS: [&str; 2] = [
    "x-ratelimit-renewalperiod-requests",
    "x-ratelimit-renewalperiod-tokens",
];

/// What a number without a unit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// How long a provider that answered so asks to be left alone: at most [`LONGEST`], zero when
/// the moment it names is past, `None` when it says nothing that can be understood.
///
/// The headers that say it outright go before the limits', which count when a limit was hit.
pub fn asked(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let read = |name, unit| wait(text(headers, name)?, unit, now);
    read("retry-after-ms", Unit::Milliseconds)
        .or_else(|| read(RETRY_AFTER.as_str(), Unit::Seconds))
        .or_else(|| (status == 429).then(|| refill(headers, now))?)
}

/// Until the last of the exhausted limits is full again.
fn refill(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let unit = unit(headers);
    let exhausted = |remaining| text(headers, remaining).map(is_nothing);
    let limits = LIMITS
        .iter()
        .filter(|(remaining, _)| exhausted(remaining) == Some(true));
    // With only one limit there is no doubt which one was hit, unless it says that it was not.
    let plain = Some(&PLAIN).filter(|(remaining, _)| exhausted(remaining) != Some(false));
    limits
        .chain(plain)
        .filter_map(|(_, reset)| wait(text(headers, reset)?, unit, now))
        .max()
}

fn unit(headers: &HeaderMap) -> Unit {
    if PERIODS.iter().any(|name| headers.contains_key(*name)) {
        Unit::Milliseconds
    } else {
        Unit::Seconds
    }
}

/// Whether nothing is left of a limit. Some let it fall below zero.
fn is_nothing(remaining: &str) -> bool {
    remaining.parse::<f64>().is_ok_and(|left| left <= 0.0)
}

/// A header's value. By `to_str` it would have to be ASCII, which `µs` is not.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = std::str::from_utf8(headers.get(name)?.as_bytes()).ok()?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

/// The wait that a value tells, in any of the shapes it comes in, whichever header it is in.
fn wait(text: &str, unit: Unit, now: SystemTime) -> Option<Duration> {
    if let Some(number) = decimal(text) {
        return Some(number_wait(number, unit, now));
    }
    span(text).or_else(|| Some(until(moment(text)?, now)))
}

/// A bare number is a wait, or a unix time where it is too large for one: OpenRouter's is in
/// milliseconds.
fn number_wait(number: f64, unit: Unit, now: SystemTime) -> Duration {
    const UNIX_SECONDS: f64 = 1e9; // 2001
    const UNIX_MILLISECONDS: f64 = 1e11; // 1973; as seconds it would be the year 5138
    match unit {
        Unit::Milliseconds => seconds(number / 1e3),
        Unit::Seconds if number > UNIX_MILLISECONDS => until(unix(number / 1e3), now),
        Unit::Seconds if number > UNIX_SECONDS => until(unix(number), now),
        Unit::Seconds => seconds(number),
    }
}

/// `6m0s`, `1h2m3.5s`, `20ms`: durations as Go prints them. Not read by `humantime`, which
/// panics on some that are too long.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !in_number(c))?);
        let (unit, after) = after.split_at(after.find(in_number).unwrap_or(after.len()));
        sum += decimal(number)? * seconds_of(unit)?;
        rest = after;
    }
    Some(seconds(sum))
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "d" => 86_400.0,
        "h" => 3_600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6, // the micro sign, and the Greek letter
        "ns" => 1e-9,
        _ => return None,
    })
}

/// Digits with or without a fraction; not what else floats may look like (`-1`, `1e9`, `inf`).
fn decimal(text: &str) -> Option<f64> {
    text.chars().all(in_number).then(|| text.parse().ok())?
}

const fn in_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

/// `2025-03-15T09:38:41Z`, or a date of HTTP in any of its three shapes.
fn moment(text: &str) -> Option<SystemTime> {
    let date = humantime::parse_rfc3339(text).ok();
    date.or_else(|| httpdate::parse_http_date(text).ok())
}

fn unix(seconds: f64) -> SystemTime {
    const FAR: f64 = 1e11; // a day from any now, and not too far for the clock's type
    UNIX_EPOCH + Duration::from_secs_f64(seconds.min(FAR))
}

fn until(moment: SystemTime, now: SystemTime) -> Duration {
    moment.duration_since(now).unwrap_or_default().min(LONGEST)
}

/// Capped first: a number can be larger than a duration.
fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.min(LONGEST.as_secs_f64()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// 2025-03-15T09:38:30Z.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_742_031_510)
    }

    fn headers<V: AsRef<[u8]>>(list: &[(&'static str, V)]) -> HeaderMap {
        let pairs = list.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    /// In milliseconds.
    fn after(status: u16, list: &[(&'static str, &str)]) -> Option<u128> {
        asked(status, &headers(list), now()).map(|wait| wait.as_millis())
    }

    #[test]
    fn retry_after_in_all_its_shapes() {
        let table = [
            ("0", Some(0)),
            ("7", Some(7_000)),
            (" 7 ", Some(7_000)),
            ("0.25", Some(250)),
            ("1.5", Some(1_500)),
            (".5", Some(500)),
            ("20s", Some(20_000)),
            ("Sat, 15 Mar 2025 09:38:40 GMT", Some(10_000)),
            ("Saturday, 15-Mar-25 09:38:40 GMT", Some(10_000)),
            ("Sat Mar 15 09:38:40 2025", Some(10_000)),
            ("Sat, 15 Mar 2025 09:38:20 GMT", Some(0)),
            ("2025-03-15T09:38:41Z", Some(11_000)),
            ("2025-03-15T09:38:41.250+00:00", Some(11_250)),
            ("1742031520", Some(10_000)),
            ("", None),
            ("soon", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("inf", None),
            ("NaN", None),
            (".", None),
            ("1.2.3", None),
            ("7, 8", None),
            ("Sat, 32 Mar 2025 09:38:40 GMT", None),
            ("2025-03-15T09:38:41+01:00", None), // no provider has been seen with a zone
        ];
        for (value, wait) in table {
            for status in [429, 503] {
                assert_eq!(after(status, &[("retry-after", value)]), wait, "{value:?}");
            }
        }
    }

    #[test]
    fn milliseconds_go_before_seconds_and_both_before_limits() {
        let limit = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0s"),
        ];
        let with = |list: &[_]| after(429, &[&limit[..], list].concat());
        assert_eq!(with(&[]), Some(360_000));
        assert_eq!(with(&[("retry-after", "2")]), Some(2_000));
        let both = [("retry-after", "2"), ("retry-after-ms", "1234")];
        assert_eq!(with(&both), Some(1_234));
        let nonsense = [("retry-after", "2"), ("retry-after-ms", "soon")];
        assert_eq!(with(&nonsense), Some(2_000));
        assert_eq!(with(&[("retry-after", "later")]), Some(360_000));
        assert_eq!(after(429, &[("retry-after-ms", "12.5")]), Some(12));
    }

    #[test]
    fn limits_count_when_one_was_hit_and_is_exhausted() {
        let limit = |remaining| {
            [
                ("x-ratelimit-remaining-tokens", remaining),
                ("x-ratelimit-reset-tokens", "26ms"),
            ]
        };
        for (remaining, wait) in [
            ("0", Some(26)),
            ("-5", Some(26)),
            ("0.0", Some(26)),
            ("1", None),
            ("29987", None),
            ("none", None),
        ] {
            assert_eq!(after(429, &limit(remaining)), wait, "{remaining}");
            assert_eq!(after(503, &limit(remaining)), None);
        }
        assert_eq!(after(429, &[("x-ratelimit-reset-tokens", "26ms")]), None);
        assert_eq!(after(429, &[]), None);
    }

    #[test]
    fn spans_as_openai_and_groq_print_them() {
        let table = [
            ("1s", Some(1_000)),
            ("0s", Some(0)),
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("10.682s", Some(10_682)),
            ("1h2m3.5s", Some(3_723_500)),
            ("23m16.298s", Some(1_396_298)),
            ("24h0m0s", Some(86_400_000)),
            ("1d2h", Some(86_400_000)),
            ("1500µs", Some(1)),
            ("1500us", Some(1)),
            ("17", Some(17_000)),
            ("45.5", Some(45_500)),
            ("s", None),
            ("1m0", None),
            ("1m s", None),
            ("1 s", None),
            ("1x", None),
            ("-1s", None),
        ];
        for (value, wait) in table {
            let list = [
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", value),
            ];
            assert_eq!(after(429, &list), wait, "{value}");
        }
    }

    #[test]
    fn the_longest_of_the_exhausted_limits_counts() {
        let groq = |requests, tokens| {
            [
                ("x-ratelimit-limit-requests", "14400"),
                ("x-ratelimit-limit-tokens", "30000"),
                ("x-ratelimit-remaining-requests", requests),
                ("x-ratelimit-remaining-tokens", tokens),
                ("x-ratelimit-reset-requests", "10.682s"),
                ("x-ratelimit-reset-tokens", "26ms"),
            ]
        };
        assert_eq!(after(429, &groq("14398", "0")), Some(26));
        assert_eq!(after(429, &groq("0", "29987")), Some(10_682));
        assert_eq!(after(429, &groq("0", "0")), Some(10_682));
        assert_eq!(after(429, &groq("14398", "29987")), None);
    }

    #[test]
    fn anthropic_names_moments() {
        let anthropic = |requests, tokens, input, output| {
            [
                ("anthropic-ratelimit-requests-remaining", requests),
                ("anthropic-ratelimit-requests-reset", "2025-03-15T09:38:22Z"),
                ("anthropic-ratelimit-tokens-remaining", tokens),
                ("anthropic-ratelimit-tokens-reset", "2025-03-15T09:38:36Z"),
                ("anthropic-ratelimit-input-tokens-remaining", input),
                (
                    "anthropic-ratelimit-input-tokens-reset",
                    "2025-03-15T09:38:41Z",
                ),
                ("anthropic-ratelimit-output-tokens-remaining", output),
                (
                    "anthropic-ratelimit-output-tokens-reset",
                    "2025-03-15T09:38:37Z",
                ),
            ]
        };
        let wait = |requests, tokens, input, output| {
            after(429, &anthropic(requests, tokens, input, output))
        };
        assert_eq!(wait("3999", "478000", "399000", "79000"), None);
        assert_eq!(wait("0", "478000", "399000", "79000"), Some(0), "past");
        assert_eq!(wait("3999", "0", "399000", "79000"), Some(6_000));
        assert_eq!(wait("3999", "478000", "0", "79000"), Some(11_000));
        assert_eq!(wait("3999", "478000", "399000", "0"), Some(7_000));
        assert_eq!(wait("0", "0", "0", "0"), Some(11_000));
    }

    #[test]
    fn azure_means_milliseconds() {
        let azure = [
            ("x-ratelimit-limit-requests", "120"),
            ("x-ratelimit-limit-tokens", "120000"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-remaining-tokens", "119986"),
            ("x-ratelimit-renewalperiod-requests", "60"),
            ("x-ratelimit-renewalperiod-tokens", "60"),
            ("x-ratelimit-reset-requests", "500"),
            ("x-ratelimit-reset-tokens", "7"),
        ];
        assert_eq!(after(429, &azure), Some(500));
        let told = [&azure[..], &[("retry-after", "26")]].concat();
        assert_eq!(after(429, &told), Some(26_000), "seconds, as everywhere");
    }

    #[test]
    fn the_plain_limit_is_a_wait_or_a_unix_time() {
        let plain = |remaining, reset| {
            let list = [
                ("x-ratelimit-limit", "2"),
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", reset),
            ];
            after(429, &list)
        };
        assert_eq!(plain("0", "2"), Some(2_000));
        assert_eq!(plain("1", "2"), None, "another limit was hit");
        assert_eq!(plain("0", "1742031515"), Some(5_000));
        assert_eq!(plain("0", "1742031515250"), Some(5_250));
        assert_eq!(plain("0", "1742031505"), Some(0));
        assert_eq!(plain("0", "1742031505000"), Some(0));
        assert_eq!(plain("0", "1000000000"), Some(86_400_000));
        assert_eq!(after(429, &[("x-ratelimit-reset", "2")]), Some(2_000));
        assert_eq!(after(503, &[("x-ratelimit-reset", "2")]), None);
    }

    #[test]
    fn nobody_is_left_alone_for_more_than_a_day() {
        let nines = "9".repeat(400);
        let span = format!("{nines}h{nines}s");
        let long = [
            "86401",
            "999999999",
            "1900000000",
            "99999999999",
            "18446744073709551616",
            &nines,
            "25h0m0s",
            "18446744073709551615s1000000000ns",
            &span,
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "9999-12-31T23:59:59Z",
        ];
        for value in long {
            let wait = asked(503, &headers(&[("retry-after", value)]), now());
            assert_eq!(wait, Some(LONGEST), "{value}");
        }
        let wait = asked(503, &headers(&[("retry-after-ms", &nines)]), now());
        assert_eq!(wait, Some(LONGEST));
    }

    /// Every value of up to three of the bytes that mean something, and good ones with a byte
    /// put in the place of another: none panics, none asks for more than a day.
    #[test]
    fn odd_bytes_do_no_harm() {
        let bytes = b"\x80\xc2\xb5 \t019.-+:,ehmnsuTZG\xff";
        let values = words(bytes, 3).chain(broken(bytes));
        let nows = [
            now(),
            UNIX_EPOCH,
            UNIX_EPOCH - LONGEST * 36_500,
            now() + LONGEST * 3_650_000,
        ];
        for value in values {
            let odd = headers(&[
                ("x-ratelimit-remaining", "0".as_bytes()),
                ("x-ratelimit-remaining-tokens", &value),
                ("x-ratelimit-reset-tokens", &value),
                ("x-ratelimit-reset", &value),
            ]);
            let told = headers(&[("retry-after-ms", &value), ("retry-after", &value)]);
            for now in nows {
                for list in [&odd, &told] {
                    let wait = asked(429, list, now);
                    assert!(wait.is_none_or(|wait| wait <= LONGEST), "{value:?}");
                }
            }
        }
    }

    fn words(bytes: &[u8], length: u32) -> impl Iterator<Item = Vec<u8>> {
        let count = bytes.len();
        (0..count.pow(length)).map(move |word| {
            let letter = |place| bytes[word / count.pow(place) % count];
            (0..length).map(letter).collect()
        })
    }

    fn broken(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let good = [
            "1h2m3.5s",
            "1742031515250",
            "2025-03-15T09:38:41.250+00:00",
            "Sat, 15 Mar 2025 09:38:40 GMT",
            "Saturday, 15-Mar-25 09:38:40 GMT",
            "Sat Mar 15 09:38:40 2025",
        ];
        good.into_iter().flat_map(move |value| {
            let places = 0..value.len();
            places.flat_map(move |place| {
                bytes.iter().map(move |byte| {
                    let mut odd = value.as_bytes().to_vec();
                    odd[place] = *byte;
                    odd
                })
            })
        })
    }
}
