//! What is kept of a body that streams through, for the record of its request: for the log store,
//! and because a provider that does not say how many tokens it read leaves only the text to go by.

use bytes::Bytes;

use crate::memory::Reservation;
use crate::record::Begun;

/// Most bytes that are kept of a request's body to count its tokens by.
pub const TO_COUNT: usize = 256 << 10;

/// What a piece takes besides its bytes, about.
const PIECE: u64 = 64;

/// The beginning of a body, within the memory of all held bodies.
#[derive(Debug)]
pub struct Kept {
    pieces: Vec<Bytes>,
    /// Bytes that may still be kept.
    room: usize,
    /// Most bytes of this body that are kept.
    most: usize,
    /// What is reserved for it.
    reserved: u64,
    memory: Reservation,
    /// Most bytes of all held bodies together.
    limit: u64,
    /// Something of it is not kept: what is behind it would have no beginning.
    full: bool,
}

impl Kept {
    /// Keeps nothing yet, and at most `most` bytes, for which `limit` has room.
    pub fn new(memory: Reservation, limit: u64, most: usize) -> Self {
        Self {
            pieces: Vec::new(),
            room: most,
            most,
            reserved: 0,
            memory,
            limit,
            full: false,
        }
    }

    /// Keeps nothing yet of another body, within the same bounds.
    pub fn another(&self) -> Self {
        Self::new(self.memory.another(), self.limit, self.most)
    }

    /// Keeps the next piece, as far as there is room.
    pub fn push(&mut self, piece: &Bytes) {
        if self.full || piece.is_empty() {
            return;
        }
        let length = piece.len().min(self.room);
        let size = length as u64 + PIECE;
        let fits = length > 0 && self.memory.grow(size, self.limit);
        self.full = !fits || length < piece.len();
        if fits {
            self.reserved += size;
            self.room -= length;
            self.pieces.push(begin(piece, length));
        }
    }

    /// The body passes again from its start.
    pub fn rewind(&mut self) {
        self.take();
    }

    /// What was kept, and whether that is all that passed. From here on it is accounted for by who
    /// takes it.
    pub fn take(&mut self) -> Begun {
        self.memory.shrink(self.reserved);
        (self.reserved, self.room) = (0, self.most);
        Begun {
            pieces: Some(std::mem::take(&mut self.pieces)),
            is_whole: !std::mem::take(&mut self.full),
        }
    }
}

/// The first bytes of a piece; a copy where the rest would be kept in memory by them.
pub fn begin(piece: &Bytes, length: usize) -> Bytes {
    match length >= piece.len() {
        true => piece.clone(),
        false => Bytes::copy_from_slice(&piece[..length]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::Memory;
    use crate::telemetry::metrics::Metrics;

    fn kept(limit: u64, most: usize) -> Kept {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        Kept::new(memory.reserve_nothing(), limit, most)
    }

    fn taken(kept: &mut Kept) -> (Vec<u8>, bool) {
        let begun = kept.take();
        (begun.pieces.unwrap().concat(), begun.is_whole)
    }

    #[test]
    fn a_body_is_kept_to_the_byte() {
        for (most, expected, whole) in [
            (10, "1234567890", true),
            (7, "1234567", false),
            (5, "12345", false),
            (0, "", false),
        ] {
            let mut kept = kept(u64::MAX, most);
            for piece in ["12345", "", "67890"] {
                kept.push(&Bytes::from_static(piece.as_bytes()));
            }
            assert_eq!(
                taken(&mut kept),
                (expected.as_bytes().to_vec(), whole),
                "{most}"
            );
        }
    }

    #[test]
    fn without_memory_the_rest_is_left_out() {
        let mut kept = kept(2 * (PIECE + 5), 100);
        for piece in ["12345", "67890", "x"] {
            kept.push(&Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(taken(&mut kept), (b"1234567890".to_vec(), false));
        kept.push(&Bytes::from_static(b"again"));
        kept.rewind();
        kept.push(&Bytes::from_static(b"once more"));
        assert_eq!(taken(&mut kept), (b"once more".to_vec(), true));
    }

    #[test]
    fn what_is_kept_holds_no_more_memory_than_it_says() {
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        let short = begin(&large, 10);
        assert_eq!(short.len(), 10);
        assert!(short.try_into_mut().is_ok(), "it is a copy of its own");
        drop(large);
    }
}
