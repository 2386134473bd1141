//! The ways to write one model's name, from what a request says to what a catalogue lists.

use std::borrow::Cow;

/// Where a cross-region inference profile serves from, in front of the model's id. Not among
/// them `global`: it has prices of its own.
/// <https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html>
const GEOGRAPHIES: [&str; 12] = [
    "us", "us-gov", "eu", "apac", "au", "jp", "ca", "in", "sa", "me", "af", "uk",
];

/// The spellings to look for, the one nearest to the request's first; all in lower case.
pub fn of(model: &str) -> Vec<String> {
    let mut all = vec![model.trim().to_lowercase()];
    // Each rewrites what the ones before it have come to.
    for rewrite in [
        without_path,
        without_version_mark,
        without_geography,
        with_spread_date,
    ] {
        let last = &all[all.len() - 1];
        if let Cow::Owned(next) = rewrite(last) {
            all.push(next);
        }
    }
    all
}

/// `models/gemini-2.5-pro`, `publishers/anthropic/models/claude-…`,
/// `arn:aws:bedrock:…:inference-profile/us.anthropic.claude-…`
fn without_path(model: &str) -> Cow<'_, str> {
    let name = match model.rsplit_once("models/") {
        Some((_, name)) => Some(name),
        None if model.starts_with("arn:") => model.rsplit_once('/').map(|(_, name)| name),
        None => None,
    };
    name.map_or(Cow::Borrowed(model), |name| Cow::Owned(name.to_owned()))
}

/// `claude-sonnet-4@20250514` is listed as `claude-sonnet-4-20250514`, and `…@default` without
/// a version.
fn without_version_mark(model: &str) -> Cow<'_, str> {
    match model.split_once('@') {
        Some((name, version)) if !name.is_empty() => {
            let dated = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
            Cow::Owned(if dated {
                format!("{name}-{version}")
            } else {
                name.to_owned()
            })
        }
        _ => Cow::Borrowed(model),
    }
}

/// `ca.anthropic.claude-…` costs what `anthropic.claude-…` costs in its own region.
fn without_geography(model: &str) -> Cow<'_, str> {
    match model.split_once('.') {
        Some((geography, name)) if GEOGRAPHIES.contains(&geography) => Cow::Owned(name.to_owned()),
        _ => Cow::Borrowed(model),
    }
}

/// `gpt-5.2-20251211` is listed as `gpt-5.2-2025-12-11`.
fn with_spread_date(model: &str) -> Cow<'_, str> {
    let mut pieces: Vec<Cow<str>> = Vec::new();
    for piece in model.split('-') {
        let (date, rest) = piece.split_at(piece.find(':').unwrap_or(piece.len()));
        pieces.push(match is_date(date) && !pieces.is_empty() {
            true => format!("{}-{}-{}{rest}", &date[..4], &date[4..6], &date[6..]).into(),
            false => piece.into(),
        });
    }
    if pieces.iter().all(|piece| matches!(piece, Cow::Borrowed(_))) {
        return Cow::Borrowed(model);
    }
    Cow::Owned(pieces.join("-"))
}

/// A day of this century as eight digits.
fn is_date(text: &str) -> bool {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        && text.starts_with("20")
        && ("01"..="12").contains(&&text[4..6])
        && ("01"..="31").contains(&&text[6..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_comes_from_the_one_before() {
        for (model, spellings) in [
            (" GPT-4o ", &["gpt-4o"][..]),
            (
                "models/gemini-2.5-pro",
                &["models/gemini-2.5-pro", "gemini-2.5-pro"],
            ),
            (
                "publishers/anthropic/models/claude-sonnet-4@20250514",
                &[
                    "publishers/anthropic/models/claude-sonnet-4@20250514",
                    "claude-sonnet-4@20250514",
                    "claude-sonnet-4-20250514",
                    "claude-sonnet-4-2025-05-14",
                ],
            ),
            (
                "claude-opus-5@default",
                &["claude-opus-5@default", "claude-opus-5"],
            ),
            (
                "arn:aws:bedrock:ca-central-1:1:inference-profile/ca.amazon.nova-lite-v1:0",
                &[
                    "arn:aws:bedrock:ca-central-1:1:inference-profile/ca.amazon.nova-lite-v1:0",
                    "ca.amazon.nova-lite-v1:0",
                    "amazon.nova-lite-v1:0",
                ],
            ),
            (
                "global.amazon.nova-2-lite-v1:0",
                &["global.amazon.nova-2-lite-v1:0"],
            ),
            ("@cf/meta/llama-3-8b", &["@cf/meta/llama-3-8b"]),
            (
                "gpt-5.2-20251211",
                &["gpt-5.2-20251211", "gpt-5.2-2025-12-11"],
            ),
            ("m-20251211:free", &["m-20251211:free", "m-2025-12-11:free"]),
            ("m-20251311", &["m-20251311"]),
            ("20251211", &["20251211"]),
            ("é-日本語日本", &["é-日本語日本"]),
            ("", &[""]),
        ] {
            assert_eq!(of(model), spellings, "{model}");
        }
    }
}
