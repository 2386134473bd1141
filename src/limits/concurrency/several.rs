//! Entering several gates: provider, gateway, process.
//!
//! Waiting for one while holding a place at another would let one full gate fill the others, in
//! whatever order they are taken: those who wait for a stalled provider would fill the process,
//! those who wait for a busy gateway its providers. So whoever waits holds nothing, and gets all
//! places at once. What waits cannot spread then; what is in flight cannot either as long as a
//! provider's cap is below its gateways', and theirs below the process's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Full, Gate, Pass};

/// Places at several gates, all given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the places back"]
pub struct Passes {
    _held: Vec<Pass>,
}

/// Enters all gates at once, without waiting and without a lock, if there is room at each and
/// nobody waits there.
pub fn try_enter_all(gates: &[Arc<Gate>]) -> Option<Passes> {
    enter_with(gates, None).ok()
}

/// Enters all gates, which are to be distinct and the narrowest first, and holds a place at none
/// of them while it waits for another. It waits in the line of the first that is full, and
/// again if another has filled up by then: in each at most as long as that gate says, in all as
/// long as the most patient of them says, and not beyond `latest`. Dropping the future leaves no
/// trace.
///
/// # Errors
/// [`Full`] of the gate it waited for, or could not wait for.
pub async fn enter_all(gates: &[Arc<Gate>], latest: Option<Instant>) -> Result<Passes, Full> {
    let mut full = match enter_with(gates, None) {
        Ok(passes) => return Ok(passes),
        Err(full) => full,
    };
    let patience = Instant::now() + longest(gates);
    let latest = latest.map_or(patience, |latest| latest.min(patience));
    loop {
        let turn = gates[full].wait(latest).await?;
        match enter_with(gates, Some((full, turn))) {
            Ok(passes) => return Ok(passes),
            Err(next) => full = next,
        }
    }
}

/// Enters all without waiting, one of them with the pass it has for it; or says which is full.
fn enter_with(gates: &[Arc<Gate>], turn: Option<(usize, Pass)>) -> Result<Passes, usize> {
    let mut passes = Vec::with_capacity(gates.len());
    let (turn_at, mut turn) = turn.unzip();
    for (place, gate) in gates.iter().enumerate() {
        let pass = if turn_at == Some(place) {
            turn.take()
        } else {
            gate.try_enter()
        };
        passes.push(pass.ok_or(place)?);
    }
    Ok(Passes { _held: passes })
}

fn longest(gates: &[Arc<Gate>]) -> Duration {
    let waits = gates.iter().map(|gate| gate.longest_wait());
    waits.max().unwrap_or_default()
}
