//! Figures of a run, by cell and measure, and what they come to over its rounds.

/// The KB of the goals.
pub const KIB: usize = 1024;
/// The MB of the goals.
pub const MIB: usize = 1024 * KIB;

/// Quantiles of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// What one in a hundred exceeds.
    pub p99: f64,
}

impl Quantiles {
    /// Of any number of samples; zeros when there are none.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (part * samples.len() as f64).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            p50: at(0.50),
            p99: at(0.99),
        }
    }
}

/// Where cached answers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In memory.
    Memory,
    /// On disk: they are more than memory may hold.
    Disk,
}

/// The load of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Closed loop with bodies of so many bytes, on so many connections.
    Closed(usize, usize),
    /// 500 requests a second with bodies of so many bytes.
    Open(usize),
    /// One stream after the other.
    OneStream,
    /// A hundred streams.
    HundredStreams,
    /// A thousand streams.
    ThousandStreams,
    /// Closed loop with bodies of so many bytes, on a gateway that tries again and has routes.
    Resilient(usize),
    /// 500 requests a second to that one.
    ResilientOpen(usize),
    /// Closed loop on a gateway that has all answers, with bodies of so many bytes.
    Hits(Tier, usize),
    /// Closed loop on a gateway with a cache that has none of the answers.
    Misses(usize),
    /// Closed loop on a gateway with a log store that keeps the bodies, of so many bytes.
    Recorded(usize),
    /// 2,000 requests a second to that one.
    RecordedOpen(usize),
    /// Closed loop on a governed gateway, with bodies of so many bytes.
    Governed(usize),
    /// The same with so many requests a second.
    GovernedAt(usize, u32),
    /// The whole run.
    Process,
    /// The whole run, with a log store.
    RecordingProcess,
    /// The whole run, with a cache.
    CachingProcess,
}

/// What the gateway of a cell is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Bare Pingora.
    Bare,
    /// The gateway without a log store.
    Unrecorded,
}

impl Cell {
    /// See [`Against`].
    pub fn against(self) -> Against {
        match self {
            Self::Recorded(_) | Self::RecordedOpen(_) | Self::RecordingProcess => {
                Against::Unrecorded
            }
            _ => Against::Bare,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Closed(size, connections) => {
                write!(f, "{} bodies, {connections} connections", size_text(size))
            }
            Self::Open(size) => write!(f, "{} bodies at 500/s", size_text(size)),
            Self::OneStream => f.write_str("one stream"),
            Self::HundredStreams => f.write_str("100 streams, 10,000 events/s"),
            Self::ThousandStreams => f.write_str("1,000 streams, 10,000 events/s"),
            Self::Resilient(size) => {
                write!(f, "retries and routes, {} bodies", size_text(size))
            }
            Self::ResilientOpen(size) => {
                write!(f, "retries and routes, {} bodies at 500/s", size_text(size))
            }
            Self::Hits(Tier::Memory, size) => write!(f, "cache hits, {} bodies", size_text(size)),
            Self::Hits(Tier::Disk, size) => {
                write!(f, "cache hits from disk, {} bodies", size_text(size))
            }
            Self::Misses(size) => write!(f, "cache misses, {} bodies", size_text(size)),
            Self::Recorded(size) => write!(f, "log store, {} bodies", size_text(size)),
            Self::RecordedOpen(size) => {
                write!(f, "log store, {} bodies at 2,000/s", size_text(size))
            }
            Self::Governed(size) => write!(f, "governed, {} bodies", size_text(size)),
            Self::GovernedAt(size, rate) => {
                let (size, rate) = (size_text(size), rate_text(rate));
                write!(f, "governed, {size} bodies at {rate}/s")
            }
            Self::Process => f.write_str("process"),
            Self::RecordingProcess => f.write_str("process with a log store"),
            Self::CachingProcess => f.write_str("process with a cache, 64 MiB in memory"),
        }
    }
}

fn size_text(size: usize) -> String {
    match size / MIB {
        0 => format!("{} KB", size / KIB),
        whole => format!("{whole} MB"),
    }
}

fn rate_text(rate: u32) -> String {
    match rate / 1000 {
        0 => rate.to_string(),
        thousands => format!("{thousands},{:03}", rate % 1000),
    }
}

/// What is measured in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Answers per second.
    Rate,
    /// Processor time of the process under test per request, µs.
    CpuPerRequest,
    /// What of it is on the path of requests, µs.
    CpuOnPath,
    /// What of it is spent on other threads, to keep answers and records, µs.
    CpuBeside,
    /// What of that is spent by the log store's writer, µs.
    CpuOfWriter,
    /// Bytes of the log store on disk for 1,000 requests, KB.
    Stored,
    /// Median latency from the time a request was due, µs.
    LatencyP50,
    /// 99th percentile of it, µs.
    LatencyP99,
    /// Median time to first token, µs.
    FirstTokenP50,
    /// 99th percentile of it, µs.
    FirstTokenP99,
    /// Median delay of an event between the upstream's write and its arrival, µs.
    ChunkDelayP50,
    /// 99th percentile of it, µs.
    ChunkDelayP99,
    /// Processor time of the process under test per event, µs.
    CpuPerChunk,
    /// Of the answers out of a cache, those that came from its disk, %.
    FromDisk,
    /// Resident memory after the first request, MiB.
    IdleMemory,
    /// The most resident memory of the run, MiB.
    PeakMemory,
}

/// Index of a leg in a round.
pub const DIRECT: usize = 0;
/// Index of bare Pingora in a round, or of what else the gateway is held against.
pub const BASE: usize = 1;
/// Index of the gateway in a round.
pub const GATEWAY: usize = 2;

/// One round: direct, base, gateway; none where there is nothing to measure.
pub type Round = [Option<f64>; 3];

/// A measure over all rounds.
#[derive(Debug, Clone)]
pub struct Series {
    /// Under which load.
    pub cell: Cell,
    /// What.
    pub measure: Measure,
    /// One entry per round.
    pub rounds: Vec<Round>,
}

/// A median with the extremes around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The smallest round.
    pub low: f64,
    /// The median round.
    pub middle: f64,
    /// The largest round.
    pub high: f64,
}

impl Series {
    /// A leg's figures.
    pub fn leg(&self, leg: usize) -> Option<Spread> {
        spread(self.rounds.iter().filter_map(|round| round[leg]).collect())
    }

    /// Gateway divided by its base, round by round.
    pub fn ratio(&self) -> Option<Spread> {
        self.paired(|base, gateway| gateway / base)
    }

    /// Gateway minus its base, round by round.
    pub fn added(&self) -> Option<Spread> {
        self.paired(|base, gateway| gateway - base)
    }

    fn paired(&self, combine: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        let pairs = self.rounds.iter().filter_map(|r| r[BASE].zip(r[GATEWAY]));
        spread(
            pairs
                .map(|(base, gateway)| combine(base, gateway))
                .collect(),
        )
    }
}

/// The middle of an even number of values is the mean of the two inner ones.
fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let (left, right) = ((values.len() - 1) / 2, values.len() / 2);
    let middle = (values[left] + values[right]) / 2.0;
    Some(Spread { low, middle, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_take_the_nearest_rank() {
        let samples = (1..=200).rev().map(f64::from).collect();
        let quantiles = Quantiles::of(samples);
        assert_eq!((quantiles.p50, quantiles.p99), (100.0, 198.0));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let series = Series {
            cell: Cell::Open(1024),
            measure: Measure::LatencyP50,
            // The machine became twice as slow, the ratio stayed.
            rounds: vec![
                [None, Some(100.0), Some(90.0)],
                [None, Some(200.0), Some(180.0)],
            ],
        };
        assert_eq!(series.ratio().map(|s| s.middle), Some(0.9));
        assert_eq!(
            series.added().map(|s| (s.low, s.middle, s.high)),
            Some((-20.0, -15.0, -10.0))
        );
        assert_eq!(series.leg(DIRECT), None);
    }
}
