//! Heads and bodies, beside the rows: files that are only appended to, and removed whole.
//!
//! A segment is a row of blocks, a block a header and one zstd frame of several records, which
//! share what they have in common: half the bytes and two thirds of the time of a frame each.
//! A row says at which block of which segment its record is; the records of a block bear their
//! ids. Blocks are appended before their rows are committed, so a row never points past the
//! end of its file. Removing an entry rewrites its block in place, without the record and with
//! zeros at the end; the space comes back with the segment's end. Each process appends to segments of
//! its own, and rewrites blocks within a transaction, so one at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::Connection;
use uuid::Uuid;

use super::entry::Head;
use crate::record::Lines;

mod block;

use block::{Block, RECORD_HEADER};

/// Longest time one segment is appended to, in milliseconds: bodies may outlive their rows so
/// long when rows expire by age.
const LONGEST_OPEN: i64 = 3_600_000;

/// Most records of a block, and bytes of them after which a block ends.
const BLOCK_RECORDS: usize = 32;
const BLOCK_BYTES: usize = 64 << 10;

/// Most bytes of blocks that wait for the end of their batch to be written.
const PENDING: usize = 256 << 10;

/// zstd level of blocks in a hurry: 2,000 MB/s where level 1 makes 200.
const HURRIED: i32 = -50;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: i64,
    /// Byte at which its block begins.
    pub position: i64,
}

/// One body as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// Its bytes, without content encoding unless `encoded`.
    pub bytes: Bytes,
    /// It is all of it.
    pub complete: bool,
    /// Its content encoding could not be undone; the head says which.
    pub encoded: bool,
}

/// Heads and bodies as they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record<H = Head> {
    /// Head of the request.
    pub request_head: H,
    /// Head of the answer.
    pub response_head: H,
    /// Body of the request, where it was kept.
    pub request: Option<Body>,
    /// Body of the answer.
    pub response: Option<Body>,
}

/// The file of a segment.
pub fn path(dir: &Path, segment: i64) -> PathBuf {
    dir.join(format!("bodies-{segment:08}.zst"))
}

/// Appends records. What [`Appender::append`] takes is in the file after [`Appender::flush`], and
/// not sooner as a rule.
pub struct Appender {
    dir: PathBuf,
    most: u64,
    compressor: zstd::bulk::Compressor<'static>,
    /// The level that is wished, and the one that is used.
    level: i32,
    used: i32,
    /// The block that is being filled, and how many records it has.
    plain: Vec<u8>,
    records: usize,
    /// Blocks that are ready.
    pending: Vec<u8>,
    /// Bytes written since the last flush.
    written: usize,
    open: Option<Open>,
}

struct Open {
    segment: i64,
    file: File,
    length: u64,
    since: i64,
}

impl Appender {
    /// Segments of about `most` bytes, at this zstd level.
    pub fn new(dir: &Path, most: u64, level: i32) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            most,
            compressor: block::compressor(level)?,
            level,
            used: level,
            plain: Vec::new(),
            records: 0,
            pending: Vec::new(),
            written: 0,
            open: None,
        })
    }

    /// The segment that is being written.
    pub fn current(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.segment)
    }

    /// Opens a segment, or the next one when the current one is full or old. `now` is in
    /// milliseconds. Outside a transaction.
    pub fn ready(&mut self, connection: &Connection, now: i64) -> rusqlite::Result<io::Result<()>> {
        let full = |open: &Open| open.length >= self.most || now - open.since >= LONGEST_OPEN;
        if self.open.as_ref().is_some_and(|open| !full(open)) {
            return Ok(Ok(()));
        }
        self.give_up();
        connection.execute("INSERT INTO segments (newest) VALUES (?1)", [now])?;
        let segment = connection.last_insert_rowid();
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path(&self.dir, segment));
        Ok(file.map(|file| {
            self.open = Some(Open {
                segment,
                file,
                length: 0,
                since: now,
            })
        }))
    }

    /// Compresses the next blocks in a tenth of the time, so that little more than what repeats is
    /// saved, or as it was wished again.
    pub fn hurry(&mut self, hurried: bool) -> io::Result<()> {
        let level = match hurried {
            true => HURRIED,
            false => self.level,
        };
        if level != self.used {
            self.compressor.set_compression_level(level)?;
            self.used = level;
        }
        Ok(())
    }

    /// Takes a record, and says its place and its bytes before compression; `None` when no
    /// segment is open. After an error, everything since the last flush is lost.
    pub fn append(
        &mut self,
        id: Uuid,
        record: &Record<Lines>,
    ) -> io::Result<Option<(Place, usize)>> {
        let Some(open) = &self.open else {
            return Ok(None);
        };
        let position = open.length + self.pending.len() as u64;
        let place = Place {
            segment: open.segment,
            position: position as i64,
        };
        let before = self.plain.len();
        block::push(&mut self.plain, id, record);
        let length = self.plain.len() - before - RECORD_HEADER;
        self.records += 1;
        if self.records >= BLOCK_RECORDS || self.plain.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(Some((place, length)))
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.records > 0 {
            block::compress(&mut self.compressor, &self.plain, &mut self.pending)?;
            self.plain.clear();
            self.plain.shrink_to(8 << 20);
            self.records = 0;
        }
        match self.pending.len() > PENDING {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Writes what is pending; says how many bytes. After an error the segment is given up:
    /// nobody knows how much of it was written.
    pub fn flush(&mut self) -> io::Result<usize> {
        let result = self.end_block().and_then(|()| self.write());
        if result.is_err() {
            self.give_up();
        }
        result.map(|()| std::mem::take(&mut self.written))
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.file.write_all(&self.pending)?;
        self.written += self.pending.len();
        open.length += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(8 << 20);
        Ok(())
    }

    /// Leaves the segment, and what is not written.
    pub fn give_up(&mut self) {
        self.open = None;
        self.plain.clear();
        self.pending.clear();
        self.records = 0;
    }
}

/// Reads an entry's record; `None` when its segment expired, when it was removed, or when a
/// power cut took it.
pub fn read(dir: &Path, id: Uuid, place: Place) -> io::Result<Option<Record>> {
    let Some(file) = open(dir, place, false)? else {
        return Ok(None);
    };
    let block = Block::read(&file, place.position as u64)?;
    Ok(block.and_then(|block| block.record(id)))
}

/// Takes entries' records out of a block, and overwrites it. Within a transaction that nobody
/// else has.
pub fn erase(dir: &Path, ids: &[Uuid], place: Place) -> io::Result<()> {
    let Some(file) = open(dir, place, true)? else {
        return Ok(());
    };
    let position = place.position as u64;
    let Some(mut block) = Block::read(&file, position)? else {
        return Ok(());
    };
    if ids.iter().filter(|id| block.erase(**id)).count() == 0 {
        return Ok(());
    }
    let rewritten = block.rewritten()?.unwrap_or_else(|| {
        // Rather nothing than what was to be removed.
        log::error!("the bodies beside the removed ones at {place:?} found no room and are lost");
        block.zeros()
    });
    file.write_all_at(&rewritten, position)
}

fn open(dir: &Path, place: Place, write: bool) -> io::Result<Option<File>> {
    match OpenOptions::new()
        .read(true)
        .write(write)
        .open(path(dir, place.segment))
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As it is written.
    fn lines(text: &str) -> Record<Lines> {
        let Record { request, .. } = record(text);
        let mut head = Lines::default();
        head.push(b"accept", b"b: c");
        head.push(b"cookie", b"");
        Record {
            request_head: head,
            request,
            ..Record::default()
        }
    }

    /// As it is read.
    fn record(text: &str) -> Record {
        Record {
            request_head: vec![
                ("accept".into(), "b: c".into()),
                ("cookie".into(), "".into()),
            ],
            response_head: Vec::new(),
            request: Some(Body {
                bytes: Bytes::copy_from_slice(text.as_bytes()),
                complete: true,
                encoded: false,
            }),
            response: None,
        }
    }

    #[test]
    fn records_come_back_until_they_are_erased() {
        let dir = tempfile::tempdir().unwrap();
        let connection = super::super::schema::open(dir.path()).unwrap();
        let mut appender = Appender::new(dir.path(), 1, 1).unwrap();
        let ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
        let mut places = Vec::new();
        for (id, text) in ids.iter().zip(["x", "y", "z"]) {
            appender.ready(&connection, 0).unwrap().unwrap();
            places.push(appender.append(*id, &lines(text)).unwrap().unwrap().0);
            if text != "x" {
                appender.flush().unwrap();
            }
        }
        let segments: Vec<_> = places.iter().map(|place| place.segment).collect();
        assert_eq!(
            segments,
            [1, 1, 2],
            "a full segment is followed by the next"
        );
        let read = |at: usize| read(dir.path(), ids[at], places[at]).unwrap();
        assert_eq!(read(0), Some(record("x")));
        assert_eq!(read(2), Some(record("z")));
        erase(dir.path(), &ids[..1], places[0]).unwrap();
        erase(dir.path(), &ids[..1], places[0]).unwrap();
        assert_eq!(read(0), None);
        assert_eq!(read(1), Some(record("y")));
        erase(dir.path(), &ids, places[1]).unwrap();
        let bytes = std::fs::read(path(dir.path(), 1)).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "nothing is left");
        std::fs::remove_file(path(dir.path(), 2)).unwrap();
        assert_eq!(read(2), None);
    }

    /// However alike the records of a block are, and in whatever order they go.
    #[test]
    fn the_others_of_a_block_stay() {
        for text in [String::new(), "the same words ".repeat(40)] {
            for from in [0, 1, 7] {
                erased_one_by_one(&text, from);
            }
        }
    }

    fn erased_one_by_one(text: &str, from: usize) {
        let dir = tempfile::tempdir().unwrap();
        let connection = super::super::schema::open(dir.path()).unwrap();
        let mut appender = Appender::new(dir.path(), 1 << 20, 1).unwrap();
        appender.ready(&connection, 0).unwrap().unwrap();
        let mut left: Vec<_> = (0..BLOCK_RECORDS)
            .map(|at| (Uuid::now_v7(), format!("{text}{}", at % 3)))
            .collect();
        let places: Vec<_> = left
            .iter()
            .map(|(id, text)| appender.append(*id, &lines(text)).unwrap().unwrap().0)
            .collect();
        appender.flush().unwrap();
        let length = std::fs::metadata(path(dir.path(), 1)).unwrap().len();
        while !left.is_empty() {
            let (id, _) = left.remove(from % left.len());
            erase(dir.path(), &[id], places[0]).unwrap();
            assert_eq!(read(dir.path(), id, places[0]).unwrap(), None);
            for (id, text) in &left {
                assert_eq!(
                    read(dir.path(), *id, places[0]).unwrap(),
                    Some(record(text))
                );
            }
        }
        assert_eq!(
            std::fs::metadata(path(dir.path(), 1)).unwrap().len(),
            length
        );
    }

    #[test]
    fn damage_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let connection = super::super::schema::open(dir.path()).unwrap();
        let mut appender = Appender::new(dir.path(), 1000, 1).unwrap();
        appender.ready(&connection, 0).unwrap().unwrap();
        let id = Uuid::now_v7();
        let (place, length) = appender.append(id, &lines("x")).unwrap().unwrap();
        assert_eq!(length, "accept: b: c\ncookie: \n\nx".len());
        appender.flush().unwrap();
        let whole = std::fs::read(path(dir.path(), 1)).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x80;
            std::fs::write(path(dir.path(), 1), &broken).unwrap();
            let found = read(dir.path(), id, place).unwrap();
            // The room and the zeros at the end say nothing about the record.
            let harmless = (8..12).contains(&at) || at >= whole.len() - 64;
            assert!(
                found.is_none() || harmless && found == Some(record("x")),
                "byte {at}"
            );
            std::fs::write(path(dir.path(), 1), &whole[..at]).unwrap();
            assert_eq!(read(dir.path(), id, place).unwrap(), None, "{at} bytes");
        }
    }
}
