//! Counts by name: a short list in the order of the names' numbers.

use std::borrow::Cow;

use super::words::Name;

/// How often each name was counted. Names that were not are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(Name, u64)>);

impl Counts {
    /// Counts a name.
    pub fn count(&mut self, name: &Name, more: u64) {
        self.change(name, |count| count.saturating_add(more));
    }

    fn change(&mut self, name: &Name, change: impl FnOnce(u64) -> u64) {
        match self.0.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(place) => self.0[place].1 = change(self.0[place].1),
            Err(place) => {
                let count = change(0);
                if count > 0 {
                    self.0.insert(place, (name.clone(), count));
                }
            }
        }
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            self.change(name, |count| count.saturating_add(*more));
        }
    }

    /// Takes away what was added before; never below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (name, less) in &other.0 {
            self.change(name, |count| count.saturating_sub(*less));
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    /// How often a name was counted.
    pub fn of(&self, name: &str) -> u64 {
        let found = self.0.iter().find(|(known, _)| known.shown() == name);
        found.map_or(0, |(_, count)| *count)
    }

    /// Names as they are shown, in their order, and counts.
    pub fn shown(&self) -> Vec<(Cow<'_, str>, u64)> {
        let all = self.0.iter().map(|(name, count)| (name.shown(), *count));
        let mut shown: Vec<_> = all.collect();
        shown.sort_unstable();
        shown
    }

    /// Names and counts, as [`Self::fill`] takes them.
    pub(super) fn parts(&self) -> &[(Name, u64)] {
        &self.0
    }

    /// Adds a name behind all others; false where that is not one that could have been there.
    pub(super) fn fill(&mut self, name: Name, count: u64) -> bool {
        let possible = count > 0 && self.0.last().is_none_or(|(last, _)| *last < name);
        if possible {
            self.0.push((name, count));
        }
        possible
    }

    /// Forgets all, not the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_and_shown_in_their_order() {
        let mut counts = Counts::default();
        counts.count(&Name::of("miss"), 2);
        counts.count(&Name::of("a name"), 1);
        counts.count(&Name::of("hit"), 1);
        counts.count(&Name::of("bypass"), 0);
        for _ in 0..3 {
            counts.count(&Name::of("provider:provider_429"), 1);
        }
        let told: Vec<_> = counts.shown();
        let told: Vec<_> = told.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(
            told,
            [
                ("a name", 1),
                ("hit", 1),
                ("miss", 2),
                ("provider:provider_429", 3)
            ]
        );
        let mut sum = counts.clone();
        sum.add(&counts);
        assert_eq!((sum.of("miss"), sum.of("stale")), (4, 0));
        sum.subtract(&counts);
        assert_eq!(sum, counts);
        sum.subtract(&counts);
        sum.subtract(&counts);
        assert_eq!(sum, Counts::default());
    }
}
