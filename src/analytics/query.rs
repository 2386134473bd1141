//! The parameters of an analytics request: which time, how finely, grouped by what.

use std::time::SystemTime;

use super::minutes::seconds;
use super::series::bounded;
use crate::logs::filter::FieldError;
use crate::logs::times;

/// Intervals by their names, in seconds, from the finest.
pub const INTERVALS: [(&str, i64); 6] = [
    ("1m", 60),
    ("5m", 300),
    ("15m", 900),
    ("1h", 3_600),
    ("6h", 21_600),
    ("1d", 86_400),
];

/// Most points of an answer.
pub const MOST_POINTS: i64 = 1_500;
/// Most points of all groups together: what an answer of some 10 MB has.
pub const MOST_CELLS: i64 = 20_000;
/// Points that an interval is chosen for when none is named.
const USUAL_POINTS: i64 = 90;

/// Most groups, and how many when nothing is said.
const MOST_GROUPS: usize = 100;
const GROUPS: usize = 10;

/// Longest value of a filter, in bytes.
const LONGEST_FILTER: usize = 1_024;

const DAY: i64 = 86_400;
/// The last moment of the year 9999.
const LAST: i64 = 253_402_300_799;

/// The parts of a call's name, in their order; the gateway is the first of every name.
pub const PARTS: [&str; 6] = ["gateway", "provider", "model", "route", "key", "owner"];

/// What requests have in common that are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// One of [`PARTS`], by its place.
    Part(usize),
    /// The client's software.
    UserAgent,
    /// What the client says under this key.
    Metadata(String),
}

impl GroupBy {
    /// As the parameter has it.
    pub fn name(&self) -> String {
        match self {
            Self::Part(place) => PARTS[*place].to_owned(),
            Self::UserAgent => "user_agent".to_owned(),
            Self::Metadata(key) => format!("metadata.{key}"),
        }
    }

    fn parse(value: &str) -> Result<Self, FieldError> {
        if let Some(place) = PARTS.iter().position(|part| *part == value) {
            return Ok(Self::Part(place));
        }
        match (value, value.strip_prefix("metadata.")) {
            ("user_agent", _) => Ok(Self::UserAgent),
            (_, Some(key)) if !key.is_empty() => Ok(Self::Metadata(bounded(key).into_owned())),
            _ => Err(mistake(
                "group_by",
                format!(
                    "must be one of {}, user_agent, metadata.<key>",
                    PARTS.join(", ")
                ),
            )),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// In seconds since 1970, a multiple of the interval.
    pub start: i64,
    /// The same; what ends before it is part of the answer.
    pub end: i64,
    /// Seconds of a point: one of [`INTERVALS`].
    pub interval: i64,
    /// `None`: all together.
    pub group_by: Option<GroupBy>,
    /// Wanted values of [`PARTS`], by place.
    pub filter: [Option<String>; PARTS.len()],
    /// Most groups, 1 to 100; the others are counted together.
    pub limit: usize,
}

/// The parameters as they are read, before they are looked at together.
#[derive(Default)]
struct Given {
    start: Option<i64>,
    end: Option<i64>,
    /// `None`: it is chosen.
    interval: Option<i64>,
    group_by: Option<GroupBy>,
    filter: [Option<String>; PARTS.len()],
    limit: Option<usize>,
}

impl Query {
    /// Reads decoded parameters; `now` ends the time that is asked for when nothing else is
    /// said. Unknown parameters are refused.
    ///
    /// # Errors
    /// The first mistake, by its parameter, with what would be right.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        now: SystemTime,
    ) -> Result<Self, FieldError> {
        let mut given = Given::default();
        let mut seen = Vec::new();
        for (name, value) in parameters {
            if seen.contains(&name) {
                return Err(mistake(name, "is there twice"));
            }
            seen.push(name);
            given.take(name, value)?;
        }
        given.query(seconds(now))
    }

    /// How many points the answer has.
    pub fn points(&self) -> i64 {
        (self.end - self.start) / self.interval
    }

    /// The same with a coarser interval.
    pub(super) fn coarsened(&self, interval: i64) -> Self {
        Self {
            start: floor(self.start, interval),
            end: ceiling(self.end, interval),
            interval,
            ..self.clone()
        }
    }
}

impl Given {
    fn take(&mut self, name: &str, value: &str) -> Result<(), FieldError> {
        match name {
            "start" => self.start = Some(time(name, value)?),
            "end" => self.end = Some(time(name, value)?),
            "interval" => self.interval = interval(value)?,
            "group_by" => self.group_by = Some(GroupBy::parse(value)?),
            "limit" => self.limit = Some(limit(value)?),
            _ => {
                let place = PARTS.iter().position(|part| *part == name);
                let place = place.ok_or_else(|| {
                    mistake(
                        name,
                        format!(
                            "is none of start, end, interval, group_by, limit, {}",
                            PARTS.join(", ")
                        ),
                    )
                })?;
                self.filter[place] = Some(wanted(name, value)?);
            }
        }
        Ok(())
    }

    fn query(self, now: i64) -> Result<Query, FieldError> {
        let end = match (self.end, self.start) {
            (Some(end), _) => end,
            // What is asked for ends now; one second at least.
            (None, start) => now.max(start.unwrap_or(0).min(now) + 1),
        };
        let start = self.start.unwrap_or_else(|| (end - DAY).max(0));
        if start >= end {
            return Err(mistake(
                "start",
                "must be before end, and not in the future",
            ));
        }
        let interval = fitting(start, end, self.interval)?;
        let query = Query {
            start: floor(start, interval),
            end: ceiling(end, interval),
            interval,
            group_by: self.group_by,
            filter: self.filter,
            limit: self.limit.unwrap_or(GROUPS),
        };
        check_filters(&query)?;
        check_cells(&query)?;
        Ok(query)
    }
}

fn mistake(field: &str, reason: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        reason: reason.into(),
        unknown_key: false,
    }
}

fn time(name: &str, value: &str) -> Result<i64, FieldError> {
    let seconds = match value.bytes().all(|byte| byte.is_ascii_digit()) {
        true => value.parse().ok(),
        false => times::parse(value).map(|milliseconds| milliseconds.div_euclid(1000)),
    };
    seconds
        .filter(|seconds| (0..=LAST).contains(seconds))
        .ok_or_else(|| {
            mistake(
                name,
                "must be a time such as 2026-11-28T06:30:00Z, or seconds since 1970",
            )
        })
}

fn interval(value: &str) -> Result<Option<i64>, FieldError> {
    if value == "auto" {
        return Ok(None);
    }
    let found = INTERVALS.iter().find(|(name, _)| *name == value);
    let names = || INTERVALS.map(|(name, _)| name).join(", ");
    found
        .map(|(_, seconds)| Some(*seconds))
        .ok_or_else(|| mistake("interval", format!("must be one of auto, {}", names())))
}

fn limit(value: &str) -> Result<usize, FieldError> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=MOST_GROUPS).contains(number));
    number.ok_or_else(|| {
        mistake(
            "limit",
            format!("must be a whole number from 1 to {MOST_GROUPS}"),
        )
    })
}

/// A value as the series have it. What requests do not have is asked for by the name under which
/// it is shown.
fn wanted(name: &str, value: &str) -> Result<String, FieldError> {
    if value.is_empty() || value.len() > LONGEST_FILTER {
        let reason = format!(
            "must be a text of 1 to {LONGEST_FILTER} bytes; {} asks for requests without one",
            super::series::NONE
        );
        return Err(mistake(name, reason));
    }
    Ok(match value {
        super::series::NONE => String::new(),
        _ => bounded(value).into_owned(),
    })
}

fn floor(at: i64, interval: i64) -> i64 {
    at - at.rem_euclid(interval)
}

fn ceiling(at: i64, interval: i64) -> i64 {
    floor(at + interval - 1, interval)
}

fn points(start: i64, end: i64, interval: i64) -> i64 {
    (ceiling(end, interval) - floor(start, interval)) / interval
}

/// The interval that was named if it makes no more points than there may be, or else the one
/// whose number of points is nearest to what is usual.
fn fitting(start: i64, end: i64, named: Option<i64>) -> Result<i64, FieldError> {
    let points = |interval: i64| points(start, end, interval);
    let fits = |interval: i64| points(interval) <= MOST_POINTS;
    let mut fitting = INTERVALS.iter().filter(|(_, interval)| fits(*interval));
    match named {
        Some(interval) if fits(interval) => Ok(interval),
        Some(interval) => {
            let would_fit = match fitting.next() {
                Some((name, _)) => format!("{name} would fit"),
                None => "ask for a shorter time".to_owned(),
            };
            let points = points(interval);
            let reason = format!(
                "makes {points} points of this time, and {MOST_POINTS} are most: {would_fit}"
            );
            Err(mistake("interval", reason))
        }
        None => {
            // As a ratio: 45 points are as far from 90 as 180.
            let distance = |interval: i64| {
                let points = points(interval).max(1);
                points.max(USUAL_POINTS) * 1_000 / points.min(USUAL_POINTS)
            };
            let nearest = fitting.min_by_key(|(_, interval)| distance(*interval));
            nearest.map(|(_, interval)| *interval).ok_or_else(|| {
                let reason = format!(
                    "must be at most {MOST_POINTS} days before end: ask for a shorter time"
                );
                mistake("start", reason)
            })
        }
    }
}

/// Series by user agent and by metadata have nothing but their gateway.
fn check_filters(query: &Query) -> Result<(), FieldError> {
    let alone = matches!(
        query.group_by,
        Some(GroupBy::UserAgent | GroupBy::Metadata(_))
    );
    let mut others = PARTS.iter().zip(&query.filter).skip(1);
    match others.find(|(_, filter)| alone && filter.is_some()) {
        Some((part, _)) => Err(mistake(
            part,
            "does not go with group_by=user_agent and group_by=metadata.<key>: of filters, only gateway does",
        )),
        None => Ok(()),
    }
}

fn check_cells(query: &Query) -> Result<(), FieldError> {
    let most = (MOST_CELLS / query.points()) as usize;
    if query.group_by.is_some() && query.limit > most {
        let reason = format!(
            "makes {} points of {} groups, and {MOST_CELLS} are most: {most} groups would fit, or a coarser interval",
            query.points() * query.limit as i64,
            query.limit
        );
        return Err(mistake("limit", reason));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// 2026-11-28T06:30:07Z.
    const NOW: i64 = 1_795_847_407;

    fn parse(parameters: &[(&str, &str)]) -> Result<Query, String> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW as u64);
        let query = Query::parse(parameters.iter().copied(), now);
        query.map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_the_last_day() {
        let query = parse(&[]).unwrap();
        assert_eq!((query.interval, query.points(), query.limit), (900, 97, 10));
        assert!(query.end >= NOW && query.end < NOW + 900);
        assert_eq!((query.group_by, query.start % 900), (None, 0));
    }

    #[test]
    fn everything_can_be_said() {
        let query = parse(&[
            ("start", "2026-11-28T00:10:00+00:00"),
            ("end", "1795847400"),
            ("interval", "1h"),
            ("group_by", "metadata.team"),
            ("gateway", "acme/main"),
            ("limit", "100"),
        ])
        .unwrap();
        assert_eq!((query.start, query.end), (1_795_824_000, 1_795_849_200));
        assert_eq!(query.group_by, Some(GroupBy::Metadata("team".to_owned())));
        assert_eq!(query.filter[0].as_deref(), Some("acme/main"));
        assert_eq!((query.points(), query.limit), (7, 100));
        let query = parse(&[("route", "(none)"), ("model", &"x".repeat(200))]).unwrap();
        assert_eq!(query.filter[3].as_deref(), Some(""));
        assert_eq!(query.filter[2].as_ref().unwrap().len(), 103);
        for group_by in [
            "gateway",
            "provider",
            "model",
            "route",
            "key",
            "owner",
            "user_agent",
            "metadata.a.b",
        ] {
            let query = parse(&[("group_by", group_by)]).unwrap();
            assert_eq!(query.group_by.unwrap().name(), group_by);
        }
    }

    #[test]
    fn an_interval_is_chosen_by_the_time() {
        for (seconds, interval) in [
            (60, 60),
            (3_600, 60),
            (3 * 3_600, 60),
            (6 * 3_600, 300),
            (DAY, 900),
            (3 * DAY, 3_600),
            (7 * DAY, 3_600),
            (30 * DAY, 21_600),
            (90 * DAY, DAY),
            (1_400 * DAY, DAY),
        ] {
            let start = (NOW - seconds).to_string();
            let query = parse(&[("start", &start)]).unwrap();
            assert_eq!(query.interval, interval, "{seconds}");
            let query = parse(&[("start", &start), ("interval", "auto")]).unwrap();
            assert_eq!(query.interval, interval);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let month = (NOW - 30 * DAY).to_string();
        for (parameters, told) in [
            (&[("start", "x")][..], "start: must be a time"),
            (&[("end", "-5")], "end: must be a time"),
            (&[("end", "99999999999999999999")], "end: must be a time"),
            (&[("start", "2026-13-01")], "start: must be a time"),
            (
                &[("start", "200"), ("end", "100")],
                "start: must be before end",
            ),
            (
                &[("start", "100"), ("end", "100")],
                "start: must be before end",
            ),
            (&[("start", "1999999999")], "start: must be before end"),
            (
                &[("interval", "2m")],
                "interval: must be one of auto, 1m, 5m, 15m, 1h, 6h, 1d",
            ),
            (
                &[("start", &month), ("interval", "1m")],
                "interval: makes 43201 points of this time, and 1500 are most: 1h would fit",
            ),
            (
                &[("start", "0"), ("interval", "6h")],
                "interval: makes 83142 points of this time, and 1500 are most: ask for a shorter time",
            ),
            (&[("start", "0")], "start: must be at most 1500 days"),
            (
                &[("group_by", "colour")],
                "group_by: must be one of gateway, provider",
            ),
            (&[("group_by", "metadata.")], "group_by: must be one of"),
            (
                &[("limit", "0")],
                "limit: must be a whole number from 1 to 100",
            ),
            (&[("limit", "101")], "limit: must be a whole number"),
            (
                &[
                    ("start", &month),
                    ("interval", "1h"),
                    ("group_by", "model"),
                    ("limit", "100"),
                ],
                "limit: makes 72100 points of 100 groups, and 20000 are most: 27 groups would fit",
            ),
            (&[("colour", "red")], "colour: is none of start, end"),
            (&[("model", "")], "model: must be a text of 1 to 1024"),
            (&[("model", "a"), ("model", "b")], "model: is there twice"),
            (
                &[("group_by", "user_agent"), ("model", "a")],
                "model: does not go with group_by=user_agent",
            ),
            (
                &[("key", "a"), ("group_by", "metadata.team")],
                "key: does not go with group_by=user_agent and group_by=metadata.<key>",
            ),
        ] {
            let error = parse(parameters).unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
