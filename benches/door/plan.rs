//! What is measured, in which order, for how long.

use std::time::Duration;

use crate::closed::{self, Load};
use crate::figures::{Cell, KIB, MIB, Measure, Series};
use crate::legs::{self, Leg};
use crate::machine::Meter;
use crate::process::{self, Cores, Scratch};
use crate::request::{self, StreamShape};
use crate::{Binaries, Outcome, open, streams};

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

/// About seven minutes.
pub const FULL: Effort = Effort {
    name: "full",
    rounds: 5,
    warm_up: Duration::from_millis(400),
    window: Duration::from_secs(2),
    open_window: Duration::from_secs(4),
    single_streams: 300,
};

/// Under a minute: for development, too short to be a result.
pub const QUICK: Effort = Effort {
    name: "quick",
    rounds: 2,
    warm_up: Duration::from_millis(200),
    window: Duration::from_millis(500),
    open_window: Duration::from_secs(1),
    single_streams: 50,
};

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
    let unchanged = |program| program;
    let legs = [
        legs::direct(address),
        legs::bare("bare", address, cores, &scratch, &unchanged)?,
        legs::gateway(binaries, address, cores, &scratch, &unchanged)?,
    ];
    let mut run = Run {
        legs: &legs,
        effort,
        only,
        series: Vec::new(),
    };
    let processes = || {
        let tested = legs.iter().filter_map(|leg| leg.process.as_ref());
        tested.chain([&upstream])
    };
    let before = Meter::read(processes())?;
    run.all()
        .map_err(|why| format!("{why}{}", what_they_said(&legs)))?;
    Ok(Finished {
        series: run.series,
        others: Meter::read(processes())?.others_since(&before),
    })
}

fn what_they_said(legs: &[Leg; 3]) -> String {
    let said = legs
        .iter()
        .filter_map(|leg| Some((leg.name, leg.process.as_ref()?.said())));
    said.filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("\n{name} wrote: {text}"))
        .collect()
}

struct Run<'a> {
    legs: &'a [Leg; 3],
    effort: &'a Effort,
    only: &'a str,
    series: Vec<Series>,
}

impl Run<'_> {
    fn all(&mut self) -> Outcome<()> {
        self.memory(Measure::IdleMemory)?;
        for (size, connections) in [(KIB, 32), (KIB, 512), (32 * KIB, 32), (MIB, 8)] {
            self.closed(size, connections)?;
        }
        self.open(KIB)?;
        self.open(32 * KIB)?;
        self.one_stream()?;
        self.hundred_streams()?;
        self.thousand_streams()?;
        self.memory(Measure::PeakMemory)
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
        let mut rounds = vec![[[None; N]; 3]; self.effort.rounds];
        for (number, round) in rounds.iter_mut().enumerate() {
            let forwards = number % 2 == 0;
            for turn in 0..3 {
                let leg = if forwards { turn } else { 2 - turn };
                round[leg] = measure(&self.legs[leg])?;
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

    fn closed(&mut self, size: usize, connections: usize) -> Outcome<()> {
        let load = Load {
            connections,
            warm_up: self.effort.warm_up,
            window: self.effort.window,
        };
        let measures = [Measure::Rate, Measure::CpuPerRequest];
        self.rounds(Cell::Closed(size, connections), measures, |leg| {
            let shown = closed::measure(leg, request::plain(leg, size), load)?;
            Ok([Some(shown.per_second), shown.cpu_micros])
        })
    }

    fn open(&mut self, size: usize) -> Outcome<()> {
        let window = self.effort.open_window;
        let measures = [Measure::LatencyP50, Measure::LatencyP99];
        self.rounds(Cell::Open(size), measures, |leg| {
            let latency = open::measure(leg, &request::plain(leg, size), window)?;
            Ok([Some(latency.p50), Some(latency.p99)])
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

    /// Idle is after one request, which also shows that every leg leads to the upstream.
    fn memory(&mut self, measure: Measure) -> Outcome<()> {
        let mut round = [None; 3];
        for (figure, leg) in round.iter_mut().zip(self.legs) {
            if measure == Measure::IdleMemory {
                closed::send(leg, request::plain(leg, KIB), 1, 1)?;
                std::thread::sleep(Duration::from_millis(500));
            }
            let read = |process: &process::Process| match measure {
                Measure::PeakMemory => process.peak_memory(),
                _ => process.memory(),
            };
            let bytes = leg.process.as_ref().map(read).transpose()?;
            *figure = bytes.map(|bytes| bytes as f64 / MIB as f64);
        }
        self.series.push(Series {
            cell: Cell::Process,
            measure,
            rounds: vec![round],
        });
        Ok(())
    }
}
