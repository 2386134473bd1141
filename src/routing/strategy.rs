//! In which order the targets of a route are tried.
//!
//! Every strategy gives a whole order and not only its first: what fails over is spread by the
//! same rule. Leaves out what a target cannot do and who is in cooldown: the caller passes over
//! such places, which leaves the others in the order they would have had without.
//!
//! Chance is drawn by an exponential race (Efraimidis and Spirakis, 2006): each target finishes
//! after `-ln(u) / weight`, where `u` is by chance from 0 to 1. The order in which they finish is
//! that of drawing one after the other by weight. Where `u` is a hash of session and target in
//! place of chance, that is weighted rendezvous hashing: a session finds the same order every
//! time, and a target that comes or goes takes along its own share only, since how the others
//! finish does not depend on it.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use super::load::Load;
use super::plan::MAX_TARGETS;

/// What the order of a route's targets goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The order in which they are configured; weights play no part.
    #[default]
    Priority,
    /// Chance, by weight; the second too, so that what fails over spreads as well.
    Weighted,
    /// Calls in flight per weight, the fewest first; among equals, chance by weight.
    LeastInFlight,
    /// The power of two choices: of two drawn by weight, the one where a call costs less
    /// ([`Load::cost`]: time to first byte, times calls in flight), then the other, then the rest
    /// by cost. Going for the cheapest of all would send everybody to the same one at once. With
    /// two targets the weights do not matter: both are drawn.
    Latency,
}

/// A target of a route, as far as the order goes.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The same for as long as the target is the same (a hash of provider, model and key),
    /// wherever it stands in the route, in every process: sessions are tied to it.
    pub id: u64,
    /// Its share, relative to the others. With 0 it comes only after all that have more.
    pub weight: u32,
    /// How busy and how fast it is.
    pub load: Arc<Load>,
}

/// The places of candidates, in the order in which they are to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    places: [u8; MAX_TARGETS],
    count: usize,
}

/// By what candidates are sorted: those without weight last, then the lowest.
type Rank = (bool, f64);

/// In which order to try `candidates`, of which those beyond [`MAX_TARGETS`] are left out.
///
/// With `affinity`, the digest of what a session is known by, the session keeps its targets (its
/// fallbacks too) whatever the strategy; only ids and weights matter then. `chance` gives numbers
/// from 0 to 1, evenly; it is asked once per candidate, and not at all for `Priority` or with
/// `affinity`.
pub fn order(
    strategy: Strategy,
    candidates: &[Candidate],
    affinity: Option<u64>,
    mut chance: impl FnMut() -> f64,
    now: Instant,
) -> Order {
    if let Some(session) = affinity {
        return Order::race(candidates, |candidate| hashed(session, candidate.id));
    }
    match strategy {
        Strategy::Priority => Order::configured(candidates.len()),
        Strategy::Weighted => Order::race(candidates, |_| chance()),
        Strategy::LeastInFlight => least_in_flight(candidates, chance),
        Strategy::Latency => two_choices(candidates, chance, now),
    }
}

fn least_in_flight(candidates: &[Candidate], mut chance: impl FnMut() -> f64) -> Order {
    let mut order = Order::race(candidates, |_| chance());
    let ranks = ranks(candidates, |candidate| {
        f64::from(candidate.load.in_flight()) / f64::from(candidate.weight.max(1))
    });
    sort(order.places_mut(), &ranks);
    order
}

fn two_choices(candidates: &[Candidate], mut chance: impl FnMut() -> f64, now: Instant) -> Order {
    let mut order = Order::race(candidates, |_| chance());
    let ranks = ranks(candidates, |candidate| candidate.load.cost(now));
    let drawn = order.count.min(2);
    let (drawn, rest) = order.places_mut().split_at_mut(drawn);
    sort(drawn, &ranks);
    sort(rest, &ranks);
    order
}

impl Order {
    fn configured(count: usize) -> Self {
        const PLACES: [u8; MAX_TARGETS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        Self {
            places: PLACES,
            count: count.min(MAX_TARGETS),
        }
    }

    /// Who finishes first, where `luck` is from 0 to 1.
    fn race(candidates: &[Candidate], mut luck: impl FnMut(&Candidate) -> f64) -> Self {
        let mut order = Self::configured(candidates.len());
        let ranks = ranks(candidates, |candidate| {
            finish(luck(candidate), candidate.weight)
        });
        sort(order.places_mut(), &ranks);
        order
    }

    /// The candidate to be tried after so many others, as its place among the candidates.
    pub fn get(&self, tried: usize) -> Option<usize> {
        self.iter().nth(tried)
    }

    /// The places among the candidates, the first to be tried first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let places = self.places.iter().take(self.count);
        places.map(|place| usize::from(*place))
    }

    /// Those that are well as they were, and then those that are cooled, by the time until which
    /// they are (`until`): where all are, the least bad is first. The first `tried` stay where they are.
    pub fn well_first(mut self, tried: usize, until: impl Fn(usize) -> Option<Instant>) -> Self {
        // Read once: a sort over times that change may panic.
        let mut times = [None; MAX_TARGETS];
        for place in self.iter() {
            times[place] = until(place);
        }
        if times.iter().any(Option::is_some) {
            let left = self.places_mut().get_mut(tried..).unwrap_or_default();
            left.sort_by_key(|place| times[usize::from(*place)]);
        }
        self
    }

    fn places_mut(&mut self) -> &mut [u8] {
        &mut self.places[..self.count]
    }
}

/// When somebody of this weight finishes, where `luck` is from 0 to 1: the first to finish is drawn
/// by weight.
pub fn finish(luck: f64, weight: u32) -> f64 {
    // 1 - luck is as even as luck, and not 0 where luck is drawn below 1.
    -(1.0 - luck.clamp(0.0, 1.0)).ln() / f64::from(weight.max(1))
}

/// Worked out before they are compared: loads change all the time, and a sort may panic when its
/// answers do.
fn ranks(candidates: &[Candidate], mut rank: impl FnMut(&Candidate) -> f64) -> [Rank; MAX_TARGETS] {
    let mut ranks = [(true, f64::INFINITY); MAX_TARGETS];
    for (place, candidate) in ranks.iter_mut().zip(candidates) {
        *place = (candidate.weight == 0, rank(candidate));
    }
    ranks
}

/// Among equals the order stays as it is. Does not allocate: the standard library sorts so few by
/// insertion.
fn sort(places: &mut [u8], ranks: &[Rank; MAX_TARGETS]) {
    places.sort_by(|one, other| {
        let (one, other) = (ranks[usize::from(*one)], ranks[usize::from(*other)]);
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
    });
}

/// From 0 to below 1. Must never change, nor depend on the process: sessions would lose their
/// targets.
fn hashed(session: u64, id: u64) -> f64 {
    let bits = mixed(session ^ mixed(id)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// The last steps of SplitMix64: each bit of the argument changes half of the result's.
const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::load::InFlight;
    use super::Strategy::{Latency, LeastInFlight, Priority, Weighted};
    use super::*;

    const ALL: [Strategy; 4] = [Priority, Weighted, LeastInFlight, Latency];
    const DRAWS: usize = 40_000;

    fn candidates(now: Instant, weights: &[u32]) -> Vec<Candidate> {
        let candidate = |(place, weight): (usize, &u32)| Candidate {
            id: mixed(place as u64 + 1),
            weight: *weight,
            load: Arc::new(Load::new(now)),
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    /// The same numbers every time, from 0 to below 1.
    fn chances() -> impl FnMut() -> f64 {
        let mut drawn = 0;
        move || {
            drawn += 1;
            hashed(0, drawn)
        }
    }

    fn never() -> f64 {
        unreachable!("nothing is left to chance")
    }

    fn places(order: &Order) -> Vec<usize> {
        order.iter().collect()
    }

    fn sessions(candidates: &[Candidate]) -> Vec<Vec<usize>> {
        let now = Instant::now();
        let session = |digest| order(Weighted, candidates, Some(digest), never, now);
        (0..DRAWS as u64)
            .map(session)
            .map(|order| places(&order))
            .collect()
    }

    fn draws(strategy: Strategy, candidates: &[Candidate], now: Instant) -> Vec<Vec<usize>> {
        let mut chance = chances();
        let draw = |_| places(&order(strategy, candidates, None, &mut chance, now));
        (0..DRAWS).map(draw).collect()
    }

    /// The share of the orders which begin with that.
    fn share(orders: &[Vec<usize>], beginning: &[usize]) -> f64 {
        let such = orders.iter().filter(|order| order.starts_with(beginning));
        such.count() as f64 / orders.len() as f64
    }

    fn assert_share(orders: &[Vec<usize>], beginning: &[usize], expected: f64) {
        let share = share(orders, beginning);
        assert!(
            (share - expected).abs() < 0.01,
            "{beginning:?}: {share}, not {expected}"
        );
    }

    fn assert_always(orders: &[Vec<usize>], beginning: &[usize]) {
        let other = orders.iter().find(|order| !order.starts_with(beginning));
        assert_eq!(other, None, "not {beginning:?}");
    }

    fn busy(candidate: &Candidate, calls: usize) -> Vec<InFlight> {
        (0..calls).map(|_| candidate.load.enter()).collect()
    }

    fn answers(candidate: &Candidate, millis: u64, now: Instant) {
        let mut call = candidate.load.enter();
        call.measured(Duration::from_millis(millis), now);
    }

    fn measured(now: Instant, weights: &[u32], millis: &[u64]) -> Vec<Candidate> {
        let candidates = candidates(now, weights);
        for (candidate, millis) in candidates.iter().zip(millis) {
            answers(candidate, *millis, now);
        }
        candidates
    }

    #[test]
    fn every_order_has_every_candidate_once() {
        let now = Instant::now();
        let mut chance = chances();
        for count in 0..=MAX_TARGETS + 1 {
            let weights: Vec<u32> = (0..count as u32).map(|place| place % 3).collect();
            let candidates = candidates(now, &weights);
            let expected: Vec<usize> = (0..count.min(MAX_TARGETS)).collect();
            for strategy in ALL {
                for affinity in [None, Some(count as u64)] {
                    let order = order(strategy, &candidates, affinity, &mut chance, now);
                    let mut places = places(&order);
                    assert_eq!(order.get(0), places.first().copied());
                    assert_eq!(order.get(places.len()), None);
                    places.sort_unstable();
                    assert_eq!(places, expected, "{strategy:?}");
                }
            }
        }
    }

    #[test]
    fn priority_is_as_configured_and_leaves_nothing_to_chance() {
        let now = Instant::now();
        let candidates = candidates(now, &[0, 7, 1]);
        let order = order(Priority, &candidates, None, never, now);
        assert_eq!(places(&order), [0, 1, 2]);
    }

    #[test]
    fn no_weight_comes_after_all_others() {
        let now = Instant::now();
        let candidates = measured(now, &[0, 1, 0, 1_000_000], &[1, 900, 2, 800]);
        let _calls = [busy(&candidates[1], 9), busy(&candidates[3], 9)];
        let orders = [Weighted, LeastInFlight, Latency]
            .into_iter()
            .flat_map(|strategy| draws(strategy, &candidates, now))
            .chain(sessions(&candidates));
        for order in orders {
            assert!(order[..2].iter().all(|place| place % 2 == 1), "{order:?}");
        }
    }

    #[test]
    fn one_with_weight_and_two_without() {
        let now = Instant::now();
        let candidates = measured(now, &[0, 1, 0], &[1, 900, 2]);
        for strategy in [Weighted, LeastInFlight, Latency] {
            let orders = draws(strategy, &candidates, now);
            assert_always(&orders, &[1]);
        }
    }

    #[test]
    fn weights_are_shares_of_the_first_and_of_those_after_it() {
        let now = Instant::now();
        let candidates = candidates(now, &[5, 3, 2, 0, 0]);
        let table: [(&[usize], f64); 7] = [
            (&[0], 0.5),
            (&[1], 0.3),
            (&[2], 0.2),
            (&[0, 1], 0.5 * 3.0 / 5.0),
            (&[1, 0], 0.3 * 5.0 / 7.0),
            (&[2, 1], 0.2 * 3.0 / 8.0),
            (&[0, 1, 2, 4], 0.5 * 3.0 / 5.0 / 2.0),
        ];
        // Those of idle targets are equals, which go by weight too.
        for strategy in [Weighted, LeastInFlight] {
            let orders = draws(strategy, &candidates, now);
            table
                .iter()
                .for_each(|(beginning, expected)| assert_share(&orders, beginning, *expected));
        }
        let orders = sessions(&candidates);
        table
            .iter()
            .for_each(|(beginning, expected)| assert_share(&orders, beginning, *expected));
    }

    #[test]
    fn chance_at_and_beyond_its_ends_does_no_harm() {
        let now = Instant::now();
        let candidates = candidates(now, &[1, u32::MAX, 0]);
        for chance in [0.0, 1.0, -1.0, 2.0, f64::NAN, f64::INFINITY] {
            for strategy in ALL {
                let order = order(strategy, &candidates, None, || chance, now);
                assert_eq!(order.get(2), Some(2));
            }
        }
    }

    #[test]
    fn fewest_in_flight_per_weight() {
        // Weights, calls in flight, the order.
        let table: [(&[u32], &[usize], &[usize]); 4] = [
            (&[1, 1, 1], &[2, 0, 1], &[1, 2, 0]),
            (&[4, 1, 1], &[3, 1, 2], &[0, 1, 2]),
            (&[0, 1, 0], &[1, 9, 0], &[1, 2, 0]),
            (&[1, 10], &[0, 1], &[0, 1]),
        ];
        let now = Instant::now();
        for (weights, calls, expected) in table {
            let candidates = candidates(now, weights);
            let pairs = candidates.iter().zip(calls);
            let _calls: Vec<_> = pairs
                .map(|(candidate, calls)| busy(candidate, *calls))
                .collect();
            assert_always(&draws(LeastInFlight, &candidates, now), expected);
        }
    }

    #[test]
    fn of_two_the_faster_goes_first() {
        let now = Instant::now();
        let candidates = measured(now, &[1, 9], &[100, 200]);
        assert_always(&draws(Latency, &candidates, now), &[0, 1]);
        let _call = busy(&candidates[0], 1);
        let _more = busy(&candidates[0], 1);
        assert_always(&draws(Latency, &candidates, now), &[1, 0]);
    }

    #[test]
    fn of_many_two_are_drawn_by_weight_and_the_rest_go_by_cost() {
        let now = Instant::now();
        let candidates = measured(now, &[1, 1, 1, 1], &[400, 300, 200, 100]);
        let orders = draws(Latency, &candidates, now);
        // Each of the six pairs is as likely, and tells the whole order.
        let table: [[usize; 4]; 6] = [
            [3, 2, 1, 0],
            [3, 1, 2, 0],
            [3, 0, 2, 1],
            [2, 1, 3, 0],
            [2, 0, 3, 1],
            [1, 0, 3, 2],
        ];
        table
            .iter()
            .for_each(|order| assert_share(&orders, order, 1.0 / 6.0));
        let heavy = measured(now, &[1, 1, 98], &[100, 200, 300]);
        let orders = draws(Latency, &heavy, now);
        let without = orders.iter().filter(|order| order[2] == 2).count();
        assert!(without < DRAWS / 1000, "{without}");
    }

    #[test]
    fn what_was_never_measured_goes_first_once_and_what_was_slow_gets_another_chance() {
        let now = Instant::now();
        let candidates = measured(now, &[1, 1], &[100]);
        assert_always(&draws(Latency, &candidates, now), &[1]);
        let call = busy(&candidates[1], 1);
        assert_always(&draws(Latency, &candidates, now), &[0]);
        drop(call);
        answers(&candidates[1], 3000, now);
        // Thirty times slower: five half-lives.
        for (later, first) in [(0, 0), (120, 0), (160, 1)] {
            let now = now + Duration::from_secs(later);
            answers(&candidates[0], 100, now);
            assert_always(&draws(Latency, &candidates, now), &[first]);
        }
    }

    #[test]
    fn a_session_keeps_its_targets_whatever_the_strategy() {
        let now = Instant::now();
        let candidates = measured(now, &[1, 2, 3], &[300, 100]);
        for session in 0..100 {
            let [first, rest @ ..] = ALL.map(|strategy| {
                let _call = candidates[0].load.enter();
                order(strategy, &candidates, Some(session), never, now)
            });
            assert_eq!(rest, [first; 3]);
        }
    }

    /// These hold for ever: to change them is to move everybody's sessions.
    #[test]
    fn sessions_are_where_they_always_were() {
        let candidates = candidates(Instant::now(), &[1, 2, 3, 0]);
        let sessions = sessions(&candidates);
        let always = [[1, 2, 0, 3], [1, 2, 0, 3], [0, 2, 1, 3], [1, 2, 0, 3]];
        assert_eq!(sessions[..4], always);
    }

    #[test]
    fn a_target_that_goes_takes_only_its_own_share_along() {
        let all = candidates(Instant::now(), &[5, 3, 2, 0]);
        let before = sessions(&all);
        for gone in 0..all.len() {
            let mut left = all.clone();
            left.remove(gone);
            let after = sessions(&left);
            for (before, after) in before.iter().zip(after) {
                let others = before.iter().filter(|place| **place != gone);
                let moved = others.map(|place| place - usize::from(*place > gone));
                assert!(moved.eq(after), "{before:?} without {gone}");
            }
        }
    }

    #[test]
    fn where_a_target_stands_does_not_matter_to_a_session() {
        let all = candidates(Instant::now(), &[5, 3, 2]);
        let mut turned = all.clone();
        turned.reverse();
        for (one, other) in sessions(&all).iter().zip(sessions(&turned)) {
            assert!(one.iter().map(|place| 2 - place).eq(other));
        }
    }

    #[test]
    fn more_weight_draws_sessions_only_to_it() {
        let now = Instant::now();
        let (before, after) = (candidates(now, &[1, 1, 1]), candidates(now, &[1, 2, 1]));
        let (before, after) = (sessions(&before), sessions(&after));
        let mut moved = 0;
        for (before, after) in before.iter().zip(&after) {
            assert!(before[0] == after[0] || after[0] == 1);
            moved += usize::from(before[0] != after[0]);
        }
        let expected = 1.0 / 2.0 - 1.0 / 3.0;
        assert!((moved as f64 / DRAWS as f64 - expected).abs() < 0.01);
    }

    /// As they come from people who number their sessions, or put the same at the end.
    #[test]
    fn digests_that_look_alike_are_spread_all_the_same() {
        let candidates = candidates(Instant::now(), &[1, 1]);
        let now = Instant::now();
        for shift in [0, 8, 16, 32, 48] {
            let orders: Vec<_> = (0..DRAWS as u64)
                .map(|number| order(Weighted, &candidates, Some(number << shift), never, now))
                .map(|order| places(&order))
                .collect();
            assert_share(&orders, &[0], 0.5);
        }
    }

    #[test]
    fn the_well_come_first_and_then_the_least_bad() {
        let now = Instant::now();
        let order = |tried, cooled: &[Option<u64>]| {
            let until = |place: usize| cooled[place].map(|s| now + Duration::from_secs(s));
            let order = Order::configured(cooled.len()).well_first(tried, until);
            order.iter().collect::<Vec<usize>>()
        };
        let table: [(&[Option<u64>], Vec<usize>); 6] = [
            (&[], vec![]),
            (&[None, None, None], vec![0, 1, 2]),
            (&[Some(1), None, None], vec![1, 2, 0]),
            (&[Some(3), Some(1), Some(2)], vec![1, 2, 0]),
            (&[Some(2), Some(2), None, Some(1)], vec![2, 3, 0, 1]),
            (&[Some(5), Some(5)], vec![0, 1]),
        ];
        for (cooled, expected) in table {
            assert_eq!(order(0, cooled), expected, "{cooled:?}");
        }
        let cooled = [Some(1), Some(3), None];
        assert_eq!(order(1, &cooled), [0, 2, 1], "the first was passed over");
        assert_eq!(order(4, &cooled), [0, 1, 2]);
    }
}
