//! The answer of a flight as it comes in: kept whole where it may be, passed on where not.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Flight, Flights, Head, Phase, UNACCOUNTED};
use crate::cache::entry::Piece;
use crate::memory::Reservation;

/// No memory is left for an answer that a client reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Takes the answer in, piece by piece. Dropped unfinished, the answer is broken.
pub struct Recording {
    pub(super) flights: Arc<Flights>,
    pub(super) flight: Arc<Flight>,
    /// The reader for whom the provider was asked.
    pub(super) first: u64,
    pub(super) memory: Reservation,
    pub(super) bounds: Bounds,
    pub(super) total: u64,
    pub(super) began: Option<Instant>,
    pub(super) marks: Vec<Piece>,
    pub(super) finished: bool,
}

/// How much of an answer is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Largest body that is kept whole, in bytes.
    pub whole: u64,
    /// All bodies held in the process, in bytes (`server.max_buffered`).
    pub process: u64,
}

/// A whole answer, ready to be stored.
pub struct Recorded {
    /// Its head.
    pub head: Arc<Head>,
    /// Its body.
    pub pieces: Vec<Bytes>,
    /// How it came.
    pub marks: Vec<Piece>,
    /// Keeps the flight readable, and its memory accounted for, until the answer is stored.
    pub landing: Landing,
}

/// The end of a flight: dropping it takes the flight off the table.
pub struct Landing {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
}

impl Recording {
    /// Takes in the next piece of the body.
    ///
    /// # Errors
    /// When the answer is too large to be kept, and a client that reads too slowly has used up
    /// the memory for what waits for it.
    pub fn write(&mut self, piece: Bytes, now: Instant) -> Result<(), Overflow> {
        if piece.is_empty() {
            return Ok(());
        }
        let bytes = piece.len() as u64;
        self.mark(bytes, now);
        self.total += bytes;
        let fits = self.total <= self.bounds.whole;
        let kept = fits && self.is_recording() && self.memory.grow(bytes, self.bounds.process);
        if !kept {
            self.pass_on(bytes)?;
        }
        let mut state = self.flight.state.lock();
        state.held += bytes;
        state.pieces.push_back(piece);
        drop(state);
        self.flight.changed.send_replace(());
        Ok(())
    }

    /// Whether it is still kept whole.
    fn is_recording(&self) -> bool {
        self.flight.state.lock().recording
    }

    /// Too large to be kept: it passes to those who listen already, and what all of them have
    /// read is dropped. Who is too far behind is cut off; the one for whom the provider was
    /// asked only when memory runs out.
    fn pass_on(&mut self, bytes: u64) -> Result<(), Overflow> {
        self.flights.forget(&self.flight);
        let mut state = self.flight.state.lock();
        state.recording = false;
        state.leave_behind(self.bounds.whole, self.first);
        let read = state.trim();
        let little = state.held + bytes <= UNACCOUNTED;
        drop(state);
        self.memory.shrink(read);
        self.marks = Vec::new();
        match self.memory.grow(bytes, self.bounds.process) || little {
            true => Ok(()),
            false => Err(Overflow),
        }
    }

    fn mark(&mut self, bytes: u64, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let after = now.saturating_duration_since(began).as_millis();
        let (length, after) = (
            u32::try_from(bytes).unwrap_or(u32::MAX),
            u32::try_from(after).unwrap_or(u32::MAX),
        );
        match self.marks.last_mut() {
            // What came within a millisecond came together.
            Some(last) if last.after == after && last.length.checked_add(length).is_some() => {
                last.length += length;
            }
            _ => self.marks.push(Piece { length, after }),
        }
    }

    /// The answer is whole. `None` when it was too large to be kept.
    pub fn finish(mut self) -> Option<Recorded> {
        self.finished = true;
        self.flight.enter(Phase::Whole);
        let mut state = self.flight.state.lock();
        state.memory = Some(self.memory.split());
        if !state.recording {
            return None;
        }
        let (head, pieces) = (state.head.clone()?, state.pieces.iter().cloned().collect());
        drop(state);
        Some(Recorded {
            head,
            pieces,
            marks: std::mem::take(&mut self.marks),
            landing: Landing {
                flights: Arc::clone(&self.flights),
                flight: Arc::clone(&self.flight),
            },
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.finished {
            self.flights.forget(&self.flight);
            self.flight.state.lock().memory = Some(self.memory.split());
            self.flight.enter(Phase::Broken);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.forget(&self.flight);
    }
}
