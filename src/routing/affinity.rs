//! What ties a session to its targets: the same session goes to the same provider for as long as it
//! can, so that what the provider keeps of a prompt is found again.

use http::header::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest body that is read for what it begins with, in bytes: about a millisecond.
const LONGEST: usize = 2 << 20;

/// What a session is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affinity {
    /// A request header. Requests without it are tied to nothing.
    Header(HeaderName),
    /// The beginning of the prompt: instructions, tools, and all up to the first word of the user's.
    Prompt,
}

impl Affinity {
    /// The session of a request; `None` where it has none.
    pub fn session(&self, headers: &HeaderMap, body: &[u8]) -> Option<u64> {
        match self {
            Self::Header(name) => {
                let value = headers.get(name).filter(|value| !value.is_empty());
                value.map(|value| digest(value.as_bytes()))
            }
            Self::Prompt if body.len() <= LONGEST => beginning(body),
            Self::Prompt => None,
        }
    }
}

/// The same in every process, at all times.
pub fn digest(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What a prompt begins with, whatever the format: what is left out of one is in no other.
#[derive(Deserialize)]
struct Prompt<'a> {
    #[serde(borrow, default)]
    system: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        alias = "system_instruction",
        rename = "systemInstruction"
    )]
    system_instruction: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    contents: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow, default)]
    role: Option<std::borrow::Cow<'a, str>>,
}

fn beginning(body: &[u8]) -> Option<u64> {
    let prompt: Prompt<'_> = serde_json::from_slice(body).ok()?;
    let mut hasher = blake3::Hasher::new();
    let fixed = [
        prompt.system,
        prompt.instructions,
        prompt.system_instruction,
        prompt.tools,
    ];
    for part in fixed {
        hasher.update(part.map_or("", RawValue::get).as_bytes());
        hasher.update(b"\0");
    }
    // OpenAI's Responses take a text in the place of a list.
    let input = prompt.input.map(RawValue::get);
    let items = input.and_then(|input| serde_json::from_str::<Vec<&RawValue>>(input).ok());
    let turns = prompt.messages.or(prompt.contents).or(items);
    for turn in turns.iter().flatten() {
        hasher.update(turn.get().as_bytes());
        hasher.update(b"\0");
        if is_users(turn.get()) {
            break;
        }
    }
    if turns.is_none() {
        hasher.update(input?.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// Gemini's turns may leave the role out.
fn is_users(turn: &str) -> bool {
    let turn: Option<Turn<'_>> = serde_json::from_str(turn).ok();
    turn.is_some_and(|turn| turn.role.is_none_or(|role| role == "user"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn session(body: &str) -> Option<u64> {
        Affinity::Prompt.session(&HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_conversation_that_goes_on_is_the_same_session() {
        let pairs = [
            (
                r#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}"#,
                r#"{"temperature":1,"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"x"}],"model":"b"}"#,
            ),
            (
                r#"{"system":"s","messages":[{"role":"user","content":"u"}]}"#,
                r#"{"messages":[{"role":"user","content":"u"},{"role":"user","content":"v"}],"system":"s"}"#,
            ),
            (
                r#"{"contents":[{"parts":[{"text":"u"}]}]}"#,
                r#"{"contents":[{"parts":[{"text":"u"}]},{"role":"model","parts":[]}]}"#,
            ),
            (
                r#"{"instructions":"i","input":[{"role":"user","content":"u"}]}"#,
                r#"{"instructions":"i","input":[{"role":"user","content":"u"},{"type":"reasoning"}]}"#,
            ),
            (r#"{"input":"u"}"#, r#"{"input":"u","model":"m"}"#),
        ];
        for (first, later) in pairs {
            assert!(session(first).is_some(), "{first}");
            assert_eq!(session(first), session(later), "{first}");
        }
    }

    #[test]
    fn another_beginning_is_another_session() {
        let bodies = [
            r#"{"messages":[{"role":"user","content":"u"}]}"#,
            r#"{"messages":[{"role":"user","content":"v"}]}"#,
            r#"{"system":"s","messages":[{"role":"user","content":"u"}]}"#,
            r#"{"tools":[],"messages":[{"role":"user","content":"u"}]}"#,
            r#"{"tools":"s","messages":[{"role":"user","content":"u"}]}"#,
            r#"{"input":"u"}"#,
        ];
        let mut seen: Vec<_> = bodies.iter().map(|body| session(body).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), bodies.len());
    }

    #[test]
    fn what_is_no_prompt_is_no_session() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"prompt":"x"}"#,
            r#"{"messages":7}"#,
            "{",
        ] {
            assert_eq!(session(body), None, "{body}");
        }
    }

    #[test]
    fn a_header_names_a_session() {
        let affinity = Affinity::Header("x-session".parse().unwrap());
        let mut headers = HeaderMap::new();
        assert_eq!(affinity.session(&headers, b"{}"), None);
        headers.insert("x-session", "".parse().unwrap());
        assert_eq!(affinity.session(&headers, b"{}"), None);
        headers.insert("x-session", "s1".parse().unwrap());
        assert_eq!(affinity.session(&headers, b"{}"), Some(digest(b"s1")));
        // Tied for good: another digest would move every session of a running deployment.
        assert_eq!(digest(b"s1"), 8_175_380_773_595_144_900);
    }
}
