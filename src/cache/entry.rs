//! One stored answer, and how it is written to disk.
//!
//! An entry never changes once it is made, so the tiers share it without a lock. Whether it
//! may still be served (time to live, purges) is not decided here.
//!
//! Its form on disk: the parts in the order of [`Facts`], then the others in that of [`Entry`].

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use uuid::Uuid;

pub use super::form::Damage;
use super::form::{Reader, Writer, checked};
use crate::usage::{ServiceTier, Told, Usage};

/// What an entry is found by: a hash of everything in the request that shapes the answer.
pub type KeyBytes = [u8; 32];

const START: [u8; 5] = *b"tgce\x02";

/// What is written in front of the usage.
const NO_USAGE: u8 = 0;
/// Input, output, cached input, cache write and reasoning: until there were more.
const FIVE_NUMBERS: u8 = 1;
/// As many numbers as are said, in the order of [`Usage::by_kind`].
const USAGE: u8 = 2;
/// The same, then the service class and the model that the answer names.
const TOLD: u8 = 3;

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was known of it before it came.
    pub facts: Facts,
    /// When it was stored: milliseconds since 1970.
    pub stored: u64,
    /// Whether it was a stream.
    pub streamed: bool,
    /// What the provider counted, and for what.
    pub told: Option<Told>,
    /// The HTTP status.
    pub status: u16,
    /// The header fields, each name in the case in which it came.
    pub headers: Vec<(Box<str>, HeaderValue)>,
    /// How a streamed body came, for a replay at its pace; empty when it was not streamed.
    pub pieces: Box<[Piece]>,
    /// The whole body. Its buffer should have no spare room: spare room is not weighed.
    pub body: Bytes,
}

/// A part of a streamed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes.
    pub length: u32,
    /// Milliseconds between the body's first byte and this piece.
    pub after: u32,
}

/// What is known of an entry as soon as it is asked for. Purges go by nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is found by.
    pub key: KeyBytes,
    /// Whose it is: `account/gateway`.
    pub scope: Box<str>,
    /// The provider that is asked.
    pub provider: Box<str>,
    /// The model that the client asked for.
    pub model: Option<Box<str>>,
    /// What it can be purged by.
    pub tags: Vec<Box<str>>,
    /// The client's own key, where it gave one.
    pub custom_key: Option<Box<str>>,
    /// When the request that made it began, by the clock of [`super::stamps`].
    pub begun: u64,
    /// How long it may be served.
    pub ttl: Duration,
    /// The log id of the request that made it.
    pub log_id: Uuid,
}

impl Facts {
    fn weight(&self) -> usize {
        let texts = [Some(&self.scope), Some(&self.provider)];
        let optional = [self.model.as_ref(), self.custom_key.as_ref()];
        let texts = texts.into_iter().chain(optional).flatten();
        let tags = allocated(self.tags.capacity() * size_of::<Box<str>>());
        let all = texts.chain(&self.tags).map(|text| allocated(text.len()));
        tags + all.sum::<usize>()
    }
}

impl Entry {
    /// The same answer, to be found under another key.
    pub fn under(&self, key: [u8; 32]) -> Self {
        let mut other = self.clone();
        other.facts.key = key;
        other
    }

    /// How long it has been stored at `now`; nothing if the clock has stepped back.
    pub fn age(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap_or_default()
            .saturating_sub(Duration::from_millis(self.stored))
    }

    /// Whether its time to live is not over at `now`.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.age(now) < self.facts.ttl
    }

    /// The bytes of memory that it takes, with what its allocations and a place in the memory
    /// tier cost.
    pub fn weight(&self) -> usize {
        // The counts in front of an `Arc`, and a place in an index with a list around it.
        const ARC: usize = 16;
        const PLACE: usize = 160;
        // Header values and bodies keep their counts in an allocation of their own.
        const SHARED: usize = 32;
        let headers = allocated(self.headers.capacity() * size_of::<(Box<str>, HeaderValue)>());
        let values = self.headers.iter().map(|(name, value)| {
            allocated(name.len()) + allocated(value.as_bytes().len()) + SHARED
        });
        allocated(size_of::<Self>() + ARC)
            + PLACE
            + self.facts.weight()
            + self.told.as_ref().map_or(0, model_weight)
            + headers
            + values.sum::<usize>()
            + allocated(self.body.len())
            + SHARED
            + allocated(size_of_val(&*self.pieces))
    }

    /// The first header called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// Writes the stored form to `out`.
    ///
    /// # Errors
    /// `out` fails, or a length does not fit the form (a text of 4 GiB).
    pub fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        let mut writer = Writer::new(out, START)?;
        writer.facts(&self.facts)?;
        writer.number(self.stored)?;
        writer.raw(&[self.streamed.into()])?;
        writer.told(self.told.as_ref())?;
        writer.raw(&self.status.to_le_bytes())?;
        writer.count(self.headers.len())?;
        for (name, value) in &self.headers {
            writer.sized(name.as_bytes())?;
            writer.sized(value.as_bytes())?;
        }
        writer.count(self.pieces.len())?;
        for piece in &self.pieces {
            writer.raw(&piece.length.to_le_bytes())?;
            writer.raw(&piece.after.to_le_bytes())?;
        }
        writer.sized(&self.body)?;
        writer.finish()
    }

    /// Reads the stored form; the body shares the buffer of `bytes` where that wastes little.
    ///
    /// # Errors
    /// `bytes` are not exactly one whole entry.
    pub fn decode(bytes: &Bytes) -> Result<Self, Damage> {
        let mut reader = checked(bytes, START)?;
        let entry = Self {
            facts: reader.facts()?,
            stored: reader.number()?,
            streamed: reader.flag()?,
            told: reader.told()?,
            status: u16::from_le_bytes(reader.array()?),
            headers: reader.list(8, Reader::header)?,
            pieces: reader.list(size_of::<Piece>(), Reader::piece)?.into(),
            body: shared(bytes, reader.sized()?),
        };
        if reader.0.is_empty() && entry.is_possible() {
            Ok(entry)
        } else {
            Err(Damage::Impossible)
        }
    }

    /// Whether the parts fit each other.
    fn is_possible(&self) -> bool {
        let paced = self.pieces.iter().map(|piece| u64::from(piece.length));
        let paced: u64 = paced.sum();
        (100..1000).contains(&self.status)
            && (self.pieces.is_empty() || paced == self.body.len() as u64)
    }
}

/// The bytes that an allocation of `bytes` takes: jemalloc has four sizes per doubling.
const fn allocated(bytes: usize) -> usize {
    if bytes <= 64 {
        return bytes.next_multiple_of(16);
    }
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.next_multiple_of(step)
}

fn model_weight(told: &Told) -> usize {
    told.model
        .as_ref()
        .map_or(0, |model| allocated(model.len()))
}

/// `body` of `whole`, without a copy unless that kept much more than the body in memory.
fn shared(whole: &Bytes, body: &[u8]) -> Bytes {
    if whole.len() - body.len() > body.len() / 16 {
        Bytes::copy_from_slice(body)
    } else {
        whole.slice_ref(body)
    }
}

/// The parts that only an entry has.
impl<W: Write> Writer<'_, W> {
    fn facts(&mut self, facts: &Facts) -> io::Result<()> {
        self.raw(&facts.key)?;
        self.sized(facts.scope.as_bytes())?;
        self.sized(facts.provider.as_bytes())?;
        self.optional(facts.model.as_deref())?;
        self.count(facts.tags.len())?;
        for tag in &facts.tags {
            self.sized(tag.as_bytes())?;
        }
        self.optional(facts.custom_key.as_deref())?;
        self.number(facts.begun)?;
        self.number(facts.ttl.as_secs())?;
        self.raw(&facts.ttl.subsec_nanos().to_le_bytes())?;
        self.raw(facts.log_id.as_bytes())
    }

    fn told(&mut self, told: Option<&Told>) -> io::Result<()> {
        let Some(told) = told else {
            return self.raw(&[NO_USAGE]);
        };
        self.raw(&[TOLD])?;
        self.count(Usage::KINDS)?;
        for count in told.usage.to_array() {
            self.number(count)?;
        }
        self.sized(told.tier.name().as_bytes())?;
        self.optional(told.model.as_deref())
    }
}

impl Reader<'_> {
    fn header(&mut self) -> Result<(Box<str>, HeaderValue), Damage> {
        let name = self.text()?;
        let value = HeaderValue::from_bytes(self.sized()?).map_err(|_| Damage::Impossible)?;
        Ok((name, value))
    }

    fn piece(&mut self) -> Result<Piece, Damage> {
        let length = u32::from_le_bytes(self.array()?);
        let after = u32::from_le_bytes(self.array()?);
        Ok(Piece { length, after })
    }

    fn ttl(&mut self) -> Result<Duration, Damage> {
        let (seconds, nanos) = (self.number()?, u32::from_le_bytes(self.array()?));
        // More nanoseconds than a second has would carry, and a carry can overflow.
        if nanos < 1_000_000_000 {
            Ok(Duration::new(seconds, nanos))
        } else {
            Err(Damage::Impossible)
        }
    }

    /// Numbers that it does not have were not known yet when it was written; those that are new
    /// to us belong to a later version.
    fn told(&mut self) -> Result<Option<Told>, Damage> {
        let [form] = self.array()?;
        let counts = match form {
            NO_USAGE => return Ok(None),
            FIVE_NUMBERS => (0..5).map(|_| self.number()).collect(),
            USAGE | TOLD => self.list(8, Self::number),
            _ => return Err(Damage::Impossible),
        };
        let counts: Vec<u64> = counts?;
        let mut usage = [0; Usage::KINDS];
        let known = counts.len().min(usage.len());
        usage[..known].copy_from_slice(&counts[..known]);
        let (tier, model) = match form {
            // A class that a later version knows has a price that it knows.
            TOLD => (
                ServiceTier::of(&self.text()?).unwrap_or_default(),
                self.optional(Self::text)?,
            ),
            _ => (ServiceTier::Standard, None),
        };
        Ok(Some(Told {
            usage: Usage::from_array(usage),
            tier,
            model,
        }))
    }

    fn facts(&mut self) -> Result<Facts, Damage> {
        Ok(Facts {
            key: self.array()?,
            scope: self.text()?,
            provider: self.text()?,
            model: self.optional(Self::text)?,
            tags: self.list(4, Self::text)?,
            custom_key: self.optional(Self::text)?,
            begun: self.number()?,
            ttl: self.ttl()?,
            log_id: Uuid::from_bytes(self.array()?),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    //! Also makes entries for the tests of the tiers.

    use super::super::form::{content, resummed};
    use super::*;

    /// An entry with everything in it, found by `key`, with a body of `length` bytes.
    pub fn entry(key: KeyBytes, length: usize) -> Entry {
        let half = u32::try_from(length / 2).unwrap();
        let rest = u32::try_from(length).unwrap() - half;
        Entry {
            facts: Facts {
                key,
                scope: "acme/main".into(),
                provider: "openai".into(),
                model: Some("gpt-5".into()),
                tags: vec!["manual".into(), "v2".into()],
                custom_key: Some("chapter 3".into()),
                begun: 1_790_000_000_000_001,
                ttl: Duration::from_millis(300_500),
                log_id: Uuid::from_u128(7),
            },
            stored: 1_790_000_000_123,
            streamed: true,
            told: Some(Told {
                usage: Usage::from_array([12, 34, 5, 0, 6, 0, 1, 2, 3, 4, 5, 7]),
                tier: ServiceTier::Flex,
                model: Some("gpt-5-2026-08-07".into()),
            }),
            status: 200,
            headers: vec![
                (
                    "Content-Type".into(),
                    HeaderValue::from_static("text/event-stream"),
                ),
                ("x-Latin".into(), HeaderValue::from_bytes(b"\xe4").unwrap()),
            ],
            pieces: [(half, 0), (rest, 120)]
                .map(|(length, after)| Piece { length, after })
                .into(),
            body: (0..length)
                .map(|at| (at % 251) as u8 ^ key[at % 32])
                .collect(),
        }
    }

    fn encoded(entry: &Entry) -> Bytes {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes).unwrap();
        bytes.into()
    }

    /// A generator of numbers that look random (xorshift), for repeatable tests.
    pub fn noise(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        for length in [0, 1, 700, 100_000] {
            let entry = entry([3; 32], length);
            assert_eq!(Entry::decode(&encoded(&entry)), Ok(entry));
        }
    }

    #[test]
    fn a_bare_entry_reads_as_it_was_written() {
        let mut bare = entry([0; 32], 10);
        bare.facts.model = None;
        bare.facts.custom_key = None;
        bare.told = None;
        bare.facts.tags.clear();
        bare.headers.clear();
        bare.pieces = [].into();
        assert_eq!(Entry::decode(&encoded(&bare)), Ok(bare));
    }

    #[test]
    fn the_usage_of_older_and_newer_entries_is_read() {
        let entry = entry([3; 32], 10);
        let now = encoded(&entry);
        let now = content(&now);
        // Behind the facts, when it was stored and whether it was a stream.
        let number = |number: u64| number.to_le_bytes();
        let written = [
            &[TOLD, 12, 0, 0, 0][..],
            &number(12),
            &number(34),
            &number(5),
        ]
        .concat();
        let at = memchr::memmem::find(now, &written).unwrap();
        // The counts, then `flex` and the model, each with its length.
        let told = 5 + 8 * Usage::KINDS + (4 + 4) + (1 + 4 + 16);
        let with = |usage: &[u8]| {
            let form = resummed(&[&now[..at], usage, &now[at + told..]].concat());
            let told = Entry::decode(&form.into()).map(|entry| entry.told);
            told.map(|told| told.map(|told| told.usage.to_array()))
        };
        let numbers = |count: u64| (1..=count).flat_map(number).collect::<Vec<_>>();
        let five = [&[FIVE_NUMBERS][..], &numbers(5)].concat();
        let old = Ok(Some([1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(with(&five), old);
        assert_eq!(with(&[&[USAGE, 5, 0, 0, 0][..], &numbers(5)].concat()), old);
        let newer = [&[USAGE, 14, 0, 0, 0][..], &numbers(14)].concat();
        assert_eq!(
            with(&newer),
            Ok(Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))
        );
        assert_eq!(with(&[NO_USAGE]), Ok(None));
        assert_eq!(with(&[3]), Err(Damage::Impossible));
    }

    #[test]
    fn a_large_body_is_not_copied_and_a_small_one_keeps_nothing_else() {
        let large = encoded(&entry([1; 32], 100_000));
        let body = Entry::decode(&large).unwrap().body;
        assert!(large.as_ptr_range().contains(&body.as_ptr()));
        let small = encoded(&entry([1; 32], 100));
        let body = Entry::decode(&small).unwrap().body;
        assert!(!small.as_ptr_range().contains(&body.as_ptr()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = encoded(&entry([9; 32], 64));
        for at in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Entry::decode(&bad.into()).is_err(), "bit {at}");
        }
    }

    #[test]
    fn every_shortened_or_lengthened_form_is_noticed() {
        let good = encoded(&entry([9; 32], 64));
        for length in 0..good.len() {
            assert!(Entry::decode(&good.slice(..length)).is_err(), "{length}");
        }
        let longer: Bytes = [&good[..], b"x"].concat().into();
        assert_eq!(Entry::decode(&longer), Err(Damage::Checksum));
    }

    #[test]
    fn other_versions_and_strangers_are_told_apart() {
        let mut other = encoded(&entry([9; 32], 64)).to_vec();
        other[4] = 1;
        assert_eq!(Entry::decode(&other.into()), Err(Damage::OtherVersion));
        let stranger = Bytes::from_static(b"PK\x03\x04 and so on, long enough");
        assert_eq!(Entry::decode(&stranger), Err(Damage::NotOurs));
    }

    /// Damage that the checksum vouches for can only come from a mistake of ours, and still
    /// must neither panic nor ask for more memory than there are bytes.
    #[test]
    fn nonsense_with_the_right_checksum_is_refused_or_read() {
        let good = encoded(&entry([9; 32], 300));
        let content = content(&good);
        let mut random = noise(0x5eed);
        for _ in 0..50_000 {
            let mut bad = content.to_vec();
            for _ in 0..=random() % 4 {
                let at = START.len() + random() as usize % (bad.len() - START.len());
                bad[at] = random() as u8;
            }
            if let Ok(entry) = Entry::decode(&resummed(&bad).into()) {
                assert!(entry.weight() < 20 * good.len());
                assert_eq!(Entry::decode(&encoded(&entry)), Ok(entry));
            }
        }
    }

    #[test]
    fn counts_that_cannot_be_are_refused_before_room_is_made() {
        let good = encoded(&entry([9; 32], 300));
        let content = content(&good);
        for at in START.len()..content.len() - 4 {
            let mut bad = content.to_vec();
            bad[at..at + 4].fill(0xff);
            let _ = Entry::decode(&resummed(&bad).into());
        }
        for length in START.len()..content.len() {
            let short = resummed(&content[..length]).into();
            assert_eq!(Entry::decode(&short), Err(Damage::Impossible), "{length}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_each_other_are_refused() {
        let mut paced = entry([9; 32], 300);
        paced.pieces[0].length += 1;
        assert_eq!(Entry::decode(&encoded(&paced)), Err(Damage::Impossible));
        let mut status = entry([9; 32], 300);
        status.status = 0;
        assert_eq!(Entry::decode(&encoded(&status)), Err(Damage::Impossible));
    }

    #[test]
    fn the_weight_counts_everything() {
        let small = entry([9; 32], 0);
        assert!(small.weight() > size_of::<Entry>() + 160);
        let large = entry([9; 32], 1 << 20);
        assert_eq!(large.weight() - small.weight(), 1 << 20);
        let mut paced = entry([9; 32], 0);
        paced.pieces = vec![
            Piece {
                length: 0,
                after: 0
            };
            1024
        ]
        .into();
        assert_eq!(paced.weight() - small.weight(), 8192 - 16);
    }

    #[test]
    fn the_weight_rounds_as_the_allocator_does() {
        for (bytes, taken) in [
            (0, 0),
            (1, 16),
            (64, 64),
            (65, 80),
            (129, 160),
            (4097, 5120),
            (1 << 20, 1 << 20),
        ] {
            assert_eq!(allocated(bytes), taken, "{bytes}");
        }
    }

    #[test]
    fn an_entry_is_fresh_for_its_time_to_live() {
        let entry = entry([0; 32], 0);
        let stored = SystemTime::UNIX_EPOCH + Duration::from_millis(entry.stored);
        let moment = Duration::from_millis(1);
        assert!(entry.is_fresh(stored + entry.facts.ttl - moment));
        assert!(!entry.is_fresh(stored + entry.facts.ttl));
        assert_eq!(entry.age(stored - Duration::from_secs(1)), Duration::ZERO);
    }
}
