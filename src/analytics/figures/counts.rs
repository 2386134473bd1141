//! Counts by name, out of a closed vocabulary: a short list in the order of the names.

use std::borrow::Cow;

/// How often each name was counted. Names that were not are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(Cow<'static, str>, u64)>);

impl Counts {
    /// Counts a name of this program's vocabulary.
    pub fn count(&mut self, name: &'static str, more: u64) {
        self.change(
            name,
            || Cow::Borrowed(name),
            |count| count.saturating_add(more),
        );
    }

    /// Counts `first:second` once; makes no text of it but for the first time.
    pub fn count_pair(&mut self, first: &'static str, second: &'static str) {
        let is_pair = |name: &str| {
            let rest = name.strip_prefix(first);
            rest.and_then(|rest| rest.strip_prefix(':')) == Some(second)
        };
        match self.0.iter_mut().find(|(name, _)| is_pair(name)) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.add_named(Cow::Owned(format!("{first}:{second}")), 1),
        }
    }

    /// Counts whatever name.
    pub fn add_named(&mut self, name: Cow<'static, str>, more: u64) {
        self.change(&name.clone(), || name, |count| count.saturating_add(more));
    }

    fn change(
        &mut self,
        name: &str,
        owned: impl FnOnce() -> Cow<'static, str>,
        change: impl FnOnce(u64) -> u64,
    ) {
        match self.0.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(place) => self.0[place].1 = change(self.0[place].1),
            Err(place) => {
                let count = change(0);
                if count > 0 {
                    self.0.insert(place, (owned(), count));
                }
            }
        }
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            let owned = || name.clone();
            self.change(name, owned, |count| count.saturating_add(*more));
        }
    }

    /// Takes away what was added before; never below nothing.
    pub fn subtract(&mut self, other: &Self) {
        for (name, less) in &other.0 {
            let owned = || name.clone();
            self.change(name, owned, |count| count.saturating_sub(*less));
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    /// How often a name was counted.
    pub fn of(&self, name: &str) -> u64 {
        let found = self.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, count)| count)
    }

    /// Names and counts in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&**name, *count))
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
    fn names_are_counted_in_their_order() {
        let mut counts = Counts::default();
        counts.count("miss", 2);
        counts.count("hit", 1);
        counts.count("bypass", 0);
        for _ in 0..3 {
            counts.count_pair("provider", "provider_429");
        }
        let told: Vec<_> = counts.iter().collect();
        assert_eq!(
            told,
            [("hit", 1), ("miss", 2), ("provider:provider_429", 3)]
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
