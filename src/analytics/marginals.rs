//! The calls of an hour or day by one part of their names, which is what most questions ask for.
//!
//! By all parts of their names calls have hundreds of series an hour, and a month of them takes a
//! second to read. For each part there are therefore rows of their own, in which those series are
//! one that agree in the gateway and in this part. Such a name is a call's with nothing in all
//! other places: what filters and groups calls by these two parts does so here too, unchanged.
//!
//! Marginals are made out of the very sums that are written as the hour or day, and in the same
//! transaction, so they always agree with them. Minutes have none. A marginal has never more
//! series than its hour or day has of calls: what bounds those, bounds these.

use std::sync::Arc;

use ahash::AHashMap;

use super::figures::Figures;
use super::query::{GroupBy, PARTS, Query};
use super::series::{Detail, Dimension, write_key};

/// The number of the first marginal in the database; those before it are left to dimensions.
const FIRST: i64 = 10;

/// The place of the gateway, which every marginal has.
const GATEWAY: usize = 0;

/// Calls by their gateway and one part of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marginal {
    /// The place of the part in [`PARTS`].
    part: usize,
}

impl Marginal {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTS.len()).map(|part| Self { part })
    }

    /// As the database has it, in the place of a [`Dimension`]'s.
    pub fn number(self) -> i64 {
        FIRST + self.part as i64
    }

    /// The one that has all that a question wants to know of calls: where it filters and groups
    /// by the gateway and no more than one other part.
    pub fn of(query: &Query) -> Option<Self> {
        let grouped = match query.group_by {
            Some(GroupBy::Part(part)) => Some(part),
            _ => None,
        };
        let filters = query.filter.iter().enumerate();
        let filtered = filters.filter_map(|(part, wanted)| wanted.is_some().then_some(part));
        let mut others = grouped
            .into_iter()
            .chain(filtered)
            .filter(|part| *part != GATEWAY);
        let part = others.next().unwrap_or(GATEWAY);
        others.all(|other| other == part).then_some(Self { part })
    }

    /// The sums of calls, given by their names, by keys of series.
    pub fn sums(self, calls: &[(Vec<String>, &Figures)]) -> AHashMap<Arc<[u8]>, Figures> {
        let mut sums = AHashMap::<Arc<[u8]>, Figures>::new();
        let mut key = Vec::new();
        for (name, figures) in calls {
            let name: Vec<&str> = name
                .iter()
                .enumerate()
                .map(
                    |(place, value)| match place == GATEWAY || place == self.part {
                        true => value.as_str(),
                        false => "",
                    },
                )
                .collect();
            write_key(&mut key, Dimension::Calls, &name, Detail::Full);
            match sums.get_mut(&key[..]) {
                Some(sum) => sum.add(figures),
                None => {
                    sums.insert(key.as_slice().into(), Figures::clone(figures));
                }
            }
        }
        sums
    }
}

/// The numbers of all kinds of rows: of dimensions and of marginals.
pub fn numbers() -> impl Iterator<Item = i64> {
    let dimensions = Dimension::ALL.into_iter().map(Dimension::number);
    dimensions.chain(Marginal::all().map(Marginal::number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::analytics::series::to_text;

    #[test]
    fn numbers_are_no_others() {
        let mut numbers: Vec<i64> = numbers().collect();
        assert_eq!(numbers, [0, 1, 2, 10, 11, 12, 13, 14, 15]);
        numbers.dedup();
        assert_eq!(numbers.len(), 9);
    }

    #[test]
    fn a_question_by_one_part_is_answered_by_its_marginal() {
        let told = |asked: &[(&str, &str)]| {
            let query = Query::parse(asked.iter().copied(), SystemTime::now()).unwrap();
            Marginal::of(&query).map(|marginal| PARTS[marginal.part])
        };
        let (main, gpt) = (("gateway", "a/main"), ("model", "gpt"));
        assert_eq!(told(&[]), Some("gateway"));
        assert_eq!(told(&[main]), Some("gateway"));
        assert_eq!(told(&[gpt]), Some("model"));
        assert_eq!(told(&[gpt, main]), Some("model"));
        assert_eq!(told(&[gpt, ("key", "spare")]), None);
        for part in PARTS {
            let by = ("group_by", part);
            assert_eq!(told(&[by]), Some(part));
            assert_eq!(told(&[main, by]), Some(part));
            assert_eq!(told(&[by, (part, "value")]), Some(part));
            let of_one_model = ["gateway", "model"].contains(&part).then_some("model");
            assert_eq!(told(&[by, gpt]), of_one_model);
        }
        for beside in ["user_agent", "metadata.team"] {
            assert_eq!(told(&[("group_by", beside), main]), Some("gateway"));
        }
    }

    #[test]
    fn calls_that_agree_are_one_series() {
        let figures = |requests| Figures {
            requests,
            ..Figures::default()
        };
        let (one, two, four, eight) = (figures(1), figures(2), figures(4), figures(8));
        let name = |name: &[&str]| name.iter().map(ToString::to_string).collect::<Vec<_>>();
        let calls = [
            (name(&["a/b", "openai", "gpt", "", "spare", ""]), &one),
            (name(&["a/b", "azure", "gpt", "", "", ""]), &two),
            (name(&["a/c", "azure", "gpt", "", "", ""]), &four),
            (name(&["(other)"]), &eight), // it has lost its name
        ];
        let told = |part| {
            let sums = Marginal { part }.sums(&calls);
            let told = sums.iter().map(|(key, sum)| (to_text(key), sum.requests));
            let told = told.collect::<BTreeMap<_, _>>().into_iter();
            told.map(|(name, requests)| format!("{requests} {name}"))
                .collect::<Vec<_>>()
        };
        let lost = r#"8 ["(other)"]"#;
        let gpt = [
            r#"3 ["a/b","","gpt","","",""]"#,
            r#"4 ["a/c","","gpt","","",""]"#,
        ];
        assert_eq!(told(2), [lost, gpt[0], gpt[1]]);
        let all = [r#"3 ["a/b","","","","",""]"#, r#"4 ["a/c","","","","",""]"#];
        assert_eq!(told(0), [lost, all[0], all[1]]);
        assert_eq!(told(1).len(), 4);
    }
}
