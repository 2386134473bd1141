//! Bounded waiting: a test that hangs fails and says what it waited for.
//!
//! The bound is generous because it is no assertion about speed.

use std::future::Future;
use std::time::Duration;

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `future`, and fails the test when nothing came of it.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// Asks `probe` again and again until it has an answer.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = probe() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
