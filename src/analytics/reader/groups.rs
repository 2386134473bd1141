//! The groups of an answer: the largest by name, and the rest together.
//!
//! As a rule there are few, and rows are gone through once. Where there are more than memory is
//! meant for, they are gone through twice: for the number of requests of each group, and then for
//! the figures of the largest.

use std::cmp::Reverse;

use ahash::AHashMap;

use super::{Question, Series, Trouble};
use crate::analytics::answer::{Answer, Group, Timeline};
use crate::analytics::query::{GroupBy, MOST_CELLS, Query};
use crate::analytics::series::{Dimension, NONE, OTHER};

/// Groups with their names.
pub type Groups = Vec<(String, Timeline)>;

/// How the series of one dimension are grouped.
pub struct Grouping<'a, F> {
    question: &'a Question<'a>,
    dimension: Dimension,
    group: F,
}

impl<'a, F: Fn(&[String]) -> Option<&str>> Grouping<'a, F> {
    /// `group` says in which one a series is, by its name.
    pub fn new(question: &'a Question<'a>, dimension: Dimension, group: F) -> Self {
        Self {
            question,
            dimension,
            group,
        }
    }

    /// The figures of the largest groups and, as the last one, of the rest. `all` are the
    /// requests that should be in some group, where not all need be.
    pub fn figures(&self, all: Option<&Timeline>) -> Result<Groups, Trouble> {
        let groups = match self.few(all)? {
            Some(groups) => groups,
            None => self.many(all)?,
        };
        Ok(limited(groups, &self.question.query))
    }

    /// All groups, in one go; `None` where they are too many for that.
    fn few(&self, all: Option<&Timeline>) -> Result<Option<Groups>, Trouble> {
        let query = &self.question.query;
        let most = (MOST_CELLS / query.points().max(1)) as usize;
        let mut numbers = Numbers::default();
        let mut figures = Vec::new();
        let mut series = Series::new(self.question, |name| Some(numbers.of(self.shown(name)?)));
        let question = self.question;
        let complete = question.scan(self.dimension, &mut series, |at, number, more| {
            while figures.len() <= number && figures.len() <= most {
                figures.push(Timeline::new(query));
            }
            let group = figures.get_mut(number);
            group.map(|group| group.add(at, more)).is_some()
        })?;
        drop(series);
        if !complete {
            return Ok(None);
        }
        let mut groups: Groups = numbers.names().into_iter().zip(figures).collect();
        if let Some(all) = all {
            add_missing(&mut groups, all, NONE, query);
        }
        Ok(Some(groups))
    }

    /// The largest groups, and the others as one.
    fn many(&self, all: Option<&Timeline>) -> Result<Groups, Trouble> {
        let query = &self.question.query;
        let largest = self.largest(all)?;
        let names = largest.iter().map(String::as_str).chain([OTHER]);
        let mut groups: Groups = names
            .map(|name| (name.to_owned(), Timeline::new(query)))
            .collect();
        // Where all are known and the others are one group, that is what is left of all.
        let is_shown = largest.iter().any(|name| name == NONE);
        let by_difference = all.is_some() && !is_shown;
        let mut series = Series::new(self.question, |name| {
            let name = self.shown(name)?;
            let place = largest.iter().position(|one| one == name);
            place.or((!by_difference).then_some(largest.len()))
        });
        let question = self.question;
        question.scan(self.dimension, &mut series, |at, place, figures| {
            groups[place].1.add(at, figures);
            true
        })?;
        drop(series);
        if let Some(all) = all {
            add_missing(&mut groups, all, if is_shown { NONE } else { OTHER }, query);
        }
        Ok(groups)
    }

    /// The names of the groups with the most requests.
    fn largest(&self, all: Option<&Timeline>) -> Result<Vec<String>, Trouble> {
        let mut numbers = Numbers::default();
        let mut requests = Vec::<u64>::new();
        let mut series = Series::new(self.question, |name| Some(numbers.of(self.shown(name)?)));
        self.question
            .rows(self.dimension, "requests", |_, id, count| {
                if let Some(number) = series.group(id)? {
                    let count = count.as_i64().map_or(0, i64::unsigned_abs);
                    requests.resize(requests.len().max(number + 1), 0);
                    requests[number] = requests[number].saturating_add(count);
                }
                Ok(true)
            })?;
        drop(series);
        if let Some(all) = all {
            let counted = requests.iter().copied().fold(0, u64::saturating_add);
            let missing = all.totals().requests.saturating_sub(counted);
            let number = numbers.of(NONE);
            requests.resize(requests.len().max(number + 1), 0);
            requests[number] = requests[number].saturating_add(missing);
        }
        let mut all: Vec<_> = numbers.names().into_iter().zip(requests).collect();
        all.retain(|(name, requests)| name != OTHER && *requests > 0);
        all.sort_unstable_by(|one, other| {
            (Reverse(one.1), &one.0).cmp(&(Reverse(other.1), &other.0))
        });
        all.truncate(self.question.query.limit);
        Ok(all.into_iter().map(|(name, _)| name).collect())
    }

    /// The name of the group of a series, as it is shown; `None` where it is not part of the
    /// answer.
    fn shown<'n>(&self, name: &'n [String]) -> Option<&'n str> {
        if !self.question.is_wanted(name) {
            return None;
        }
        match (self.group)(name) {
            Some("") => Some(NONE),
            Some(value) => Some(value),
            // A series that has lost its name is still counted.
            None => (name.len() == 1).then_some(OTHER),
        }
    }
}

/// Numbers for names, in the order in which they come up.
#[derive(Default)]
struct Numbers(AHashMap<String, usize>);

impl Numbers {
    fn of(&mut self, name: &str) -> usize {
        if let Some(number) = self.0.get(name) {
            return *number;
        }
        let number = self.0.len();
        self.0.insert(name.to_owned(), number);
        number
    }

    /// By their numbers.
    fn names(self) -> Vec<String> {
        let mut names: Vec<_> = self.0.into_iter().collect();
        names.sort_unstable_by_key(|(_, number)| *number);
        names.into_iter().map(|(name, _)| name).collect()
    }
}

/// Adds the figures of the requests that are in no group to the one of this name.
fn add_missing(groups: &mut Groups, all: &Timeline, name: &str, query: &Query) {
    let mut missing = all.clone();
    for (_, figures) in groups.iter() {
        missing.subtract_all(figures);
    }
    if missing.totals().requests > 0 {
        group(groups, name, query).add_all(&missing);
    }
}

/// The figures of a group, which is added when it is missing.
fn group<'g>(groups: &'g mut Groups, name: &str, query: &Query) -> &'g mut Timeline {
    let place = groups.iter().position(|(known, _)| known == name);
    let place = place.unwrap_or_else(|| {
        groups.push((name.to_owned(), Timeline::new(query)));
        groups.len() - 1
    });
    &mut groups[place].1
}

/// The largest groups, the largest first, and then the rest.
fn limited(groups: Groups, query: &Query) -> Groups {
    let mut sorted: Vec<_> = groups
        .into_iter()
        .map(|group| (group.1.totals().requests, group))
        .filter(|(requests, _)| *requests > 0)
        .collect();
    sorted.sort_by(|(one, (name, _)), (other, (other_name, _))| {
        let key = |requests: u64, name: &str| (name == OTHER, Reverse(requests));
        (key(*one, name), name).cmp(&(key(*other, other_name), other_name))
    });
    let mut groups: Groups = sorted.into_iter().map(|(_, group)| group).collect();
    let named = groups.iter().filter(|(name, _)| name != OTHER).count();
    let rest = groups.split_off(named.min(query.limit));
    for (_, figures) in rest {
        group(&mut groups, OTHER, query).add_all(&figures);
    }
    groups
}

/// All groups together.
pub fn sum(query: &Query, groups: &[(String, Timeline)]) -> Timeline {
    let mut all = Timeline::new(query);
    groups.iter().for_each(|(_, figures)| all.add_all(figures));
    all
}

/// As the API has it.
pub fn answer(query: &Query, all: Timeline, groups: Groups) -> Answer {
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
        points: all.into_points(),
        groups,
    }
}
