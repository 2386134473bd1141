//! What of a gateway's requests is kept (contract, `collect_logs`, `cf-aig-collect-log` and
//! `cf-aig-collect-log-payload`).

/// What a gateway keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A row for every request.
    pub collect: bool,
    /// Heads and bodies with it.
    pub payload: bool,
}

/// What a request wishes instead.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// `cf-aig-collect-log`.
    pub collect: Option<bool>,
    /// `cf-aig-collect-log-payload`.
    pub payload: Option<bool>,
}

impl Policy {
    /// What is kept of a request with these wishes: each goes before the gateway's, either way.
    pub fn with(self, wishes: Wishes) -> Self {
        Self {
            collect: wishes.collect.unwrap_or(self.collect),
            payload: wishes.payload.unwrap_or(self.payload),
        }
    }
}
