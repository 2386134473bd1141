//! In which stretches of time money is counted, and when they turn.
//!
//! All of it in whole seconds since 1970 (UTC), without leap seconds, as Unix counts.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use crate::config::schema::Calendar;

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// The first day of 1970 was a Thursday.
const MONDAY: i64 = 4 * DAY;

/// How long money counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Windows of so many seconds that begin at whole multiples of their length since 1970.
    Fixed(i64),
    /// The same windows; what was spent in the one before counts by the share of it that is less
    /// than a window ago.
    Sliding(i64),
    /// A stretch of the calendar, UTC.
    Calendar(Calendar),
}

/// One window: from the first of its seconds to the one that is the next window's first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Its first second.
    pub start: i64,
    /// The first second of the next one.
    pub end: i64,
}

impl Window {
    /// The window in which a second lies.
    pub fn span(self, second: i64) -> Span {
        match self {
            Self::Fixed(length) | Self::Sliding(length) => aligned(second, length.max(1), 0),
            Self::Calendar(Calendar::Hour) => aligned(second, HOUR, 0),
            Self::Calendar(Calendar::Day) => aligned(second, DAY, 0),
            Self::Calendar(Calendar::Week) => aligned(second, 7 * DAY, MONDAY),
            Self::Calendar(Calendar::Month) => month(second),
        }
    }

    /// Whether what was spent in the window before still counts.
    pub const fn slides(self) -> bool {
        matches!(self, Self::Sliding(_))
    }

    /// As it is stored: one word.
    pub fn word(self) -> String {
        match self {
            Self::Fixed(length) => format!("fixed:{length}"),
            Self::Sliding(length) => format!("sliding:{length}"),
            Self::Calendar(calendar) => name(calendar).to_owned(),
        }
    }

    /// What [`Window::word`] made.
    pub fn from_word(word: &str) -> Option<Self> {
        let length = |text: &str| text.parse().ok().filter(|length| *length > 0);
        match word.split_once(':') {
            Some(("fixed", text)) => length(text).map(Self::Fixed),
            Some(("sliding", text)) => length(text).map(Self::Sliding),
            Some(_) => None,
            None => {
                let mut all = Calendar::ALL.into_iter();
                all.find(|(name, _)| *name == word)
                    .map(|(_, calendar)| Self::Calendar(calendar))
            }
        }
    }
}

/// In the words of Cloudflare's refusals: `86400s, fixed`.
impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(out, "{length}s, fixed"),
            Self::Sliding(length) => write!(out, "{length}s, sliding"),
            Self::Calendar(calendar) => write!(out, "{}, fixed", name(*calendar)),
        }
    }
}

impl Span {
    /// How many seconds it has.
    pub fn length(self) -> i64 {
        self.end - self.start
    }
}

/// The whole second of a time; 0 for what is before 1970.
pub fn second(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2)
}

/// The time at which a second begins.
pub fn time(second: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(second).unwrap_or_default())
}

fn name(calendar: Calendar) -> &'static str {
    let mut all = Calendar::ALL.into_iter();
    all.find(|(_, other)| *other == calendar)
        .map_or("", |(name, _)| name)
}

fn aligned(second: i64, length: i64, first: i64) -> Span {
    let start = second - (second - first).rem_euclid(length);
    Span {
        start,
        end: start + length,
    }
}

fn month(second: i64) -> Span {
    let months = month_of(second.div_euclid(DAY));
    Span {
        start: first_day(months) * DAY,
        end: first_day(months + 1) * DAY,
    }
}

/// The month of a day since 1970, in months since year 0. Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms": years begin in March there, so that February's end is the year's.
fn month_of(day: i64) -> i64 {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + from_march + 2
}

/// The day since 1970 on which a month, counted from year 0, begins.
fn first_day(months: i64) -> i64 {
    let from_march = (months - 2).rem_euclid(12);
    let year = (months - 2).div_euclid(12);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * from_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        second(humantime::parse_rfc3339(text).unwrap())
    }

    fn shown(span: Span) -> String {
        let show = |second| humantime::format_rfc3339_seconds(time(second)).to_string();
        format!("{} {}", show(span.start), show(span.end))
    }

    #[test]
    fn windows_begin_where_the_calendar_or_their_length_says() {
        let calendar = Window::Calendar;
        for (window, now, expected) in [
            (
                Window::Fixed(60),
                "2026-11-02T12:34:56Z",
                "2026-11-02T12:34:00Z 2026-11-02T12:35:00Z",
            ),
            (
                Window::Sliding(60),
                "2026-11-02T12:34:00Z",
                "2026-11-02T12:34:00Z 2026-11-02T12:35:00Z",
            ),
            (
                Window::Fixed(DAY),
                "2026-11-02T23:59:59Z",
                "2026-11-02T00:00:00Z 2026-11-03T00:00:00Z",
            ),
            // From the first Thursday of 1970.
            (
                Window::Fixed(7 * DAY),
                "2026-11-02T12:00:00Z",
                "2026-10-29T00:00:00Z 2026-11-05T00:00:00Z",
            ),
            (
                calendar(Calendar::Hour),
                "2026-11-02T12:59:59Z",
                "2026-11-02T12:00:00Z 2026-11-02T13:00:00Z",
            ),
            (
                calendar(Calendar::Day),
                "2026-12-31T23:59:59Z",
                "2026-12-31T00:00:00Z 2027-01-01T00:00:00Z",
            ),
            (
                calendar(Calendar::Week),
                "2026-11-01T23:59:59Z",
                "2026-10-26T00:00:00Z 2026-11-02T00:00:00Z",
            ),
            (
                calendar(Calendar::Week),
                "2026-11-02T00:00:00Z",
                "2026-11-02T00:00:00Z 2026-11-09T00:00:00Z",
            ),
            (
                calendar(Calendar::Month),
                "2026-12-31T23:59:59Z",
                "2026-12-01T00:00:00Z 2027-01-01T00:00:00Z",
            ),
            (
                calendar(Calendar::Month),
                "2027-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z 2027-02-01T00:00:00Z",
            ),
            (
                calendar(Calendar::Month),
                "2028-02-29T12:00:00Z",
                "2028-02-01T00:00:00Z 2028-03-01T00:00:00Z",
            ),
            (
                calendar(Calendar::Month),
                "2100-02-28T12:00:00Z",
                "2100-02-01T00:00:00Z 2100-03-01T00:00:00Z",
            ),
            (
                calendar(Calendar::Month),
                "1970-01-01T00:00:00Z",
                "1970-01-01T00:00:00Z 1970-02-01T00:00:00Z",
            ),
        ] {
            assert_eq!(shown(window.span(at(now))), expected, "{window:?} {now}");
        }
    }

    /// Every window holds its own seconds, and the next one begins where it ends.
    #[test]
    fn windows_follow_each_other_without_a_gap() {
        for window in [
            Window::Fixed(7_000),
            Window::Sliding(366 * DAY),
            Window::Calendar(Calendar::Hour),
            Window::Calendar(Calendar::Day),
            Window::Calendar(Calendar::Week),
            Window::Calendar(Calendar::Month),
        ] {
            let mut span = window.span(at("2000-01-01T00:00:00Z"));
            for _ in 0..1_300 {
                assert!(span.length() > 0);
                assert_eq!(window.span(span.start), span, "{window:?}");
                assert_eq!(window.span(span.end - 1), span, "{window:?}");
                let next = window.span(span.end);
                assert_eq!(next.start, span.end, "{window:?}");
                span = next;
            }
        }
    }

    #[test]
    fn months_are_as_others_have_them() {
        for day in 0..60_000 {
            let text = humantime::format_rfc3339_seconds(time(day * DAY)).to_string();
            let (year, month): (i64, i64) =
                (text[..4].parse().unwrap(), text[5..7].parse().unwrap());
            assert_eq!(month_of(day), year * 12 + month - 1, "{text}");
        }
    }

    #[test]
    fn windows_are_stored_as_words() {
        for (window, word, told) in [
            (Window::Fixed(86_400), "fixed:86400", "86400s, fixed"),
            (Window::Sliding(60), "sliding:60", "60s, sliding"),
            (Window::Calendar(Calendar::Week), "week", "week, fixed"),
        ] {
            assert_eq!(window.word(), word);
            assert_eq!(window.to_string(), told);
            assert_eq!(Window::from_word(word), Some(window));
        }
        for word in [
            "", "year", "fixed", "fixed:", "fixed:0", "fixed:-1", "other:60",
        ] {
            assert_eq!(Window::from_word(word), None, "{word}");
        }
    }

    #[test]
    fn no_time_is_out_of_reach() {
        for now in [
            UNIX_EPOCH,
            UNIX_EPOCH - Duration::from_secs(1),
            time(i64::from(u32::MAX)),
        ] {
            let span = Window::Calendar(Calendar::Month).span(second(now));
            assert!(span.start <= second(now) && second(now) < span.end);
        }
    }
}
