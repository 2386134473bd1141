//! What is measured, in which order, for how long.

pub mod governed;

use std::thread;
use std::time::Duration;

use crate::answer::CacheStatus;
use crate::cached::{self, Served};
use crate::closed::{self, Load};
use crate::figures::{Cell, KIB, MIB, Measure, Series, Tier};
use crate::legs::{self, Leg, Legs};
use crate::machine::Meter;
use crate::process::{self, Cores, Scratch};
use crate::recorded::Kept;
use crate::request::{Numbers, Questions, StreamShape};
use crate::{Binaries, Outcome, open, streams};

/// By then a process has started, whoever it is.
const STARTED: Duration = Duration::from_secs(2);

/// How much time a run takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// For the report.
    pub name: &'static str,
    rounds: usize,
    warm_up: Duration,
    window: Duration,
    open_window: Duration,
    single_streams: usize,
}

/// About half an hour. Many short rounds: a machine that is slower for a second or ten is so for the legs
/// of one round, and the middle of nine does not follow it.
pub const FULL: Effort = Effort {
    name: "full",
    rounds: 9,
    warm_up: Duration::from_millis(400),
    window: Duration::from_secs(1),
    open_window: Duration::from_millis(2500),
    single_streams: 300,
};

/// About two minutes: for development, too short to be a result.
pub const QUICK: Effort = Effort {
    name: "quick",
    rounds: 2,
    warm_up: Duration::from_millis(200),
    window: Duration::from_millis(500),
    open_window: Duration::from_secs(1),
    single_streams: 50,
};

/// Requests per second of the loads that ask for latencies.
pub const RATE: u32 = 500;
/// The same with a log store.
const RECORDED_RATE: u32 = 2000;
/// Connections of loads on a schedule: at 500/s one has 32 ms for its answer.
const SCHEDULED: u32 = 16;

/// Few events on one stream: its first is what counts.
const SHORT_STREAM: StreamShape = StreamShape {
    events: 4,
    interval_ms: 2,
};
/// A thousand of these put ten thousand events a second through, for two seconds.
const CROWD_STREAM: StreamShape = StreamShape {
    events: 20,
    interval_ms: 100,
};

/// Twenty times what a cache of 1 MiB holds in memory, asked in turn.
const ON_DISK: Numbers = Numbers {
    first: 0,
    count: 16_000,
};

/// A run in which every request was answered and every stream was whole.
#[derive(Debug)]
pub struct Finished {
    /// What was measured.
    pub series: Vec<Series>,
    /// The part of the machine's processor time that went to others, 0 to 1.
    pub others: f64,
}

/// Runs every cell whose name contains `only`. An error means that a request failed or came short.
pub fn run(binaries: &Binaries, effort: &Effort, only: &str) -> Outcome<Finished> {
    let cores = Cores::choose()?;
    process::pin(cores.load)?;
    process::raise_file_limit()?;
    let scratch = Scratch::new()?;
    let (upstream, address) = legs::start_upstream(cores, &scratch)?;
    let legs = Legs::start(binaries, address, cores, &scratch)?;
    let mut run = Run {
        legs: &legs,
        effort,
        only,
        series: Vec::new(),
    };
    let processes = || legs.processes().chain([&upstream]);
    let before = Meter::read(processes())?;
    run.all()
        .map_err(|why| format!("{why}{}", what_they_said(&legs)))?;
    Ok(Finished {
        series: run.series,
        others: Meter::read(processes())?.others_since(&before),
    })
}

fn what_they_said(legs: &Legs) -> String {
    let said = legs
        .processes()
        .map(|process| (process.name(), process.said()));
    said.filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("\n{name} wrote: {text}"))
        .collect()
}

struct Run<'a> {
    legs: &'a Legs,
    effort: &'a Effort,
    only: &'a str,
    series: Vec<Series>,
}

impl Run<'_> {
    fn all(&mut self) -> Outcome<()> {
        self.memory(Cell::Process, Measure::IdleMemory)?;
        self.memory(Cell::CachingProcess, Measure::IdleMemory)?;
        for (size, connections) in [(KIB, 32), (KIB, 512), (32 * KIB, 32), (MIB, 8)] {
            self.closed(Cell::Closed(size, connections), size, connections)?;
        }
        self.open(Cell::Open(KIB), KIB)?;
        self.open(Cell::Open(32 * KIB), 32 * KIB)?;
        self.one_stream()?;
        self.hundred_streams()?;
        self.thousand_streams()?;
        self.memory(Cell::Process, Measure::PeakMemory)?;
        for size in [KIB, 32 * KIB] {
            self.closed(Cell::Resilient(size), size, 32)?;
            self.open(Cell::ResilientOpen(size), size)?;
        }
        for (tier, size) in [
            (Tier::Memory, KIB),
            (Tier::Memory, 32 * KIB),
            (Tier::Disk, KIB),
        ] {
            self.hits(tier, size)?;
        }
        self.misses(KIB)?;
        self.misses(32 * KIB)?;
        self.memory(Cell::CachingProcess, Measure::PeakMemory)?;
        self.memory(Cell::RecordingProcess, Measure::IdleMemory)?;
        // Not as fast as it goes with 32 KB: on one core they come as fast as they are
        // compressed, and what cannot be kept is given up.
        self.recorded(KIB)?;
        self.recorded_open(KIB)?;
        self.recorded_open(32 * KIB)?;
        self.memory(Cell::RecordingProcess, Measure::PeakMemory)?;
        self.all_governed()
    }

    /// Visits the legs in every round, forwards and backwards in turn, so that a drift
    /// of the machine favours none.
    fn rounds<const N: usize>(
        &mut self,
        cell: Cell,
        measures: [Measure; N],
        measure: impl Fn(&Leg) -> Outcome<[Option<f64>; N]>,
    ) -> Outcome<()> {
        if !cell.to_string().contains(self.only) {
            return Ok(());
        }
        eprintln!("{cell}");
        let legs = self.legs.of(cell);
        let mut rounds = vec![[[None; N]; 3]; self.effort.rounds];
        for (number, round) in rounds.iter_mut().enumerate() {
            let forwards = number % 2 == 0;
            for turn in 0..3 {
                let leg = if forwards { turn } else { 2 - turn };
                round[leg] = measure(legs[leg])?;
            }
        }
        self.series
            .extend(measures.iter().enumerate().map(|(index, &measure)| {
                Series {
                    cell,
                    measure,
                    rounds: rounds
                        .iter()
                        .map(|round| round.map(|leg| leg[index]))
                        .collect(),
                }
            }));
        Ok(())
    }

    fn load(&self, connections: usize) -> Load {
        Load {
            connections,
            warm_up: self.effort.warm_up,
            window: self.effort.window,
        }
    }

    fn scheduled(&self, rate: u32) -> open::Load {
        open::Load {
            rate,
            connections: SCHEDULED,
            window: self.effort.open_window,
        }
    }

    fn closed(&mut self, cell: Cell, size: usize, connections: usize) -> Outcome<()> {
        let load = self.load(connections);
        let measures = [Measure::Rate, Measure::CpuPerRequest];
        self.rounds(cell, measures, |leg| {
            let (shown, _) = closed::measure(leg, Questions::same(leg, size), load)?;
            Ok([Some(shown.per_second), shown.cpu_micros])
        })
    }

    fn open(&mut self, cell: Cell, size: usize) -> Outcome<()> {
        let load = self.scheduled(RATE);
        let measures = [Measure::LatencyP50, Measure::LatencyP99];
        self.rounds(cell, measures, |leg| {
            let shown = open::measure(leg, &Questions::same(leg, size), load)?;
            Ok([Some(shown.latency.p50), Some(shown.latency.p99)])
        })
    }

    fn one_stream(&mut self) -> Outcome<()> {
        let count = self.effort.single_streams;
        let measures = [
            Measure::FirstTokenP50,
            Measure::FirstTokenP99,
            Measure::ChunkDelayP50,
            Measure::ChunkDelayP99,
        ];
        self.rounds(Cell::OneStream, measures, |leg| {
            let delays = streams::one_by_one(leg, SHORT_STREAM, count)?;
            let (first, chunk) = (delays.first, delays.chunk);
            Ok([first.p50, first.p99, chunk.p50, chunk.p99].map(Some))
        })
    }

    fn hundred_streams(&mut self) -> Outcome<()> {
        let window = self.effort.window;
        let interval_ms = 10;
        // Longer than the second before the window, the window, and a margin.
        let long = window + Duration::from_millis(1300);
        let shape = StreamShape {
            events: (long.as_millis() as u64 / interval_ms) as u32,
            interval_ms,
        };
        self.rounds(Cell::HundredStreams, [Measure::CpuPerChunk], |leg| {
            Ok([streams::cpu_per_chunk(leg, shape, 100, window)?])
        })
    }

    fn thousand_streams(&mut self) -> Outcome<()> {
        let count = 1000;
        let measures = [
            Measure::FirstTokenP50,
            Measure::FirstTokenP99,
            Measure::ChunkDelayP99,
        ];
        self.rounds(Cell::ThousandStreams, measures, |leg| {
            let delays = streams::many(leg, CROWD_STREAM, count)?;
            let (first, chunk) = (delays.first, delays.chunk);
            Ok([first.p50, first.p99, chunk.p99].map(Some))
        })
    }

    /// Every answer comes out of the cache. Bare Pingora is asked the same.
    fn hits(&mut self, tier: Tier, size: usize) -> Outcome<()> {
        let load = self.load(cached::CONNECTIONS);
        let numbers = match tier {
            Tier::Memory => Numbers::ONE,
            Tier::Disk => ON_DISK,
        };
        let measures = [Measure::Rate, Measure::CpuPerRequest, Measure::FromDisk];
        self.rounds(Cell::Hits(tier, size), measures, |leg| {
            cached::fill(leg, size, numbers)?;
            let questions = Questions::new(leg, size, numbers, Some(leg.says(CacheStatus::Hit)));
            let before = Served::by(leg)?;
            let (shown, _) = closed::measure(leg, questions, load)?;
            let served = Served::by(leg)?.zip(before);
            let from_disk = served.map(|(now, then)| now.percent_from_disk_since(&then));
            Ok([Some(shown.per_second), shown.cpu_micros, from_disk])
        })
    }

    /// No question was ever asked before, and every answer is kept.
    fn misses(&mut self, size: usize) -> Outcome<()> {
        let load = self.load(cached::CONNECTIONS);
        let measures = [
            Measure::Rate,
            Measure::CpuPerRequest,
            Measure::CpuOnPath,
            Measure::CpuBeside,
        ];
        self.rounds(Cell::Misses(size), measures, |leg| {
            let new = never_asked();
            let questions = Questions::new(leg, size, new, Some(leg.says(CacheStatus::Miss)));
            let (shown, count) = closed::measure(leg, questions, load)?;
            cached::look_for_latest(leg, size, Numbers { count, ..new })?;
            let beside = shown.beside_micros.filter(|_| leg.caches);
            let (all, on_path) = (shown.cpu_micros, shown.on_path_micros());
            Ok([Some(shown.per_second), all, on_path, beside])
        })
    }

    /// As fast as it goes. Every call becomes a row with its heads and bodies, or the run fails.
    fn recorded(&mut self, size: usize) -> Outcome<()> {
        let load = self.load(cached::CONNECTIONS);
        let measures = [
            Measure::Rate,
            Measure::CpuPerRequest,
            Measure::CpuOnPath,
            Measure::CpuBeside,
            Measure::CpuOfWriter,
            Measure::Stored,
        ];
        self.rounds(Cell::Recorded(size), measures, |leg| {
            let before = Kept::by(leg)?;
            let (shown, asked) = closed::measure(leg, Questions::varied(leg, size), load)?;
            let whole = before.map(|kept| kept.whole(leg, asked)).transpose()?;
            let shown = shown.with_all_written(whole.map(|whole| whole.writer_micros));
            Ok([
                Some(shown.per_second),
                shown.cpu_micros,
                shown.on_path_micros(),
                shown.beside_micros,
                shown.writer_micros,
                whole.map(|whole| whole.stored),
            ])
        })
    }

    /// On a schedule, as [`Self::recorded`].
    fn recorded_open(&mut self, size: usize) -> Outcome<()> {
        let load = self.scheduled(RECORDED_RATE);
        let measures = [Measure::LatencyP50, Measure::LatencyP99];
        self.rounds(Cell::RecordedOpen(size), measures, |leg| {
            let before = Kept::by(leg)?;
            let shown = open::measure(leg, &Questions::varied(leg, size), load)?;
            before
                .map(|kept| kept.whole(leg, shown.asked))
                .transpose()?;
            Ok([Some(shown.latency.p50), Some(shown.latency.p99)])
        })
    }

    /// Idle is after two equal requests: all legs lead to the upstream, and a cache has answered.
    fn memory(&mut self, cell: Cell, measure: Measure) -> Outcome<()> {
        if measure == Measure::IdleMemory {
            thread::sleep(STARTED);
        }
        let mut round = [None; 3];
        for (figure, leg) in round.iter_mut().zip(self.legs.of(cell)) {
            if measure == Measure::IdleMemory {
                cached::ask_twice(leg)?;
            }
            let read = |process: &process::Process| match measure {
                Measure::PeakMemory => process.peak_memory(),
                _ => process.memory(),
            };
            let bytes = leg.process.as_ref().map(read).transpose()?;
            *figure = bytes.map(|bytes| bytes as f64 / MIB as f64);
        }
        self.series.push(Series {
            cell,
            measure,
            rounds: vec![round],
        });
        Ok(())
    }
}

/// A nanosecond has less than one question: no window begins before another's end.
fn never_asked() -> Numbers {
    Numbers {
        first: streams::now_nanos(),
        count: u64::MAX,
    }
}
