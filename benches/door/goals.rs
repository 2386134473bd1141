//! The goals that figures are held against. Why they are what they are is no matter of the bench.

use crate::figures::{Cell, GATEWAY, KIB, MIB, Measure, Series, Spread, Tier};
use crate::plan::RATE;
use crate::plan::governed::{BESIDE_1_MB, BESIDE_32_KB};

/// What a figure is held against. All are upper bounds but one.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// On the gateway's figure divided by bare Pingora's.
    Ratio(f64),
    /// The least that the gateway's figure divided by bare Pingora's may be.
    RatioAtLeast(f64),
    /// On the gateway's figure less bare Pingora's, in microseconds.
    Added(f64),
    /// On the gateway's figure itself, in MiB.
    Mebibytes(f64),
    /// On the gateway's figure itself, in microseconds.
    Microseconds(f64),
}

/// Processor time of bare Pingora for a request of 1 KB on the machine where the goals were set,
/// in microseconds.
pub const BARE_WHERE_GOALS_WERE_SET: f64 = 34.0;

/// One line of the table of goals.
pub struct Goal {
    /// For that line.
    pub what: &'static str,
    /// Under which load.
    pub cell: Cell,
    /// What is held against it.
    pub measure: Measure,
    /// What it may be.
    pub bound: Bound,
}

const fn goal(what: &'static str, cell: Cell, measure: Measure, bound: Bound) -> Goal {
    Goal {
        what,
        cell,
        measure,
        bound,
    }
}

/// The latency goals are those of a gateway with everything switched on: the bare one
/// must be well inside. Those of misses are, too: here the cache alone is on.
pub const GOALS: [Goal; 34] = [
    goal(
        "CPU per request, 1 KB",
        Cell::Closed(KIB, 32),
        Measure::CpuPerRequest,
        Bound::Ratio(1.0),
    ),
    goal(
        "CPU per request, 32 KB",
        Cell::Closed(32 * KIB, 32),
        Measure::CpuPerRequest,
        Bound::Ratio(1.0),
    ),
    goal(
        "CPU per request, 1 MB",
        Cell::Closed(MIB, 8),
        Measure::CpuPerRequest,
        Bound::Ratio(1.3),
    ),
    goal(
        "added p50 at 500/s, 1 KB",
        Cell::Open(KIB),
        Measure::LatencyP50,
        Bound::Added(40.0),
    ),
    goal(
        "added p99 at 500/s, 1 KB",
        Cell::Open(KIB),
        Measure::LatencyP99,
        Bound::Added(150.0),
    ),
    goal(
        "added p50 at 500/s, 32 KB",
        Cell::Open(32 * KIB),
        Measure::LatencyP50,
        Bound::Added(60.0),
    ),
    goal(
        "added p99 at 500/s, 32 KB",
        Cell::Open(32 * KIB),
        Measure::LatencyP99,
        Bound::Added(200.0),
    ),
    goal(
        "added TTFT p50, one stream",
        Cell::OneStream,
        Measure::FirstTokenP50,
        Bound::Added(40.0),
    ),
    goal(
        "1,000 streams, all whole: TTFT p99",
        Cell::ThousandStreams,
        Measure::FirstTokenP99,
        Bound::Ratio(1.5),
    ),
    goal(
        "memory, idle",
        Cell::Process,
        Measure::IdleMemory,
        Bound::Mebibytes(20.0),
    ),
    goal(
        "memory, peak of the run",
        Cell::Process,
        Measure::PeakMemory,
        Bound::Ratio(1.3),
    ),
    goal(
        "CPU per request, retries and routes, 1 KB",
        Cell::Resilient(KIB),
        Measure::CpuPerRequest,
        Bound::Ratio(1.0),
    ),
    goal(
        "CPU per request, retries and routes, 32 KB",
        Cell::Resilient(32 * KIB),
        Measure::CpuPerRequest,
        Bound::Ratio(1.0),
    ),
    goal(
        "added p50 at 500/s, retries and routes, 1 KB",
        Cell::ResilientOpen(KIB),
        Measure::LatencyP50,
        Bound::Added(40.0),
    ),
    goal(
        "added p50 at 500/s, retries and routes, 32 KB",
        Cell::ResilientOpen(32 * KIB),
        Measure::LatencyP50,
        Bound::Added(60.0),
    ),
    goal(
        "throughput of cache hits, 1 KB",
        Cell::Hits(Tier::Memory, KIB),
        Measure::Rate,
        Bound::RatioAtLeast(2.0),
    ),
    goal(
        "throughput of cache hits, 32 KB",
        Cell::Hits(Tier::Memory, 32 * KIB),
        Measure::Rate,
        Bound::RatioAtLeast(2.0),
    ),
    goal(
        "CPU per request of a miss, on its path, only the cache on, 1 KB",
        Cell::Misses(KIB),
        Measure::CpuOnPath,
        Bound::Ratio(1.2),
    ),
    goal(
        "CPU per request of a miss, on its path, only the cache on, 32 KB",
        Cell::Misses(32 * KIB),
        Measure::CpuOnPath,
        Bound::Ratio(1.25),
    ),
    goal(
        "CPU to keep an answer, beside the requests, 1 KB",
        Cell::Misses(KIB),
        Measure::CpuBeside,
        Bound::Microseconds(12.0),
    ),
    goal(
        "memory, idle, with a cache",
        Cell::CachingProcess,
        Measure::IdleMemory,
        Bound::Mebibytes(20.0),
    ),
    goal(
        "p99 at 2,000/s that a log store with bodies adds, 1 KB",
        Cell::RecordedOpen(KIB),
        Measure::LatencyP99,
        Bound::Added(0.0),
    ),
    goal(
        "p99 at 2,000/s that a log store with bodies adds, 32 KB",
        Cell::RecordedOpen(32 * KIB),
        Measure::LatencyP99,
        Bound::Added(0.0),
    ),
    goal(
        "CPU per record on the log store's writer, 1 KB",
        Cell::Recorded(KIB),
        Measure::CpuOfWriter,
        Bound::Microseconds(12.0),
    ),
    goal(
        "CPU per request on its path, a log store against none, 1 KB",
        Cell::Recorded(KIB),
        Measure::CpuOnPath,
        Bound::Ratio(1.2),
    ),
    goal(
        "memory, idle, with a log store",
        Cell::RecordingProcess,
        Measure::IdleMemory,
        Bound::Mebibytes(20.0),
    ),
    goal(
        "CPU per request, governed, on its path, 1 KB",
        Cell::Governed(KIB),
        Measure::CpuOnPath,
        Bound::Ratio(1.2),
    ),
    goal(
        "CPU per request, governed, on its path, 32 KB",
        Cell::GovernedAt(32 * KIB, BESIDE_32_KB),
        Measure::CpuOnPath,
        Bound::Ratio(1.25),
    ),
    goal(
        "CPU per request, governed, on its path, 1 MB",
        Cell::GovernedAt(MIB, BESIDE_1_MB),
        Measure::CpuOnPath,
        Bound::Ratio(1.5),
    ),
    goal(
        "CPU per record on the log store's writer, governed, 1 KB",
        Cell::Governed(KIB),
        Measure::CpuOfWriter,
        Bound::Microseconds(12.0),
    ),
    goal(
        "added p50 at 500/s, governed, 1 KB",
        Cell::GovernedAt(KIB, RATE),
        Measure::LatencyP50,
        Bound::Added(40.0),
    ),
    goal(
        "added p99 at 500/s, governed, 1 KB",
        Cell::GovernedAt(KIB, RATE),
        Measure::LatencyP99,
        Bound::Added(150.0),
    ),
    goal(
        "added p50 at 500/s, governed, 32 KB",
        Cell::GovernedAt(32 * KIB, RATE),
        Measure::LatencyP50,
        Bound::Added(60.0),
    ),
    goal(
        "added p99 at 500/s, governed, 32 KB",
        Cell::GovernedAt(32 * KIB, RATE),
        Measure::LatencyP99,
        Bound::Added(200.0),
    ),
];

impl Bound {
    /// The bound's number and the figure it is held against.
    pub fn judged(self, series: &Series) -> Option<(f64, Spread)> {
        match self {
            Self::Ratio(bound) | Self::RatioAtLeast(bound) => Some((bound, series.ratio()?)),
            Self::Added(most) => Some((most, series.added()?)),
            Self::Mebibytes(most) | Self::Microseconds(most) => Some((most, series.leg(GATEWAY)?)),
        }
    }

    /// A figure in its unit.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Ratio(_) | Self::RatioAtLeast(_) => format!("{value:.2} ×"),
            Self::Added(_) | Self::Microseconds(_) => format!("{value:.0} µs"),
            Self::Mebibytes(_) => format!("{value:.1} MiB"),
        }
    }
}
