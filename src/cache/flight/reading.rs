//! The answer of a flight as it is read: by each of those who listen at its own pace.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::{Head, Listener, Phase, State};

/// Small pieces that wait are joined up to this many bytes.
const JOINED: usize = 64 << 10;

/// Reads the answer of a flight from its beginning.
pub struct Reader {
    pub(super) listener: Arc<Listener>,
    pub(super) changes: watch::Receiver<()>,
}

/// The answer broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl Reader {
    /// The answer's head. `None` only before an answer has begun.
    pub fn head(&self) -> Option<Arc<Head>> {
        self.listener.flight.state.lock().head.clone()
    }

    /// The next bytes as soon as there are any, `None` at the end. May be dropped and called
    /// again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(step) = self.step() {
                return step;
            }
            let _ = self.changes.changed().await;
        }
    }

    /// What has come and was not read yet, without waiting for more.
    pub fn arrived(&mut self) -> Option<Bytes> {
        match self.step() {
            Some(Ok(piece)) => piece,
            _ => None,
        }
    }

    pub(super) fn step(&mut self) -> Option<Result<Option<Bytes>, Broken>> {
        let mut state = self.listener.flight.state.lock();
        let Some(position) = state.readers.get(&self.listener.id).copied() else {
            return Some(Err(Broken));
        };
        let (piece, read) = state.joined(position.saturating_sub(state.trimmed));
        if let Some(piece) = piece {
            state.readers.insert(self.listener.id, position + read);
            return Some(Ok(Some(piece)));
        }
        match state.phase {
            Phase::Whole => Some(Ok(None)),
            Phase::Broken => Some(Err(Broken)),
            _ => None,
        }
    }
}

impl State {
    /// The pieces from `at` on as one, and how many they are.
    fn joined(&self, at: usize) -> (Option<Bytes>, usize) {
        let mut bytes = 0;
        let fits = self.pieces.iter().skip(at).take_while(|piece| {
            bytes += piece.len();
            bytes <= JOINED
        });
        match fits.count() {
            0 => (self.pieces.get(at).cloned(), 1),
            1 => (Some(self.pieces[at].clone()), 1),
            count => {
                let mut joined = BytesMut::with_capacity(JOINED.min(bytes));
                let pieces = self.pieces.iter().skip(at).take(count);
                pieces.for_each(|piece| joined.extend_from_slice(piece));
                (Some(joined.freeze()), count)
            }
        }
    }

    /// Gives readers up that are more than `most` bytes behind, but for the `first`.
    pub(super) fn leave_behind(&mut self, most: u64, first: u64) {
        let (mut behind, mut oldest) = (0, self.pieces.len());
        for piece in self.pieces.iter().rev() {
            behind += piece.len() as u64;
            if behind > most {
                break;
            }
            oldest -= 1;
        }
        let oldest = self.trimmed + oldest;
        self.readers
            .retain(|id, position| *id == first || *position >= oldest);
    }

    /// Drops what every reader has read; returns how many bytes that were.
    pub(super) fn trim(&mut self) -> u64 {
        let slowest = self.readers.values().min().copied();
        let read = slowest.map_or(usize::MAX, |position| position.saturating_sub(self.trimmed));
        let count = read.min(self.pieces.len());
        let bytes: u64 = self
            .pieces
            .drain(..count)
            .map(|piece| piece.len() as u64)
            .sum();
        self.trimmed += count;
        self.held -= bytes;
        bytes
    }
}
