//! What the mock says, before any dialect shapes it, and the pieces to shape it with.

use std::fmt::{self, Write};

use super::behaviour::Behaviour;
use super::call::Call;

/// When every answer was made, in seconds since 1970: the same request gets the
/// same bytes, always.
pub(super) const CREATED: u64 = 1_700_000_000;

/// How many words go into one event of an answer made to a size: with one word to
/// an event, the frames around them would be most of it.
const WORDS_PER_LARGE_EVENT: usize = 512;

/// One answer.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    /// 32 hexadecimal digits derived from the request.
    pub(super) id: &'a str,
    /// The model, as the client named it.
    pub(super) model: &'a str,
    /// A text or a call of a tool.
    pub(super) content: Content,
    /// Tokens, as the answer reports them.
    pub(super) usage: Usage,
}

/// Reported tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Usage {
    pub(super) fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What the model does with its turn.
#[derive(Debug)]
pub(super) enum Content {
    Text(Words),
    ToolCall(ToolCall),
}

/// A call of a tool.
#[derive(Debug)]
pub(super) struct ToolCall {
    pub(super) name: String,
    /// A JSON object.
    pub(super) arguments: String,
}

impl ToolCall {
    fn new(call: &Call) -> Self {
        Self {
            name: call.tool.clone().unwrap_or_else(|| "mock_tool".to_owned()),
            arguments: format!(r#"{{"input":{}}}"#, Quoted(&call.prompt.question)),
        }
    }

    /// The arguments in two pieces, as a stream brings them.
    pub(super) fn pieces(&self) -> [&str; 2] {
        // Both ends of the cut are ASCII: `{"input":` is always in front.
        self.arguments.split_at(r#"{"input":"#.len()).into()
    }
}

impl<'a> Reply<'a> {
    /// Makes the answer to `call`. `copies` is how often the dialect's body repeats
    /// the text, which matters to an answer made to a size.
    pub(super) fn new(id: &'a str, call: &'a Call, behaviour: &Behaviour, copies: u64) -> Self {
        let content = if behaviour.tools && !call.prompt.tool_answered {
            Content::ToolCall(ToolCall::new(call))
        } else {
            let size = behaviour.size.map(|size| size / copies);
            Content::Text(Words::new(&call.prompt.question, behaviour.tokens, size))
        };
        let output = match &content {
            Content::Text(words) => words.count,
            Content::ToolCall(call) => 1 + call.arguments.split_ascii_whitespace().count() as u64,
        };
        Self {
            id,
            model: &call.model,
            usage: Usage {
                input: behaviour.input.unwrap_or(call.prompt.words),
                output: behaviour.tokens.map_or(output, u64::from),
            },
            content,
        }
    }
}

/// A text of words separated by single spaces.
#[derive(Debug)]
pub(super) struct Words {
    text: String,
    count: u64,
    per_event: usize,
}

impl Words {
    /// The answer to `question`, its words repeated or trimmed to `count` words, or
    /// repeated to at least `size` bytes.
    fn new(question: &str, count: Option<u32>, size: Option<u64>) -> Self {
        let mut sentence = "mock answer".to_owned();
        if !question.is_empty() {
            sentence.push_str(" to: ");
            sentence.push_str(question);
        }
        let natural = sentence.split(' ').count() as u64;
        let enough = |words: &Self| match (size, count) {
            (Some(size), _) => words.text.len() as u64 >= size,
            (None, Some(count)) => words.count >= u64::from(count),
            (None, None) => words.count >= natural,
        };
        let mut words = Self {
            text: String::new(),
            count: 0,
            per_event: size.map_or(1, |_| WORDS_PER_LARGE_EVENT),
        };
        for word in sentence.split(' ').cycle() {
            words.push(word);
            if enough(&words) {
                break;
            }
        }
        words
    }

    fn push(&mut self, word: &str) {
        if self.count > 0 {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.count += 1;
    }

    /// The whole text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text in the pieces that a stream brings, and how many words each has;
    /// put together they are the text.
    pub(super) fn deltas(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut rest = self.text.as_str();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // From the second piece on, a piece starts with its space.
            let spaces = rest.bytes().enumerate().skip(1);
            let cut = spaces
                .filter(|(_, byte)| *byte == b' ')
                .nth(self.per_event - 1)
                .map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(cut);
            rest = after;
            Some((piece, piece.split_ascii_whitespace().count() as u64))
        })
    }
}

/// The events of a stream in one run of bytes, so that they can be sent one by one
/// or all at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) bytes: String,
    /// Where each event ends.
    pub(super) ends: Vec<usize>,
}

impl Events {
    pub(super) fn push(&mut self, event: fmt::Arguments<'_>) {
        // Writing to a String fails only when a Display does, and ours do not.
        let _ = self.bytes.write_fmt(event);
        self.ends.push(self.bytes.len());
    }
}

/// Displays a text as a JSON string.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if self.0.bytes().all(plain) {
            f.write_str("\"")?;
            f.write_str(self.0)?;
            return f.write_str("\"");
        }
        let escaped = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&escaped)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mock::call::Prompt;

    fn call(question: &str) -> Call {
        Call {
            model: "mock".to_owned(),
            stream: false,
            usage_in_stream: false,
            tool: None,
            prompt: Prompt {
                words: 9,
                question: question.to_owned(),
                tool_answered: false,
            },
        }
    }

    #[test]
    fn the_answer_repeats_the_question() {
        let words = Words::new("what is new?", None, None);
        assert_eq!(
            (words.text(), words.count),
            ("mock answer to: what is new?", 6)
        );
        assert_eq!(Words::new("", None, None).text(), "mock answer");
    }

    #[test]
    fn words_are_repeated_or_trimmed_to_their_number() {
        assert_eq!(
            Words::new("a b", Some(7), None).text(),
            "mock answer to: a b mock answer"
        );
        assert_eq!(Words::new("a b", Some(1), None).text(), "mock");
    }

    #[test]
    fn a_size_is_reached_by_less_than_a_word() {
        let words = Words::new("a b", None, Some(1000));
        assert!((1000..1006).contains(&words.text().len()));
        assert_eq!(Words::new("a b", Some(50), Some(0)).text(), "mock");
    }

    #[test]
    fn deltas_put_together_are_the_text() {
        for words in [
            Words::new("ä \u{a0} \"b\"", Some(40), None),
            Words::new("a b", None, Some(20_000)),
        ] {
            let (pieces, counts): (Vec<_>, Vec<_>) = words.deltas().unzip();
            assert_eq!(pieces.concat(), words.text());
            assert_eq!(counts.iter().sum::<u64>(), words.count);
            assert_eq!(
                pieces.len(),
                (words.count as usize).div_ceil(words.per_event)
            );
        }
    }

    #[test]
    fn reported_tokens_can_be_asked_for() {
        let call = call("a b");
        let usage = |model| Reply::new("0", &call, &Behaviour::of_model(model).unwrap(), 1).usage;
        assert_eq!(
            usage("mock"),
            Usage {
                input: 9,
                output: 5
            }
        );
        assert_eq!(
            usage("mock-tokens-3-input-100"),
            Usage {
                input: 100,
                output: 3
            }
        );
        assert_eq!(
            usage("mock-tools"),
            Usage {
                input: 9,
                output: 3
            }
        );
    }

    #[test]
    fn a_tool_is_called_until_it_has_answered() {
        let mut call = call("say \"hi\"");
        let behaviour = Behaviour::of_model("mock-tools").unwrap();
        match Reply::new("0", &call, &behaviour, 1).content {
            Content::ToolCall(called) => {
                assert_eq!(called.name, "mock_tool");
                assert_eq!(called.arguments, r#"{"input":"say \"hi\""}"#);
                assert_eq!(called.pieces(), [r#"{"input":"#, r#""say \"hi\""}"#]);
            }
            other => panic!("no call but {other:?}"),
        }
        call.prompt.tool_answered = true;
        let content = Reply::new("0", &call, &behaviour, 1).content;
        assert!(matches!(content, Content::Text(_)));
    }

    #[test]
    fn quoting_is_json() {
        for text in ["plain ä", "a\"b", "back\\slash", "line\nand \u{1}", ""] {
            assert_eq!(
                Quoted(text).to_string(),
                serde_json::to_string(text).unwrap()
            );
        }
    }
}
