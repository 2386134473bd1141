//! Counts tokens of texts: as OpenAI's models do with their published vocabularies, and by a
//! documented ratio to them for models whose vocabulary is not published or not ours to ship.
//!
//! A vocabulary is loaded when it is first needed: 0.1 s and 24 MiB for the newer one, 0.05 s and
//! 8 MiB for the older. Time is bounded: a text that is one endless word costs no more than any
//! other, and of a long one only parts are counted, evenly spread.

/// About as many bytes of one text are counted; the rest is taken to be like them.
const COUNTED: usize = 32 << 10;
/// Largest part that is counted at once, in bytes: the time for one word grows faster than it.
const PART: usize = 4 << 10;

/// The vocabulary since GPT-4o.
const NEWER: &str = "o200k_base";
/// That of GPT-3.5, GPT-4 and OpenAI's embeddings.
const OLDER: &str = "cl100k_base";

/// How a family of models counts.
#[derive(Debug)]
pub(super) struct Family {
    /// How the names of its models begin, behind that of their maker.
    names: &'static [&'static str],
    vocabulary: &'static str,
    /// Its tokens for a hundred of the vocabulary.
    percent: u64,
    /// The same for JSON that describes tools: it is shown to the model in another form.
    schema_percent: u64,
    /// Tokens around each message, such as its role.
    pub message: u64,
    /// Tokens around all messages.
    pub request: u64,
    /// Tokens that having tools costs, besides their descriptions.
    pub tools: u64,
    /// Tokens around each call of a tool.
    pub call: u64,
}

/// For models that nothing is known of: most count about as OpenAI's do.
const OTHERS: Family = Family {
    names: &[""],
    vocabulary: NEWER,
    percent: 104,
    schema_percent: 80,
    message: 4,
    request: 4,
    tools: 0,
    call: 8,
};

/// The first whose names fit counts. The ratios are measured on the recorded answers of
/// `tests/golden/estimate`; what surrounds messages is documented by OpenAI ("How to count tokens
/// with tiktoken"), Anthropic ("Tool use", system prompt tokens) and Meta (Llama's prompt formats).
const FAMILIES: [Family; 11] = [
    Family {
        names: &["text-embedding", "voyage", "embed", "rerank"],
        vocabulary: OLDER,
        percent: 100,
        message: 0,
        request: 0,
        ..OTHERS
    },
    Family {
        names: &["gpt-4-", "gpt-3.5", "gpt-35"],
        vocabulary: OLDER,
        percent: 100,
        request: 3,
        ..OTHERS
    },
    // Not those of GPT-4o and later, whose names begin with it.
    Family {
        names: &["gpt-", "o1", "o3", "o4", "chatgpt"],
        percent: 100,
        request: 3,
        ..OTHERS
    },
    Family {
        names: &["claude-3-sonnet"],
        percent: 118,
        schema_percent: 118,
        tools: 159,
        call: 40,
        ..OTHERS
    },
    Family {
        names: &["claude"],
        percent: 118,
        schema_percent: 118,
        tools: 340,
        call: 40,
        ..OTHERS
    },
    Family {
        names: &["gemini", "gemma"],
        percent: 100,
        message: 0,
        request: 1,
        ..OTHERS
    },
    Family {
        names: &["command", "c4ai"],
        percent: 110,
        schema_percent: 40,
        message: 0,
        request: 0,
        call: 0,
        ..OTHERS
    },
    Family {
        names: &["llama3", "llama-3", "llama4", "llama-4"],
        vocabulary: OLDER,
        percent: 105,
        message: 5,
        request: 5,
        ..OTHERS
    },
    Family {
        names: &[
            "llama2",
            "llama-2",
            "mistral",
            "mixtral",
            "codestral",
            "open-mi",
        ],
        percent: 124,
        message: 2,
        request: 1,
        ..OTHERS
    },
    Family {
        names: &["palmyra"],
        percent: 106,
        message: 4,
        request: 28,
        tools: 100,
        ..OTHERS
    },
    OTHERS,
];

impl Family {
    /// The family of `model`, by its name with or without those of its maker and its host.
    pub fn of(model: &str) -> &'static Self {
        let model = model.to_ascii_lowercase();
        let behind = model.match_indices(['/', '.']).map(|(at, _)| at + 1);
        let names = std::iter::once(0).chain(behind).map(|at| &model[at..]);
        let fits = |family: &&Self| {
            let mut known = family.names.iter();
            known.any(|known| names.clone().any(|name| name.starts_with(known)))
        };
        FAMILIES.iter().find(fits).unwrap_or(&OTHERS)
    }

    /// The tokens of `text`.
    pub fn count(&self, text: &str) -> u64 {
        count(self.vocabulary, text) * self.percent / 100
    }

    /// The tokens of `json` that describes tools.
    pub fn count_schema(&self, json: &str) -> u64 {
        count(self.vocabulary, json) * self.schema_percent / 100
    }
}

fn count(vocabulary: &str, text: &str) -> u64 {
    let Some(encoding) = tiktoken::get_encoding(vocabulary).filter(|_| !text.is_empty()) else {
        return 0;
    };
    let (mut counted, mut tokens) = (0, 0);
    for part in parts(text).step_by(text.len().div_ceil(COUNTED)) {
        counted += part.len();
        tokens += encoding.count(part);
    }
    let scale = text.len() as f64 / counted as f64;
    (tokens as f64 * scale).round() as u64
}

/// Parts of at most [`PART`] bytes, cut in front of a space where there is one.
fn parts(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let most = boundary(text, PART);
        let space = text[..most]
            .rfind(' ')
            .filter(|at| *at > 0 && most < text.len());
        let (part, rest) = text.split_at(space.unwrap_or(most));
        text = rest;
        Some(part)
    })
}

/// The last place between characters in the first `most` bytes of `text`.
fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}
