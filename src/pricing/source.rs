//! Reads the catalogue's file, format v2 of <https://github.com/pydantic/genai-prices>, and
//! decides which of a model's prices hold for a call.
//!
//! Numbers are read as text, so that a rate is exactly what the file says. The rules of
//! choice - by time, by kind of processing - are those of that project's own crate, which the
//! tests compare with. Prices by minutes, pages and characters are left out: they are not
//! counted here.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::money::Rate;
use super::rates::{Card, Kind};
use crate::usage::ServiceTier;

/// What the file calls the kinds, and the power of ten of units that their price is for.
const KINDS: [(&str, Kind, u32); 13] = [
    ("input_mtok", Kind::Input, 6),
    ("cache_read_mtok", Kind::CachedInput, 6),
    ("cache_write_mtok", Kind::CacheWrite, 6),
    ("cache_write_1h_mtok", Kind::CacheWrite1h, 6),
    ("input_audio_mtok", Kind::InputAudio, 6),
    ("cache_audio_read_mtok", Kind::CachedAudio, 6),
    ("input_image_mtok", Kind::InputImage, 6),
    ("output_mtok", Kind::Output, 6),
    ("output_reasoning_mtok", Kind::Reasoning, 6),
    ("output_audio_mtok", Kind::OutputAudio, 6),
    ("output_image_mtok", Kind::OutputImage, 6),
    ("web_searches_kcount", Kind::WebSearch, 3),
    ("requests_kcount", Kind::Request, 3),
];

/// A provider of the catalogue.
#[derive(Debug)]
pub struct Provider {
    /// Ids of the providers whose models it sells at their prices too.
    pub fallbacks: Vec<String>,
    /// In the order in which their names are tried.
    pub models: Vec<std::sync::Arc<Model>>,
}

/// A model of the catalogue.
#[derive(Debug)]
pub struct Model {
    /// Its name in the catalogue.
    pub id: String,
    /// Tokens that it reads and writes together at most, where that is known.
    pub context: Option<u64>,
    names: Names,
    /// Later ones win over earlier ones; the first holds when no other does.
    prices: Vec<Dated>,
    /// Earlier ones win over later ones.
    variants: Vec<Variant>,
}

/// Prices, and when they hold.
#[derive(Debug)]
struct Dated {
    when: When,
    card: Card,
}

/// Prices of calls processed in a special way.
#[derive(Debug)]
struct Variant {
    context: BTreeMap<String, String>,
    dated: Dated,
}

/// When a price holds.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    From(SystemTime),
    /// Between two times of the day, in seconds since midnight UTC; over midnight when the
    /// second is the smaller one.
    Daily(u64, u64),
}

/// Which names a model goes by.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Names {
    And(Vec<Names>),
    Or(Vec<Names>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Equals(String),
    Regex(Pattern),
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

impl Model {
    /// Whether `name`, in lower case, is one of its names.
    pub fn is_called(&self, name: &str) -> bool {
        self.names.matches(name)
    }

    /// The prices of every class of service at `at`, equal ones once.
    pub fn cards(&self, own: bool, at: SystemTime) -> Vec<Card> {
        let mut cards = Vec::new();
        for tier in ServiceTier::ALL {
            let card = self.card(tier, own, at);
            if !cards.contains(&card) {
                cards.push(card);
            }
        }
        cards
    }

    /// From when on its prices stay as they are; `None` if they change with the time of the day.
    pub fn settled_since(&self) -> Option<SystemTime> {
        let variants = self.variants.iter().map(|variant| &variant.dated);
        let all = self.prices.iter().chain(variants);
        all.map(|dated| match dated.when {
            When::Always => Some(UNIX_EPOCH),
            When::From(start) => Some(start),
            When::Daily(..) => None,
        })
        .try_fold(UNIX_EPOCH, |latest, start| Some(latest.max(start?)))
    }

    /// The prices of a call at `at`. `own` is whether the provider that was called lists the
    /// model itself: special ways of processing have a price there only.
    pub fn card(&self, tier: ServiceTier, own: bool, at: SystemTime) -> Card {
        let standard = self.prices.iter().rev().find(|dated| dated.when.holds(at));
        let standard = standard.or(self.prices.first()).map(|dated| &dated.card);
        let context = tier.context().filter(|_| own);
        let variants = self.variants.iter().filter(|variant| {
            variant.dated.when.holds(at) && context.is_some_and(|context| variant.is_for(context))
        });
        variants
            .map(|variant| &variant.dated.card)
            .chain(standard)
            .fold(Card::default(), Card::or)
    }
}

impl Variant {
    fn is_for(&self, (key, value): (&str, &str)) -> bool {
        self.context.len() == 1 && self.context.get(key).is_some_and(|other| other == value)
    }
}

impl ServiceTier {
    /// What the catalogue calls it; none for the usual prices.
    fn context(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Standard => None,
            Self::Batch => Some(("processing", "batch")),
            Self::Flex => Some(("service_tier", "flex")),
            Self::Priority => Some(("service_tier", "priority")),
        }
    }
}

impl When {
    fn holds(self, at: SystemTime) -> bool {
        match self {
            Self::Always => true,
            Self::From(start) => at >= start,
            Self::Daily(start, end) => {
                let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let second = since % 86_400;
                if end < start {
                    second >= start || second < end
                } else {
                    (start..end).contains(&second)
                }
            }
        }
    }
}

impl Names {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::And(all) => all.iter().all(|names| names.matches(name)),
            Self::Or(any) => any.iter().any(|names| names.matches(name)),
            Self::Contains(part) => name.contains(part.as_str()),
            Self::StartsWith(part) => name.starts_with(part.as_str()),
            Self::EndsWith(part) => name.ends_with(part.as_str()),
            Self::Equals(whole) => name == whole,
            // The one failure is a search that backtracks too long.
            Self::Regex(Pattern(regex)) => regex.is_match(name).unwrap_or(false),
        }
    }

    /// Names are compared in lower case; patterns are written for it.
    fn into_lower_case(self) -> Self {
        let all = |names: Vec<Self>| names.into_iter().map(Self::into_lower_case).collect();
        match self {
            Self::And(names) => Self::And(all(names)),
            Self::Or(names) => Self::Or(all(names)),
            Self::Contains(part) => Self::Contains(part.to_lowercase()),
            Self::StartsWith(part) => Self::StartsWith(part.to_lowercase()),
            Self::EndsWith(part) => Self::EndsWith(part.to_lowercase()),
            Self::Equals(whole) => Self::Equals(whole.to_lowercase()),
            Self::Regex(pattern) => Self::Regex(pattern),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        // The digits of all scripts would take a hundred kilobytes per pattern.
        let ascii = pattern.replace(r"\d", "[0-9]");
        let regex = Regex::new(&ascii).map_err(|error| format!("{pattern:?}: {error}"))?;
        Ok(Self(regex))
    }
}

/// Reads a catalogue's part on one provider.
///
/// # Errors
/// Says what is wrong, and with which model.
pub fn read_one(json: &str) -> Result<Provider, String> {
    parsed::<WrittenProvider>(json)?.read()
}

/// What a catalogue has on each provider, unread, by their ids.
///
/// # Errors
/// Says why it is no catalogue.
pub fn parts(json: &str) -> Result<HashMap<String, &str>, String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let parts: Vec<&RawValue> = parsed(json).map_err(|error| format!("no catalogue: {error}"))?;
    let texts = parts.into_iter().map(RawValue::get);
    let named = texts.map(|text| Ok((parsed::<Named>(text)?.id, text)));
    named.collect()
}

#[derive(Deserialize)]
struct WrittenProvider<'a> {
    id: String,
    #[serde(default)]
    fallback_model_providers: Vec<String>,
    #[serde(borrow)]
    models: Vec<WrittenModel<'a>>,
}

#[derive(Deserialize)]
struct WrittenModel<'a> {
    id: String,
    #[serde(default)]
    context_window: Option<u64>,
    #[serde(rename = "match")]
    names: Names,
    /// One set of prices, or a list of dated ones.
    #[serde(borrow)]
    prices: &'a RawValue,
    #[serde(borrow, default)]
    price_variants: Vec<WrittenDated<'a>>,
}

#[derive(Deserialize)]
struct WrittenDated<'a> {
    #[serde(default)]
    when: BTreeMap<String, String>,
    #[serde(default)]
    constraint: Option<WrittenWhen>,
    #[serde(borrow)]
    prices: WrittenPrices<'a>,
}

type WrittenPrices<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct WrittenWhen {
    start_date: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
}

/// A price with thresholds.
#[derive(Deserialize)]
struct WrittenSteps<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<WrittenStep<'a>>,
}

#[derive(Deserialize)]
struct WrittenStep<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}

impl WrittenProvider<'_> {
    fn read(self) -> Result<Provider, String> {
        let read = |model: WrittenModel| {
            let id = model.id.clone();
            let model = model
                .read()
                .map_err(|error| format!("{} {id}: {error}", self.id))?;
            Ok::<_, String>(model.into())
        };
        Ok(Provider {
            fallbacks: self.fallback_model_providers,
            models: self
                .models
                .into_iter()
                .map(read)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl WrittenModel<'_> {
    fn read(self) -> Result<Model, String> {
        let variant = |written: WrittenDated| {
            let context = written.when.clone();
            written.read().map(|dated| Variant { context, dated })
        };
        Ok(Model {
            id: self.id,
            context: self.context_window,
            names: self.names.into_lower_case(),
            prices: read_prices(self.prices.get())?,
            variants: self
                .price_variants
                .into_iter()
                .map(variant)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn read_prices(json: &str) -> Result<Vec<Dated>, String> {
    if json.starts_with('[') {
        let dated: Vec<WrittenDated> = parsed(json)?;
        return dated.into_iter().map(WrittenDated::read).collect();
    }
    let card = read_card(&parsed(json)?)?;
    let when = When::Always;
    Ok(vec![Dated { when, card }])
}

impl WrittenDated<'_> {
    fn read(self) -> Result<Dated, String> {
        let when = self.constraint.map(WrittenWhen::read).transpose()?;
        Ok(Dated {
            when: when.unwrap_or(When::Always),
            card: read_card(&self.prices)?,
        })
    }
}

impl WrittenWhen {
    fn read(self) -> Result<When, String> {
        match (self.start_date, self.start_time, self.end_time) {
            (Some(date), None, None) => humantime::parse_rfc3339(&format!("{date}T00:00:00Z"))
                .map(When::From)
                .map_err(|error| format!("start_date {date:?}: {error}")),
            (None, Some(start), Some(end)) => Ok(When::Daily(second(&start)?, second(&end)?)),
            _ => Err("a constraint is a start_date, or a start_time and an end_time".into()),
        }
    }
}

/// Seconds since midnight of a time in UTC, such as `16:30:00Z`.
fn second(time: &str) -> Result<u64, String> {
    humantime::parse_rfc3339(&format!("1970-01-01T{time}"))
        .map(|time| {
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs()
        })
        .map_err(|error| format!("time {time:?}: {error}"))
}

fn read_card(prices: &WrittenPrices) -> Result<Card, String> {
    let mut card = Card::default();
    for (key, value) in prices {
        match KINDS.iter().find(|(name, ..)| name == key) {
            Some((_, kind, power)) => read_price(&mut card, *kind, *power, value.get())
                .map_err(|error| format!("{key}: {error}"))?,
            None => card.other_units = true,
        }
    }
    Ok(card)
}

fn read_price(card: &mut Card, kind: Kind, power: u32, json: &str) -> Result<(), String> {
    if !json.starts_with('{') {
        card.set(kind, Rate::per_power_of_ten(json, power)?);
        return Ok(());
    }
    let steps: WrittenSteps = parsed(json)?;
    card.set(kind, Rate::per_power_of_ten(steps.base.get(), power)?);
    for step in steps.tiers {
        let rate = Rate::per_power_of_ten(step.price.get(), power)?;
        card.set_above(step.start, kind, rate);
    }
    Ok(())
}

fn parsed<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}
