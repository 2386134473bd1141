//! What is kept of a body that streams through, for the record of its request: a provider that does
//! not say how many tokens it read leaves only the text to go by.

use bytes::Bytes;

use crate::memory::Reservation;

/// Most bytes that are kept of one body; what is beyond it is not looked at.
const MAX_KEPT: u64 = 256 << 10;

/// The beginning of a body, within the memory of all held bodies.
#[derive(Debug)]
pub struct Kept {
    pieces: Vec<Bytes>,
    /// Bytes in them.
    length: u64,
    memory: Reservation,
    /// Most bytes of all held bodies together.
    limit: u64,
    /// There was no room for a piece: those behind it would have no beginning.
    full: bool,
}

impl Kept {
    /// Keeps nothing yet, and at most what `limit` has room for.
    pub fn new(memory: Reservation, limit: u64) -> Self {
        Self {
            pieces: Vec::new(),
            length: 0,
            memory,
            limit,
            full: false,
        }
    }

    /// Keeps the next piece, where there is room.
    pub fn push(&mut self, piece: &Bytes) {
        let length = piece.len() as u64;
        self.full |= self.length + length > MAX_KEPT || !self.memory.grow(length, self.limit);
        if !self.full {
            self.length += length;
            self.pieces.push(piece.clone());
        }
    }

    /// The body passes again from its start.
    pub fn rewind(&mut self) {
        self.pieces.clear();
        self.memory.shrink(self.length);
        (self.length, self.full) = (0, false);
    }

    /// What was kept, as one.
    pub fn take(&mut self) -> Bytes {
        let pieces = std::mem::take(&mut self.pieces);
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([all]) => all,
            Err(pieces) => pieces.concat().into(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::Memory;
    use crate::telemetry::metrics::Metrics;

    fn kept(limit: u64) -> Kept {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        Kept::new(memory.reserve_nothing(), limit)
    }

    #[test]
    fn the_beginning_is_kept_as_far_as_there_is_room() {
        let mut kept = kept(10);
        for piece in ["12345", "67890", "beyond", ""] {
            kept.push(&Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(kept.take(), "1234567890");
        kept.rewind();
        kept.push(&Bytes::from_static(b"again"));
        assert_eq!(kept.take(), "again");
    }

    #[test]
    fn one_body_keeps_so_much_only() {
        let mut kept = kept(u64::MAX);
        let piece = Bytes::from(vec![b'x'; 200 << 10]);
        kept.push(&piece);
        kept.push(&piece);
        assert_eq!(kept.take().len(), 200 << 10);
    }
}
