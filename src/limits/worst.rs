//! The most that a request can take, as far as it says so itself: told before it is sent, so that
//! what it may cost can be set aside.
//!
//! A token is at least one byte of the body, so a body bounds what is read of it. An image that the
//! body brings along is bounded too, by what the greediest model makes of one ([`IMAGE`]). What the
//! provider fetches, has stored or looks up by itself is not: then [`Worst::unbounded`] says why.
//! Bounds of the output are read by the words of the request's own format, as others would be
//! ignored by the provider.
//!
//! Left out: what it costs, which is [`crate::pricing`]'s, and what some vendors put before a prompt
//! on their own.

mod found;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod text;
mod walk;
mod words;

use crate::config::schema::Format;
use crate::json;

use found::Found;
use walk::At;
pub use walk::Judge;

/// Tokens that one image in the body may take at most, whatever its size: `gpt-4o-mini` takes up to
/// 48,169 (OpenAI, "Images and vision": 2,833, and 5,667 for each of 8 tiles), others up to 16,384.
pub const IMAGE: u64 = 50_000;

/// Tokens that a provider may write around the tools of a request: up to 804 (Anthropic, "Tool use
/// with Claude"), and as much again for each tool that it defines and the client runs.
pub const TOOLS: u64 = 1_024;

/// The most that a request can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worst {
    /// Tokens read: at most one for each byte of the body, [`IMAGE`] for each image in it, and what
    /// is written around its [`TOOLS`].
    pub input: u64,
    /// Tokens written for each choice, where the request bounds them itself; the largest where it
    /// has several bounds, and none where one of them means none.
    pub output: Option<u64>,
    /// Tokens that may be written for each choice, whatever `output` says or is assumed: a maximum in
    /// words that the provider may go by or not. It may make a call dearer, never cheaper.
    pub doubtful: u64,
    /// How many answers it asks for: 1 or more.
    pub choices: u64,
    /// Why `input` is no bound, in words that follow "because".
    pub unbounded: Option<&'static str>,
    /// It names other models, too, that may answer.
    pub other_models: bool,
}

impl Worst {
    /// The same, of a request whose answer has no tokens, such as for embeddings.
    pub fn writing_nothing(self) -> Self {
        Self {
            output: Some(0),
            doubtful: 0,
            choices: 1,
            ..self
        }
    }

    /// The same, asked at this decoded path: what is only started there is answered elsewhere.
    pub fn at(self, path: &str) -> Self {
        let later = words::only_starts_at(path).then_some(words::LATER);
        Self {
            unbounded: self.unbounded.or(later),
            ..self
        }
    }

    /// The same, asked of this model, which may search without being asked to; `sells_searches`: its
    /// price list has a price for that.
    pub fn of_model(self, model: &str, sells_searches: bool) -> Self {
        let searches = words::searches_unasked(model, sells_searches);
        let searches = searches.then_some(words::SERVER_TOOLS);
        Self {
            unbounded: self.unbounded.or(searches),
            ..self
        }
    }

    /// Tokens written at most, all choices together; `assumed` for each where the request sets no
    /// bound.
    pub fn most_output(&self, assumed: u64) -> u64 {
        let each = self.output.unwrap_or(assumed).max(self.doubtful);
        each.saturating_mul(self.choices)
    }
}

/// What a request with this decoded body can take at most, in one pass over it. A body that is no
/// JSON, such as a form, bounds its input alone.
pub fn of(body: &[u8], format: Format) -> Worst {
    let unbounded = |unbounded| Worst {
        input: length(body),
        output: None,
        doubtful: 0,
        choices: 1,
        unbounded,
        other_models: false,
    };
    let Some(mut judge) = Judge::new(format) else {
        return unbounded(Some(words::FORMAT));
    };
    match json::read(body, Judge::TOP, &mut judge) {
        Ok(()) => judge.worst(body),
        Err(_) if looks_like_json(body) => unbounded(Some(words::JSON)),
        Err(_) => unbounded(None),
    }
}

impl Judge {
    /// Where the body stands.
    pub const TOP: At = At::Top;

    /// Of a request of that format, if anything is known of it.
    pub fn new(format: Format) -> Option<Self> {
        let found = Found::default();
        (format != Format::Opaque).then_some(Self { found, format })
    }

    /// After all of `body` has been read: the same as [`of`].
    pub fn worst(self, body: &[u8]) -> Worst {
        self.found.worst(length(body))
    }
}

fn length(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

/// Whether a provider may read more of it than the parser here, which gives up at the first mistake.
fn looks_like_json(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'[' | 0xef))
}

impl Found {
    fn worst(self, length: u64) -> Worst {
        let beside_images = length.saturating_sub(self.image_bytes);
        let images = self.images.saturating_mul(IMAGE);
        let tools = self.tools.saturating_mul(TOOLS);
        let output = self.outputs.largest();
        let output = output.map(|most| self.written_beyond(most, length));
        let doubtful = self.outputs.doubtful();
        Worst {
            input: beside_images.saturating_add(images).saturating_add(tools),
            output,
            doubtful,
            choices: self.choices(),
            unbounded: self.unbounded,
            other_models: self.other_models,
        }
    }

    /// With the tokens that count as written and are not among the `most` that may be.
    fn written_beyond(&self, most: u64, length: u64) -> u64 {
        // A rejected prediction is billed as if the model had written it.
        let predicted = if self.predicts { length } else { 0 };
        most.saturating_add(predicted).saturating_add(self.thoughts)
    }

    fn choices(&self) -> u64 {
        let each = self.choices.max(1);
        each.saturating_mul(self.prompts.max(1))
    }
}
