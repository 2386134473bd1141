//! What the gateway takes of the machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Gateway, Request};

/// What the allocator does not give back, the cache (16 MiB), and the tables of connections and
/// metrics, which do not shrink.
const KEPT: u64 = 64 << 20;
/// Idle connections are gone, and the allocator gives back, within some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most files that the log store and analytics have open: databases with their write-ahead logs, and
/// the file that bodies are added to. They are opened with the first request.
const STORED: usize = 12;

/// Sockets, files and resident memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    pub sockets: usize,
    /// Without those of the stores.
    pub files: usize,
    /// Those of the stores.
    pub stored: usize,
    pub resident: u64,
    /// Of `resident`, what is of files, such as databases, and the kernel takes back when it likes.
    pub mapped: u64,
}

impl Footprint {
    pub fn of(gateway: &Gateway) -> Self {
        let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()));
        let files = files.expect("a living process").flatten();
        let files: Vec<_> = files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .collect();
        let is_socket = |file: &&PathBuf| file.to_string_lossy().starts_with("socket:");
        let stores = ["data/logs", "data/analytics"].map(|name| gateway.directory().join(name));
        let is_stored = |file: &&PathBuf| stores.iter().any(|store| file.starts_with(store));
        let stored = files.iter().filter(is_stored).count();
        Self {
            sockets: files.iter().filter(is_socket).count(),
            files: files.len() - stored,
            stored,
            resident: gateway.rss(),
            mapped: gateway.mapped(),
        }
    }

    /// Waits until it is as it was, for a while.
    pub async fn returns(self, gateway: &Gateway) -> Self {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(gateway);
            if now.is_back_to(&self) || Instant::now() > until {
                return now;
            }
            breathe(gateway).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Memory of its own.
    fn own(&self) -> u64 {
        self.resident.saturating_sub(self.mapped)
    }

    pub fn is_back_to(&self, before: &Self) -> bool {
        self.sockets <= before.sockets
            && self.files <= before.files
            && self.stored <= STORED
            && self.own() <= before.own() + KEPT
    }
}

/// A few requests: a thread of the gateway gives memory back only while it does something.
async fn breathe(gateway: &Gateway) {
    for _ in 0..50 {
        let answer = Request::get("/nothing").send(gateway).await;
        assert_eq!(answer.status, 404);
    }
}
