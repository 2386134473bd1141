//! Times as the store keeps them (milliseconds since 1970) and as the API shows them (RFC 3339).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 before.
pub fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-28T06:30:00.123Z`; the last such time when it is beyond year 9999.
pub fn shown(milliseconds: i64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let since = u64::try_from(milliseconds).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(since)).to_string()
}

/// Reads RFC 3339 with `Z` or an offset, or a date alone, which is its first moment in UTC.
pub fn parse(text: &str) -> Option<i64> {
    if text.len() == 10 {
        return parse(&format!("{text}T00:00:00Z"));
    }
    let (time, offset) = match text
        .len()
        .checked_sub(6)
        .filter(|&at| text.is_char_boundary(at))
    {
        Some(at) if text[at..].starts_with(['+', '-']) && at > 10 => {
            (&text[..at], offset(&text[at..])?)
        }
        _ => (text.strip_suffix(['Z', 'z'])?, 0),
    };
    let time = humantime::parse_rfc3339(&format!("{time}Z")).ok()?;
    Some(milliseconds(time) - offset)
}

/// `+02:00` in milliseconds.
fn offset(text: &str) -> Option<i64> {
    let (hours, minutes) = text[1..].split_once(':')?;
    let part = |digits: &str, most: i64| {
        let number = digits.parse::<u8>().ok().map(i64::from);
        number.filter(|&number| digits.len() == 2 && number <= most)
    };
    let minutes = part(hours, 23)? * 60 + part(minutes, 59)?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Some(sign * minutes * 60_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        let time = 1_795_847_400_123;
        assert_eq!(shown(time), "2026-11-28T06:30:00.123Z");
        for text in [
            "2026-11-28T06:30:00.123Z",
            "2026-11-28T08:30:00.123+02:00",
            "2026-11-28T01:00:00.123-05:30",
        ] {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        assert_eq!(parse("1970-01-02"), Some(86_400_000));
        assert_eq!(shown(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(shown(-1), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in [
            "",
            "yesterday",
            "2026-11-28T06:30:00",
            "2026-13-28",
            "2026-11-28T06:30:00+2:000",
            "2026-11-28T06:30:00+99:00",
            "ünix-ünix-",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
