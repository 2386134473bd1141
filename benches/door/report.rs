//! The results as Markdown: goals first, then every figure, then how it was measured.

use std::fmt::Write;
use std::process::Command;

use crate::figures::{
    Against, BASE, Cell, DIRECT, GATEWAY, KIB, MIB, Measure, Series, Spread, Tier,
};
use crate::plan::{Effort, Finished};
use crate::{Binaries, machine};

/// What a figure is held against. All are upper bounds but one.
#[derive(Debug, Clone, Copy)]
enum Bound {
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
const BARE_WHERE_GOALS_WERE_SET: f64 = 34.0;

struct Goal {
    what: &'static str,
    cell: Cell,
    measure: Measure,
    bound: Bound,
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
const GOALS: [Goal; 26] = [
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
];

/// The whole report.
pub fn render(run: &Finished, effort: &Effort, binaries: &Binaries) -> String {
    let mut out = String::from("# Benchmark results\n\n");
    out.push_str("Written by `make bench`; `benches/README.md` says how it measures.\n\n");
    let subject = match binaries.same {
        true => "bare Pingora in the gateway's place (how far two equal things differ)",
        false => {
            "the gateway, passing through, with retries and routes, with nothing but a cache on, \
             and with nothing but a log store on"
        }
    };
    line(
        &mut out,
        format_args!("- measured: {subject}, {} run", effort.name),
    );
    line(
        &mut out,
        format_args!(
            "- when: {}",
            output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
        ),
    );
    line(&mut out, format_args!("- commit: {}", commit()));
    line(&mut out, format_args!("- machine: {}", machine::describe()));
    line(&mut out, format_args!("- {}", disturbance(run.others)));
    goals(&mut out, &run.series);
    out.push_str(
        "\n## Figures\n\nMedians of the rounds; the ratio is the median of the rounds' ratios.\n",
    );
    figures(&mut out, &run.series, Against::Bare);
    figures(&mut out, &run.series, Against::Unrecorded);
    out
}

/// Above this part of the machine's time, others disturb the figures.
const QUIET: f64 = 0.03;

fn disturbance(others: f64) -> String {
    let advice = match others > QUIET {
        true => ": **not a quiet machine, repeat the run**",
        false => "",
    };
    let percent = others * 100.0;
    format!("other work on it meanwhile: {percent:.1} % of its processor time{advice}")
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    writeln!(out, "{text}").expect("writing to a string cannot fail");
}

fn goals(out: &mut String, series: &[Series]) {
    out.push_str("\n## Goals\n\nAgainst default-built bare Pingora in the same run; the median of the rounds, and their range.\n\n");
    out.push_str("| | goal | measured | range | |\n|---|---|---|---|---|\n");
    let bare = series
        .iter()
        .find(|s| s.cell == Cell::Closed(KIB, 32) && s.measure == Measure::CpuPerRequest)
        .and_then(|series| Some(series.leg(BASE)?.middle));
    let slower = bare.map(|bare| bare / BARE_WHERE_GOALS_WERE_SET);
    for goal in &GOALS {
        let found = series
            .iter()
            .find(|s| s.cell == goal.cell && s.measure == goal.measure);
        let Some((bound, shown)) = found.and_then(|series| judged(goal.bound, series)) else {
            continue;
        };
        let (sign, is_met) = match goal.bound {
            Bound::RatioAtLeast(_) => ("≥", shown.middle >= bound),
            _ => ("≤", shown.middle <= bound),
        };
        let verdict = if is_met { "met" } else { "**not met**" };
        let text = |value| bounded(goal.bound, value);
        let there = match goal.bound {
            Bound::Added(_) | Bound::Microseconds(_) => {
                let there = slower.map(|slower| shown.middle / slower);
                there.map_or(String::new(), |there| format!(" ({there:.0} µs there)"))
            }
            _ => String::new(),
        };
        line(
            out,
            format_args!(
                "| {} | {sign} {} | {}{there} | {} to {} | {verdict} |",
                goal.what,
                text(bound),
                text(shown.middle),
                text(shown.low),
                text(shown.high)
            ),
        );
    }
    if let Some(bare) = bare {
        machines(out, bare);
    }
}

/// What the goals in microseconds mean here.
fn machines(out: &mut String, bare: f64) {
    line(
        out,
        format_args!(
            "\n\"There\" is the machine on which the goals in µs were set: bare Pingora takes \
             {BARE_WHERE_GOALS_WERE_SET} µs for a request of 1 KB there and {bare:.0} µs here. The \
             verdicts go by the µs of this machine."
        ),
    );
}

/// The bound's number and the figure it is held against.
fn judged(bound: Bound, series: &Series) -> Option<(f64, Spread)> {
    match bound {
        Bound::Ratio(bound) | Bound::RatioAtLeast(bound) => Some((bound, series.ratio()?)),
        Bound::Added(most) => Some((most, series.added()?)),
        Bound::Mebibytes(most) | Bound::Microseconds(most) => Some((most, series.leg(GATEWAY)?)),
    }
}

fn bounded(bound: Bound, value: f64) -> String {
    match bound {
        Bound::Ratio(_) | Bound::RatioAtLeast(_) => format!("{value:.2} ×"),
        Bound::Added(_) | Bound::Microseconds(_) => format!("{value:.0} µs"),
        Bound::Mebibytes(_) => format!("{value:.1} MiB"),
    }
}

fn figures(out: &mut String, series: &[Series], against: Against) {
    let of_these = series.iter().filter(|s| s.cell.against() == against);
    let mut shown = of_these.peekable();
    if shown.peek().is_none() {
        return;
    }
    out.push_str(match against {
        Against::Bare => {
            "\n| load | measure | direct | bare Pingora | gateway | gateway / bare |\n"
        }
        Against::Unrecorded => {
            "\n| load | measure | direct | log store off | log store on | on / off |\n"
        }
    });
    out.push_str("|---|---|---|---|---|---|\n");
    for series in shown {
        let leg = |leg| match series.leg(leg) {
            Some(spread) => number(spread.middle),
            None => "–".to_owned(),
        };
        let ratio = series.ratio().map_or("–".to_owned(), |ratio| {
            format!(
                "{:.2} ({:.2} to {:.2})",
                ratio.middle, ratio.low, ratio.high
            )
        });
        line(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} | {ratio} |",
                series.cell,
                measure(series.measure),
                leg(DIRECT),
                leg(BASE),
                leg(GATEWAY)
            ),
        );
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Rate => "requests per second",
        Measure::CpuPerRequest => "CPU per request, µs",
        Measure::CpuOnPath => "CPU per request on its path, µs",
        Measure::CpuBeside => "CPU per request beside it, to keep answer and record, µs",
        Measure::CpuOfWriter => "CPU per request of the log store's writer, µs",
        Measure::Stored => "on disk per 1,000 requests, KB",
        Measure::LatencyP50 => "latency p50, µs",
        Measure::LatencyP99 => "latency p99, µs",
        Measure::FirstTokenP50 => "TTFT p50, µs",
        Measure::FirstTokenP99 => "TTFT p99, µs",
        Measure::ChunkDelayP50 => "delay of an event p50, µs",
        Measure::ChunkDelayP99 => "delay of an event p99, µs",
        Measure::CpuPerChunk => "CPU per event, µs",
        Measure::FromDisk => "answered from disk, %",
        Measure::IdleMemory => "resident memory idle, MiB",
        Measure::PeakMemory => "resident memory peak, MiB",
    }
}

fn commit() -> String {
    let commit = output_of("git", &["rev-parse", "--short", "HEAD"]);
    let changed = output_of("git", &["status", "--porcelain", "--untracked-files=no"]);
    match changed.is_empty() {
        true => commit,
        false => commit + " with uncommitted changes",
    }
}

/// What a program printed; empty when it cannot be run.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
