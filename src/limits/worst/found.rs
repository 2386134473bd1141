//! What the values of a request say of what it takes, each judged where it ends.

use super::text::Start;
use super::words::{self, Bound};
use crate::config::schema::Format;

/// What a request says of what it takes.
#[derive(Debug, Default)]
pub struct Found {
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
    /// Other models may answer.
    pub other_models: bool,
}

/// Bounds of the output.
#[derive(Debug, Default)]
pub struct Outputs {
    said: Vec<Said>,
    /// One says that there is none: it is negative, or what is no number.
    none: bool,
    /// The request is in a model's own format.
    of_model: bool,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    name: &'static str,
    /// The largest number that stood there, if one did.
    most: Option<u64>,
    /// It stood there without a number, too.
    is_silent: bool,
    /// Holds only in a model's own format.
    of_model: bool,
}

/// What a value was.
#[derive(Debug)]
pub enum Seen {
    Nothing,
    Flag,
    Number(Option<u64>),
    Text(Start),
    List { length: u64, prompts: u64 },
    Object(Object),
}

/// What is to be known of an object where it ends.
#[derive(Debug, Default)]
pub struct Object {
    pub fields: u32,
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
    /// Of the output.
    pub has_bound: bool,
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
            one.most.is_some() && others.any(|other| other.is_silent)
        };
        if self.none || said().any(is_twofold) {
            return None;
        }
        said().filter_map(|said| said.most).max()
    }

    /// The largest bound in the words of a model's own format, where nothing shows that the request is in
    /// it: whether the provider goes by it is not known.
    pub fn doubtful(&self) -> u64 {
        let doubtful = self.said.iter().filter(|_| !self.of_model);
        let most = doubtful
            .filter(|said| said.of_model)
            .filter_map(|said| said.most);
        most.max().unwrap_or_default()
    }

    fn say(&mut self, name: &'static str, of_model: bool, seen: &Seen) {
        let most = match seen {
            Seen::Nothing => None,
            // Numbers may stand in quotes, where Google reads them.
            Seen::Number(_) | Seen::Text(_) if seen.number().is_some() => seen.number(),
            _ => return self.none = true,
        };
        // One for each name, however often it stands there.
        let mut said = self.said.iter_mut();
        match said.find(|said| said.name == name && said.of_model == of_model) {
            Some(said) => {
                said.most = said.most.max(most);
                said.is_silent |= most.is_none();
            }
            None => self.said.push(Said {
                name,
                most,
                is_silent: most.is_none(),
                of_model,
            }),
        }
    }
}

impl Found {
    fn unbounded(&mut self, why: &'static str) {
        self.other_models |= why == words::OTHER_MODELS;
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

    pub fn tool(&mut self, tool: &Object) {
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
    pub fn item(&mut self, item: &Object) {
        let kind = item.kind.word();
        let untyped = item.kind.length == 0 && item.has_id && !item.has_content;
        if kind == "item_reference" || untyped {
            self.unbounded(words::STORED);
        }
    }

    /// A field of the request, or of what is as good as it.
    pub fn top(&mut self, format: Format, key: &str, seen: &Seen) {
        if let Some(why) = words::boundless(key).filter(|_| seen.is_said()) {
            self.unbounded(why);
        }
        if words::only_starts(key) && matches!(seen, Seen::Flag) {
            self.unbounded(words::LATER);
        }
        if let Some(word) = seen.word()
            && words::is_another_service(key, word)
        {
            self.unbounded(words::SERVICE);
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

    pub fn number(&mut self, bound: Bound, seen: &Seen) {
        let number = seen.number().unwrap_or_default();
        match bound {
            Bound::Output(name) => self.outputs.say(name, false, seen),
            Bound::OutputOfModel(name) => self.outputs.say(name, true, seen),
            Bound::Choices => self.choices = self.choices.max(number),
            Bound::Thoughts => self.thoughts = self.thoughts.max(number),
        }
    }

    /// A field of whatever object, which may bring or name what has no bound.
    pub fn content(&mut self, key: &str, seen: &Seen) {
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
            // Free fields of documents may be called so too: then their bytes are text.
            ("image" | "inputImage", Seen::Text(image)) => match image.begins("data:image/") {
                true => self.image(*image),
                false if image.begins("http") => self.unbounded(words::ADDRESS),
                false => self.images = self.images.saturating_add(1),
            },
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

    /// A word, or the type of an object, as which Bedrock has its words.
    fn word(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.word()),
            Self::Object(object) => Some(object.kind.word()),
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
    pub fn learn(&mut self, key: &str, seen: &Seen) {
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
