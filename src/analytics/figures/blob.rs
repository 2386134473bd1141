//! Figures as they are stored: a version, then numbers of seven bits a byte, lowest first.
//!
//! Names are numbers of a list that only ever grows ([`super::words`]). One that a newer tollgate
//! has added is kept by its number and written back as such, so that an older process that makes
//! hours of a newer one's minutes loses nothing.

use super::Figures;
use super::counts::Counts;
use super::histogram::{BUCKETS, Histogram};
use super::words::Name;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// Most names of one list, and longest name in bytes: more is damage.
const MOST_NAMES: u64 = 256;
const LONGEST_NAME: u64 = 128;

/// The bytes are no figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

impl std::fmt::Display for Damaged {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str("stored figures are damaged, or a newer tollgate wrote them")
    }
}

impl std::error::Error for Damaged {}

impl Figures {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(VERSION);
        for number in self.numbers() {
            put(&mut out, number.into());
        }
        put(&mut out, self.cost);
        put(&mut out, self.saved);
        for counts in self.counts() {
            put_counts(&mut out, counts);
        }
        for times in self.times() {
            put_times(&mut out, times);
        }
        out
    }

    /// What [`Self::encode`] made.
    ///
    /// # Errors
    /// Whatever else the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut figures = Self::default();
        figures.decode_into(bytes)?;
        Ok(figures)
    }

    /// The same in place of what was there, whose memory is used again. After an error it is
    /// not to be used.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_into(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.clear();
        self.read(&mut Bytes(bytes)).ok_or(Damaged)
    }

    fn read(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        if bytes.take(1)? != [VERSION] {
            return None;
        }
        for number in self.numbers_mut() {
            *number = bytes.number()?;
        }
        self.cost = bytes.wide()?;
        self.saved = bytes.wide()?;
        for counts in self.counts_mut() {
            read_counts(bytes, counts)?;
        }
        for times in self.times_mut() {
            read_times(bytes, times)?;
        }
        bytes.0.is_empty().then_some(())
    }
}

fn put(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_counts(out: &mut Vec<u8>, counts: &Counts) {
    let counts = counts.parts();
    put(out, counts.len() as u128);
    for (name, count) in counts {
        put_name(out, name);
        put(out, (*count).into());
    }
}

/// The number of a word, or 0, the length and the text.
fn put_name(out: &mut Vec<u8>, name: &Name) {
    match name {
        Name::Word(number) => put(out, (*number).into()),
        Name::Text(name) => {
            let name = &name[..name.floor_char_boundary(LONGEST_NAME as usize)];
            put(out, 0);
            put(out, name.len() as u128);
            out.extend_from_slice(name.as_bytes());
        }
    }
}

fn put_times(out: &mut Vec<u8>, times: &Histogram) {
    let (buckets, sum) = times.parts();
    put(out, buckets.len() as u128);
    if buckets.is_empty() {
        return;
    }
    put(out, sum);
    let mut last = 0;
    for (bucket, count) in buckets {
        put(out, (bucket - last).into());
        put(out, (*count).into());
        last = *bucket;
    }
}

fn read_counts(bytes: &mut Bytes<'_>, counts: &mut Counts) -> Option<()> {
    for _ in 0..bytes.number_up_to(MOST_NAMES)? {
        let name = read_name(bytes)?;
        counts.fill(name, bytes.number()?).then_some(())?;
    }
    Some(())
}

fn read_name(bytes: &mut Bytes<'_>) -> Option<Name> {
    let number = bytes.number_up_to(u16::MAX.into())?;
    if number > 0 {
        return Some(Name::Word(number as u16));
    }
    let length = bytes.number_up_to(LONGEST_NAME)?;
    let text = bytes.take(length as usize)?;
    Some(Name::Text(std::str::from_utf8(text).ok()?.into()))
}

fn read_times(bytes: &mut Bytes<'_>, times: &mut Histogram) -> Option<()> {
    let buckets = bytes.number_up_to(BUCKETS as u64)?;
    if buckets == 0 {
        return Some(());
    }
    times.fill_sum(bytes.wide()?);
    let mut bucket = 0_u64;
    for _ in 0..buckets {
        bucket = bucket.checked_add(bytes.number()?)?;
        times.fill(bucket, bytes.number()?).then_some(())?;
    }
    Some(())
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        // Most numbers are small.
        if let [first @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Some((*first).into());
        }
        u64::try_from(self.wide()?).ok()
    }

    fn number_up_to(&mut self, most: u64) -> Option<u64> {
        self.number().filter(|number| *number <= most)
    }

    fn wide(&mut self) -> Option<u128> {
        let mut number = 0_u128;
        for shift in (0..128).step_by(7) {
            let [byte] = self.take(1)? else { return None };
            let part = u128::from(byte & 0x7f);
            let placed = part << shift;
            if placed >> shift != part {
                return None;
            }
            number |= placed;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::analytics::facts::Facts;
    use crate::analytics::tests::{Chance, Maker};

    fn some() -> Figures {
        let mut maker = Maker::new(5);
        let mut figures = Figures::default();
        for at in 0..300 {
            figures.count(&Facts::of(&maker.record(at)));
        }
        figures.cost = u128::MAX;
        figures.errors.count(&Name::of(&"x".repeat(100)), u64::MAX);
        figures
    }

    #[test]
    fn figures_come_back() {
        for figures in [Figures::default(), some()] {
            let bytes = figures.encode();
            assert_eq!(Figures::decode(&bytes), Ok(figures.clone()));
            let mut used = some();
            used.decode_into(&bytes).unwrap();
            assert_eq!(used, figures);
        }
        assert!(some().encode().len() < 2_000);
    }

    #[test]
    fn names_of_a_newer_version_are_kept() {
        let mut figures = Figures::default();
        figures.tokens.count(&Name::Word(77), 5);
        let bytes = figures.encode();
        assert_eq!(bytes.len(), Figures::default().encode().len() + 2);
        assert_eq!(Figures::decode(&bytes), Ok(figures));
    }

    #[test]
    fn garbage_is_no_figures() {
        let bytes = some().encode();
        for length in 0..bytes.len() {
            assert_eq!(Figures::decode(&bytes[..length]), Err(Damaged), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Figures::decode(&longer), Err(Damaged));
        let mut chance = Chance(9);
        for _ in 0..50_000 {
            let mut changed = bytes.clone();
            for _ in 0..=chance.below(4) {
                let place = chance.below(changed.len() as u64) as usize;
                changed[place] = chance.below(256) as u8;
            }
            if let Ok(mut figures) = Figures::decode(&changed) {
                let other = figures.clone();
                figures.add(&other);
                figures.subtract(&other);
                let _ = serde_json::to_string(&figures).unwrap();
            }
            let noise: Vec<u8> = (0..chance.below(60))
                .map(|_| chance.below(256) as u8)
                .collect();
            let _ = Figures::decode(&[&[VERSION], &noise[..]].concat());
        }
    }
}
