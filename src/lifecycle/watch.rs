//! Notices that the configuration or a certificate changed on disk.
//!
//! Directories are watched and not files: editors replace files, and Kubernetes swaps a
//! symbolic link beside them. What an event says is not trusted; the contents decide.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout, timeout_at};

use super::reload::Live;

/// Writers make several events of one change: wait until they have been quiet for this long.
const QUIET: Duration = Duration::from_millis(100);

/// Reload at the latest this long after the first event, however busy the directory is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reloads `live` whenever its files change. Never returns.
pub async fn reload_on_change(live: &Arc<Live>) {
    let (sender, mut events) = channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let only_read = matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_)));
        if !only_read {
            // A full channel already says that something happened.
            let _ = sender.try_send(());
        }
    });
    let mut watches = match watcher {
        Ok(watcher) => Watches {
            watcher,
            directories: BTreeSet::new(),
        },
        Err(error) => {
            log::warn!(
                "changed files are not noticed, reload with SIGHUP or `tollgate reload`: {error}"
            );
            return std::future::pending().await;
        }
    };
    loop {
        watches.follow(&live.files());
        // A change between reading the files and watching them would go unnoticed.
        live.reload_if_changed().await;
        quiet_after_event(&mut events).await;
        live.reload_if_changed().await;
    }
}

async fn quiet_after_event(events: &mut Receiver<()>) {
    if events.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
    let latest = Instant::now() + PATIENCE;
    while let Ok(Ok(Some(()))) = timeout_at(latest, timeout(QUIET, events.recv())).await {}
}

struct Watches {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
}

impl Watches {
    /// Watches the directories of `files` and of what they link to, and no others.
    fn follow(&mut self, files: &[PathBuf]) {
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| directories(file)).collect();
        for gone in self.directories.difference(&wanted) {
            // A removed directory is no longer watched anyway.
            let _ = self.watcher.unwatch(gone);
        }
        // Again even those that are watched already: a directory may have been made anew.
        self.directories = wanted;
        for directory in &self.directories {
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                log::warn!(
                    "changes in `{}` are not noticed: {error}",
                    directory.display()
                );
            }
        }
    }
}

/// Where `file` and the file it links to lie.
fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let target = std::fs::canonicalize(file).ok();
    let parent = |path: &Path| {
        path.parent().map(|parent| {
            if parent.as_os_str().is_empty() {
                ".".into()
            } else {
                parent.to_owned()
            }
        })
    };
    [parent(file), target.as_deref().and_then(parent)]
        .into_iter()
        .flatten()
}
