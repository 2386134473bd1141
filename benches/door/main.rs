//! The benchmark of the whole binary: direct, bare Pingora and the gateway in turn, without a
//! cache and with one, without a log store and with one, and governed.
//!
//! The process under test has one core to itself; the upstream and the load share
//! another. Every cell is measured in several rounds that visit the three legs in
//! alternating order, and what counts are ratios within one round: machines drift.
//!
//! [`process`] starts and pins, [`legs`] are what is compared, [`upstream`] answers,
//! [`request`] and [`answer`] are what goes over the wire, [`closed`], [`open`] and
//! [`streams`] make load, [`cached`] sees to caches and [`recorded`] to log stores, [`plan`]
//! runs it all, [`admin`] asks a gateway about itself, [`figures`], [`goals`], [`machine`] and [`report`] tell.
//! [`instructions`] counts instructions under callgrind where noise hides the truth.

mod admin;
mod answer;
mod cached;
mod closed;
mod figures;
mod goals;
mod instructions;
mod legs;
mod machine;
mod open;
mod plan;
mod process;
mod recorded;
mod report;
mod request;
mod streams;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What every measurement returns: a figure, or why the run does not count.
pub type Outcome<T> = Result<T, String>;

#[derive(Parser)]
#[command(about = "Measures the gateway, and its cache, against bare Pingora and no proxy at all")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    binaries: Binaries,
    /// Shorter and fewer rounds, for development; writes no results unless `--out` is given.
    #[arg(long)]
    quick: bool,
    /// Only loads whose name contains this, such as "32 KB", "streams", "cache" or "governed"; writes no results.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the results go [default: benches/RESULTS.md].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is measured.
#[derive(Args, Clone)]
pub struct Binaries {
    /// The gateway's binary.
    #[arg(
        long,
        global = true,
        env = "TOLLGATE_BIN",
        default_value = "target/release/tollgate"
    )]
    gateway: PathBuf,
    /// Put bare Pingora in the gateway's place: shows how far two equal things differ here.
    #[arg(long, global = true)]
    same: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Count instructions per request under valgrind's callgrind: repeatable to the permille.
    Instructions(instructions::Options),
    /// Answer as a provider would. Started by the benchmark.
    #[command(hide = true)]
    Upstream { listen: SocketAddr },
    /// Become another program on one core, which ends with its parent. Started by the benchmark.
    #[command(hide = true)]
    RunPinned {
        core: usize,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Outcome<()> {
    match options.command {
        Some(Command::Upstream { listen }) => upstream::serve(listen),
        Some(Command::RunPinned { core, program }) => process::become_pinned(core, &program),
        Some(Command::Instructions(chosen)) => instructions::run(&options.binaries, &chosen),
        None => compare(&options),
    }
}

/// The benchmark itself.
fn compare(options: &Options) -> Outcome<()> {
    let effort = if options.quick {
        plan::QUICK
    } else {
        plan::FULL
    };
    let finished = plan::run(&options.binaries, &effort, &options.only)
        .map_err(|why| format!("this run does not count: {why}"))?;
    let text = report::render(&finished, &effort, &options.binaries);
    println!("{text}");
    match results_file(options) {
        Some(path) => {
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
            eprintln!("written to {}", path.display());
        }
        None => eprintln!("not written: only full runs of the gateway make results"),
    }
    Ok(())
}

fn results_file(options: &Options) -> Option<PathBuf> {
    let counts = !options.quick && !options.binaries.same && options.only.is_empty();
    let default = counts.then(|| concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md").into());
    options.out.clone().or(default)
}
