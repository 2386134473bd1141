//! The names that are counted, as numbers: quick to compare, and a byte each when they are stored.

use std::borrow::Cow;

/// Names by number, from 1. New ones are only ever added at the end: the numbers are stored.
const WORDS: [&str; 44] = [
    "hit",
    "stale",
    "coalesced",
    "miss",
    "bypass",
    "refresh",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cached_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "web_searches",
    "provider:provider_429",
    "provider:provider_4xx",
    "provider:provider_5xx",
    "client:unknown_gateway",
    "client:unknown_provider",
    "client:unknown_route",
    "client:model_without_provider",
    "client:bad_path",
    "client:bad_request",
    "client:method_not_allowed",
    "client:bad_host_part",
    "client:client_timeout",
    "client:client_gone",
    "client:body_too_large",
    "client:head_too_large",
    "client:unknown_key",
    "gateway:overloaded",
    "gateway:busy",
    "gateway:credential",
    "gateway:upstream_forbidden",
    "gateway:internal",
    "provider:upstream_unreachable",
    "provider:upstream_tls",
    "provider:upstream_timeout",
    "provider:upstream_invalid",
    "provider:upstream_cut",
];

/// A name out of a closed vocabulary: of this program, or of a newer one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// By its number, from 1.
    Word(u16),
    /// One that has no number.
    Text(Box<str>),
}

impl Name {
    /// Of a text.
    pub fn of(text: &str) -> Self {
        Self::found(|word| word == text).unwrap_or_else(|| Self::Text(text.into()))
    }

    /// Of `first:second`.
    pub fn of_pair(first: &str, second: &str) -> Self {
        let is_pair = |word: &str| {
            let rest = word.strip_prefix(first);
            rest.and_then(|rest| rest.strip_prefix(':')) == Some(second)
        };
        let text = || Self::Text(format!("{first}:{second}").into());
        Self::found(is_pair).unwrap_or_else(text)
    }

    fn found(is_it: impl Fn(&str) -> bool) -> Option<Self> {
        let place = WORDS.iter().position(|word| is_it(word))?;
        u16::try_from(place + 1).ok().map(Self::Word)
    }

    /// As it is shown. A number that a newer tollgate has added is shown as such: `#77`.
    pub fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Word(number) => {
                let place = usize::from(*number).checked_sub(1);
                let word = place.and_then(|place| WORDS.get(place));
                word.map_or_else(|| format!("#{number}").into(), |word| Cow::Borrowed(*word))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::record::CacheStatus;

    #[test]
    fn what_this_program_counts_has_numbers() {
        let is_word = |name: Name| assert!(matches!(name, Name::Word(_)), "{name:?}");
        for status in [CacheStatus::Hit, CacheStatus::Refresh] {
            is_word(Name::of(status.name()));
        }
        for (kind, _) in crate::usage::Usage::default().by_kind() {
            is_word(Name::of(kind));
        }
        for kind in [Kind::UnknownGateway, Kind::Busy, Kind::UpstreamCut] {
            is_word(Name::of_pair(kind.source().name(), kind.name()));
        }
        let busy = Name::of_pair("gateway", "busy");
        assert_eq!(
            (busy.shown(), &busy),
            ("gateway:busy".into(), &Name::of("gateway:busy"))
        );
    }

    #[test]
    fn other_names_are_told_as_they_are() {
        assert_eq!(Name::of_pair("a", "b"), Name::Text("a:b".into()));
        assert_eq!(Name::of("a:b").shown(), "a:b");
        assert_eq!(Name::Word(777).shown(), "#777");
        assert_eq!(Name::Word(0).shown(), "#0");
    }
}
