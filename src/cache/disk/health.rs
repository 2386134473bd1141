//! Whether one side of the disk, reading or writing, works, and what of that is worth a line
//! in the log.

use std::time::{Duration, Instant};

/// After so many reads in a row that took too long, the disk is left alone for [`REST`].
const SLOW_READS: u32 = 3;
/// How long a disk is left alone that was slow or could not be written to.
const REST: Duration = Duration::from_secs(5);
/// The same trouble is logged so often.
const SILENCE: Duration = Duration::from_secs(600);

/// What is known of one side.
#[derive(Debug, Default)]
pub struct Health {
    wrong: Option<&'static str>,
    /// What was logged last, and when.
    logged: Option<(&'static str, Instant)>,
    /// Reads in a row that took too long.
    slow: u32,
    rests_until: Option<Instant>,
}

impl Health {
    /// What is wrong, if anything is.
    pub fn wrong(&self) -> Option<&'static str> {
        self.wrong
    }

    /// Whether the disk is left alone at `now`.
    pub fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Leaves the disk alone for a while.
    pub fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + REST);
    }

    /// A read took too long; returns whether that leaves the disk alone.
    pub fn slow_read(&mut self, now: Instant) -> bool {
        self.slow += 1;
        let rests = self.slow >= SLOW_READS;
        if rests {
            self.slow = 0;
            self.rest(now);
        }
        rests
    }

    /// It did what it should.
    pub fn right(&mut self) {
        self.slow = 0;
        self.rests_until = None;
        self.wrong = None;
    }

    /// Notes that `what` is wrong; returns whether that is worth a line in the log: a disk
    /// that is full for an hour is not worth one per entry.
    pub fn is_news(&mut self, what: &'static str, now: Instant) -> bool {
        self.wrong = Some(what);
        let known = self
            .logged
            .is_some_and(|(logged, at)| logged == what && now - at < SILENCE);
        if !known {
            self.logged = Some((what, now));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_reads_in_a_row_leave_the_disk_alone_for_a_while() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.slow_read(now) && !health.slow_read(now));
        health.right();
        assert!(!health.slow_read(now) && !health.slow_read(now) && !health.rests(now));
        assert!(health.slow_read(now) && health.rests(now));
        assert!(!health.rests(now + REST));
    }

    #[test]
    fn the_same_trouble_is_news_once_in_a_while() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(health.is_news("disk_full", now));
        health.right();
        assert!(!health.is_news("disk_full", now + REST));
        assert!(health.is_news("disk_write", now + REST));
        assert!(health.is_news("disk_write", now + REST + SILENCE));
    }
}
