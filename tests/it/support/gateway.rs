//! The real binary, started on free ports with a temporary configuration.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::{Request, Response};
use super::metrics::Metrics;
use super::ports::Port;
use super::wait::{PATIENCE, eventually, within};

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// Used unless the fragment brings its own.
const ACCOUNTS: &str = "accounts: { default: { gateways: { default: {} } } }\n";

/// The file that has its standard output, beside the configuration.
const PRINTED: &str = "stdout";

/// A running gateway. Dropping it ends its processes and removes its files.
pub struct Gateway {
    directory: TempDir,
    child: Child,
    public: Port,
    admin: Port,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    started_as: Builder,
}

/// A gateway about to be started.
#[derive(Default)]
pub struct Builder {
    fragment: String,
    server: Vec<String>,
    admin: String,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    program: Option<PathBuf>,
}

impl Builder {
    /// Adds a line under `server:`, such as `max_body: 1MiB`.
    pub fn server(mut self, line: &str) -> Self {
        self.server.push(line.to_owned());
        self
    }

    /// Says more under `admin:`, such as `tokens: […]`.
    pub fn admin(mut self, more: &str) -> Self {
        self.admin = format!(", {more}");
        self
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file beside the configuration; `{dir}` in the YAML names the directory.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files
            .push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Starts this program instead of the binary itself, such as a link to it.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gateway {
        let (public, admin) = (Port::reserve(), Port::reserve());
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in &self.files {
            std::fs::write(directory.path().join(name), content).expect(name);
        }
        let yaml = self.yaml(directory.path(), &public, &admin);
        std::fs::write(directory.path().join("tollgate.yaml"), yaml).expect("the configuration");
        let mut child = self.command(directory.path()).spawn().expect("the binary");
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let reader = collect(&mut child, stderr.clone());
        let mut gateway = Gateway {
            directory,
            child,
            public,
            admin,
            stderr,
            reader: Some(reader),
            started_as: self,
        };
        gateway.become_ready().await;
        gateway
    }

    fn command(&self, directory: &Path) -> Command {
        let printed = File::options()
            .create(true)
            .append(true)
            .open(directory.join(PRINTED));
        let program = self.program.as_deref().unwrap_or(Path::new(BINARY));
        let mut command = Command::new(program);
        command
            .arg("--conf")
            .arg(directory.join("tollgate.yaml"))
            .current_dir(directory)
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(printed.expect("a file"))
            .stderr(Stdio::piped());
        command
    }

    fn yaml(&self, directory: &Path, public: &Port, admin: &Port) -> String {
        let mut yaml = format!(
            "server:\n  listen: [\"127.0.0.1:{}\"]\n  threads: 2\n  \
             upgrade_socket: {dir}/upgrade.sock\n",
            public.number(),
            dir = directory.display(),
        );
        for line in &self.server {
            yaml.push_str(&format!("  {line}\n"));
        }
        yaml.push_str(&format!(
            "admin: {{ listen: \"127.0.0.1:{}\"{} }}\ndata_dir: {}/data\n",
            admin.number(),
            self.admin,
            directory.display(),
        ));
        if !self.fragment.contains("accounts:") {
            yaml.push_str(ACCOUNTS);
        }
        yaml.push_str(&self.fragment);
        yaml.replace("{dir}", &directory.display().to_string())
    }
}

impl Gateway {
    /// Starts a gateway with these top-level keys; `server`, `admin` and
    /// `data_dir` are the harness's, `accounts` has a default.
    pub async fn start(fragment: &str) -> Self {
        Self::with(fragment).start().await
    }

    /// As [`Gateway::start`], with more to say first.
    pub fn with(fragment: &str) -> Builder {
        Builder {
            fragment: fragment.to_owned(),
            ..Builder::default()
        }
    }

    /// Where applications connect.
    pub fn public(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.public.number()))
    }

    /// Where operators connect.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin.number()))
    }

    /// `path` on the public listener as a URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public())
    }

    /// The configuration file.
    pub fn conf(&self) -> PathBuf {
        self.directory.path().join("tollgate.yaml")
    }

    /// The directory of configuration and data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process that was started first.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process that was started first.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a living process");
    }

    /// Asks the admin listener.
    pub async fn ask(&self, request: Request) -> Response {
        request.send(self.admin()).await
    }

    /// The metrics as they are now.
    pub async fn metrics(&self) -> Metrics {
        Metrics::new(self.ask(Request::get("/metrics")).await.text())
    }

    /// Waits until the metrics satisfy `wanted`: a request is counted after its last byte.
    pub async fn metrics_when(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let mut last = String::new();
        let polling = async {
            loop {
                let metrics = self.metrics().await;
                if wanted(&metrics) {
                    return metrics;
                }
                last = metrics.values();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE / 3, polling).await {
            Ok(metrics) => metrics,
            Err(_) => panic!("{what}: not in these metrics:\n{last}"),
        }
    }

    /// Waits until so many requests are in the books.
    pub async fn settled(&self, count: usize) {
        let what = format!("{count} requests in the books");
        self.metrics_when(&what, |metrics| {
            metrics.sum("tollgate_requests_total", &[]) >= count as f64
        })
        .await;
    }

    /// Everything written to standard error so far.
    pub fn log(&self) -> String {
        let bytes = self.stderr.lock().expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything written to standard output so far, also before a restart.
    pub fn printed(&self) -> String {
        let bytes = std::fs::read(self.directory().join(PRINTED)).expect("a file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for `needle` in the log.
    pub async fn logged(&self, needle: &str) -> String {
        eventually(&format!("{needle:?} in the log"), || {
            Some(self.log()).filter(|log| log.contains(needle))
        })
        .await
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// Of it, what is of files, in bytes.
    pub fn mapped(&self) -> u64 {
        self.status_field("RssFile:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_rss(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Ends it with SIGTERM and returns how it exited.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exited().await
    }

    /// Ends it with `signal` and starts it again on the same files; its log begins anew.
    pub async fn restarted(self, signal: Signal) -> Self {
        self.restarted_after(signal, |_| ()).await
    }

    /// As [`Gateway::restarted`], doing something to its directory between the two.
    pub async fn restarted_after(mut self, signal: Signal, between: impl FnOnce(&Path)) -> Self {
        self.signal(signal);
        self.exited().await;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        between(self.directory.path());
        let mut command = self.started_as.command(self.directory.path());
        self.child = command.spawn().expect("the binary");
        self.stderr = Arc::new(Mutex::new(Vec::new()));
        self.reader = Some(collect(&mut self.child, self.stderr.clone()));
        self.become_ready().await;
        self
    }

    /// Waits until the process that was started first has exited.
    pub async fn exited(&mut self) -> ExitStatus {
        within("the gateway's exit", async {
            loop {
                if let Some(status) = self.child.try_wait().expect("our child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    fn status_field(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a living process");
        let line = status.lines().find(|line| line.starts_with(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kibibytes.expect("a field in kB") * 1024
    }

    async fn become_ready(&mut self) {
        within("readiness of the gateway", async {
            while !self.is_ready().await {
                if let Some(status) = self.child.try_wait().expect("our child") {
                    panic!("the gateway exited with {status}:\n{}", self.log());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn is_ready(&self) -> bool {
        if tokio::net::TcpStream::connect(self.admin()).await.is_err() {
            return false;
        }
        let answer = Request::get("/readyz").try_open(self.admin()).await;
        answer.is_some_and(|answer| answer.status == 200)
    }
}

impl From<&Gateway> for SocketAddr {
    fn from(gateway: &Gateway) -> Self {
        gateway.public()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_successors(self.directory.path());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}

/// Ends the processes that an upgrade left behind: those whose command line names `directory`.
fn end_successors(directory: &Path) {
    let needle = directory.as_os_str().as_encoded_bytes();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if memchr::memmem::find(&line, needle).is_some() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Collects standard error; ends when every process that holds it has.
fn collect(child: &mut Child, log: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let mut stderr = child.stderr.take().expect("a pipe");
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(count @ 1..) = stderr.read(&mut piece) {
            if let Ok(mut log) = log.lock() {
                log.extend_from_slice(&piece[..count]);
            }
        }
    })
}

/// Runs the binary with these arguments until it exits.
pub async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output().expect("the binary"));
    within("the end of a command", run).await.expect("no panic")
}

/// Runs `tollgate check` on `yaml`.
pub fn check(yaml: &str) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tollgate.yaml");
    std::fs::write(&path, yaml).expect("the configuration");
    check_file(&path, &[])
}

/// Runs `tollgate check` on a file, with more environment variables.
pub fn check_file(path: &Path, environment: &[(String, String)]) -> Output {
    Command::new(BINARY)
        .args(["check", "--conf"])
        .arg(path)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary")
}
