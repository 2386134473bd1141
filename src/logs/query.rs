//! The parameters of the list, delete and patch requests (contract, logs REST API).

use serde::Deserialize;
use serde_json::Value;

use super::filter::{FieldError, Filter, Spread};
use super::metadata::Metadata;

/// Most entries of one page.
pub const MOST_PER_PAGE: u32 = 50;

/// Entries of a page when nothing is said.
const PER_PAGE: u32 = 20;

/// What entries are ordered by. Those of a tie are in the order of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names of the API
pub enum OrderBy {
    #[default]
    CreatedAt,
    Provider,
    Model,
    ModelType,
    Success,
    Cached,
    Cost,
    Tokens,
    TokensIn,
    TokensOut,
    Duration,
    Feedback,
}

impl OrderBy {
    const LISTED: [(&'static str, Self); 6] = [
        ("created_at", Self::CreatedAt),
        ("provider", Self::Provider),
        ("model", Self::Model),
        ("model_type", Self::ModelType),
        ("success", Self::Success),
        ("cached", Self::Cached),
    ];
    const DELETED: [(&'static str, Self); 6] = [
        ("cost", Self::Cost),
        ("tokens", Self::Tokens),
        ("tokens_in", Self::TokensIn),
        ("tokens_out", Self::TokensOut),
        ("duration", Self::Duration),
        ("feedback", Self::Feedback),
    ];

    /// What is compared, in SQL; `None` is the table's own order.
    pub(super) fn sql(self) -> Option<String> {
        // A word is compared by its text, and a text that is no word by itself.
        let word = |column: &str| {
            Some(format!(
                "COALESCE((SELECT text FROM words WHERE id = {column}), {column})"
            ))
        };
        match self {
            Self::CreatedAt => None,
            Self::Provider => word("provider"),
            Self::Model => word("model"),
            Self::ModelType => word("model_type"),
            Self::Success => Some("success".to_owned()),
            Self::Cached => Some("cached".to_owned()),
            Self::Cost => Some("cost".to_owned()),
            Self::Tokens => Some(super::filter::TOKENS.to_owned()),
            Self::TokensIn => Some("input".to_owned()),
            Self::TokensOut => Some("output".to_owned()),
            Self::Duration => Some("duration".to_owned()),
            Self::Feedback => Some("feedback".to_owned()),
        }
    }
}

/// An order and its direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: OrderBy,
    /// Smallest, or oldest, first.
    pub ascending: bool,
}

/// One page that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Of which entries.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// From 1; not together with `cursor`.
    pub page: u32,
    /// At most [`MOST_PER_PAGE`].
    pub per_page: u32,
    /// Where the last page ended, in the order of time.
    pub cursor: Option<i64>,
    /// Minima and maxima are wanted too.
    pub meta_info: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            order: Order::default(),
            page: 1,
            per_page: PER_PAGE,
            cursor: None,
            meta_info: false,
        }
    }
}

impl Query {
    /// Reads decoded parameters. Unknown ones are refused.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let mut query = Self::default();
        let mut spread = Spread::default();
        for (name, value) in parameters {
            if !spread.take(name, value) {
                query.take(name, value)?;
            }
        }
        query.filter.add_spread(spread)?;
        if query.cursor.is_some() && (query.order.by != OrderBy::CreatedAt || query.page > 1) {
            return Err(FieldError::new(
                "cursor",
                "goes with order_by=created_at only, and without page",
            ));
        }
        Ok(query)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), FieldError> {
        match name {
            "page" => self.page = whole(name, value, u32::MAX)?,
            "per_page" => self.per_page = whole(name, value, MOST_PER_PAGE)?,
            "cursor" => self.cursor = Some(cursor(value)?),
            "meta_info" => self.meta_info = truth(name, value)?,
            "order_by" => self.order.by = order_by(value, &OrderBy::LISTED)?,
            _ => return selection(&mut self.filter, &mut self.order, name, value),
        }
        Ok(())
    }
}

/// What is to be deleted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deletion {
    /// Which entries.
    pub filter: Filter,
    /// Which first.
    pub order: Order,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Deletion {
    /// Reads decoded parameters. Unknown ones are refused.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let mut deletion = Self::default();
        let orders = [&OrderBy::LISTED[..], &OrderBy::DELETED].concat();
        let mut spread = Spread::default();
        for (name, value) in parameters {
            match name {
                _ if spread.take(name, value) => {}
                "limit" => deletion.limit = Some(whole(name, value, u32::MAX)?.into()),
                "order_by" => deletion.order.by = order_by(value, &orders)?,
                _ => selection(&mut deletion.filter, &mut deletion.order, name, value)?,
            }
        }
        deletion.filter.add_spread(spread)?;
        Ok(deletion)
    }
}

/// What is to be priced again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Repricing {
    /// Which entries.
    pub filter: Filter,
    /// Where the last step ended.
    pub cursor: Option<i64>,
    /// Nothing is to be changed.
    pub dry_run: bool,
}

impl Repricing {
    /// Reads decoded parameters. Unknown ones are refused.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let mut repricing = Self::default();
        let mut spread = Spread::default();
        for (name, value) in parameters {
            match name {
                _ if spread.take(name, value) => {}
                "cursor" => repricing.cursor = Some(cursor(value)?),
                "dry_run" => repricing.dry_run = truth(name, value)?,
                _ => narrow(&mut repricing.filter, name, value)?,
            }
        }
        repricing.filter.add_spread(spread)?;
        Ok(repricing)
    }
}

/// Parameters that listing and deleting share.
fn selection(
    filter: &mut Filter,
    order: &mut Order,
    name: &str,
    value: &str,
) -> Result<(), FieldError> {
    match name {
        "order_by_direction" | "direction" => {
            order.ascending = match value {
                "asc" => true,
                "desc" => false,
                _ => return Err(FieldError::new(name, "must be asc or desc")),
            };
            Ok(())
        }
        _ => narrow(filter, name, value),
    }
}

/// Parameters that say which entries.
fn narrow(filter: &mut Filter, name: &str, value: &str) -> Result<(), FieldError> {
    match name {
        "filters" => filter.add_json(value),
        "search" => filter.add_search(value),
        _ => match filter.add_flat(name, value)? {
            true => Ok(()),
            false => Err(FieldError::new(name, "is not a parameter of this request")),
        },
    }
}

fn order_by(value: &str, orders: &[(&str, OrderBy)]) -> Result<OrderBy, FieldError> {
    let found = orders.iter().find(|(name, _)| *name == value);
    found.map(|(_, order)| *order).ok_or_else(|| {
        let names: Vec<_> = orders.iter().map(|(name, _)| *name).collect();
        FieldError::new("order_by", format!("must be one of {}", names.join(", ")))
    })
}

pub(crate) fn whole(name: &str, value: &str, most: u32) -> Result<u32, FieldError> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| FieldError::new(name, format!("must be a whole number from 1 to {most}")))
}

fn truth(name: &str, value: &str) -> Result<bool, FieldError> {
    value
        .parse()
        .map_err(|_| FieldError::new(name, "must be true or false"))
}

/// A place in the table as the API shows it: opaque to clients.
pub(super) fn shown_cursor(key: i64) -> String {
    format!("{key:016x}")
}

fn cursor(value: &str) -> Result<i64, FieldError> {
    let key = i64::from_str_radix(value, 16).ok().filter(|key| *key >= 0);
    key.ok_or_else(|| FieldError::new("cursor", "must be the cursor of an earlier page"))
}

/// Changes of an entry; `None` leaves a thing as it is, `Some(None)` removes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// -1, 0 or 1.
    pub feedback: Option<Option<i8>>,
    /// 0 to 100.
    pub score: Option<Option<f64>>,
    /// In place of what is there.
    pub metadata: Option<Option<Metadata>>,
}

impl Patch {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body<'a> {
            #[serde(default, borrow, deserialize_with = "present")]
            feedback: Option<&'a serde_json::value::RawValue>,
            #[serde(default, borrow, deserialize_with = "present")]
            score: Option<&'a serde_json::value::RawValue>,
            #[serde(default, borrow, deserialize_with = "present")]
            metadata: Option<&'a serde_json::value::RawValue>,
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| FieldError::new("body", error.to_string()))?;
        Ok(Self {
            feedback: body.feedback.map(|raw| feedback(raw.get())).transpose()?,
            score: body.score.map(|raw| score(raw.get())).transpose()?,
            metadata: body.metadata.map(|raw| metadata(raw.get())).transpose()?,
        })
    }
}

/// Keeps a null apart from what is not there.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de serde_json::value::RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn feedback(json: &str) -> Result<Option<i8>, FieldError> {
    match serde_json::from_str(json) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Number(number))
            if number
                .as_f64()
                .is_some_and(|number| [-1.0, 0.0, 1.0].contains(&number)) =>
        {
            Ok(number.as_f64().map(|number| number as i8))
        }
        _ => Err(FieldError::new("feedback", "must be -1, 0, 1 or null")),
    }
}

fn score(json: &str) -> Result<Option<f64>, FieldError> {
    match serde_json::from_str::<Option<f64>>(json) {
        Ok(score) if score.is_none_or(|score| (0.0..=100.0).contains(&score)) => Ok(score),
        _ => Err(FieldError::new(
            "score",
            "must be a number from 0 to 100, or null",
        )),
    }
}

fn metadata(json: &str) -> Result<Option<Metadata>, FieldError> {
    let metadata: Option<Metadata> = serde_json::from_str(json)
        .map_err(|error| FieldError::new("metadata", error.to_string()))?;
    Ok(metadata.map(Metadata::of_client))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::logs::metadata::MetadataValue;

    #[test]
    fn parameters_are_read() {
        let query = Query::parse([
            ("page", "2"),
            ("per_page", "50"),
            ("order_by", "model_type"),
            ("order_by_direction", "asc"),
            ("meta_info", "true"),
            ("success", "false"),
        ])
        .unwrap();
        assert_eq!((query.page, query.per_page, query.meta_info), (2, 50, true));
        assert_eq!(
            query.order,
            Order {
                by: OrderBy::ModelType,
                ascending: true
            }
        );
        assert_eq!(query.filter.conditions.len(), 1);
        let deletion = Deletion::parse([("limit", "3"), ("order_by", "cost")]).unwrap();
        assert_eq!(
            (deletion.limit, deletion.order.by),
            (Some(3), OrderBy::Cost)
        );
        assert_eq!(
            Query::parse([("cursor", &*shown_cursor(77))])
                .unwrap()
                .cursor,
            Some(77)
        );
    }

    #[test]
    fn a_repricing_says_what_and_whether() {
        let cursor = shown_cursor(7);
        let parameters = [("dry_run", "true"), ("cursor", &*cursor), ("success", "1")];
        let repricing = Repricing::parse(parameters).unwrap();
        assert_eq!((repricing.dry_run, repricing.cursor), (true, Some(7)));
        assert_eq!(repricing.filter.conditions.len(), 1);
        for (name, value) in [
            ("dry_run", "yes"),
            ("cursor", "x"),
            ("page", "1"),
            ("order_by_direction", "asc"),
            ("end_date", "tomorrow"),
        ] {
            let error = Repricing::parse([(name, value)]).unwrap_err();
            assert_eq!(error.field, name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (("page", "0"), "page: must be a whole number from 1 to"),
            (
                ("per_page", "51"),
                "per_page: must be a whole number from 1 to 50",
            ),
            (
                ("order_by", "cost"),
                "order_by: must be one of created_at, provider",
            ),
            (("direction", "up"), "direction: must be asc or desc"),
            (("cursor", "-1"), "cursor: must be the cursor"),
            (("meta_info", "1"), "meta_info: must be true or false"),
            (("colour", "red"), "colour: is not a parameter"),
            (("min_cost", "x"), "min_cost: must be a number"),
            (("start_date", "x"), "start_date: must be a time"),
            (("cached", "x"), "cached: must be true or false"),
        ];
        for (parameter, start) in cases {
            let error = Query::parse([parameter]).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
        assert!(Query::parse([("cursor", "1"), ("order_by", "model")]).is_err());
    }

    #[test]
    fn patches_tell_null_from_nothing() {
        let patch = Patch::parse(br#"{"feedback":-1,"score":null}"#).unwrap();
        assert_eq!(
            patch,
            Patch {
                feedback: Some(Some(-1)),
                score: Some(None),
                metadata: None
            }
        );
        let patch = Patch::parse(br#"{"metadata":{"a":"x","cf.b":1}}"#).unwrap();
        let metadata = Metadata(vec![("a".to_owned(), MetadataValue::Text("x".to_owned()))]);
        assert_eq!(patch.metadata, Some(Some(metadata)));
        for (body, start) in [
            (&br#"{"feedback":2}"#[..], "feedback: must"),
            (br#"{"score":101}"#, "score: must"),
            (br#"{"metadata":{"a":[]}}"#, "metadata: `a` must"),
            (br#"{"x":1}"#, "body: unknown field"),
            (b"1", "body:"),
        ] {
            let error = Patch::parse(body).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
