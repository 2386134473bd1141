//! The binary form of what the cache keeps on disk: numbers, texts and lists behind a start
//! that names the form and its version, and a checksum at the end over all of it.
//!
//! It is our own because it outlives the process: it must not depend on how a library lays
//! out a struct. Reading never panics and asks for no more memory than the bytes justify.
//!
//! Why BLAKE3 and not a CRC: a wrong answer served as a right one is the one mistake that a
//! cache must not make, and it is asked about every entry of a worn disk. 32 bits let one in
//! four billion damaged entries pass, and miss some bursts systematically; 128 bits of a
//! cryptographic hash let none pass, at about 2 GB/s, off the path of requests.

use std::fmt;
use std::io::{self, Write};

/// The bytes of the checksum: the first of the 32 of BLAKE3.
const CHECKSUM: usize = 16;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// They do not begin as they should.
    NotOurs,
    /// Another version of tollgate wrote them.
    OtherVersion,
    /// The checksum is not that of the bytes.
    Checksum,
    /// The checksum fits, but a length or a value cannot be.
    Impossible,
}

/// What lies between the start and the checksum of `bytes`, if both are right.
pub fn checked(bytes: &[u8], start: [u8; 5]) -> Result<Reader<'_>, Damage> {
    if !bytes.starts_with(&start[..4]) {
        return Err(Damage::NotOurs);
    }
    if bytes.get(4).is_some_and(|version| *version != start[4]) {
        return Err(Damage::OtherVersion);
    }
    let (content, sum) = bytes.split_last_chunk().ok_or(Damage::Checksum)?;
    if *sum != checksum(&blake3::hash(content)) {
        return Err(Damage::Checksum);
    }
    let rest = content.get(start.len()..).ok_or(Damage::Checksum)?;
    Ok(Reader(rest))
}

fn checksum(hash: &blake3::Hash) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM]);
    sum
}

/// Puts the right checksum behind `content`.
#[cfg(test)]
pub fn resummed(content: &[u8]) -> Vec<u8> {
    [content, &checksum(&blake3::hash(content))].concat()
}

/// `whole` without its checksum.
#[cfg(test)]
pub fn content(whole: &[u8]) -> &[u8] {
    &whole[..whole.len() - CHECKSUM]
}

/// Writes the parts of a form and sums them up on the way.
pub struct Writer<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Begins a form in `out` with `start`: four letters and a version.
    pub fn new(out: &'a mut W, start: [u8; 5]) -> io::Result<Self> {
        let hasher = blake3::Hasher::new();
        let mut writer = Self { out, hasher };
        writer.raw(&start)?;
        Ok(writer)
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    /// A number of 8 bytes.
    pub fn number(&mut self, number: u64) -> io::Result<()> {
        self.raw(&number.to_le_bytes())
    }

    /// A count or a length, of 4 bytes.
    pub fn count(&mut self, count: usize) -> io::Result<()> {
        let count = u32::try_from(count).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.raw(&count.to_le_bytes())
    }

    /// Bytes behind their length.
    pub fn sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count(bytes.len())?;
        self.raw(bytes)
    }

    /// A flag and, if it is set, the part.
    pub fn optional(&mut self, text: Option<&str>) -> io::Result<()> {
        self.raw(&[text.is_some().into()])?;
        text.map_or(Ok(()), |text| self.sized(text.as_bytes()))
    }

    /// Ends the form with its checksum.
    pub fn finish(self) -> io::Result<()> {
        self.out.write_all(&checksum(&self.hasher.finalize()))
    }
}

/// Takes the parts of a form off the front of its bytes.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damage::Impossible)?;
        self.0 = rest;
        Ok(taken)
    }

    /// As many bytes as the array has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Impossible)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A number of 8 bytes.
    pub fn number(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count or a length, of 4 bytes.
    pub fn count(&mut self) -> Result<usize, Damage> {
        let count = u32::from_le_bytes(self.array()?);
        usize::try_from(count).map_err(|_| Damage::Impossible)
    }

    /// Bytes behind their length.
    pub fn sized(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.count()?;
        self.take(length)
    }

    /// Text behind its length.
    pub fn text(&mut self) -> Result<Box<str>, Damage> {
        let text = std::str::from_utf8(self.sized()?).map_err(|_| Damage::Impossible)?;
        Ok(text.into())
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Damage> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Damage::Impossible),
        }
    }

    /// A flag and, if it is set, the part.
    pub fn optional<T>(
        &mut self,
        part: fn(&mut Self) -> Result<T, Damage>,
    ) -> Result<Option<T>, Damage> {
        self.flag()?.then(|| part(self)).transpose()
    }

    /// A list whose parts take at least `least` bytes each: a count that the rest cannot hold
    /// is refused before room is made for it.
    pub fn list<T>(
        &mut self,
        least: usize,
        part: fn(&mut Self) -> Result<T, Damage>,
    ) -> Result<Vec<T>, Damage> {
        let count = self.count()?;
        if count > self.0.len() / least {
            return Err(Damage::Impossible);
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(part(self)?);
        }
        Ok(list)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "not written by tollgate",
            Self::OtherVersion => "written by another version",
            Self::Checksum => "the checksum does not fit",
            Self::Impossible => "a length or a value cannot be",
        })
    }
}

impl std::error::Error for Damage {}
