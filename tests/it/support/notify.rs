//! A service manager's end of `$NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;

use super::wait::eventually;

/// Receives what processes tell the service manager.
pub struct NotifySocket {
    directory: TempDir,
    socket: UnixDatagram,
    seen: Mutex<Vec<String>>,
}

impl NotifySocket {
    /// A new one, in a directory of its own.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self {
            directory,
            socket,
            seen: Mutex::default(),
        }
    }

    /// Its path, for `NOTIFY_SOCKET`.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Every line received so far, in order.
    pub fn lines(&self) -> Vec<String> {
        let mut seen = self.seen.lock().expect("no panic");
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            seen.extend(text.lines().map(str::to_owned));
        }
        seen.clone()
    }

    /// Waits until `line` was received `count` times.
    pub async fn told(&self, line: &str, count: usize) {
        let what = format!("{count} times {line:?} at the service manager");
        eventually(&what, || {
            let times = self.lines().iter().filter(|known| *known == line).count();
            (times >= count).then_some(())
        })
        .await;
    }
}
