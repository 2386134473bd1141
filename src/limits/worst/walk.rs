//! One pass over a request's JSON that builds nothing: each value is judged where it ends, by what
//! it was and under which name it stood.

use std::fmt;

use serde::de;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;

use super::text::Start;
use super::words::{self, Bound, bound};
use crate::config::schema::Format;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The request, and its fields.
    Top,
    /// An object whose fields are as good as the request's: `additionalModelRequestFields`.
    Fields,
    /// An object that says how to generate: `generationConfig`, `inferenceConfig`.
    Config,
    /// What has the tools: `toolConfig`.
    ToolConfig,
    /// The list of tools, and each of them.
    Tools,
    Tool,
    /// The list of items that OpenAI's responses take.
    Items,
    /// All else.
    Content,
}

/// What a request says of what it takes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub outputs: Outputs,
    /// The largest number of answers asked for; 0 for none.
    pub choices: u64,
    /// Of texts to complete, or of instances; 0 where it is not by such.
    pub prompts: u64,
    pub thoughts: u64,
    pub predicts: bool,
    pub images: u64,
    /// Bytes of texts that are images.
    pub image_bytes: u64,
    /// How many times something is written around tools.
    pub tools: u64,
    pub unbounded: Option<&'static str>,
}

/// Bounds of the output.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    said: Vec<Said>,
    /// One says that there is none: it is negative, or what is no number.
    none: bool,
    /// The request is in a model's own format.
    of_model: bool,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    name: &'static str,
    /// `None`: it says nothing.
    most: Option<u64>,
    /// Holds only in a model's own format.
    of_model: bool,
}

/// What a value was.
pub(super) enum Seen {
    Nothing,
    Flag,
    Number(Option<u64>),
    Text(Start),
    List { length: u64, prompts: u64 },
    Object(Object),
}

/// What is to be known of an object where it ends.
#[derive(Default)]
pub(super) struct Object {
    fields: u32,
    kind: Start,
    mime: Start,
    url: Start,
    data: Start,
    has_id: bool,
    has_content: bool,
    has_name: bool,
    /// Only declares functions that the client runs.
    declares: bool,
    /// Has bytes, by itself or in its `source`.
    bytes: Option<Start>,
    has_bound: bool,
}

/// Reads all of `body`, which must be JSON.
pub(super) fn find(body: &[u8], format: Format) -> Result<Found, serde_json::Error> {
    let mut found = Found::default();
    let mut json = Deserializer::from_slice(body);
    let walk = Walk {
        found: &mut found,
        format,
        at: At::Top,
    };
    walk.deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

impl Outputs {
    /// The largest of all bounds; none where one says so, or where a name stands twice with and
    /// without a number, as nobody knows which of the two the provider takes.
    pub fn largest(&self) -> Option<u64> {
        let said = || {
            let all = self.said.iter();
            all.filter(|said| !said.of_model || self.of_model)
        };
        let is_twofold = |one: &Said| {
            let mut others = said().filter(|other| other.name == one.name);
            one.most.is_some() && others.any(|other| other.most.is_none())
        };
        if self.none || said().any(is_twofold) {
            return None;
        }
        said().filter_map(|said| said.most).max()
    }

    fn say(&mut self, name: &'static str, of_model: bool, seen: &Seen) {
        let most = match seen {
            Seen::Nothing => None,
            // Numbers may stand in quotes, where Google reads them.
            Seen::Number(_) | Seen::Text(_) if seen.number().is_some() => seen.number(),
            _ => return self.none = true,
        };
        self.said.push(Said {
            name,
            most,
            of_model,
        });
    }
}

impl Found {
    fn unbounded(&mut self, why: &'static str) {
        self.unbounded = self.unbounded.or(Some(why));
    }

    fn image(&mut self, text: Start) {
        if text.begins("http:") || text.begins("https:") {
            return self.unbounded(words::ADDRESS);
        }
        self.images = self.images.saturating_add(1);
        self.image_bytes = self.image_bytes.saturating_add(text.length as u64);
    }

    /// Something with bytes: an image is bounded, a document or a film is not.
    fn media(&mut self, mime: Start, data: Start) {
        match mime.begins("image/") {
            true => self.image(data),
            false => self.unbounded(words::FILE),
        }
    }

    fn tool(&mut self, tool: &Object) {
        let kind = tool.kind.word();
        let known = match (tool.kind.length, words::client_runs(kind)) {
            (0, _) => (tool.has_name || (tool.declares && tool.fields == 1)).then_some(false),
            (_, known) => known,
        };
        match known {
            None => self.unbounded(words::SERVER_TOOLS),
            Some(described) => self.tools = self.tools.saturating_add(described.into()),
        }
    }

    /// OpenAI's references to items of earlier answers may lack their type.
    fn item(&mut self, item: &Object) {
        let kind = item.kind.word();
        let untyped = item.kind.length == 0 && item.has_id && !item.has_content;
        if kind == "item_reference" || untyped {
            self.unbounded(words::STORED);
        }
    }

    /// A field of the request, or of what is as good as it.
    fn top(&mut self, format: Format, key: &str, seen: &Seen) {
        if let Some(why) = words::boundless(key).filter(|_| seen.is_said()) {
            self.unbounded(why);
        }
        self.outputs.of_model |= words::is_invocation(format, key);
        match (key, seen) {
            ("prompt", Seen::Object(prompt)) if prompt.has_id => self.unbounded(words::STORED),
            ("prompt", Seen::List { prompts, .. }) if format == Format::OpenaiChat => {
                self.prompts = self.prompts.max(*prompts);
            }
            ("instances", Seen::List { length, .. }) => self.prompts = self.prompts.max(*length),
            ("prediction", seen) if seen.is_said() => self.predicts = true,
            ("tools" | "functions" | "toolConfig", seen) if seen.is_said() => {
                self.tools = self.tools.saturating_add(1);
            }
            ("generationConfig" | "generation_config", Seen::Object(config))
                if !config.has_bound =>
            {
                self.outputs.say("maxOutputTokens", false, &Seen::Nothing);
            }
            _ => {}
        }
    }

    fn number(&mut self, bound: Bound, seen: &Seen) {
        let number = seen.number().unwrap_or_default();
        match bound {
            Bound::Output(name) => self.outputs.say(name, false, seen),
            Bound::OutputOfModel(name) => self.outputs.say(name, true, seen),
            Bound::Choices => self.choices = self.choices.max(number),
            Bound::Thoughts => self.thoughts = self.thoughts.max(number),
        }
    }

    /// A field of whatever object, which may bring or name what has no bound.
    fn content(&mut self, key: &str, seen: &Seen) {
        if words::refers(key) && seen.is_said() {
            self.unbounded(words::ADDRESS);
        }
        match (key, seen) {
            ("image_url", Seen::Text(url)) => self.image_at(*url),
            ("image_url", Seen::Object(image)) => self.image_at(image.url),
            ("inlineData" | "inline_data", Seen::Object(media)) => {
                self.media(media.mime, media.data)
            }
            // Google's name for a reference, and OpenAI's for a file itself.
            ("file_data", Seen::Object(_)) => self.unbounded(words::ADDRESS),
            ("file_data", Seen::Text(_)) => self.unbounded(words::FILE),
            ("input_audio", Seen::Object(sound)) if sound.data.begins("http") => {
                self.unbounded(words::ADDRESS);
            }
            ("audio", Seen::Object(sound)) if sound.has_id => self.unbounded(words::STORED),
            ("source", Seen::Object(source)) => self.source(source),
            ("image", Seen::Object(image)) => {
                if let Some(bytes) = image.bytes {
                    self.image(bytes);
                }
            }
            ("image" | "inputImage", Seen::Text(image)) => self.image(*image),
            ("image", Seen::List { .. }) => self.image(Start::default()),
            ("images", Seen::List { length, .. }) => {
                self.images = self.images.saturating_add(*length);
            }
            ("document" | "video" | "audio", Seen::Object(media)) if media.bytes.is_some() => {
                self.unbounded(words::FILE);
            }
            _ => {}
        }
    }

    fn image_at(&mut self, url: Start) {
        if url.begins("data:image/") {
            self.image(url);
        } else if url.begins("data:") {
            self.unbounded(words::FILE);
        } else {
            self.unbounded(words::ADDRESS);
        }
    }

    /// Anthropic's.
    fn source(&mut self, source: &Object) {
        match source.kind.word() {
            "base64" => self.media(source.mime, source.data),
            "url" | "file" => self.unbounded(words::ADDRESS),
            _ => {}
        }
    }
}

impl Seen {
    /// A number, in quotes or not, that is not negative.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.word().parse().ok(),
            _ => None,
        }
    }

    /// Whether it says anything at all.
    fn is_said(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::List { length, .. } => *length > 0,
            Self::Flag | Self::Number(_) | Self::Text(_) | Self::Object(_) => true,
        }
    }
}

impl Object {
    fn learn(&mut self, key: &str, seen: &Seen) {
        self.fields = self.fields.saturating_add(1);
        match (key, seen) {
            ("type", Seen::Text(kind)) => self.kind = *kind,
            ("mimeType" | "mime_type" | "media_type", Seen::Text(mime)) => self.mime = *mime,
            ("url", Seen::Text(url)) => self.url = *url,
            ("data", Seen::Text(data)) => self.data = *data,
            ("bytes", Seen::Text(bytes)) => self.bytes = Some(*bytes),
            ("source", Seen::Object(source)) => self.bytes = self.bytes.or(source.bytes),
            ("id", seen) => self.has_id |= seen.is_said(),
            ("content", _) => self.has_content = true,
            ("name" | "function", _) => self.has_name = true,
            ("functionDeclarations" | "function_declarations" | "toolSpec" | "cachePoint", _) => {
                self.declares = true;
            }
            _ => {}
        }
    }
}

/// Reads one value.
struct Walk<'w> {
    found: &'w mut Found,
    format: Format,
    at: At,
}

impl Walk<'_> {
    fn inner(&mut self, at: At) -> Walk<'_> {
        Walk {
            found: self.found,
            format: self.format,
            at,
        }
    }

    fn field(&mut self, key: &str, seen: &Seen) -> bool {
        if matches!(self.at, At::Top | At::Fields) {
            self.found.top(self.format, key, seen);
        }
        self.found.content(key, seen);
        let bound = bound(self.format, self.at, key);
        if let Some(bound) = bound {
            self.found.number(bound, seen);
        }
        matches!(bound, Some(Bound::Output(_)))
    }

    /// Where the value of a field stands.
    fn below(&self, key: &str) -> At {
        match (self.at, key) {
            (At::Top | At::Fields | At::ToolConfig, "tools") => At::Tools,
            (At::Top, "toolConfig") => At::ToolConfig,
            (At::Top, "additionalModelRequestFields") => At::Fields,
            (At::Top, "input") => At::Items,
            (At::Top, "generationConfig" | "generation_config" | "parameters") => At::Config,
            (At::Top, "inferenceConfig" | "textGenerationConfig") => At::Config,
            _ => At::Content,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Seen;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Seen, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Seen;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Nothing)
    }

    fn visit_bool<E>(self, said: bool) -> Result<Seen, E> {
        Ok(if said { Seen::Flag } else { Seen::Nothing })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seen, E> {
        Ok(Seen::Number(Some(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Seen, E> {
        Ok(Seen::Number(u64::try_from(number).ok()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Seen, E> {
        // As good as the provider's rounding; what is too large stays at the largest.
        let number = (number >= 0.0).then(|| number.ceil() as u64);
        Ok(Seen::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(Seen::Text(Start::of(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Seen, A::Error> {
        let within = match self.at {
            At::Tools => At::Tool,
            _ => At::Content,
        };
        let (mut length, mut prompts) = (0, 0);
        while let Some(seen) = list.next_element_seed(self.inner(within))? {
            length += 1;
            prompts += u64::from(matches!(seen, Seen::Text(_) | Seen::List { .. }));
            match (self.at, &seen) {
                (At::Tools, Seen::Object(tool)) => self.found.tool(tool),
                (At::Items, Seen::Object(item)) => self.found.item(item),
                _ => {}
            }
        }
        Ok(Seen::List { length, prompts })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Seen, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key_seed(Word)? {
            let key = key.word();
            if words::is_made_up(self.at, key) {
                map.next_value::<IgnoredAny>()?;
                object.fields = object.fields.saturating_add(1);
                continue;
            }
            let seen = map.next_value_seed(self.inner(self.below(key)))?;
            object.has_bound |= self.field(key, &seen);
            object.learn(key, &seen);
        }
        Ok(Seen::Object(object))
    }
}

/// Reads a name.
struct Word;

impl<'de> DeserializeSeed<'de> for Word {
    type Value = Start;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Start, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Word {
    type Value = Start;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Start, E> {
        Ok(Start::of(name))
    }
}
