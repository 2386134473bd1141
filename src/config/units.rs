//! Durations (`30s`, `15m`) and sizes (`32MiB`) as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer};

/// A length of time, written `500ms`, `30s`, `15m`, `1h30m`; a unit is required.
/// From 0 to 36500 days, so that adding one to a clock never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// A number of bytes, written `64KiB`, `32MiB`, `1GiB`, `10MB`, or a plain number.
/// From 0 to 2^63 - 1, so that it also fits the signed lengths of other interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A decimal number, written `0.15`, `3` or `"0.075"`: the text as it stands, so that money loses no
/// digit on the way. Whether it is a number is for those to say who read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal(pub String);

const A_DURATION: &str = "a duration such as `500ms`, `30s`, `15m` or `1h30m`";
const A_UNIT: &str = "a duration with a unit, such as `500ms`, `30s` or `15m`";
const A_SHORTER_DURATION: &str = "a duration of at most 36500 days";
const A_SIZE: &str = "a size such as `64KiB`, `32MiB` or `1GiB`";

const MAX_DURATION: std::time::Duration = std::time::Duration::from_secs(36_500 * 86_400);

/// Digits of one number of a duration: more are longer than any duration in whatever unit.
const MOST_DIGITS: usize = 15;

impl FromStr for Duration {
    /// What would have been right: the text after "expected".
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || ".-".contains(c)) {
            return Err(A_UNIT);
        }
        // `15M` would be 15 months, which nobody means.
        if text.contains(char::is_uppercase) {
            return Err(A_DURATION);
        }
        // humantime 2.4 panics where the sum of its parts overflows.
        if text
            .split(|c: char| !c.is_ascii_digit())
            .any(|number| number.len() > MOST_DIGITS)
        {
            return Err(A_SHORTER_DURATION);
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= MAX_DURATION => Ok(Self(duration)),
            Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(A_SHORTER_DURATION),
            Err(_) => Err(A_DURATION),
        }
    }
}

impl FromStr for ByteSize {
    /// What would have been right: the text after "expected".
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size: bytesize::ByteSize = text.trim().parse().map_err(|_| A_SIZE)?;
        // The parser saturates where a number is too large.
        if size.as_u64() > i64::MAX as u64 {
            Err(A_SIZE)
        } else {
            Ok(Self(size.as_u64()))
        }
    }
}

impl fmt::Display for Duration {
    /// The shortest exact form that parses to the same: `1h30m`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (length, unit) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that divides it: `32MiB`, `10MB`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 8] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1_000_000_000_000, "TB"),
            (1_000_000_000, "GB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "KB"),
        ];
        let unit = UNITS
            .iter()
            .find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match unit {
            Some((size, name)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecimalVisitor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct DurationVisitor;

impl de::Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_DURATION)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        text.parse()
            .map_err(|expected| E::invalid_value(Unexpected::Str(text), &expected))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        Err(E::invalid_type(Unexpected::Unsigned(number), &A_UNIT))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        Err(E::invalid_type(Unexpected::Signed(number), &A_UNIT))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
        Err(E::invalid_type(Unexpected::Float(number), &A_UNIT))
    }
}

struct DecimalVisitor;

impl de::Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number such as 3, 0.15 or \"0.075\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
        Ok(Decimal(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Decimal, E> {
        // The shortest digits that make this number: those that were written.
        Ok(Decimal(number.to_string()))
    }
}

struct ByteSizeVisitor;

impl de::Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_SIZE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse()
            .map_err(|expected| E::invalid_value(Unexpected::Str(text), &expected))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
        match i64::try_from(number) {
            Ok(_) => Ok(ByteSize(number)),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn duration(text: &str) -> Result<std::time::Duration, &'static str> {
        text.parse::<Duration>().map(|duration| duration.0)
    }

    #[test]
    fn durations() {
        let millis = std::time::Duration::from_millis;
        for (text, expected) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            (" 2d ", 172_800_000),
            ("1.5s", 1_500),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(millis(expected)), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for text in ["30", "0", "1.5", "-3"] {
            assert_eq!(duration(text), Err(A_UNIT), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_duration() {
        for text in [
            "", " ", "soon", "-3s", "15M", "30 S", "1h30", "30x", "٣s", "1,5s",
        ] {
            assert_eq!(duration(text), Err(A_DURATION), "{text}");
        }
    }

    #[test]
    fn endless_durations_are_refused() {
        assert!(duration("36500d").is_ok());
        for text in [
            "36501d",
            "99999999999999999999s",
            "9999999999999y",
            "18446744073709551615s1000000000ns",
        ] {
            assert_eq!(duration(text), Err(A_SHORTER_DURATION), "{text}");
        }
    }

    #[test]
    fn durations_print_as_they_parse() {
        for text in [
            "500ms", "30s", "15m", "1h30m", "2d", "0s", "1s500ms", "7us", "3ns",
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64KiB", 64 << 10),
            ("32MiB", 32 << 20),
            ("32 MiB", 32 << 20),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("10MB", 10_000_000),
            ("10M", 10_000_000),
            ("7B", 7),
            ("1024", 1024),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(expected)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in [
            "",
            "lots",
            "-1",
            "-1MiB",
            "1e3",
            "1.5.2MiB",
            "MiB",
            "8EiB",
            "99999999999TiB",
            "1MiBs",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(A_SIZE), "{text}");
        }
    }

    #[test]
    fn sizes_print_as_they_parse() {
        for text in [
            "64KiB", "32MiB", "1GiB", "10MB", "1000KiB", "3TiB", "1001", "0",
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }
}
