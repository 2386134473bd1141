//! The list of models, as each provider shapes it.

use http::HeaderMap;

use super::reply::{CREATED, Quoted};

/// Model names to try first; any other name is served too.
const MODELS: [&str; 6] = [
    "mock",
    "mock-ttft-200ms-drip-50ms",
    "mock-tools",
    "mock-status-429",
    "mock-cut-3",
    "mock-silent",
];

/// Whose API a client speaks, where the path leaves it open: the list of models has
/// the same path everywhere and a shape of its own at each provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caller {
    /// A client of OpenAI, or of no provider in particular.
    #[default]
    OpenAi,
    /// A client of Anthropic.
    Anthropic,
    /// A client of Gemini.
    Gemini,
}

impl Caller {
    /// Tells by the headers that a provider's clients always send.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key("anthropic-version") {
            Self::Anthropic
        } else if headers.contains_key("x-goog-api-key") {
            Self::Gemini
        } else {
            Self::OpenAi
        }
    }

    /// The whole list.
    pub(super) fn list(self) -> String {
        let models: Vec<String> = MODELS.iter().map(|name| self.one(name)).collect();
        let models = models.join(",");
        match self {
            Self::OpenAi => format!(r#"{{"object":"list","data":[{models}]}}"#),
            Self::Gemini => format!(r#"{{"models":[{models}]}}"#),
            Self::Anthropic => format!(
                r#"{{"data":[{models}],"has_more":false,"first_id":"{first}","last_id":"{last}"}}"#,
                first = MODELS[0],
                last = MODELS[MODELS.len() - 1],
            ),
        }
    }

    /// One model, whatever its name.
    pub(super) fn one(self, name: &str) -> String {
        match self {
            Self::OpenAi => format!(
                r#"{{"id":{},"object":"model","created":{CREATED},"owned_by":"tollgate"}}"#,
                Quoted(name)
            ),
            Self::Anthropic => format!(
                r#"{{"type":"model","id":{0},"display_name":{0},"created_at":"2023-11-14T22:13:20Z"}}"#,
                Quoted(name)
            ),
            Self::Gemini => format!(
                r#"{{"name":{},"version":"1","displayName":{},"inputTokenLimit":1048576,"outputTokenLimit":65536,"supportedGenerationMethods":["generateContent","countTokens","embedContent"]}}"#,
                Quoted(&format!("models/{name}")),
                Quoted(name)
            ),
        }
    }
}
