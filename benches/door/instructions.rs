//! Instructions per request under valgrind's callgrind: the same to the permille from
//! run to run, where processor time on a shared machine is not.
//!
//! Each leg runs twice, with N and with 2 N requests: the difference leaves out what
//! starting and stopping cost. Kernel work is not counted.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::legs::{self, Leg};
use crate::process::{self, Cores, Scratch};
use crate::request::{Numbers, Questions};
use crate::{Binaries, Outcome, cached, closed};

/// How long callgrind may take to write its file.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 8;

/// What is sent.
#[derive(Args, Clone)]
pub struct Options {
    /// Body size in bytes.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Give the gateway a cache that has every answer, or none of them.
    #[arg(long, value_enum)]
    cache: Option<Cached>,
    /// Give the gateway retries, timeouts and a route.
    #[arg(long, conflicts_with = "cache")]
    resilient: bool,
    /// Give the gateway a log store, and requests that differ.
    #[arg(long, conflicts_with_all = ["cache", "resilient"])]
    recorded: bool,
    /// Give the gateway a key, limits, a cache without an answer and a log store.
    #[arg(long, conflicts_with_all = ["cache", "resilient", "recorded"])]
    governed: bool,
    /// Requests of the shorter run.
    #[arg(long, default_value_t = 2000)]
    requests: u64,
    /// Where the profiles are kept, for callgrind_annotate.
    #[arg(long, default_value = "target/callgrind")]
    profiles: PathBuf,
}

/// What the cache does with the requests.
#[derive(ValueEnum, Clone, Copy, PartialEq, Debug)]
enum Cached {
    Hit,
    Miss,
}

impl Options {
    fn setup(&self) -> legs::Setup {
        match self.cache {
            Some(_) => legs::CACHING,
            None if self.resilient => legs::RESILIENT,
            None if self.recorded => legs::RECORDING,
            None if self.governed => legs::GOVERNED,
            None => legs::PLAIN,
        }
    }

    /// What bare is asked too, though it caches nothing.
    fn questions(&self, leg: &Leg) -> Questions {
        if self.recorded {
            return Questions::varied(leg, self.size);
        }
        let new = Numbers {
            first: 1,
            count: u64::MAX,
        };
        if self.governed {
            return Questions::governed(leg, self.size, leg.key(), new);
        }
        let numbers = match self.cache {
            Some(Cached::Miss) => new,
            _ => Numbers::ONE,
        };
        Questions::new(leg, self.size, numbers, None)
    }
}

/// Prints instructions per request of bare Pingora and of the gateway, and the ratio.
pub fn run(binaries: &Binaries, options: &Options) -> Outcome<()> {
    std::fs::create_dir_all(&options.profiles).map_err(|e| e.to_string())?;
    let cores = Cores::choose()?;
    process::pin(cores.load)?;
    let bare = per_request(binaries, options, cores, "bare")?;
    let gateway = per_request(binaries, options, cores, "gateway")?;
    println!("instructions per request, {} byte bodies", options.size);
    println!("  bare     {bare:>10.0}");
    println!("  gateway  {gateway:>10.0}");
    println!("  ratio    {:>10.3}", gateway / bare);
    println!("profiles: {}/", options.profiles.display());
    Ok(())
}

fn per_request(
    binaries: &Binaries,
    options: &Options,
    cores: Cores,
    name: &'static str,
) -> Outcome<f64> {
    let run = |requests| profile(binaries, options, cores, name, requests);
    let (short, long) = (run(options.requests)?, run(options.requests * 2)?);
    let more = long
        .checked_sub(short)
        .ok_or("the longer run took fewer instructions")?;
    Ok(more as f64 / options.requests as f64)
}

/// Instructions of a whole run with `requests` requests.
fn profile(
    binaries: &Binaries,
    options: &Options,
    cores: Cores,
    name: &'static str,
    requests: u64,
) -> Outcome<u64> {
    let scratch = Scratch::new()?;
    let (_upstream, address) = legs::start_upstream(cores, &scratch)?;
    let file = format!("{name}-{}-{requests}.out", options.size);
    let file = options.profiles.join(file);
    let wrap = |program: Vec<String>| {
        let profiler = ["valgrind", "--tool=callgrind", "--quiet"].map(str::to_owned);
        let out = format!("--callgrind-out-file={}", file.display());
        profiler.into_iter().chain([out]).chain(program).collect()
    };
    let leg = match name {
        "bare" => legs::bare(name, address, cores, &scratch, &wrap)?,
        _ => legs::gateway(binaries, options.setup(), address, cores, &scratch, &wrap)?,
    };
    if options.cache == Some(Cached::Hit) {
        cached::fill(&leg, options.size, Numbers::ONE)?;
    }
    closed::send(&leg, options.questions(&leg), CONNECTIONS, requests)?;
    end(leg)?;
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    total(&text).ok_or_else(|| format!("{} has no totals", file.display()))
}

fn end(leg: Leg) -> Outcome<()> {
    leg.process
        .map_or(Ok(()), |mut process| process.interrupt(WRITE_LIMIT))
}

fn total(profile: &str) -> Option<u64> {
    let value = |key: &str| {
        profile
            .lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    value("totals:").or_else(|| value("summary:"))
}
