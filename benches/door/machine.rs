//! The machine under the benchmark: what it is, and what else it did meanwhile.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::Outcome;
use crate::process::Process;

/// Clock ticks per second in /proc/stat, the same on every Linux.
const TICKS: u64 = 100;

/// Processor, cores, memory, kernel.
pub fn describe() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = || cpus.lines().filter(|line| line.starts_with("model name"));
    let model = models().next().and_then(|line| line.split_once(':'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.split_whitespace().nth(1);
    let total: u64 = total.and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!(
        "{}, {} cores, {} GiB, Linux {}",
        model.map_or("unknown processor", |(_, name)| name.trim()),
        cores(&cpus),
        total / (1024 * 1024),
        kernel.trim()
    )
}

fn cores(cpuinfo: &str) -> usize {
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor"));
    processors.count()
}

/// A moment in the machine's processor time.
#[derive(Debug)]
pub struct Meter {
    at: Instant,
    busy: Duration,
    ours: Duration,
    cores: usize,
}

impl Meter {
    /// Now; `processes` are the benchmark's beside this one.
    pub fn read<'a>(processes: impl Iterator<Item = &'a Process>) -> Outcome<Self> {
        let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_err(|e| e.to_string())?;
        let children: Duration = processes.map(Process::cpu).sum::<Outcome<_>>()?;
        let stat = std::fs::read_to_string("/proc/stat").map_err(|e| e.to_string())?;
        Ok(Self {
            at: Instant::now(),
            busy: busy(&stat).ok_or("/proc/stat is not as expected")?,
            ours: Duration::from(own) + children,
            cores: stat.lines().filter(|line| line.starts_with("cpu")).count() - 1,
        })
    }

    /// The part of the machine's processor time since `before` that others took, 0 to 1.
    /// What the hypervisor took counts as others'.
    pub fn others_since(&self, before: &Self) -> f64 {
        let busy = self.busy.saturating_sub(before.busy);
        let others = busy.saturating_sub(self.ours.saturating_sub(before.ours));
        let all = (self.at - before.at).as_secs_f64() * self.cores as f64;
        others.as_secs_f64() / all
    }
}

/// Processor time of everybody: all fields of the first line but idle and waiting.
fn busy(stat: &str) -> Option<Duration> {
    let fields = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Option<Vec<u64>> = fields.map(|field| field.parse().ok()).collect();
    let ticks = ticks.filter(|ticks| ticks.len() == 8)?;
    let idle = ticks[3] + ticks[4];
    let busy = ticks.iter().sum::<u64>() - idle;
    Some(Duration::from_millis(busy * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_leaves_out_idle_and_waiting() {
        let stat = "cpu  100 0 50 9000 300 0 10 40 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy(stat), Some(Duration::from_secs(2)));
        assert_eq!(busy("cpu 1 2\n"), None);
    }

    #[test]
    fn others_are_what_is_busy_and_not_ours() {
        let start = Instant::now();
        let meter = |seconds, busy, ours| Meter {
            at: start + Duration::from_secs(seconds),
            busy: Duration::from_secs(busy),
            ours: Duration::from_secs(ours),
            cores: 2,
        };
        let others = meter(10, 116, 58).others_since(&meter(0, 100, 50));
        assert!((others - 0.4).abs() < 1e-9);
    }
}
