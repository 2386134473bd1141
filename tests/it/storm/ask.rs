//! What clients ask: a function of the seed and the request's number, so that both ends of the
//! gateway know each body byte for byte.

use std::time::Duration;

use bytes::Bytes;

use super::Who;
use super::chance::Dice;
use crate::support::conf::{CHAT, path};

/// The provider learns by this header what the body is about, before it has the body.
pub const TOPIC: &str = "x-storm";

/// Requests in a row that ask the same, where they may be answered from the cache.
const GROUP: u64 = 8;
/// Pingora's replay buffer holds one byte less.
const OVER_REPLAY: usize = (64 << 10) + 1;

/// Which way a request takes to the providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A native call that takes the route `ahead` by its match.
    Matched,
    /// `dynamic/ahead`, on the provider's own path.
    Ahead,
    /// `dynamic/back`: the other provider first.
    Back,
    /// `dynamic/ahead` through compat.
    Compat,
    /// A native call that takes no route.
    Plain(Who),
    /// The universal endpoint, with a step for each provider.
    Steps,
    /// A body that is no JSON, which streams through.
    Upload(Who),
}

const WAYS: [(u64, Way, &str); 9] = [
    (20, Way::Matched, "matched"),
    (15, Way::Ahead, "ahead"),
    (15, Way::Back, "back"),
    (10, Way::Compat, "compat"),
    (8, Way::Plain(Who::Openai), "openai"),
    (8, Way::Plain(Who::Groq), "groq"),
    (16, Way::Steps, "steps"),
    (4, Way::Upload(Who::Openai), "upload-openai"),
    (4, Way::Upload(Who::Groq), "upload-groq"),
];

impl Way {
    fn name(self) -> &'static str {
        let found = WAYS.iter().find(|(_, way, _)| *way == self);
        found.expect("in the table").2
    }

    /// The model that the client names.
    fn asked_for(self) -> &'static str {
        match self {
            Self::Matched => Who::Openai.routed_model(),
            Self::Ahead | Self::Compat => "dynamic/ahead",
            Self::Back => "dynamic/back",
            Self::Plain(who) | Self::Upload(who) => who.plain_model(),
            Self::Steps => Who::Openai.plain_model(),
        }
    }

    /// The model that `who` is to be asked for.
    pub fn model_at(self, who: Who) -> &'static str {
        match self {
            Self::Matched | Self::Ahead | Self::Back | Self::Compat => who.routed_model(),
            Self::Plain(_) | Self::Upload(_) | Self::Steps => who.plain_model(),
        }
    }

    /// Who is asked, in order: what `cf-aig-step` counts.
    pub fn targets(self) -> &'static [Who] {
        match self {
            Self::Matched | Self::Ahead | Self::Compat | Self::Steps => &[Who::Openai, Who::Groq],
            Self::Back => &[Who::Groq, Who::Openai],
            Self::Plain(Who::Openai) | Self::Upload(Who::Openai) => &[Who::Openai],
            Self::Plain(Who::Groq) | Self::Upload(Who::Groq) => &[Who::Groq],
        }
    }

    pub fn is_upload(self) -> bool {
        matches!(self, Self::Upload(_))
    }

    fn path(self) -> String {
        match self {
            Self::Matched | Self::Ahead | Self::Back | Self::Plain(Who::Openai) => CHAT.to_owned(),
            Self::Plain(Who::Groq) => path("groq", "chat/completions"),
            Self::Compat => path("compat", "chat/completions"),
            Self::Steps => "/v1/default/default".to_owned(),
            Self::Upload(who) => path(who.name(), "audio/transcriptions"),
        }
    }
}

/// What a body is about. Its text tells everything of the body but the model.
#[derive(Debug, Clone)]
pub struct Topic {
    pub text: String,
    pub way: Way,
    /// The answer is to be a stream of events.
    pub streams: bool,
    size: usize,
}

impl Topic {
    fn new(name: &str, way: Way, streams: bool, size: usize) -> Self {
        let kind = if streams { "events" } else { "json" };
        let text = format!("{name}.{}.{kind}.{size}", way.name());
        Self {
            text,
            way,
            streams,
            size,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('.');
        let name = words.next()?;
        let word = words.next()?;
        let way = WAYS.iter().find(|(_, _, name)| *name == word)?.1;
        let streams = words.next()? == "events";
        let topic = Self::new(name, way, streams, words.next()?.parse().ok()?);
        (topic.text == text).then_some(topic)
    }

    /// What must arrive at `who`.
    pub fn body_at(&self, who: Who) -> Vec<u8> {
        self.body(self.way.model_at(who))
    }

    fn body(&self, model: &str) -> Vec<u8> {
        let (before, after) = match self.way.is_upload() {
            true => self.around_upload(model),
            false => self.around_json(model),
        };
        // As long whatever the model is called: the client's body has the size that was chosen.
        let rest = before.len() - model.len() + self.way.asked_for().len() + after.len();
        let letters = Dice::of(0, &self.text).letters(self.size.saturating_sub(rest));
        [before.as_bytes(), letters, after.as_bytes()].concat()
    }

    fn around_json(&self, model: &str) -> (String, String) {
        let Self { text, streams, .. } = self;
        let before =
            format!(r#"{{"model":"{model}","stream":{streams},"topic":"{text}","padding":""#);
        (before, r#""}"#.to_owned())
    }

    fn around_upload(&self, model: &str) -> (String, String) {
        let part = "--storm\r\ncontent-disposition: form-data; name=";
        let before = format!("{part}\"model\"\r\n\r\n{model}\r\n{part}\"file\"\r\n\r\n");
        (before, format!("\r\n{}\r\n--storm--\r\n", self.text))
    }
}

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// It waits for its answer.
    Stays,
    /// It leaves when it has sent this many of a thousand parts of its body.
    LeavesInBody(usize),
    /// It leaves that long after it has sent all.
    LeavesAfter(Duration),
    /// It leaves when it has the answer's head and the first piece of its body.
    LeavesReading,
}

/// One request.
pub struct Ask {
    /// Its number, from 1: its trace.
    pub number: u64,
    pub topic: Topic,
    pub patience: Patience,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// The body's length is not told beforehand.
    pub open: bool,
}

impl Ask {
    pub fn new(seed: u64, number: u64) -> Self {
        let group = format!("g{}", number / GROUP);
        let cached = Dice::of(seed, &group).one_in(5);
        let name = if cached { group } else { format!("n{number}") };
        let topic = topic(seed, name, cached);
        let mut dice = Dice::of(seed, &format!("client of {number}"));
        Self {
            number,
            patience: patience(&mut dice),
            path: topic.way.path(),
            headers: headers(&topic, number, cached),
            body: body(&topic).into(),
            open: dice.one_in(4),
            topic,
        }
    }
}

fn topic(seed: u64, name: String, cached: bool) -> Topic {
    let mut dice = Dice::of(seed, &name);
    let way = loop {
        let way = dice.weighted(&WAYS.map(|(weight, way, _)| (weight, way)));
        // Uploads are never cached.
        if !(cached && way.is_upload()) {
            break way;
        }
    };
    let size = match dice.below(1000) {
        0..=1 => (1 << 20) + dice.size(4 << 20),
        2..=70 => OVER_REPLAY,
        _ => 1 << 10,
    };
    let streams = dice.one_in(2) && !way.is_upload();
    Topic::new(&name, way, streams, size)
}

/// About three in a hundred leave.
fn patience(dice: &mut Dice) -> Patience {
    if !dice.one_in(33) {
        return Patience::Stays;
    }
    match dice.below(3) {
        0 => Patience::LeavesInBody(dice.size(1000)),
        1 => Patience::LeavesAfter(dice.millis(800)),
        _ => Patience::LeavesReading,
    }
}

fn headers(topic: &Topic, number: u64, cached: bool) -> Vec<(&'static str, String)> {
    let content_type = match topic.way.is_upload() {
        true => "multipart/form-data; boundary=storm",
        false => "application/json",
    };
    let mut headers = vec![
        ("content-type", content_type.to_owned()),
        ("traceparent", trace(number)),
    ];
    // A step's own headers tell its topic.
    if topic.way != Way::Steps {
        headers.push((TOPIC, topic.text.clone()));
    }
    if cached {
        headers.push(("cf-aig-cache-ttl", "300".to_owned()));
    }
    headers
}

fn body(topic: &Topic) -> Vec<u8> {
    if topic.way != Way::Steps {
        return topic.body(topic.way.asked_for());
    }
    let steps = [Who::Openai, Who::Groq].map(|who| {
        let start = format!(
            r#"{{"provider":"{}","endpoint":"chat/completions","headers":{{"{TOPIC}":"{}"}},"query":"#,
            who.name(),
            topic.text
        );
        [start.as_bytes(), &topic.body_at(who), b"}"].concat()
    });
    [b"[", &steps[0][..], b",", &steps[1], b"]"].concat()
}

/// The `traceparent` of a request: the one thing that the client, the access log and the
/// provider all see of it.
fn trace(number: u64) -> String {
    format!("00-{number:032x}-{number:016x}-01")
}

/// The number in a `traceparent`.
pub fn traced(traceparent: &str) -> Option<u64> {
    u64::from_str_radix(traceparent.split('-').nth(1)?, 16).ok()
}
