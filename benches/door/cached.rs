//! What loads on a cache need beside the load: the answers there beforehand, proof that they
//! were kept, and where they came from.

use std::time::Duration;

use crate::answer::CacheStatus;
use crate::figures::KIB;
use crate::legs::Leg;
use crate::request::{Numbers, Questions};
use crate::{Outcome, closed};

/// Connections of every load on a cache.
pub const CONNECTIONS: usize = 32;

/// How often the questions are asked until all their answers are kept: what is written too fast
/// for a disk is not written.
const PASSES: usize = 10;
/// For keeping what was answered. Whoever asks sooner follows the answer that is being kept,
/// which comes in chunks.
const PAUSE: Duration = Duration::from_millis(300);
/// How many of the latest answers are looked for.
const LATEST: u64 = 1000;

/// Sends a request, and the same again when a cache has had the time to keep its answer.
pub fn ask_twice(leg: &Leg) -> Outcome<()> {
    for _ in 0..2 {
        closed::send(leg, Questions::new(leg, KIB, Numbers::ONE, None), 1, 1)?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks `numbers` until the cache has the answers to all of them.
pub fn fill(leg: &Leg, size: usize, numbers: Numbers) -> Outcome<()> {
    if !leg.caches {
        return Ok(());
    }
    for _ in 0..PASSES {
        let any = Questions::new(leg, size, numbers, None);
        if closed::send(leg, any, CONNECTIONS, numbers.count)? == 0 {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!(
        "{}: the cache does not keep all of {} answers",
        leg.name, numbers.count
    ))
}

/// Fails unless the cache has the answers to the latest of `numbers`.
pub fn look_for_latest(leg: &Leg, size: usize, numbers: Numbers) -> Outcome<()> {
    std::thread::sleep(PAUSE);
    let count = numbers.count.min(LATEST);
    let latest = Numbers {
        first: numbers.first + numbers.count - count,
        count,
    };
    let kept = Questions::new(leg, size, latest, Some(leg.says(CacheStatus::Hit)));
    closed::send(leg, kept, CONNECTIONS, count)?;
    Ok(())
}

/// How many answers came from where, since the process began.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Served {
    all: f64,
    disk: f64,
}

impl Served {
    /// Up to now; none for what has no cache.
    pub fn by(leg: &Leg) -> Outcome<Option<Self>> {
        let metrics = leg.metrics()?.filter(|_| leg.caches);
        Ok(metrics.as_deref().map(Self::told_by))
    }

    fn told_by(metrics: &str) -> Self {
        let count = |line: &str| {
            let tier = line.strip_prefix("tollgate_cache_serve_seconds_count{tier=\"")?;
            let (tier, count) = tier.split_once("\"} ")?;
            Some((tier == "disk", count.parse::<f64>().ok()?))
        };
        let counts = metrics.lines().filter_map(count);
        counts.fold(Self::default(), |sum, (is_disk, count)| Self {
            all: sum.all + count,
            disk: sum.disk + if is_disk { count } else { 0.0 },
        })
    }

    /// The part of the answers since `before` that came from disk, in percent.
    pub fn percent_from_disk_since(&self, before: &Self) -> f64 {
        100.0 * (self.disk - before.disk) / (self.all - before.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_tell_where_answers_came_from() {
        let told = |disk| {
            Served::told_by(&format!(
                "tollgate_cache_serve_seconds_sum{{tier=\"disk\"}} 7\n\
                 tollgate_cache_serve_seconds_count{{tier=\"disk\"}} {disk}\n\
                 tollgate_cache_serve_seconds_count{{tier=\"memory\"}} 10\n"
            ))
        };
        assert_eq!(
            told(30),
            Served {
                all: 40.0,
                disk: 30.0
            }
        );
        assert_eq!(told(30).percent_from_disk_since(&told(20)), 100.0);
        assert_eq!(told(30).percent_from_disk_since(&Served::default()), 75.0);
    }
}
