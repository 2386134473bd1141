//! The gates of the process, which outlive the configuration that asks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Gate, Scope, Settings};

/// All gates of the process: those that are configured, and those that are so no more but still
/// have calls in flight, which stay counted if the configuration comes back.
#[derive(Debug, Default)]
pub struct Registry {
    gates: Mutex<Gates>,
}

#[derive(Debug, Default)]
struct Gates {
    known: BTreeMap<Scope, Weak<Gate>>,
    /// Kept although nobody may be in flight.
    configured: Vec<Arc<Gate>>,
}

impl Registry {
    /// Exactly these caps hold from now on, also for the calls of the configuration before: ask
    /// only when the new one is known to be good. A raised cap lets those in who wait, and so
    /// does one that is gone.
    pub fn apply(&self, caps: BTreeMap<Scope, Settings>) {
        let mut gates = self.gates.lock();
        for (scope, gate) in &gates.known {
            if let Some(gate) = gate.upgrade().filter(|_| !caps.contains_key(scope)) {
                gate.set(Settings::default());
            }
        }
        let configured = caps.into_iter();
        gates.configured = configured
            .map(|(scope, settings)| gates.configure(scope, settings))
            .collect();
        gates.known.retain(|_, gate| gate.strong_count() > 0);
    }

    /// The gate of this scope, if it has one.
    pub fn gate(&self, scope: &Scope) -> Option<Arc<Gate>> {
        self.gates.lock().known.get(scope)?.upgrade()
    }

    /// All gates, in the order of their scopes.
    pub fn gates(&self) -> Vec<Arc<Gate>> {
        let gates = self.gates.lock();
        gates.known.values().filter_map(Weak::upgrade).collect()
    }
}

impl Gates {
    fn configure(&mut self, scope: Scope, settings: Settings) -> Arc<Gate> {
        if let Some(gate) = self.known.get(&scope).and_then(Weak::upgrade) {
            gate.set(settings);
            return gate;
        }
        let gate = Arc::new(Gate::new(scope.clone(), settings));
        self.known.insert(scope, Arc::downgrade(&gate));
        gate
    }
}
