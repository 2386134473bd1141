//! What a key may ask for, how fast and for how much, as its operator wrote it. What that means, and
//! that it is kept, is for the limits to say: they read it here, of [`crate::auth::Consumer`].

use crate::config::schema::{Access, RateLimit, SpendLimit};

/// The bounds of a key. Those of a gateway's token are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bounds {
    /// What its requests may ask for.
    pub access: Access,
    /// How fast they may come.
    pub rate_limits: Vec<RateLimit>,
    /// How much they may cost.
    pub spend_limits: Vec<SpendLimit>,
}
