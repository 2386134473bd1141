//! Answers, as the API has them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::figures::Figures;
use super::query::Query;

/// Figures over a time, and of its parts.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// In seconds since 1970.
    pub start: i64,
    /// In seconds since 1970; what ends before it is counted.
    pub end: i64,
    /// Seconds of a point. Coarser than what was asked for, with `start` and `end` accordingly,
    /// where finer rows are not kept so long.
    pub interval_s: i64,
    /// What the groups are made by.
    pub group_by: Option<String>,
    /// Of all points together.
    pub totals: Figures,
    /// One for each interval, also where nothing was.
    pub points: Vec<Point>,
    /// By their requests, the most first; the rest, named `(other)`, is the last.
    pub groups: Vec<Group>,
}

/// The requests that have something in common.
#[derive(Debug, Serialize)]
pub struct Group {
    /// What it is.
    pub name: String,
    /// Of all points together.
    pub totals: Figures,
    /// One for each interval, also where nothing was.
    pub points: Vec<Point>,
}

/// Figures of one interval.
#[derive(Debug)]
pub struct Point {
    /// Its beginning, in seconds since 1970.
    pub at: i64,
    /// What requests came to that ended in it.
    pub figures: Figures,
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("at", &self.at)?;
        self.figures.entries(&mut map)?;
        map.end()
    }
}

/// Figures by interval.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    start: i64,
    interval: i64,
    figures: Vec<Figures>,
}

impl Timeline {
    /// With nothing in it.
    pub fn new(query: &Query) -> Self {
        Self {
            start: query.start,
            interval: query.interval,
            figures: vec![Figures::default(); usize::try_from(query.points()).unwrap_or(0)],
        }
    }

    /// Adds what was at a time, in seconds since 1970.
    pub fn add(&mut self, at: i64, figures: &Figures) {
        let place = usize::try_from((at - self.start).div_euclid(self.interval));
        if let Some(point) = place.ok().and_then(|place| self.figures.get_mut(place)) {
            point.add(figures);
        }
    }

    /// Adds all of another one of the same time.
    pub fn add_all(&mut self, other: &Self) {
        for (point, more) in self.figures.iter_mut().zip(&other.figures) {
            point.add(more);
        }
    }

    /// Takes away another one of the same time.
    pub fn subtract_all(&mut self, other: &Self) {
        for (point, less) in self.figures.iter_mut().zip(&other.figures) {
            point.subtract(less);
        }
    }

    /// All together.
    pub fn totals(&self) -> Figures {
        let mut totals = Figures::default();
        self.figures.iter().for_each(|point| totals.add(point));
        totals
    }

    /// As the API has it.
    pub fn into_points(self) -> Vec<Point> {
        let starts = (0..).map(|place: i64| self.start + place * self.interval);
        let points = starts.zip(self.figures);
        points.map(|(at, figures)| Point { at, figures }).collect()
    }

    /// As the API has it.
    pub fn into_group(self, name: String) -> Group {
        Group {
            name,
            totals: self.totals(),
            points: self.into_points(),
        }
    }
}
