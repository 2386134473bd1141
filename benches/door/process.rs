//! Child processes: started on one core, measured, and ended whatever happens.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::Outcome;

/// How the names of threads begin that serve no request, but keep answers, records
/// and what was spent.
pub const BESIDE: [&str; 5] = ["cache ", "ledger", WRITER, "analytics", "spend"];
/// The log store's thread.
pub const WRITER: &str = "logs";

/// How long a process may take until it accepts connections. Callgrind is slow.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long one that is no longer needed may take to end by itself, and to write a profile.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The two cores of a run.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Alone with the process under test.
    pub tested: usize,
    /// Upstream and load.
    pub load: usize,
}

impl Cores {
    /// The first two cores this process may use; an error when there is only one.
    pub fn choose() -> Outcome<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(|e| e.to_string())?;
        let mut usable = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        match (usable.next(), usable.next()) {
            (Some(tested), Some(load)) => Ok(Self { tested, load }),
            _ => {
                Err("two cores are needed: one for the process under test, one for the load".into())
            }
        }
    }
}

/// Keeps the calling thread, and all it starts from now on, on `core`.
pub fn pin(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|e| format!("cannot run on core {core}: {e}"))
}

/// Raises the number of open files to what the machine allows: a thousand streams need it.
pub fn raise_file_limit() -> Outcome<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(|e| format!("open files: {e}"))
}

/// Replaces this process by `program` on `core`; it is killed when its parent ends.
pub fn become_pinned(core: usize, program: &[String]) -> Outcome<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| e.to_string())?;
    pin(core)?;
    let (path, arguments) = program.split_first().ok_or("no program")?;
    let error = Command::new(path).args(arguments).exec();
    Err(format!("{path}: {error}"))
}

/// A process that ends when dropped: asked to, and killed when it does not.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    errors: PathBuf,
}

impl Process {
    /// Starts `program` on `core`, its standard error in `directory`, and waits until
    /// `address` accepts connections.
    pub fn start(
        name: &'static str,
        core: usize,
        program: &[String],
        address: SocketAddr,
        directory: &Path,
    ) -> Outcome<Self> {
        let errors = directory.join(format!("{name}.stderr"));
        let stderr = File::create(&errors).map_err(|e| format!("{}: {e}", errors.display()))?;
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let child = Command::new(this)
            .args(["run-pinned", &core.to_string(), "--"])
            .args(program)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("{name}: {e}"))?;
        let mut process = Self {
            name,
            child,
            errors,
        };
        process.wait_for(address)?;
        Ok(process)
    }

    /// Waits until `address` accepts connections; an error when the process ends before.
    pub fn wait_for(&mut self, address: SocketAddr) -> Outcome<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "{} ended with {status}: {}",
                    self.name,
                    self.said()
                ));
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not listen: {}", self.name, self.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The end of what it wrote to standard error.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Processor time spent so far by all its threads, user and system.
    pub fn cpu(&self) -> Outcome<Duration> {
        ClockId::pid_cpu_clock_id(self.pid())
            .and_then(clock_gettime)
            .map(Duration::from)
            .map_err(|e| format!("{}: processor time: {e}", self.name))
    }

    /// What of it was spent by threads whose names begin so.
    pub fn cpu_of(&self, threads: &[&str]) -> Outcome<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let all = std::fs::read_dir(&tasks).map_err(|e| format!("{tasks}: {e}"))?;
        let folders = all.filter_map(|thread| Some(thread.ok()?.path()));
        let nanos = folders.filter_map(|folder| {
            let name = std::fs::read_to_string(folder.join("comm")).ok()?;
            let times = std::fs::read_to_string(folder.join("schedstat")).ok()?;
            let spent = times.split_whitespace().next()?.parse::<u64>().ok()?;
            let is_meant = threads.iter().any(|thread| name.starts_with(thread));
            is_meant.then_some(spent)
        });
        Ok(Duration::from_nanos(nanos.sum()))
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> Outcome<u64> {
        self.status_field("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_memory(&self) -> Outcome<u64> {
        self.status_field("VmHWM:")
    }

    fn status_field(&self, field: &str) -> Outcome<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        text.lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .map(|kib: u64| kib * 1024)
            .ok_or_else(|| format!("{path} has no {field}"))
    }

    /// Asks it to end at once (SIGINT) and waits, so that a profiler can write its file.
    pub fn interrupt(&mut self, limit: Duration) -> Outcome<()> {
        kill(self.pid(), Signal::SIGINT).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(|e| e.to_string())?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!(
            "{} did not end within {limit:?} of SIGINT",
            self.name
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.interrupt(END_LIMIT);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of the loopback interface.
pub fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("no free port: {e}"))
}

/// A private directory that is removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates it below the system's temporary directory.
    pub fn new() -> Outcome<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("tollgate-bench-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// A directory in it for one process.
    pub fn directory(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
