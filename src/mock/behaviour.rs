//! What a model's name asks of its answer: `mock-ttft-1s-drip-20ms-tokens-50`.
//!
//! The grammar, after `mock`: words joined by `-`, in any order, each with its
//! value if it takes one. The table [`WORDS`] names them all. When a word comes
//! twice, the last one counts. A name that does not start with `mock-` asks for
//! nothing, so that a test can keep the model names of its real provider.

use std::fmt;
use std::time::Duration;

use crate::config::units;

/// The longest pause a model name may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(10 * 60);
/// The most bytes `size` may ask for: 64 MiB.
const MAX_SIZE: u64 = 64 << 20;
/// The most words `tokens` may ask for.
const MAX_TOKENS: u32 = 100_000;

/// Every word of the grammar, with an example of its value (empty: it takes none).
const WORDS: [(&str, &str); 11] = [
    ("latency", "500ms"),
    ("ttft", "200ms"),
    ("drip", "50ms"),
    ("tokens", "200"),
    ("input", "1000"),
    ("size", "1MiB"),
    ("status", "429"),
    ("cut", "3"),
    ("silent", ""),
    ("reset", ""),
    ("tools", ""),
];

/// How an answer is to be made and sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// `latency`: the pause before the answer's head. At most 10 minutes.
    pub latency: Duration,
    /// `ttft`: the pause between a stream's head and its first event; whole
    /// answers wait as long before their head. At most 10 minutes.
    pub ttft: Duration,
    /// `drip`: each event of a stream in a write of its own, and the pause between
    /// two. `None`: all events as fast as the connection takes them.
    pub drip: Option<Duration>,
    /// `tokens`: how many words the answer has, and output tokens are reported;
    /// at most 100,000.
    pub tokens: Option<u32>,
    /// `input`: the reported number of input tokens.
    pub input: Option<u64>,
    /// `size`: about how many bytes the answer's body has; at most 64 MiB.
    pub size: Option<u64>,
    /// `status`: fail with this status, 400 to 599, in the dialect's error shape.
    pub status: Option<u16>,
    /// `cut`: break off a stream after this many events, a whole answer in the
    /// middle of its body, without ending the framing.
    pub cut: Option<usize>,
    /// `silent`: accept the request and never answer.
    pub silent: bool,
    /// `reset`: close the connection before any byte of an answer.
    pub reset: bool,
    /// `tools`: answer with a call of the first tool that the request offers.
    pub tools: bool,
}

/// A model name that starts with `mock-` and makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub enum NotUnderstood {
    /// A word that is not in the grammar.
    Word(String),
    /// A word whose value is missing or out of its range.
    Value {
        /// The word of the grammar.
        word: &'static str,
        /// What came after it.
        value: String,
        /// What may come after it.
        wanted: &'static str,
    },
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "the mock does not know the word `{word}`; ")?,
            Self::Value {
                word,
                value,
                wanted,
            } => write!(f, "`{word}` takes {wanted}, not `{value}`; ")?,
        }
        f.write_str("a model name is `mock`, or `mock-` and any of: ")?;
        for (index, (word, value)) in WORDS.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let dash = if value.is_empty() { "" } else { "-" };
            write!(f, "{comma}{word}{dash}{value}")?;
        }
        Ok(())
    }
}

impl Behaviour {
    /// Reads what `model` asks for. A name that does not start with `mock-` asks for
    /// nothing special.
    ///
    /// # Errors
    /// When the name starts with `mock-` and has an unknown word or a bad value.
    pub fn of_model(model: &str) -> Result<Self, NotUnderstood> {
        let mut behaviour = Self::default();
        if let Some(modifiers) = model.strip_prefix("mock-") {
            let mut words = modifiers.split('-');
            while let Some(word) = words.next() {
                behaviour.apply(word, &mut words)?;
            }
        }
        Ok(behaviour)
    }

    fn apply<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), NotUnderstood> {
        let mut value = || rest.next().unwrap_or_default();
        match word {
            "latency" => self.latency = pause("latency", value())?,
            "ttft" => self.ttft = pause("ttft", value())?,
            "drip" => self.drip = Some(pause("drip", value())?),
            "tokens" => self.tokens = Some(tokens(value())?),
            "input" => self.input = Some(number("input", value())?),
            "size" => self.size = Some(size(value())?),
            "status" => self.status = Some(status(value())?),
            "cut" => self.cut = Some(number("cut", value())?),
            "silent" => self.silent = true,
            "reset" => self.reset = true,
            "tools" => self.tools = true,
            other => return Err(NotUnderstood::Word(other.to_owned())),
        }
        Ok(())
    }
}

fn bad(word: &'static str, value: &str, wanted: &'static str) -> NotUnderstood {
    NotUnderstood::Value {
        word,
        value: value.to_owned(),
        wanted,
    }
}

fn pause(word: &'static str, value: &str) -> Result<Duration, NotUnderstood> {
    let pause = value.parse::<units::Duration>().ok().map(|pause| pause.0);
    pause
        .filter(|pause| *pause <= MAX_PAUSE)
        .ok_or_else(|| bad(word, value, "a duration such as 500ms or 2s, at most 10m"))
}

fn number<N: std::str::FromStr>(word: &'static str, value: &str) -> Result<N, NotUnderstood> {
    value
        .parse()
        .map_err(|_| bad(word, value, "a whole number"))
}

fn tokens(value: &str) -> Result<u32, NotUnderstood> {
    let valid = |tokens: &u32| (1..=MAX_TOKENS).contains(tokens);
    let parsed = value.parse().ok().filter(valid);
    parsed.ok_or_else(|| bad("tokens", value, "a number from 1 to 100000"))
}

fn status(value: &str) -> Result<u16, NotUnderstood> {
    let valid = |status: &u16| (400..600).contains(status);
    let parsed = value.parse().ok().filter(valid);
    parsed.ok_or_else(|| bad("status", value, "an error status from 400 to 599"))
}

fn size(value: &str) -> Result<u64, NotUnderstood> {
    let parsed: Option<bytesize::ByteSize> = value.parse().ok();
    parsed
        .map(|size| size.as_u64())
        .filter(|size| *size <= MAX_SIZE)
        .ok_or_else(|| bad("size", value, "a size such as 64KiB or 1MiB, at most 64MiB"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal(model: &str) -> String {
        Behaviour::of_model(model).unwrap_err().to_string()
    }

    #[test]
    fn other_names_ask_for_nothing() {
        for model in [
            "mock",
            "gpt-4o-mini",
            "mockingbird-silent",
            "",
            "my-mock-reset",
        ] {
            assert_eq!(
                Behaviour::of_model(model),
                Ok(Behaviour::default()),
                "{model}"
            );
        }
    }

    #[test]
    fn words_combine_in_any_order() {
        let wanted = Behaviour {
            ttft: Duration::from_secs(1),
            drip: Some(Duration::from_millis(20)),
            tokens: Some(50),
            ..Behaviour::default()
        };
        for model in [
            "mock-ttft-1s-drip-20ms-tokens-50",
            "mock-tokens-50-drip-20ms-ttft-1s",
            "mock-tokens-7-tokens-50-drip-20ms-ttft-1000ms",
        ] {
            assert_eq!(Behaviour::of_model(model).as_ref(), Ok(&wanted), "{model}");
        }
    }

    #[test]
    fn every_word_of_the_table_is_read() {
        let model = WORDS.iter().fold("mock".to_owned(), |name, (word, value)| {
            let dash = if value.is_empty() { "" } else { "-" };
            format!("{name}-{word}{dash}{value}")
        });
        let wanted = Behaviour {
            latency: Duration::from_millis(500),
            ttft: Duration::from_millis(200),
            drip: Some(Duration::from_millis(50)),
            tokens: Some(200),
            input: Some(1000),
            size: Some(1 << 20),
            status: Some(429),
            cut: Some(3),
            silent: true,
            reset: true,
            tools: true,
        };
        assert_eq!(Behaviour::of_model(&model), Ok(wanted));
    }

    #[test]
    fn an_unknown_word_is_named_with_the_known_ones() {
        assert_eq!(
            refusal("mock-latncy-5ms"),
            "the mock does not know the word `latncy`; a model name is `mock`, or `mock-` and \
             any of: latency-500ms, ttft-200ms, drip-50ms, tokens-200, input-1000, size-1MiB, \
             status-429, cut-3, silent, reset, tools"
        );
        assert!(refusal("mock-").contains("the word ``"));
        assert!(refusal("mock-silent-5").contains("the word `5`"));
        assert!(refusal("mock-Silent").contains("the word `Silent`"));
    }

    #[test]
    fn values_out_of_range_are_named_with_the_range() {
        for (model, wanted) in [
            (
                "mock-latency",
                "`latency` takes a duration such as 500ms or 2s, at most 10m, not ``",
            ),
            ("mock-latency-500", "not `500`"),
            ("mock-ttft-601s", "not `601s`"),
            ("mock-drip-tokens-5", "`drip` takes a duration"),
            (
                "mock-tokens-0",
                "`tokens` takes a number from 1 to 100000, not `0`",
            ),
            ("mock-tokens-100001", "not `100001`"),
            ("mock-input--1", "`input` takes a whole number, not ``"),
            (
                "mock-status-200",
                "`status` takes an error status from 400 to 599, not `200`",
            ),
            ("mock-status-99999", "not `99999`"),
            ("mock-cut-x", "`cut` takes a whole number, not `x`"),
            (
                "mock-size-65MiB",
                "`size` takes a size such as 64KiB or 1MiB, at most 64MiB",
            ),
            ("mock-size-big", "not `big`"),
        ] {
            let refusal = refusal(model);
            assert!(refusal.contains(wanted), "{model}: {refusal}");
        }
        assert_eq!(
            Behaviour::of_model("mock-ttft-10m").unwrap().ttft,
            MAX_PAUSE
        );
        assert_eq!(
            Behaviour::of_model("mock-size-64MiB").unwrap().size,
            Some(MAX_SIZE)
        );
    }

    #[test]
    fn the_manual_has_every_word() {
        let manual = include_str!("../../docs/mock.md");
        for (word, value) in WORDS {
            let dash = if value.is_empty() { "" } else { "-" };
            let row = format!("\n| `{word}{dash}{value}` | ");
            assert!(
                manual.contains(&row),
                "docs/mock.md has no row for `{word}`"
            );
        }
    }
}
