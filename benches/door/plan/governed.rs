//! Loads on a gateway that does all it can with a request and refuses none: an API key, rate
//! limits, a budget, a cache that has no answer, a log store with bodies. Proof that it was all
//! done: every answer is a miss, every call is a row, nothing was dropped, and it was paid for.

use super::{RATE, Run, never_asked};
use crate::closed::{self, Throughput};
use crate::figures::{Cell, KIB, MIB, Measure};
use crate::legs::Leg;
use crate::recorded::Kept;
use crate::request::Questions;
use crate::{Outcome, cached, open};

/// Requests a second where processor time is asked for, and the log store's writer has to keep up
/// on the one core that the requests have, too.
pub const BESIDE_32_KB: u32 = 1000;
/// The same with bodies of 1 MB.
pub const BESIDE_1_MB: u32 = 50;

/// Connections of a load with bodies of 1 MB: what is sent before its schedule comes all at once,
/// and thirty-two would be more than a log store lets wait.
const FEW: u32 = 4;

impl Run<'_> {
    /// Bodies of 32 KB and more not as fast as it goes: some would be given up, as in
    /// [`Run::recorded`].
    pub(super) fn all_governed(&mut self) -> Outcome<()> {
        self.governed(KIB)?;
        self.governed_at(32 * KIB, BESIDE_32_KB)?;
        self.governed_at(MIB, BESIDE_1_MB)?;
        self.governed_at(KIB, RATE)?;
        self.governed_at(32 * KIB, RATE)
    }

    /// As fast as it goes.
    fn governed(&mut self, size: usize) -> Outcome<()> {
        let load = self.load(cached::CONNECTIONS);
        let measures = [
            Measure::Rate,
            Measure::CpuPerRequest,
            Measure::CpuOnPath,
            Measure::CpuBeside,
            Measure::CpuOfWriter,
        ];
        let key = self.legs.key();
        self.rounds(Cell::Governed(size), measures, |leg| {
            let questions = Questions::governed(leg, size, key, never_asked());
            let before = Books::of(leg)?;
            let (shown, asked) = closed::measure(leg, questions, load)?;
            let shown = Books::closed_on(before, leg, asked, shown)?;
            let [all, on_path, beside, writer] = spent(leg, shown);
            Ok([Some(shown.per_second), all, on_path, beside, writer])
        })
    }

    /// On a schedule.
    fn governed_at(&mut self, size: usize, rate: u32) -> Outcome<()> {
        let mut load = self.scheduled(rate);
        if size >= MIB {
            load.connections = FEW;
        }
        let measures = [
            Measure::LatencyP50,
            Measure::LatencyP99,
            Measure::CpuPerRequest,
            Measure::CpuOnPath,
            Measure::CpuBeside,
            Measure::CpuOfWriter,
        ];
        let key = self.legs.key();
        self.rounds(Cell::GovernedAt(size, rate), measures, |leg| {
            let questions = Questions::governed(leg, size, key, never_asked());
            let before = Books::of(leg)?;
            let shown = open::measure(leg, &questions, load)?;
            let latency = shown.latency;
            let shown = Books::closed_on(before, leg, shown.asked, shown.spent)?;
            let [all, on_path, beside, writer] = spent(leg, shown);
            let (p50, p99) = (Some(latency.p50), Some(latency.p99));
            Ok([p50, p99, all, on_path, beside, writer])
        })
    }
}

fn spent(leg: &Leg, shown: Throughput) -> [Option<f64>; 4] {
    [
        shown.cpu_micros,
        shown.on_path_micros(),
        shown.beside_micros.filter(|_| leg.caches),
        shown.writer_micros,
    ]
}

/// What a governed gateway has kept and booked.
struct Books {
    kept: Kept,
    /// US dollars, in all budgets.
    spent: f64,
}

impl Books {
    /// Now; none for what is not governed.
    fn of(leg: &Leg) -> Outcome<Option<Self>> {
        let both = Kept::by(leg)?.zip(leg.spent()?);
        Ok(both.map(|(kept, spent)| Self { kept, spent }))
    }

    /// What a window showed, with all of the writer's work for it; an error when one of the
    /// `asked` calls since `before` is not a whole row, or when none of them cost anything.
    fn closed_on(
        before: Option<Self>,
        leg: &Leg,
        asked: u64,
        shown: Throughput,
    ) -> Outcome<Throughput> {
        let Some(before) = before else {
            return Ok(shown.with_all_written(None));
        };
        let whole = before.kept.whole(leg, asked)?;
        if leg.spent()? <= Some(before.spent) {
            return Err(format!(
                "{}: {asked} calls cost its budget nothing",
                leg.name
            ));
        }
        Ok(shown.with_all_written(Some(whole.writer_micros)))
    }
}
