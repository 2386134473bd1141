//! Within what the requests of a gateway, or of a key, may pass.

use super::access::Access;
use super::rate;
use super::spend::{self, Scope};

/// All that is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Whose they are: what was counted and spent is remembered under it.
    pub scope: Scope,
    /// What they may ask for.
    pub access: Access,
    /// How much may pass in a time.
    pub rates: Vec<rate::Rule>,
    /// What they may cost in a time.
    pub spends: Vec<spend::Rule>,
}

impl Default for Bounds {
    /// None, of nobody.
    fn default() -> Self {
        Self {
            scope: Scope::Gateway(Box::default()),
            access: Access::default(),
            rates: Vec::new(),
            spends: Vec::new(),
        }
    }
}

impl Bounds {
    /// They are those of the key with this id.
    pub fn are_of_key(&mut self, id: &str) {
        self.scope = Scope::Key(id.into());
        for rule in &mut self.rates {
            rule.scope = self.scope.clone();
        }
    }

    /// Whether they are a key's, and not a gateway's.
    pub fn are_a_key_s(&self) -> bool {
        matches!(self.scope, Scope::Key(_))
    }
}
