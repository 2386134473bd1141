//! Several records in one zstd frame.
//!
//! A block is the length of its frame, of what is in it and of the room for it (4 bytes each,
//! little endian), the frame, and zeros up to the end of the room. A record is the entry's id (16 bytes), the
//! lengths of heads, request and answer (4 bytes each), flags, and these three. Heads are lines of
//! `name: value`, the request's, an empty line, the answer's: no value has a line end. They were
//! JSON once, which costs ten times as much to write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use uuid::Uuid;
use zstd::bulk::Compressor;

use super::{Body, Record};
use crate::logs::entry::{Head, Text};
use crate::record::Lines;

/// Most bytes of a block that are believed: more is damage.
const MOST: usize = 1 << 30;

/// Bytes before the frame.
const HEADER: usize = 12;

/// Room that a block has beyond its frame. What is left after an erasure is less, but where the
/// erased record was what the others repeat, its frame may be a little longer.
const SPARE: usize = 64;

/// Bytes of a record before its heads.
pub const RECORD_HEADER: usize = 29;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const REQUEST_COMPLETE: u8 = 4;
const RESPONSE_COMPLETE: u8 = 8;
const REQUEST_ENCODED: u8 = 16;
const RESPONSE_ENCODED: u8 = 32;
const HEADS_IN_LINES: u8 = 64;

/// One that adds a checksum.
pub fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

/// Adds a record to what will be a block.
pub fn push(plain: &mut Vec<u8>, id: Uuid, record: &Record<Lines>) {
    let start = plain.len();
    plain.extend(id.as_bytes());
    plain.extend([0; 12]);
    plain.push(flags(record) | HEADS_IN_LINES);
    plain.extend_from_slice(record.request_head.bytes());
    plain.push(b'\n');
    plain.extend_from_slice(record.response_head.bytes());
    let mut lengths = [plain.len() - start - RECORD_HEADER, 0, 0];
    for (length, body) in lengths[1..]
        .iter_mut()
        .zip([&record.request, &record.response])
    {
        let bytes = body.as_ref().map_or(&[][..], |body| &body.bytes);
        *length = bytes.len();
        plain.extend_from_slice(bytes);
    }
    for (at, length) in lengths.into_iter().enumerate() {
        let from = start + 16 + 4 * at;
        plain[from..from + 4].copy_from_slice(&(length as u32).to_le_bytes());
    }
}

/// Both heads, out of their lines.
fn heads_of_lines(bytes: &[u8]) -> Option<(Head, Head)> {
    let empty = match bytes.first()? {
        b'\n' => 0,
        _ => memchr::memmem::find(bytes, b"\n\n")? + 1,
    };
    Some((head(&bytes[..empty]), head(&bytes[empty + 1..])))
}

fn head(lines: &[u8]) -> Head {
    let text = |bytes: &[u8]| Text::Owned(String::from_utf8_lossy(bytes).into_owned());
    let lines = Lines::read(lines);
    lines
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn flags<H>(record: &Record<H>) -> u8 {
    let of = |body: &Option<Body>, here: u8, complete: u8, encoded: u8| {
        body.as_ref().map_or(0, |body| {
            here | if body.complete { complete } else { 0 } | if body.encoded { encoded } else { 0 }
        })
    };
    of(&record.request, REQUEST, REQUEST_COMPLETE, REQUEST_ENCODED)
        | of(
            &record.response,
            RESPONSE,
            RESPONSE_COMPLETE,
            RESPONSE_ENCODED,
        )
}

/// Adds a block of these records.
pub fn compress(compressor: &mut Compressor, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    let most = HEADER + zstd::zstd_safe::compress_bound(plain.len());
    out.resize(start + most, 0);
    let frame = compressor.compress_to_buffer(plain, &mut out[start + HEADER..])?;
    out.truncate(start + HEADER + frame);
    out.resize(start + HEADER + frame + SPARE, 0);
    write_header(&mut out[start..], [frame, plain.len(), frame + SPARE]);
    Ok(())
}

fn write_header(out: &mut [u8], numbers: [usize; 3]) {
    for (at, number) in numbers.into_iter().enumerate() {
        out[4 * at..4 * at + 4].copy_from_slice(&(number as u32).to_le_bytes());
    }
}

/// A block in memory.
pub struct Block {
    plain: Vec<u8>,
    /// Bytes that it may have in the file, without its header.
    room: usize,
}

impl Block {
    /// `None` when there is none, or a damaged one.
    pub fn read(file: &File, position: u64) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if !read_all(file, &mut header, position)? {
            return Ok(None);
        }
        let (length, plain, room) = (
            number(&header[..4]),
            number(&header[4..8]),
            number(&header[8..]),
        );
        let there = file
            .metadata()?
            .len()
            .saturating_sub(position + HEADER as u64);
        if length > room || room as u64 > there || plain > MOST {
            return Ok(None);
        }
        let mut frame = vec![0; length];
        if !read_all(file, &mut frame, position + HEADER as u64)? {
            return Ok(None);
        }
        let whole = zstd::bulk::decompress(&frame, plain)
            .ok()
            .filter(|found| found.len() == plain);
        Ok(whole.map(|plain| Self { plain, room }))
    }

    /// Where a record begins, and the lengths of its parts.
    fn find(&self, id: Uuid) -> Option<(usize, [usize; 3])> {
        let mut at = 0;
        loop {
            let header = self.plain.get(at..at + RECORD_HEADER)?;
            let lengths = [
                number(&header[16..20]),
                number(&header[20..24]),
                number(&header[24..28]),
            ];
            if header[..16] == id.as_bytes()[..] {
                return Some((at, lengths));
            }
            at += RECORD_HEADER + lengths.iter().sum::<usize>();
        }
    }

    /// An entry's record.
    pub fn record(&self, id: Uuid) -> Option<Record> {
        let (at, [heads, request, response]) = self.find(id)?;
        let flags = self.plain[at + RECORD_HEADER - 1];
        let (heads, bodies) = self
            .plain
            .get(at + RECORD_HEADER..)?
            .split_at_checked(heads)?;
        let (request, rest) = bodies.split_at_checked(request)?;
        let response = rest.get(..response)?;
        let (request_head, response_head) = match flags & HEADS_IN_LINES {
            0 => serde_json::from_slice(heads).ok()?,
            _ => heads_of_lines(heads)?,
        };
        let body = |bytes: &[u8], here: u8, complete: u8, encoded: u8| {
            (flags & here != 0).then(|| Body {
                bytes: Bytes::copy_from_slice(bytes),
                complete: flags & complete != 0,
                encoded: flags & encoded != 0,
            })
        };
        Some(Record {
            request_head,
            response_head,
            request: body(request, REQUEST, REQUEST_COMPLETE, REQUEST_ENCODED),
            response: body(response, RESPONSE, RESPONSE_COMPLETE, RESPONSE_ENCODED),
        })
    }

    /// Takes a record out; says whether it was there.
    pub fn erase(&mut self, id: Uuid) -> bool {
        let Some((at, lengths)) = self.find(id) else {
            return false;
        };
        let end = at + RECORD_HEADER + lengths.iter().sum::<usize>();
        self.plain.drain(at..end.min(self.plain.len()));
        true
    }

    /// What to write in its place, as long as it was; zeros if nothing is left of it. `None` when
    /// what is left finds no room, however well it is compressed.
    pub fn rewritten(&self) -> io::Result<Option<Vec<u8>>> {
        const LEVELS: [i32; 3] = [1, 9, 19];
        if self.plain.is_empty() {
            return Ok(Some(self.zeros()));
        }
        for level in LEVELS {
            let mut out = vec![0; HEADER + self.room];
            let frame = compressor(level)?.compress_to_buffer(&self.plain, &mut out[HEADER..]);
            if let Ok(frame) = frame {
                // Beyond the frame there may be rests of the attempt.
                out[HEADER + frame..].fill(0);
                write_header(&mut out, [frame, self.plain.len(), self.room]);
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    /// Nothing in its place.
    pub fn zeros(&self) -> Vec<u8> {
        vec![0; HEADER + self.room]
    }
}

/// `false` when the file ends before.
fn read_all(file: &File, bytes: &mut [u8], position: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, position) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_line_by_line() {
        let (none, mut some) = (Lines::default(), Lines::default());
        for (name, value) in [("a", &b"b: c"[..]), ("empty", b""), ("latin", b"\xe4")] {
            some.push(name.as_bytes(), value);
        }
        let read: Head = [("a", "b: c"), ("empty", ""), ("latin", "\u{fffd}")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let head = |of: &Lines| match of.bytes() {
            b"" => Head::new(),
            _ => read.clone(),
        };
        for request in [&none, &some] {
            for response in [&none, &some] {
                let mut plain = Vec::new();
                let record = Record {
                    request_head: request.clone(),
                    response_head: response.clone(),
                    ..Record::default()
                };
                push(&mut plain, Uuid::nil(), &record);
                let found = heads_of_lines(&plain[RECORD_HEADER..]);
                assert_eq!(found, Some((head(request), head(response))));
            }
        }
    }
}
