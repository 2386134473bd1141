//! Everything that requests may read, immutable behind one `Arc`.

/// One configuration, resolved. A request takes one at its start and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {}
