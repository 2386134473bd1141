//! What is on disk: one small slot per entry, and which of them goes when room is needed.
//!
//! The victim is the least recently used of a few that are drawn by chance, as Redis does it:
//! nearly as good as an exact order, without its two links per entry. With its place in the
//! table a slot takes about 50 bytes of memory per file of at least 4 KiB.

use ahash::AHashMap;

/// The unit in which a file's size is counted, as most file systems do.
pub const BLOCK: u64 = 4096;

/// How many slots the victim is chosen from.
const DRAWN: usize = 16;

/// One entry on disk. All of it but `used` is also in the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The first 8 bytes of its key. Two keys that share them replace each other; each is read
    /// only as what it is, because its file holds its whole key.
    pub hash: u64,
    /// The size of its file in blocks.
    pub blocks: u32,
    /// When it is no longer of use: seconds since 1970.
    pub expires: u32,
    /// When it was last used, in uses of anything; 0 if not since the disk was opened.
    pub used: u32,
}

impl Slot {
    /// The bytes that it takes on disk.
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    /// Whether `other` is the same file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.hash, self.blocks, self.expires) == (other.hash, other.blocks, other.expires)
    }
}

/// The slots of all entries on disk.
#[derive(Debug)]
pub struct Index {
    slots: Vec<Slot>,
    places: AHashMap<u64, u32>,
    bytes: u64,
    uses: u32,
    chance: u64,
}

impl Index {
    /// An empty index that draws by `chance`.
    pub fn new(chance: u64) -> Self {
        Self {
            slots: Vec::new(),
            places: AHashMap::new(),
            bytes: 0,
            uses: 0,
            // The generator stands still at zero.
            chance: chance.max(1),
        }
    }

    /// The bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The slot of `hash`, without using it.
    pub fn get(&self, hash: u64) -> Option<Slot> {
        let place = *self.places.get(&hash)?;
        self.slots.get(place as usize).copied()
    }

    /// The slot of `hash`, which is thereby used.
    pub fn touch(&mut self, hash: u64) -> Option<Slot> {
        self.uses = self.uses.wrapping_add(1).max(1);
        let place = *self.places.get(&hash)?;
        let slot = self.slots.get_mut(place as usize)?;
        slot.used = self.uses;
        Some(*slot)
    }

    /// Adds `slot`; returns the one that it replaces.
    pub fn insert(&mut self, slot: Slot) -> Option<Slot> {
        let replaced = self.remove(slot.hash);
        // 4 billion files of a block each are 16 TiB; a larger disk is not filled.
        if let Ok(place) = u32::try_from(self.slots.len()) {
            self.places.insert(slot.hash, place);
            self.bytes += slot.bytes();
            self.slots.push(slot);
        }
        replaced
    }

    /// Takes out the slot of `hash`.
    pub fn remove(&mut self, hash: u64) -> Option<Slot> {
        let place = self.places.remove(&hash)?;
        let slot = self.slots.swap_remove(place as usize);
        if let Some(moved) = self.slots.get(place as usize) {
            self.places.insert(moved.hash, place);
        }
        self.bytes -= slot.bytes();
        Some(slot)
    }

    /// Takes out the slot whose file should go first at `now`, in seconds since 1970.
    pub fn victim(&mut self, now: u32) -> Option<Slot> {
        let drawn: [usize; DRAWN] = std::array::from_fn(|_| self.draw());
        let unused = |slot: &&Slot| {
            let expired = slot.expires <= now;
            let idle = self.uses.wrapping_sub(slot.used);
            // Of those not used since the disk was opened, the one that ends first.
            (expired, slot.used == 0, idle, u32::MAX - slot.expires)
        };
        let slots = drawn.iter().filter_map(|place| self.slots.get(*place));
        let hash = slots.max_by_key(unused)?.hash;
        self.remove(hash)
    }

    fn draw(&mut self) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let count = self.slots.len().max(1) as u64;
        usize::try_from(self.chance % count).unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slot(hash: u64, expires: u32) -> Slot {
        Slot {
            hash,
            blocks: 2,
            expires,
            used: 0,
        }
    }

    #[test]
    fn bytes_follow_what_is_there() {
        let mut index = Index::new(1);
        for hash in 0..100 {
            assert_eq!(index.insert(slot(hash, 10)), None);
        }
        assert_eq!(index.bytes(), 100 * 2 * BLOCK);
        assert_eq!(index.insert(slot(7, 11)), Some(slot(7, 10)));
        for hash in (0..100).rev() {
            assert_eq!(index.get(hash).unwrap().hash, hash);
            assert!(index.remove(hash).is_some());
        }
        assert_eq!((index.bytes(), index.victim(0)), (0, None));
    }

    #[test]
    fn what_is_used_stays_longer() {
        let mut index = Index::new(99);
        for hash in 0..1000 {
            index.insert(slot(hash, 10));
        }
        let mut lost = 0;
        for _ in 0..500 {
            for hash in 0..100 {
                index.touch(hash);
            }
            lost += usize::from(index.victim(0).unwrap().hash < 100);
        }
        assert!(lost < 5, "{lost} of the used ones were lost");
    }

    #[test]
    fn what_is_over_goes_first() {
        let mut index = Index::new(5);
        index.insert(slot(1, 10));
        index.insert(slot(2, 30));
        index.touch(1);
        assert_eq!(index.victim(20).unwrap().hash, 1);
    }
}
