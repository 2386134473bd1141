//! The results as Markdown: goals first, then every figure, then how it was measured.

use std::fmt::Write;
use std::process::Command;

use crate::figures::{Against, BASE, Cell, DIRECT, GATEWAY, KIB, Measure, Series};
use crate::goals::{BARE_WHERE_GOALS_WERE_SET, Bound, GOALS};
use crate::plan::{Effort, Finished};
use crate::{Binaries, machine};

/// The whole report.
pub fn render(run: &Finished, effort: &Effort, binaries: &Binaries) -> String {
    let mut out = String::from("# Benchmark results\n\n");
    out.push_str("Written by `make bench`; `benches/README.md` says how it measures.\n\n");
    let subject = match binaries.same {
        true => "bare Pingora in the gateway's place (how far two equal things differ)",
        false => {
            "the gateway, passing through, with retries and routes, with nothing but a cache on, \
             with nothing but a log store on, and governed by all that limits and records"
        }
    };
    line(
        &mut out,
        format_args!("- measured: {subject}, {} run", effort.name),
    );
    line(
        &mut out,
        format_args!("- its binary: `{}`", binaries.gateway.display()),
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
        let Some((bound, shown)) = found.and_then(|series| goal.bound.judged(series)) else {
            continue;
        };
        let (sign, is_met) = match goal.bound {
            Bound::RatioAtLeast(_) => ("≥", shown.middle >= bound),
            _ => ("≤", shown.middle <= bound),
        };
        let verdict = if is_met { "met" } else { "**not met**" };
        let text = |value| goal.bound.text(value);
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
