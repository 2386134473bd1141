//! What the service manager is told, over `$NOTIFY_SOCKET`. Without one, nothing.

use sd_notify::NotifyState;

/// Up (again): after the start, after a reload, and as the new process of an upgrade.
pub fn ready(status: &str) {
    let main = NotifyState::MainPid(std::process::id());
    send(&[main, NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. [`ready`] must follow, whatever its outcome.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("no monotonic clock for the service manager: {error}"),
    }
}

/// The unit's main process is `pid` from now on.
pub fn handed_over(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// The unit goes down. Never said by a process that has handed over.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("the service manager could not be told: {error}");
    }
}
