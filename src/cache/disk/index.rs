//! What is on disk: where each entry lies, and of each segment what is needed to forget it.
//!
//! An entry takes 25 bytes in a table that is between 7/16 and 7/8 full, and 8 in the list of
//! its segment: 37 to 65 bytes, about 50.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use ahash::AHashMap;

use super::record::{HEADER, Header};

/// The unit in which a file's size is counted, as most file systems do.
pub const BLOCK: u64 = 4096;
/// A table that grows is copied while requests wait for it, so there are many small ones.
const TABLES: u64 = 64;
/// The bit of a place's length that says that it was read.
const USED: u32 = 1 << 31;
/// The largest length that a place can have.
pub const LONGEST: u64 = (USED - 1) as u64;

/// Where an entry lies. The derived order is that in which records were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of its segment.
    pub segment: u32,
    /// Where its record begins.
    pub offset: u32,
    length: u32,
    /// When it is no longer of use: seconds since 1970.
    pub expires: u32,
}

impl Place {
    /// The place of the record with `header` at `offset` of `segment`.
    pub fn new(segment: u32, offset: u32, header: &Header) -> Self {
        Self {
            segment,
            offset,
            length: header.length & !USED,
            expires: header.expires,
        }
    }

    /// The bytes of the entry.
    pub fn length(&self) -> u32 {
        self.length & !USED
    }

    /// The bytes of the record.
    pub fn whole(&self) -> u64 {
        HEADER as u64 + u64::from(self.length())
    }

    /// Whether `other` is the same record.
    pub fn is_same_record(&self, other: &Self) -> bool {
        self.position() == other.position()
    }

    fn position(&self) -> (u32, u32) {
        (self.segment, self.offset)
    }

    fn is_removal(&self) -> bool {
        self.length() == 0
    }
}

/// What is known of a segment.
#[derive(Debug)]
pub struct Segment {
    /// Its file, open while it is there.
    pub file: Arc<File>,
    /// Its length.
    pub length: u64,
    /// What was stored in it; some of it may be elsewhere by now.
    hashes: Vec<u64>,
}

impl Segment {
    fn blocks(&self) -> u64 {
        self.length.next_multiple_of(BLOCK)
    }
}

/// The places of all entries on disk, and the segments.
#[derive(Debug)]
pub struct Index {
    tables: Vec<AHashMap<u64, Place>>,
    segments: BTreeMap<u32, Segment>,
    bytes: u64,
    /// While the disk is opened, newest segment first, a removal has to be remembered until
    /// all that is older is known.
    removed: Option<Vec<u64>>,
}

impl Index {
    /// An empty index, of a disk that is being opened.
    pub fn opening() -> Self {
        Self {
            tables: (0..TABLES).map(|_| AHashMap::new()).collect(),
            segments: BTreeMap::new(),
            bytes: 0,
            removed: Some(Vec::new()),
        }
    }

    /// All that was on disk is known.
    pub fn opened(&mut self) {
        for hash in self.removed.take().into_iter().flatten() {
            if self.get(hash).is_some_and(|place| place.is_removal()) {
                self.remove(hash);
            }
        }
    }

    /// The bytes that the segments take on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The number of the oldest segment.
    pub fn oldest(&self) -> Option<u32> {
        self.segments.first_key_value().map(|(number, _)| *number)
    }

    /// The newest segment in front of `number`: its number, its file and its length.
    pub fn before(&self, number: u32) -> Option<(u32, Arc<File>, u64)> {
        let (number, segment) = self.segments.range(..number).next_back()?;
        Some((*number, segment.file.clone(), segment.length))
    }

    /// Adds a segment of which nothing is known but its file.
    pub fn add(&mut self, number: u32, file: Arc<File>, length: u64) {
        let segment = Segment {
            file,
            length,
            hashes: Vec::new(),
        };
        self.bytes += segment.blocks();
        self.segments.insert(number, segment);
    }

    /// A segment has `length` bytes now.
    pub fn resize(&mut self, number: u32, length: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            self.bytes -= segment.blocks();
            segment.length = length;
            self.bytes += segment.blocks();
        }
    }

    /// Nothing more is stored in a segment.
    pub fn seal(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.hashes.shrink_to_fit();
        }
    }

    /// What was stored in a segment, the segment itself and its file; to be forgotten.
    pub fn hashes(&mut self, number: u32) -> Option<(Vec<u64>, Arc<File>, u64)> {
        let segment = self.segments.get_mut(&number)?;
        let hashes = std::mem::take(&mut segment.hashes);
        Some((hashes, segment.file.clone(), segment.length))
    }

    /// Takes out a segment, whose entries are forgotten.
    pub fn drop_segment(&mut self, number: u32) -> Option<Segment> {
        let segment = self.segments.remove(&number)?;
        self.bytes -= segment.blocks();
        Some(segment)
    }

    /// Notes a record at `place`, unless a later one is known. One without an entry removes.
    pub fn put(&mut self, hash: u64, place: Place) {
        let known = self.get(hash);
        if known.is_some_and(|known| known.position() > place.position()) {
            return;
        }
        match &mut self.removed {
            None if place.is_removal() => {
                self.remove(hash);
                return;
            }
            Some(removed) if place.is_removal() => removed.push(hash),
            _ => {
                if let Some(segment) = self.segments.get_mut(&place.segment) {
                    segment.hashes.push(hash);
                }
            }
        }
        self.table(hash).insert(hash, place);
    }

    /// The place of `hash`, without using it.
    pub fn get(&self, hash: u64) -> Option<Place> {
        let table = self.tables.get((hash % TABLES) as usize)?;
        table.get(&hash).copied()
    }

    /// The place of `hash`, which is thereby used, and the file of its segment.
    pub fn find(&mut self, hash: u64) -> Option<(Place, Arc<File>)> {
        let place = self.table(hash).get_mut(&hash)?;
        if place.is_removal() {
            return None;
        }
        place.length |= USED;
        let place = *place;
        let segment = self.segments.get(&place.segment)?;
        Some((place, segment.file.clone()))
    }

    /// The place of `hash` if it is in `segment`, still of use at `now`, and was used; from
    /// then on it was not.
    pub fn take_used(&mut self, hash: u64, segment: u32, now: u32) -> Option<Place> {
        let place = self.table(hash).get_mut(&hash)?;
        let is_used = place.length & USED != 0;
        if place.segment != segment || place.expires <= now || !is_used {
            return None;
        }
        place.length &= !USED;
        Some(*place)
    }

    /// Takes out the place of `hash`.
    pub fn remove(&mut self, hash: u64) -> Option<Place> {
        self.table(hash).remove(&hash)
    }

    /// Takes out the place of `hash` if it is in `segment`.
    pub fn remove_from(&mut self, hash: u64, segment: u32) -> Option<Place> {
        let place = self.get(hash)?;
        if place.segment == segment && !place.is_removal() {
            self.remove(hash)
        } else {
            None
        }
    }

    fn table(&mut self, hash: u64) -> &mut AHashMap<u64, Place> {
        &mut self.tables[(hash % TABLES) as usize]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(segment: u32, offset: u32, length: u32) -> Place {
        let header = Header {
            hash: 0,
            length,
            expires: 10,
        };
        Place::new(segment, offset, &header)
    }

    fn index(segments: u32) -> Index {
        let mut index = Index::opening();
        for number in 1..=segments {
            let file = Arc::new(tempfile::tempfile().unwrap());
            index.add(number, file, 5000);
        }
        index
    }

    #[test]
    fn a_place_takes_16_bytes() {
        assert_eq!(size_of::<(u64, Place)>(), 24);
    }

    #[test]
    fn the_later_record_wins_in_whatever_order_they_come() {
        let mut index = index(2);
        index.put(1, place(2, 0, 5));
        index.put(1, place(1, 700, 5));
        assert_eq!(index.get(1), Some(place(2, 0, 5)));
        index.put(1, place(2, 40, 5));
        assert_eq!(index.get(1), Some(place(2, 40, 5)));
    }

    #[test]
    fn a_removal_holds_against_what_is_found_later_and_leaves_nothing() {
        let mut index = index(2);
        index.put(1, place(2, 0, 0));
        index.put(1, place(1, 0, 5));
        index.put(2, place(2, 40, 0));
        index.put(2, place(2, 80, 5));
        assert!(index.find(1).is_none());
        index.opened();
        assert_eq!((index.get(1), index.get(2)), (None, Some(place(2, 80, 5))));
        index.put(2, place(2, 120, 0));
        assert_eq!(index.get(2), None);
    }

    #[test]
    fn bytes_follow_the_segments() {
        let mut index = index(2);
        assert_eq!((index.bytes(), index.segments()), (4 * BLOCK, 2));
        index.resize(2, 9000);
        assert_eq!((index.bytes(), index.oldest()), (5 * BLOCK, Some(1)));
        assert_eq!(index.before(2).unwrap().0, 1);
        assert!(index.before(1).is_none());
        assert_eq!(index.drop_segment(1).unwrap().length, 5000);
        assert_eq!(index.bytes(), 3 * BLOCK);
    }

    #[test]
    fn what_is_used_is_told_once() {
        let mut index = index(2);
        index.put(1, place(1, 0, 5));
        assert_eq!(index.take_used(1, 1, 0), None);
        index.find(1).unwrap();
        assert_eq!(index.take_used(1, 2, 0), None);
        assert_eq!(index.take_used(1, 1, 10), None);
        assert_eq!(index.take_used(1, 1, 9), Some(place(1, 0, 5)));
        assert_eq!(index.take_used(1, 1, 9), None);
        assert_eq!(index.remove_from(1, 2), None);
        assert!(index.remove_from(1, 1).is_some());
    }
}
