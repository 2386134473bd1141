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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::cache::flight::{Bounds, Flights, Head, Seat, WhenAlone};
    use crate::cache::key::Key;
    use crate::memory::Memory;
    use crate::telemetry::metrics::Metrics;

    /// A recorder of an answer of a told length, and whether it has been kept.
    fn recorder(told: Option<u64>) -> (Recorder, Arc<AtomicBool>) {
        let key = Key::from_hex(&"01".repeat(32)).unwrap();
        let Seat::Lead(lead) = Arc::<Flights>::default().join(key, WhenAlone::Cancel) else {
            panic!("somebody leads already");
        };
        let listener = Arc::clone(lead.listener());
        let head = Head {
            status: 200,
            headers: Vec::new(),
            answerer: None,
        };
        let bounds = Bounds {
            whole: 100,
            process: 100,
        };
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        let recording = lead.open(head, bounds, memory.reserve_nothing());
        let is_kept = Arc::new(AtomicBool::new(false));
        let kept = Arc::clone(&is_kept);
        let started = Started {
            recording,
            keep: Some(Box::new(move |_| kept.store(true, Ordering::Relaxed))),
            reader: listener.reader(),
            told,
        };
        (Recorder::new(started), is_kept)
    }

    fn write(recorder: &mut Recorder, piece: &'static str) {
        recorder
            .write(Bytes::from_static(piece.as_bytes()))
            .unwrap();
    }

    #[test]
    fn a_client_reads_what_has_been_taken_in() {
        let (mut recorder, is_kept) = recorder(None);
        assert_eq!(recorder.next(), None);
        write(&mut recorder, "one");
        assert_eq!(recorder.next().unwrap(), "one");
        write(&mut recorder, "two");
        recorder.finish();
        assert_eq!(recorder.next().unwrap(), "two");
        assert_eq!(recorder.next(), None);
        assert!(is_kept.load(Ordering::Relaxed));
    }

    #[test]
    fn the_last_piece_of_a_told_length_waits_for_the_end() {
        let (mut recorder, is_kept) = recorder(Some(5));
        write(&mut recorder, "abc");
        assert_eq!(recorder.next().unwrap(), "abc");
        write(&mut recorder, "de");
        assert_eq!(recorder.next(), None);
        assert!(!is_kept.load(Ordering::Relaxed));
        recorder.finish();
        assert_eq!(recorder.next().unwrap(), "de");
        assert_eq!(recorder.next(), None);
        assert!(is_kept.load(Ordering::Relaxed));
    }

    #[test]
    fn more_than_was_told_comes_in_order() {
        let (mut recorder, _) = recorder(Some(2));
        for (piece, has) in [("ab", None), ("cd", Some("ab")), ("ef", Some("cd"))] {
            write(&mut recorder, piece);
            assert_eq!(recorder.next().as_deref(), has.map(str::as_bytes));
        }
        recorder.finish();
        assert_eq!(recorder.next().unwrap(), "ef");
    }

    #[test]
    fn what_breaks_off_is_not_kept() {
        let (mut recorder, is_kept) = recorder(None);
        write(&mut recorder, "one");
        drop(recorder);
        assert!(!is_kept.load(Ordering::Relaxed));
    }
}
