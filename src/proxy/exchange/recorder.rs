//! An answer that is taken in for others than its client, too: for those who wait for the same, or
//! to be kept.

use std::time::Instant;

use bytes::Bytes;
use pingora_core::{Error, ErrorType, Result};

use crate::cache::flight::{Reader, Recording};
use crate::proxy::caching::{Keep, Started};

/// Takes the answer in; its client reads it back from here.
///
/// A client that has all that was told takes its answer for ended, and may ask again on the same
/// connection or leave, while the answer is recorded until its provider ends it. So its last piece
/// waits for that end.
pub struct Recorder {
    /// Until the answer has ended. Dropped before, it is broken.
    recording: Option<Recording>,
    keep: Option<Keep>,
    reader: Reader,
    /// What is still to come of the length that was told.
    left: Option<u64>,
    /// The last piece.
    last: Option<Bytes>,
}

impl Recorder {
    /// Takes in what begins.
    pub fn new(started: Started) -> Self {
        let Started {
            recording,
            keep,
            reader,
            told,
        } = started;
        Self {
            recording: Some(recording),
            keep,
            reader,
            left: told,
            last: None,
        }
    }

    /// Takes a piece in.
    ///
    /// # Errors
    ///
    /// No memory is left.
    pub fn write(&mut self, piece: Bytes) -> Result<()> {
        let Some(recording) = &mut self.recording else {
            return Ok(());
        };
        let written = recording.write(piece, Instant::now());
        written.map_err(|_| {
            let why = "no memory for an answer that its client reads too slowly";
            Error::explain(ErrorType::InternalError, why)
        })
    }

    /// The answer has come whole: it is kept if it may be.
    pub fn finish(&mut self) {
        let recorded = self.recording.take().and_then(Recording::finish);
        if let (Some(recorded), Some(keep)) = (recorded, self.keep.take()) {
            keep(recorded);
        }
    }

    /// The next that its client may have.
    pub fn next(&mut self) -> Option<Bytes> {
        while let Some(piece) = self.reader.arrived() {
            if self.last.is_none() && self.completes(piece.len()) {
                self.last = Some(piece);
                continue;
            }
            return Some(match &mut self.last {
                // Longer than it was told to be.
                Some(last) => std::mem::replace(last, piece),
                None => piece,
            });
        }
        self.last.take_if(|_| self.recording.is_none())
    }

    /// Whether the answer has all that was told with a piece of `length` bytes.
    fn completes(&mut self, length: usize) -> bool {
        let Some(left) = &mut self.left else {
            return false;
        };
        *left = left.saturating_sub(length as u64);
        *left == 0
    }
}
