//! What is kept of requests.

use super::Problems;
use crate::config::schema;
use crate::metadata::Settings;

pub(super) fn metadata(
    path: &str,
    metadata: &schema::Metadata,
    problems: &mut Problems,
) -> Settings {
    let schema::Metadata {
        max_entries,
        max_size,
        strict,
    } = metadata;
    let default = Settings::default();
    let entries = max_entries.map_or(Some(default.max_entries), |most| usize::try_from(most).ok());
    let entries = entries.filter(|most| (1..=64).contains(most));
    if entries.is_none() {
        problems.add(format!("{path}.max_entries"), "must be 1 to 64");
    }
    let bytes = max_size.map_or(default.max_bytes as u64, |size| size.0);
    if !(64..=64 << 10).contains(&bytes) {
        problems.add(format!("{path}.max_size"), "must be 64B to 64KiB");
    }
    Settings {
        max_entries: entries.unwrap_or(default.max_entries),
        max_bytes: usize::try_from(bytes).unwrap_or(default.max_bytes),
        strict: *strict,
    }
}
