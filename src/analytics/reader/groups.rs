//! The groups of an answer: the largest by name, and the rest together.
//!
//! Rows are gone through twice: for the number of requests of each group, and then for the figures
//! of the largest, so that memory is that of the groups which are shown.

use std::cmp::Reverse;

use ahash::AHashMap;

use super::{Question, Series, Trouble};
use crate::analytics::answer::{Answer, Group, Timeline};
use crate::analytics::query::{GroupBy, Query};
use crate::analytics::series::{Dimension, NONE, OTHER};

/// How the series of one dimension are grouped: names by number, and their requests.
pub struct Grouping<'a, F> {
    question: &'a Question<'a>,
    dimension: Dimension,
    group: F,
    names: Vec<String>,
    requests: Vec<u64>,
}

impl<'a, F: Fn(&[String]) -> Option<&str>> Grouping<'a, F> {
    /// Counts the requests of each group. `group` says in which one a series is.
    pub fn new(
        question: &'a Question<'a>,
        dimension: Dimension,
        group: F,
    ) -> Result<Self, Trouble> {
        let mut numbers = AHashMap::<String, usize>::new();
        let mut requests = Vec::new();
        let mut series = Series::new(question, |name| {
            let name = shown(question, &group, name)?;
            let next = numbers.len();
            Some(*numbers.entry(name.to_owned()).or_insert(next))
        });
        question.rows(dimension, "requests", |_, id, count| {
            if let Some(number) = series.group(id)? {
                let count = count.as_i64().map_or(0, i64::unsigned_abs);
                requests.resize(requests.len().max(number + 1), 0_u64);
                requests[number] = requests[number].saturating_add(count);
            }
            Ok(())
        })?;
        drop(series);
        let mut names = vec![String::new(); numbers.len()];
        for (name, number) in numbers {
            names[number] = name;
        }
        Ok(Self {
            question,
            dimension,
            group,
            names,
            requests,
        })
    }

    /// The figures of the `limit` largest groups, and of the rest. `all` are the requests that
    /// should be in some group, where not all need be.
    pub fn figures(
        mut self,
        limit: usize,
        all: Option<&Timeline>,
    ) -> Result<Vec<(String, Timeline)>, Trouble> {
        if let Some(all) = all {
            self.count_missing(all.totals().requests);
        }
        let largest = self.largest(limit);
        let mut groups = self.read(&largest)?;
        if let Some(all) = all {
            add_missing(&mut groups, all);
        }
        groups.retain(|(name, figures)| name != OTHER || figures.totals().requests > 0);
        Ok(groups)
    }

    /// Adds the group of the requests that have no value.
    fn count_missing(&mut self, all: u64) {
        let counted = self.requests.iter().copied().fold(0, u64::saturating_add);
        let missing = all.saturating_sub(counted);
        if missing > 0 {
            match self.names.iter().position(|name| name == NONE) {
                Some(number) => self.requests[number] += missing,
                None => {
                    self.names.push(NONE.to_owned());
                    self.requests.push(missing);
                }
            }
        }
    }

    /// The names of the largest groups, the largest first.
    fn largest(&self, limit: usize) -> Vec<String> {
        let all = self.names.iter().zip(&self.requests);
        let mut named: Vec<_> = all.filter(|(name, _)| *name != OTHER).collect();
        named.sort_unstable_by_key(|(name, requests)| (Reverse(**requests), *name));
        let largest = named.into_iter().take(limit);
        largest.map(|(name, _)| name.clone()).collect()
    }

    /// The figures of these groups and, as the last one, of all others.
    fn read(&self, largest: &[String]) -> Result<Vec<(String, Timeline)>, Trouble> {
        let names = largest.iter().map(String::as_str).chain([OTHER]);
        let empty = |name: &str| (name.to_owned(), Timeline::new(&self.question.query));
        let mut groups: Vec<_> = names.map(empty).collect();
        let mut series = Series::new(self.question, |name| {
            let name = shown(self.question, &self.group, name)?;
            let place = largest.iter().position(|one| one == name);
            Some(place.unwrap_or(largest.len()))
        });
        self.question.scan(self.dimension, |at, id, figures| {
            if let Some(place) = series.group(id)? {
                groups[place].1.add(at, figures);
            }
            Ok(())
        })?;
        drop(series);
        Ok(groups)
    }
}

/// The name of the group of a series, as it is shown; `None` where it is not part of the answer.
fn shown<'n>(
    question: &Question<'_>,
    group: &impl Fn(&[String]) -> Option<&str>,
    name: &'n [String],
) -> Option<&'n str> {
    // A series that has lost its name is still counted.
    let nameless = name.len() == 1;
    if !question.is_wanted(name) {
        return None;
    }
    match group(name) {
        Some("") => Some(NONE),
        Some(value) => Some(value),
        None => nameless.then_some(OTHER),
    }
}

/// Adds the figures of the requests that are in no group to the one that is named so, or to the
/// rest where that is not shown.
fn add_missing(groups: &mut [(String, Timeline)], all: &Timeline) {
    let mut missing = all.clone();
    for (_, figures) in groups.iter() {
        missing.subtract_all(figures);
    }
    let place = groups.iter().position(|(name, _)| name == NONE);
    let place = place.unwrap_or(groups.len().saturating_sub(1));
    if let Some((_, figures)) = groups.get_mut(place) {
        figures.add_all(&missing);
    }
}

/// All groups together.
pub fn sum(query: &Query, groups: &[(String, Timeline)]) -> Timeline {
    let mut all = Timeline::new(query);
    groups.iter().for_each(|(_, figures)| all.add_all(figures));
    all
}

/// As the API has it.
pub fn answer(query: &Query, all: &Timeline, groups: Vec<(String, Timeline)>) -> Answer {
    let groups: Vec<Group> = groups
        .into_iter()
        .map(|(name, figures)| figures.into_group(name))
        .collect();
    Answer {
        start: query.start,
        end: query.end,
        interval_s: query.interval,
        group_by: query.group_by.as_ref().map(GroupBy::name),
        totals: all.totals(),
        points: all.clone().into_points(),
        groups,
    }
}
