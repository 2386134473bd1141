//! The store of API keys.

use std::sync::Arc;

use super::Metrics;
use super::followed::{Shown, follow};
use crate::keys::Keys;

impl Metrics {
    /// Shows how the store is from now on.
    pub fn follow_keys(&self, keys: Arc<Keys>) -> prometheus::Result<()> {
        follow(&self.registry, move || shown(&keys))
    }
}

fn shown(keys: &Keys) -> Vec<Shown> {
    let gauge = |name, help, value| Shown::counter(name, help, value).into_gauge();
    vec![
        gauge(
            "tollgate_api_keys",
            "API keys that are known, those included that are revoked or have expired",
            keys.table().len() as u64,
        ),
        gauge(
            "tollgate_api_key_store_failing",
            "1 while the store of API keys cannot be read or written; the log says why",
            u64::from(keys.is_failing()),
        ),
    ]
}
