//! How the log grows at its end and gives up its beginning. Only the thread that owns the
//! disk does this.
//!
//! Records are gathered into one batch, which one call writes; the index learns of them
//! afterwards, so that nobody reads what is not there yet. When there is no room the oldest
//! segment goes. What was read of it since it was written gets a second chance at the end of
//! the log, as long as that takes at most a quarter of what is gained.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::index::{BLOCK, Index, LONGEST, Place};
use super::record::{HEADER, Header};
use super::{BATCH, Shared, hash, locked};
use crate::cache::entry::Entry;
use crate::cache::tiers::Tier;

/// A second chance costs at most this part of what its segment gives up.
const RESCUED: u64 = 4;
/// So many entries are dealt with before others get at the index again.
const AT_ONCE: usize = 512;
/// A segment takes this part of the disk, within [`SMALLEST`] and [`USUAL`].
const SEGMENTS: u64 = 64;
const SMALLEST: u64 = 1 << 20;
const USUAL: u64 = 64 << 20;
/// Each segment is an open file, so on a large disk they are larger than usual.
const MOST_SEGMENTS: u64 = 128;
/// On a very small disk they are smaller, or a segment would be all there is.
const FEWEST_SEGMENTS: u64 = 16;
/// Offsets have 32 bits.
const LARGEST: u64 = 2 << 30;
/// No entry takes more than this part of the disk.
const OF_AN_ENTRY: u64 = 8;

/// What the directory may take, and how that is divided.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The bytes of all segments.
    all: u64,
    /// The bytes of one segment.
    segment: u64,
    /// The bytes of one record; one that is larger than a segment has one of its own.
    record: u64,
    /// How many segments there may be: every opening begins one, however little it gets.
    segments: usize,
}

impl Bounds {
    /// The bounds of a directory that may take `size` bytes.
    pub fn new(size: u64) -> Self {
        let usual = (size / SEGMENTS).clamp(SMALLEST, USUAL);
        let segment = usual
            .max(size / MOST_SEGMENTS)
            .min(size / FEWEST_SEGMENTS)
            .clamp(1, LARGEST);
        Self {
            // The directory takes room too, and so does what gets a second chance, until the
            // segment that it comes from is gone.
            all: size - size / 32 - segment / RESCUED,
            segment,
            record: (size / OF_AN_ENTRY).min(LONGEST),
            segments: usize::try_from(size / segment * 2 + 64).unwrap_or(usize::MAX),
        }
    }

    fn are_met(&self, index: &Index, more: u64) -> bool {
        index.bytes() + more <= self.all && index.segments() <= self.segments
    }
}

/// The end of the log.
pub struct Appender<'a> {
    shared: &'a Shared,
    current: Option<Current>,
    /// The number of the next segment; none is left after 4 billion.
    next: Option<u32>,
    batch: Batch,
}

/// The segment that is being written.
struct Current {
    number: u32,
    file: Arc<File>,
    length: u64,
}

/// What one call writes.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The headers in it, and where they are.
    records: Vec<(usize, Header)>,
}

impl Batch {
    /// Adds the record that begins at `start`, where room was left for its header.
    fn add(&mut self, start: usize, header: Header) {
        if let Some(room) = self.bytes.get_mut(start..start + HEADER) {
            room.copy_from_slice(&header.encode());
        }
        self.records.push((start, header));
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        // What one large entry took is not kept for ever.
        self.bytes.shrink_to(2 * BATCH);
    }
}

impl<'a> Appender<'a> {
    /// Begins a new segment `next`, as soon as there is something to write.
    pub fn new(shared: &'a Shared, next: Option<u32>) -> Self {
        Self {
            shared,
            current: None,
            next,
            batch: Batch::default(),
        }
    }

    /// Has `entry` written with the batch, unless it is over or too large.
    ///
    /// # Errors
    /// The disk fails; what was in the batch before is lost.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let most = self.shared.bounds.record;
        let expires = expires(entry);
        if expires <= seconds() || entry.body.len() as u64 > most {
            return Ok(());
        }
        let bytes = &mut self.batch.bytes;
        let start = bytes.len();
        bytes.resize(start + HEADER, 0);
        let encoded = entry.encode(bytes);
        let length = bytes.len() - start - HEADER;
        if encoded.is_err() || (length + HEADER) as u64 > most {
            bytes.truncate(start);
            return encoded;
        }
        let header = Header {
            hash: hash(&entry.facts.key),
            // It is at most `LONGEST`.
            length: length as u32,
            expires,
        };
        self.add(start, header)
    }

    /// Has it written with the batch that what was stored under `hash` is removed.
    ///
    /// # Errors
    /// The disk fails; what was in the batch before is lost.
    pub fn remove(&mut self, hash: u64) -> io::Result<()> {
        let start = self.batch.bytes.len();
        self.batch.bytes.resize(start + HEADER, 0);
        self.add(start, Header::removal(hash))
    }

    /// Adds the record at `start`; if the segment has no room for it, what is in front of it
    /// is written now.
    fn add(&mut self, start: usize, header: Header) -> io::Result<()> {
        let used = self.current.as_ref().map_or(0, |current| current.length);
        if start == 0 || used + self.batch.bytes.len() as u64 <= self.shared.bounds.segment {
            self.batch.add(start, header);
            return Ok(());
        }
        let record = self.batch.bytes.split_off(start);
        let flushed = self.flush();
        self.batch.bytes.extend_from_slice(&record);
        self.batch.add(0, header);
        flushed
    }

    /// Writes the batch.
    ///
    /// # Errors
    /// The disk fails; the batch is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.batch.records.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let room = self.make_room(batch.bytes.len() as u64);
        let stored = room.and_then(|()| self.store(&batch));
        if stored.is_ok() {
            locked(&self.shared.writing).right();
            let entries = batch.records.iter().filter(|(_, header)| header.length > 0);
            entries.for_each(|(_, header)| self.shared.watch.stored(Tier::Disk, header.whole()));
        }
        batch.clear();
        self.batch = batch;
        stored
    }

    fn store(&mut self, batch: &Batch) -> io::Result<()> {
        let length = batch.bytes.len() as u64;
        let mut current = self.current_with(length)?;
        #[cfg(test)]
        self.shared
            .hooks
            .writes
            .fetch_add(1, super::Ordering::Relaxed);
        if let Err(error) = current.file.write_all_at(&batch.bytes, current.length) {
            // Half a record must not be in front of the next. The segment is left as it is
            // if that fails too.
            if current.file.set_len(current.length).is_ok() {
                self.current = Some(current);
            }
            return Err(error);
        }
        self.publish(&current, batch);
        current.length += length;
        self.current = Some(current);
        Ok(())
    }

    /// Takes the segment that `length` bytes go to.
    fn current_with(&mut self, length: u64) -> io::Result<Current> {
        match self.current.take() {
            Some(current) if current.length + length <= self.shared.bounds.segment => {
                return Ok(current);
            }
            Some(full) => {
                self.shared.indexed(|index| index.seal(full.number));
            }
            None => {}
        }
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> io::Result<Current> {
        loop {
            let number = self.next.ok_or(io::ErrorKind::StorageFull)?;
            let file = match self.shared.directory.create(number) {
                // A stranger has that name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                file => Some(Arc::new(file?)),
            };
            self.next = number.checked_add(1);
            if let Some(file) = file {
                let known = file.clone();
                self.shared.indexed(|index| index.add(number, known, 0));
                return Ok(Current {
                    number,
                    file,
                    length: 0,
                });
            }
        }
    }

    /// Tells the index of what was written.
    fn publish(&self, current: &Current, batch: &Batch) {
        let end = current.length + batch.bytes.len() as u64;
        self.shared
            .indexed(|index| index.resize(current.number, end));
        for records in batch.records.chunks(AT_ONCE) {
            self.shared.indexed(|index| {
                for (start, header) in records {
                    // No segment is longer than what fits, but for one with a single record.
                    let offset = current.length as u32 + *start as u32;
                    index.put(header.hash, Place::new(current.number, offset, header));
                }
            });
        }
    }

    /// Gives up segments until `bytes` more fit.
    ///
    /// # Errors
    /// A segment cannot be deleted.
    pub fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        // The last block of a segment may be begun.
        let more = bytes + BLOCK;
        let bounds = self.shared.bounds;
        let oldest = |index: &mut Index| index.oldest().filter(|_| !bounds.are_met(index, more));
        while let Some(oldest) = self.shared.indexed(oldest).flatten() {
            self.give_up(oldest)?;
        }
        Ok(())
    }

    fn give_up(&mut self, number: u32) -> io::Result<()> {
        // First, so that all is as it was if that fails. The open file can still be read.
        self.shared.directory.remove(number)?;
        self.current.take_if(|current| current.number == number);
        let hashes = |index: &mut Index| index.hashes(number);
        let Some((hashes, file, length)) = self.shared.indexed(hashes).flatten() else {
            return Ok(());
        };
        if let Err(error) = self.rescue(number, &file, length, &hashes) {
            self.shared.not_written(&error);
        }
        self.forget(number, &hashes);
        // Closing the file is what frees its blocks; nobody should wait for that.
        let segment = self.shared.indexed(|index| index.drop_segment(number));
        drop((segment, file));
        Ok(())
    }

    /// Appends anew what was used of a segment.
    fn rescue(&mut self, number: u32, file: &File, length: u64, hashes: &[u64]) -> io::Result<()> {
        let mut left = length.min(self.shared.bounds.segment) / RESCUED;
        let mut batch = Batch::default();
        let now = seconds();
        for hash in hashes {
            let used = |index: &mut Index| index.take_used(*hash, number, now);
            let used = self.shared.indexed(used).flatten();
            let Some(place) = used.filter(|place| place.whole() <= left) else {
                continue;
            };
            if copy(file, &place, *hash, &mut batch) {
                left -= place.whole();
            }
            if batch.bytes.len() >= BATCH {
                self.store(&batch)?;
                batch.clear();
            }
        }
        if batch.records.is_empty() {
            return Ok(());
        }
        self.store(&batch)
    }

    /// Forgets what is still in a segment.
    fn forget(&self, number: u32, hashes: &[u64]) {
        let now = seconds();
        for hashes in hashes.chunks(AT_ONCE) {
            let mut live = Vec::new();
            self.shared.indexed(|index| {
                let places = hashes.iter();
                let places = places.filter_map(|hash| index.remove_from(*hash, number));
                live.extend(places.filter(|place| place.expires > now));
            });
            for place in live {
                self.shared.watch.evicted(Tier::Disk, place.whole());
            }
        }
    }
}

/// Adds the record at `place` to `batch`, if it can be read and has the header that it should.
fn copy(file: &File, place: &Place, hash: u64, batch: &mut Batch) -> bool {
    let start = batch.bytes.len();
    batch.bytes.resize(start + place.whole() as usize, 0);
    let record = &mut batch.bytes[start..];
    let read = file.read_exact_at(record, u64::from(place.offset));
    let header = Header::decode(record);
    let header = header.filter(|header| (header.hash, header.length) == (hash, place.length()));
    match (read, header) {
        (Ok(()), Some(header)) => batch.add(start, header),
        _ => batch.bytes.truncate(start),
    }
    batch.bytes.len() > start
}

impl Shared {
    /// What `work` finds in the index while this process owns the disk.
    pub(super) fn indexed<T>(&self, work: impl FnOnce(&mut Index) -> T) -> Option<T> {
        locked(&self.index).as_mut().map(work)
    }
}

/// When `entry` is of no use any more, in seconds since 1970.
fn expires(entry: &Entry) -> u32 {
    let stored = Duration::from_millis(entry.stored);
    let expires = stored.saturating_add(entry.facts.ttl).as_secs();
    u32::try_from(expires).unwrap_or(u32::MAX)
}

/// Now, in seconds since 1970.
pub fn seconds() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u32::try_from(now.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_few_and_no_entry_takes_more_than_an_eighth() {
        const MIB: u64 = 1 << 20;
        for (size, segment) in [
            (MIB, MIB / 16),
            (16 * MIB, MIB),
            (1024 * MIB, 16 * MIB),
            (8 * 1024 * MIB, 64 * MIB),
            (20 * 1024 * MIB, 160 * MIB),
            (4 << 40, LARGEST),
        ] {
            let bounds = Bounds::new(size);
            assert_eq!(bounds.segment, segment, "{size}");
            assert!(bounds.all + segment / RESCUED < size);
            assert!(bounds.record <= size / 8);
        }
        assert_eq!(Bounds::new(0).all, 0);
    }
}
