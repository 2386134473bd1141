//! Hides what changes from request to request inside a text: dates, times, seconds since an
//! epoch, UUIDs, identifiers.
//!
//! Generous on purpose: a Bible verse passes for a time, a version for a date. Two texts that
//! become equal by that still differ where the pointer says.

use std::ops::Range;

use super::words::{Words, run};

/// Stands for one hidden part; never a byte of UTF-8 text.
const MARK: u8 = 0xff;

/// Digits in a row that pass for a time or a number of something.
const MANY_DIGITS: usize = 8;

/// Hexadecimal digits in a row that pass for an identifier.
const MANY_HEX: usize = 16;

/// Letters and digits mixed in one word that pass for an identifier, such as a tool call's.
const MANY_MIXED: usize = 20;

/// Hexadecimal digits between the hyphens of a UUID.
const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// Appends `text` with every volatile part replaced by one byte.
pub fn mask(text: &[u8], out: &mut Vec<u8>) {
    let mut words = Words::of(text);
    // Up to here the text is in `out`.
    let mut copied = 0;
    while let Some(word) = words.next() {
        if let Some(end) = part(text, &word) {
            out.extend_from_slice(&text[copied..word.start]);
            out.push(MARK);
            (copied, words.at) = (end, end);
        } else if may_have_runs(&text[word.clone()]) {
            out.extend_from_slice(&text[copied..word.start]);
            mask_word(&text[word.clone()], out);
            copied = word.end;
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// The end of a volatile part that begins with this word. Asks only the readers of what can
/// begin so.
fn part(text: &[u8], word: &Range<usize>) -> Option<usize> {
    let at = word.start;
    let may_be_uuid = word.len() == UUID[0] && text.get(word.end) == Some(&b'-');
    let uuid = may_be_uuid.then(|| uuid(text, at)).flatten();
    uuid.or_else(|| match text[at] {
        b'0'..=b'9' => number_part(text, at),
        b'A'..=b'Z' => dated(text, at),
        _ => None,
    })
}

fn number_part(text: &[u8], at: usize) -> Option<usize> {
    let end = run(text, at, u8::is_ascii_digit);
    match end - at {
        1 | 2 if text.get(end) == Some(&b':') => time(text, at),
        1 | 2 | 4 => dated(text, at),
        MANY_DIGITS.. => compact_time(text, at).or_else(|| epoch(text, at)),
        _ => None,
    }
}

/// Whether a word may have long runs. Few have: they are short, or long but without a digit.
fn may_have_runs(word: &[u8]) -> bool {
    word.len() >= MANY_HEX || word.len() >= MANY_DIGITS && word.iter().any(u8::is_ascii_digit)
}

/// Long runs inside a word: `0x…`, `id…`, and words that are identifiers altogether.
fn mask_word(word: &[u8], out: &mut Vec<u8>) {
    let letters = word.iter().any(u8::is_ascii_alphabetic);
    let digits = word.iter().any(u8::is_ascii_digit);
    if word.len() >= MANY_MIXED && letters && digits {
        out.push(MARK);
        return;
    }
    let mut at = 0;
    while at < word.len() {
        let hex = run(word, at, u8::is_ascii_hexdigit);
        if hex - at >= MANY_HEX {
            out.push(MARK);
        } else {
            mask_digits(&word[at..hex], out);
        }
        let other = run(word, hex, |byte| !byte.is_ascii_hexdigit());
        out.extend_from_slice(&word[hex..other]);
        at = other;
    }
}

fn mask_digits(word: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < word.len() {
        let digits = run(word, at, u8::is_ascii_digit);
        if digits - at >= MANY_DIGITS {
            out.push(MARK);
        } else {
            out.extend_from_slice(&word[at..digits]);
        }
        let other = run(word, digits, |byte| !byte.is_ascii_digit());
        out.extend_from_slice(&word[digits..other]);
        at = other;
    }
}

/// `end`, if no word goes on there.
fn whole(text: &[u8], end: usize) -> Option<usize> {
    let goes_on = text.get(end).is_some_and(u8::is_ascii_alphanumeric);
    (!goes_on).then_some(end)
}

/// The end of one of these bytes.
fn one_of(text: &[u8], at: usize, bytes: &[u8]) -> Option<usize> {
    bytes.contains(text.get(at)?).then_some(at + 1)
}

/// The end of a number of so many digits that is at most `most`.
fn number(text: &[u8], at: usize, digits: [usize; 2], most: u32) -> Option<usize> {
    let end = run(text, at, u8::is_ascii_digit);
    if end - at < digits[0] || end - at > digits[1] {
        return None;
    }
    let value = text[at..end]
        .iter()
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    (value <= most).then_some(end)
}

/// The end of a name or its first three letters, which may bear a dot.
fn name(text: &[u8], at: usize, named: fn(&[u8]) -> Option<&'static str>) -> Option<usize> {
    let first = at..at + 3;
    let name = named(text.get(first.clone())?)?;
    let end = run(text, at, u8::is_ascii_alphabetic);
    let known = end == first.end || &text[at..end] == name.as_bytes();
    known.then(|| one_of(text, end, b".").unwrap_or(end))
}

/// The month that begins with three letters.
fn month_named(first: &[u8]) -> Option<&'static str> {
    Some(match first {
        b"Jan" => "January",
        b"Feb" => "February",
        b"Mar" => "March",
        b"Apr" => "April",
        b"May" => "May",
        b"Jun" => "June",
        b"Jul" => "July",
        b"Aug" => "August",
        b"Sep" => "September",
        b"Oct" => "October",
        b"Nov" => "November",
        b"Dec" => "December",
        _ => return None,
    })
}

/// The weekday that begins with three letters.
fn weekday_named(first: &[u8]) -> Option<&'static str> {
    Some(match first {
        b"Mon" => "Monday",
        b"Tue" => "Tuesday",
        b"Wed" => "Wednesday",
        b"Thu" => "Thursday",
        b"Fri" => "Friday",
        b"Sat" => "Saturday",
        b"Sun" => "Sunday",
        _ => return None,
    })
}

/// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`
fn uuid(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    for (group, length) in UUID.into_iter().enumerate() {
        if group > 0 {
            end = one_of(text, end, b"-")?;
        }
        let start = end;
        end = run(text, start, u8::is_ascii_hexdigit);
        if end - start != length {
            return None;
        }
    }
    whole(text, end)
}

/// `20260801T101500Z`
fn compact_time(text: &[u8], at: usize) -> Option<usize> {
    let date = number(text, at, [8, 8], u32::MAX)?;
    let time = number(text, one_of(text, date, b"T")?, [6, 6], 235_960)?;
    whole(text, one_of(text, time, b"Z").unwrap_or(time))
}

/// `1785578400`, `1785578400.25`
fn epoch(text: &[u8], at: usize) -> Option<usize> {
    let end = run(text, at, u8::is_ascii_digit);
    if end - at < MANY_DIGITS {
        return None;
    }
    whole(text, fraction(text, end, b".").unwrap_or(end))
}

fn fraction(text: &[u8], at: usize, points: &[u8]) -> Option<usize> {
    let start = one_of(text, at, points)?;
    let end = run(text, start, u8::is_ascii_digit);
    (end > start).then_some(end)
}

/// A date, its weekday before it, and a time joined to it by a `T`.
fn dated(text: &[u8], at: usize) -> Option<usize> {
    let date = date(text, weekday(text, at).unwrap_or(at))?;
    let joined = one_of(text, date, b"T").and_then(|at| time(text, at));
    joined.or_else(|| whole(text, date))
}

fn date(text: &[u8], at: usize) -> Option<usize> {
    match run(text, at, u8::is_ascii_digit) - at {
        0 => month_first(text, at),
        1 | 2 => year_last(text, at).or_else(|| day_first(text, at)),
        4 => year_first(text, at),
        _ => None,
    }
}

/// `Saturday, `, `Sat `
fn weekday(text: &[u8], at: usize) -> Option<usize> {
    let end = name(text, at, weekday_named)?;
    let comma = one_of(text, end, b",").unwrap_or(end);
    spaces(text, comma)
}

fn spaces(text: &[u8], at: usize) -> Option<usize> {
    let end = run(text, at, |byte| *byte == b' ');
    (end > at).then_some(end)
}

/// `2026-08-01`, `2026/8/1`
fn year_first(text: &[u8], at: usize) -> Option<usize> {
    let year = number(text, at, [4, 4], 9999)?;
    let separator = one_of(text, year, b"-/.")?;
    let month = number(text, separator, [1, 2], 12)?;
    let separator = one_of(text, month, &text[year..=year])?;
    number(text, separator, [1, 2], 31)
}

/// `01.08.2026`, `8/1/2026`, `8/1/26`
fn year_last(text: &[u8], at: usize) -> Option<usize> {
    let day = number(text, at, [1, 2], 31)?;
    let separator = one_of(text, day, b"-/.")?;
    let month = number(text, separator, [1, 2], 31)?;
    let separator = one_of(text, month, &text[day..=day])?;
    let short = || number(text, separator, [2, 2], 99).filter(|_| text[day] == b'/');
    number(text, separator, [4, 4], 9999).or_else(short)
}

/// `August 1, 2026`, `Aug 1st`
fn month_first(text: &[u8], at: usize) -> Option<usize> {
    let month = name(text, at, month_named)?;
    let day = day(text, spaces(text, month)?)?;
    Some(year(text, day).unwrap_or(day))
}

/// `1 August 2026`, `01-Aug-2026`
fn day_first(text: &[u8], at: usize) -> Option<usize> {
    let day = day(text, at)?;
    let separator = one_of(text, day, b" -")?;
    let month = name(text, separator, month_named)?;
    Some(year(text, month).unwrap_or(month))
}

fn day(text: &[u8], at: usize) -> Option<usize> {
    let end = number(text, at, [1, 2], 31)?;
    let suffix = text.get(end..end + 2);
    match suffix {
        Some(b"st" | b"nd" | b"rd" | b"th") => Some(end + 2),
        _ => Some(end),
    }
}

fn year(text: &[u8], at: usize) -> Option<usize> {
    let comma = one_of(text, at, b",-").unwrap_or(at);
    let start = spaces(text, comma).unwrap_or(comma);
    let end = number(text, start, [4, 4], 9999).filter(|_| start > at)?;
    whole(text, end)
}

/// `10:15`, `10:15:00.250Z`, `10:15 PM`, `10:15:00 +02:00`
fn time(text: &[u8], at: usize) -> Option<usize> {
    let hour = number(text, at, [1, 2], 24)?;
    let minute = number(text, one_of(text, hour, b":")?, [2, 2], 59)?;
    let second = seconds(text, minute).unwrap_or(minute);
    let half = half_of_day(text, second).unwrap_or(second);
    whole(text, zone(text, half).unwrap_or(half))
}

fn seconds(text: &[u8], at: usize) -> Option<usize> {
    let end = number(text, one_of(text, at, b":")?, [2, 2], 60)?;
    Some(fraction(text, end, b".,").unwrap_or(end))
}

fn half_of_day(text: &[u8], at: usize) -> Option<usize> {
    let letter = one_of(text, one_of(text, at, b" ").unwrap_or(at), b"aApP")?;
    whole(text, one_of(text, letter, b"mM")?)
}

fn zone(text: &[u8], at: usize) -> Option<usize> {
    let start = one_of(text, at, b" ").unwrap_or(at);
    let names: [&[u8]; 3] = [b"UTC", b"GMT", b"Z"];
    if let Some(name) = names.iter().find(|name| text[start..].starts_with(name)) {
        return whole(text, start + name.len());
    }
    let sign = one_of(text, start, b"+-")?;
    let hours = sign + 2;
    let colon = one_of(text, hours, b":").unwrap_or(hours);
    let digits = text
        .get(sign..hours)?
        .iter()
        .chain(text.get(colon..colon + 2)?);
    digits
        .copied()
        .all(|byte| byte.is_ascii_digit())
        .then_some(colon + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with a `#` for every hidden part.
    fn masked(text: &str) -> String {
        let mut out = Vec::new();
        mask(text.as_bytes(), &mut out);
        let shown = out
            .iter()
            .map(|byte| if *byte == MARK { b'#' } else { *byte });
        String::from_utf8_lossy(&shown.collect::<Vec<_>>()).into_owned()
    }

    #[test]
    fn volatile_parts_are_hidden() {
        let cases = [
            (
                "It is 2026-08-01T10:15:00.123456+00:00 now.",
                "It is # now.",
            ),
            ("It is 2026-08-01T10:15:00Z.", "It is #."),
            ("at 2026-08-01 10:15:00 UTC!", "at # #!"),
            ("2026/8/1, 1.8.2026, 8/1/26, 08-01-2026", "#, #, #, #"),
            ("Saturday, August 1, 2026 at 3:07 PM", "# at #"),
            ("Sat Aug  1 10:15:00 2026", "# # 2026"),
            ("Sat, 01 Aug 2026 10:15:00 GMT", "# #"),
            ("on 1st August 2026", "on #"),
            ("on Aug. 2nd, 01-Aug-2026", "on #, #"),
            ("[20260801T101500Z]", "[#]"),
            (
                "t=1785578400 u=1785578400.25 v=1785578400123",
                "t=# u=# v=#",
            ),
            ("id f81d4fae-7dec-11d0-a765-00a0c91e6bf6.", "id #."),
            ("req_f81d4fae7dec11d0a76500a0c91e6bf6", "req_#"),
            ("0x00a0c91e6bf6a765 sha:deadbeefdeadbeef", "0x# sha:#"),
            ("order12345678 12345678x", "order# #x"),
            ("call_Zk3bQw9xT1mN7pR5sV2yLh", "call_#"),
            ("10:15:00,250 9:05am 10:15 +02:00 10:15-0700", "# # # #"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn the_rest_stays() {
        let texts = [
            "",
            "Plain prose, 42 of it, 1234567 times.",
            "1.2.3 and 10.0.0.1 and 127.0.0.1:8080",
            "May I? It may be March. Sunday best.",
            "gpt-5-2025 top-10 3/4 1:1 25:00 10:60 10:5",
            "deadbeef internationalization",
            "f81d4fae-7dec-11d0-a765",
            "naïve 日本語 😀 é2026",
            "2026-13-01 99-99-9999 8/1-26",
        ];
        for text in texts {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn no_text_makes_it_fail() {
        let pieces = [
            "2026", "-", "08", ":", "1", "T", "Aug", " ", "st", "f81d4fae", ".", "PM", "+", "Z",
            "é", ",",
        ];
        let mut number: u64 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(number >> 60) as usize]);
                masked(&text);
            }
        }
    }

    /// Chance that is the same in every run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }

        fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
            texts[self.below(texts.len())]
        }
    }

    /// Every part and near miss, joined in every way, some with much plain text about them.
    fn some_text(chance: &mut Chance) -> String {
        let pieces: Vec<&str> = "2026 08 1 31 32 7 12 24 25 59 60 T st nd x id Z UTC GMT am PM \
            Aug August Augu Jan Jane Sat Saturday Sunda Tue. May 123456 235959 12345678 1785578400 \
            20260801T101500Z 10:15 10:15:00 2026-08-01 1/8/26 f81d4fae abcdefab abcd cdefabcdefab \
            abcdefab-cdef-abcd-efab-cdefabcdefab deadbeef fade Zk3bQw9xT1mN7pR5sV2yLh the é"
            .split_whitespace()
            .collect();
        let joints = ["", " ", "-", ":", "/", ".", ", ", "  ", "\n"];
        let prose = "plain prose, with nothing to be hidden in it ".repeat(3);
        let plain = [0, 3, 6][chance.below(3)];
        let mut text = String::new();
        for _ in 0..chance.below(12) {
            if chance.below(10) < plain {
                let start = chance.below(prose.len());
                text.push_str(&prose[start..start + chance.below(prose.len() - start)]);
            }
            text.push_str(chance.one_of(&pieces));
            text.push_str(chance.one_of(&joints));
        }
        text
    }

    /// What `mask` finds, without its short cuts: every reader is asked at every word.
    fn mask_plainly(text: &[u8]) -> Vec<u8> {
        let (mut at, mut out) = (0, Vec::new());
        while at < text.len() {
            let word = run(text, at, u8::is_ascii_alphanumeric);
            if word == at {
                out.push(text[at]);
                at += 1;
            } else if let Some(end) = part_plainly(text, at) {
                out.push(MARK);
                at = end;
            } else {
                mask_word(&text[at..word], &mut out);
                at = word;
            }
        }
        out
    }

    fn part_plainly(text: &[u8], at: usize) -> Option<usize> {
        let readers = [uuid, compact_time, epoch, dated_plainly, time];
        readers.iter().find_map(|read| read(text, at))
    }

    fn dated_plainly(text: &[u8], at: usize) -> Option<usize> {
        let start = weekday(text, at).unwrap_or(at);
        let dates = [year_first, year_last, month_first, day_first];
        let date = dates.iter().find_map(|read| read(text, start))?;
        let joined = one_of(text, date, b"T").and_then(|at| time(text, at));
        joined.or_else(|| whole(text, date))
    }

    #[test]
    fn short_cuts_change_nothing() {
        let mut chance = Chance(1);
        let (mut out, mut marks) = (Vec::new(), 0);
        for _ in 0..20_000 {
            let text = some_text(&mut chance);
            out.clear();
            mask(text.as_bytes(), &mut out);
            assert_eq!(out, mask_plainly(text.as_bytes()), "{text:?}");
            marks += out.iter().filter(|byte| **byte == MARK).count();
        }
        assert!(marks > 10_000, "{marks}");
    }

    #[test]
    fn parts_are_hidden_wherever_they_lie() {
        let parts = [
            "10:15",
            "Sat, August 1",
            "Saturday,     Aug.     1st,     2026",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "abcdefab-cdef-abcd-efab-cdefabcdefab",
            "abcdefabcdefabcd",
            "Zk3bQwAxTTmNBpRcsVdyLhGhIjKlMnOpQrStUvWxYz",
        ];
        let prose = "so it goes on and on and on, ".repeat(10);
        for (part, length) in parts
            .iter()
            .flat_map(|part| (0..100).map(move |at| (part, at)))
        {
            let before = &prose[..length];
            let text = format!("{before} {part} {prose}");
            assert_eq!(masked(&text), format!("{before} # {prose}"));
        }
    }

    #[test]
    fn names_are_known_in_full_and_by_three_letters() {
        type Named = fn(&[u8]) -> Option<&'static str>;
        let months =
            "January February March April May June July August September October November December";
        let weekdays = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday";
        for (names, named) in [
            (months, month_named as Named),
            (weekdays, weekday_named as Named),
        ] {
            let end = |word: &str| name(word.as_bytes(), 0, named);
            for full in names.split(' ') {
                for length in 0..=full.len() {
                    let known = length == 3 || length == full.len();
                    assert_eq!(end(&full[..length]), known.then_some(length), "{full}");
                }
                assert_eq!(end(&format!("{full}.")), Some(full.len() + 1));
                assert_eq!(end(&format!("{full}s")), None);
                assert_eq!(end(&full.to_lowercase()), None);
            }
        }
    }
}
