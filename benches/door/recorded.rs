//! What a load on a gateway with a log store needs beside the load: proof that all of it was
//! kept, and what it takes on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::figures::KIB;
use crate::legs::Leg;
use crate::process::WRITER;
use crate::{Outcome, admin};

/// The store writes what it has collected several times a second.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// What a log store has had, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept {
    rows: f64,
    /// Rows, details and bodies that were given up, and errors.
    lost: f64,
    bytes: u64,
    /// Processor time of its writer.
    writer: Duration,
}

/// What so many calls took to keep.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// KB on disk of 1,000 of them.
    pub stored: f64,
    /// Processor time of the writer for one, in microseconds: until the last of them is a row, and
    /// so longer than they were asked.
    pub writer_micros: f64,
}

impl Kept {
    /// Now; none for what has no log store.
    pub fn by(leg: &Leg) -> Outcome<Option<Self>> {
        let store = leg.gateway.as_ref().and_then(|g| g.log_store.as_deref());
        let Some((store, metrics)) = store.zip(leg.metrics()?) else {
            return Ok(None);
        };
        let bytes = size_of(store).map_err(|e| format!("{}: {e}", store.display()))?;
        let process = leg.process.as_ref();
        let writer = process
            .map(|process| process.cpu_of(&[WRITER]))
            .transpose()?;
        Ok(Some(Self::told_by(
            &metrics,
            bytes,
            writer.unwrap_or_default(),
        )))
    }

    fn told_by(metrics: &str, bytes: u64, writer: Duration) -> Self {
        let sum = |name| admin::sum(metrics, name);
        Self {
            rows: sum("tollgate_log_store_rows_total"),
            lost: sum("tollgate_log_store_dropped_total") + sum("tollgate_log_store_errors_total"),
            bytes,
            writer,
        }
    }

    /// Waits until `asked` calls since `self` are rows; an error when they do not become as
    /// many, or when anything of them was lost.
    pub fn whole(&self, leg: &Leg, asked: u64) -> Outcome<Whole> {
        let deadline = Instant::now() + WRITE_LIMIT;
        loop {
            let now = Self::by(leg)?.ok_or("the log store is gone")?;
            let (rows, lost) = (now.rows - self.rows, now.lost - self.lost);
            if lost == 0.0 && rows == asked as f64 {
                let grown = now.bytes.saturating_sub(self.bytes);
                let wrote = now.writer.saturating_sub(self.writer);
                return Ok(Whole {
                    stored: grown as f64 / KIB as f64 / (rows / 1000.0),
                    writer_micros: wrote.as_secs_f64() * 1e6 / rows,
                });
            }
            if lost > 0.0 || Instant::now() > deadline {
                return Err(format!(
                    "{}: the log store has {rows} rows of {asked} calls, and lost something of {lost}",
                    leg.name
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Bytes that the files of a directory take.
fn size_of(directory: &Path) -> std::io::Result<u64> {
    let lengths = std::fs::read_dir(directory)?.map(|file| Ok(file?.metadata()?.len()));
    lengths.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_tell_what_was_kept() {
        let metrics = "# TYPE tollgate_log_store_rows_total counter\n\
            tollgate_log_store_rows_total 70\n\
            tollgate_log_store_dropped_total{what=\"row\"} 1\n\
            tollgate_log_store_dropped_total{what=\"body\"} 2\n\
            tollgate_log_store_errors_total 4\n";
        let kept = Kept {
            rows: 70.0,
            lost: 7.0,
            bytes: 9,
            writer: Duration::from_secs(1),
        };
        assert_eq!(Kept::told_by(metrics, 9, kept.writer), kept);
    }
}
