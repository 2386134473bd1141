//! What a client asked, whatever the dialect: its model, its last words, its tools.
//!
//! Requests are read into as little as the answers need: words are counted where
//! they stand, and of each text only the head is kept. Nothing else of a request
//! is looked at, so unknown fields and parameters are accepted everywhere.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How much of the user's last text an answer repeats, in characters.
const HEAD_CHARS: usize = 200;

/// One request, as far as an answer depends on it.
#[derive(Debug)]
pub(super) struct Call {
    /// The model as the client named it.
    pub(super) model: String,
    /// Whether the answer is to be streamed.
    pub(super) stream: bool,
    /// Whether a stream is to end with its usage (OpenAI's `include_usage`).
    pub(super) usage_in_stream: bool,
    /// The name of the first tool on offer.
    pub(super) tool: Option<String>,
    /// The conversation.
    pub(super) prompt: Prompt,
}

/// A conversation: its size, and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    /// Words separated by white space in all texts: the mock's input tokens.
    pub(super) words: u64,
    /// The head of the user's last text, its words joined by single spaces.
    pub(super) question: String,
    /// Whether it ends with a tool's result: the model's turn to use it.
    pub(super) tool_answered: bool,
}

impl Prompt {
    /// Puts system instructions in front: they count, and ask nothing.
    pub(super) fn with_instructions(mut self, instructions: Option<Text>) -> Self {
        self.words += instructions.map_or(0, |text| text.words);
        self
    }

    fn add(&mut self, message: Text) {
        self.words += message.words;
        self.tool_answered = message.tool_result;
        let asks = message.role != Role::Other && !message.tool_result;
        if asks && !message.head.is_empty() {
            self.question = message.head;
        }
    }
}

/// Messages, oldest first: an array of them, or one text.
impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Messages;
        impl<'de> Visitor<'de> for Messages {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of messages, or a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                let mut prompt = Prompt::default();
                prompt.add(Text::of(text));
                Ok(prompt)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<Prompt, A::Error> {
                let mut prompt = Prompt::default();
                while let Some(message) = messages.next_element()? {
                    prompt.add(message);
                }
                Ok(prompt)
            }
        }
        deserializer.deserialize_any(Messages)
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Role {
    #[default]
    Unsaid,
    User,
    Other,
}

/// The text of a message, or of a part of one: a string, or arrays and objects
/// with texts inside, as all dialects nest them.
#[derive(Debug, Default)]
pub(super) struct Text {
    words: u64,
    head: String,
    role: Role,
    tool_result: bool,
}

impl Text {
    fn of(text: &str) -> Self {
        let mut found = Self {
            words: text.split_ascii_whitespace().count() as u64,
            ..Self::default()
        };
        found.extend_head(text);
        found
    }

    fn extend_head(&mut self, text: &str) {
        let mut room = HEAD_CHARS.saturating_sub(self.head.chars().count());
        for word in text.split_ascii_whitespace() {
            let space = usize::from(!self.head.is_empty());
            if room <= space {
                return;
            }
            room -= space;
            self.head.push_str(&" "[..space]);
            self.head.extend(word.chars().take(room));
            room = room.saturating_sub(word.chars().take(room).count());
        }
    }

    fn add(&mut self, part: Self) {
        self.words += part.words;
        self.tool_result |= part.tool_result;
        self.extend_head(&part.head);
    }

    fn set_role(&mut self, role: Option<Cow<'_, str>>) {
        self.role = match role.as_deref() {
            Some("user") => Role::User,
            Some(_) => Role::Other,
            None => Role::Unsaid,
        };
        self.tool_result |= role.as_deref() == Some("tool");
    }

    fn set_type(&mut self, kind: Option<Cow<'_, str>>) {
        self.tool_result |= matches!(
            kind.as_deref(),
            Some("tool_result" | "function_call_output")
        );
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Text,
    Content,
    Parts,
    Output,
    Role,
    Type,
    #[serde(alias = "functionResponse")]
    FunctionResponse,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or an array or object of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text::of(text))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(part) = parts.next_element()? {
            text.add(part);
        }
        Ok(text)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(key) = fields.next_key()? {
            match key {
                Key::Text | Key::Content | Key::Parts | Key::Output => {
                    text.add(fields.next_value()?);
                }
                Key::Role => text.set_role(fields.next_value()?),
                Key::Type => text.set_type(fields.next_value()?),
                Key::FunctionResponse => {
                    fields.next_value::<IgnoredAny>()?;
                    text.tool_result = true;
                }
                Key::Other => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(text)
    }
}

/// The tools on offer, of which only the first one's name matters.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Tools(Option<Vec<Tool>>);

#[derive(Debug, Deserialize)]
struct Tool {
    name: Option<String>,
    function: Option<Named>,
    #[serde(rename = "functionDeclarations", alias = "function_declarations")]
    declarations: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Tools {
    /// The first tool's name, wherever the dialect keeps it.
    pub(super) fn first(self) -> Option<String> {
        let named = |named: Named| named.name;
        self.0?.into_iter().find_map(|tool| {
            let declared = || tool.declarations?.into_iter().next().map(named);
            tool.name.or(tool.function.map(named)).or_else(declared)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn prompt(json: &str) -> Prompt {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_text_is_a_question() {
        let prompt = prompt(r#""  two\n words ""#);
        assert_eq!((prompt.words, prompt.question.as_str()), (2, "two words"));
    }

    #[test]
    fn words_of_all_messages_count_and_the_last_user_text_is_the_question() {
        let prompt = prompt(
            r#"[{"role":"system","content":"be brief"},
                {"content":[{"type":"text","text":"first question"}],"role":"user"},
                {"role":"assistant","content":null,"tool_calls":[{"id":"not counted here"}]},
                {"role":"user","content":[{"type":"input_text","text":"second"},
                    {"type":"image_url","image_url":{"url":"data:a b c"}},
                    {"type":"input_text","text":"question"}]},
                {"role":"assistant","content":"an answer"}]"#,
        );
        assert_eq!(
            (prompt.words, prompt.question.as_str()),
            (8, "second question")
        );
        assert!(!prompt.tool_answered);
    }

    #[test]
    fn a_tool_result_is_not_a_question() {
        for last in [
            r#"{"role":"tool","tool_call_id":"x","content":"12 degrees"}"#,
            r#"{"type":"function_call_output","call_id":"x","output":"12 degrees"}"#,
            r#"{"role":"user","content":[{"type":"tool_result","content":"12 degrees"}]}"#,
            r#"{"role":"user","parts":[{"text":"12 degrees"},{"functionResponse":{"a":[1]}}]}"#,
        ] {
            let prompt = prompt(&format!(
                r#"[{{"role":"user","content":"how warm"}},{last}]"#
            ));
            assert_eq!(
                (prompt.words, prompt.question.as_str()),
                (4, "how warm"),
                "{last}"
            );
            assert!(prompt.tool_answered, "{last}");
        }
    }

    #[test]
    fn only_the_head_of_a_question_is_kept() {
        let long = "ä".repeat(150) + " " + &"é".repeat(150);
        let question = prompt(&format!("[{{\"content\":\"{long}\"}}]")).question;
        assert_eq!(question, "ä".repeat(150) + " " + &"é".repeat(49));
        let parts = format!(
            r#"[{{"parts":[{{"text":"{0}"}},{{"text":"b c"}}]}}]"#,
            "a".repeat(200)
        );
        assert_eq!(prompt(&parts).question, "a".repeat(200));
        assert_eq!(prompt(&parts).words, 3);
    }

    #[test]
    fn anything_but_texts_is_refused() {
        for json in ["7", "[7]", r#"[{"content":7}]"#, "null", "{}"] {
            assert!(serde_json::from_str::<Prompt>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_first_tool_is_found_in_every_dialect() {
        for json in [
            r#"[{"type":"function","function":{"name":"get_weather"}},{"name":"b"}]"#,
            r#"[{"type":"function","name":"get_weather","parameters":{}}]"#,
            r#"[{"googleSearch":{}},{"functionDeclarations":[{"name":"get_weather"}]}]"#,
        ] {
            let tools: Tools = serde_json::from_str(json).unwrap();
            assert_eq!(tools.first().as_deref(), Some("get_weather"), "{json}");
        }
        let none: Tools = serde_json::from_str("null").unwrap();
        assert_eq!(none.first(), None);
    }
}
