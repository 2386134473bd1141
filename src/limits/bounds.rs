//! Within what the requests of a gateway, or of a key, may pass.

use super::access::Access;
use super::rate;

/// All that is said of it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Bounds {
    /// What they may ask for.
    pub access: Access,
    /// How much may pass in a time.
    pub rates: Vec<rate::Rule>,
}

impl Bounds {
    /// Whose they are: counts are remembered under it.
    pub fn are_of(&mut self, scope: &str) {
        for rule in &mut self.rates {
            rule.scope = scope.into();
        }
    }
}
