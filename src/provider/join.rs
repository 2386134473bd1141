//! Path tolerance: a version prefix with and without, never doubled.
//!
//! Clients disagree about who adds `v1/`: some base URLs end in it, some SDKs send it,
//! some do both. The rule is one for all providers and needs no list of them.

/// What a provider expects of the version prefix when its base URL does not end in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Paths are taken as they come.
    AsSent,
    /// A path without a version gets this one (`v1`).
    Insert(Box<str>),
    /// The provider has no version: a leading `v1/` is dropped.
    Drop,
}

/// Whether a path segment is a version: `v1`, `v2`, `v1beta`, `v1beta1`, `v1alpha`.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else {
        return false;
    };
    rest.starts_with(|c: char| c.is_ascii_digit())
        && rest.len() <= 12
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The first segment of a path, and the rest after its `/`.
fn first(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// Joins the base URL's path and a client's path; the result starts with `/`.
pub fn join(base: &str, version: &Version, path: &str) -> String {
    let base = base.trim_end_matches('/');
    let last = base.rsplit('/').next().unwrap_or("");
    let mut path = path;
    let mut insert = None;
    if is_version(last) {
        // The base has the version already: `v1/`, and `v1/v1/`, are dropped.
        while first(path).0 == last {
            path = first(path).1;
        }
        if *version == Version::Drop && is_version(first(path).0) {
            path = first(path).1;
        }
    } else {
        path = collapse(path);
        match version {
            Version::AsSent => {}
            Version::Insert(version) if !is_version(first(path).0) => insert = Some(version),
            Version::Insert(_) => {}
            Version::Drop if is_version(first(path).0) => path = first(path).1,
            Version::Drop => {}
        }
    }
    let mut joined = String::with_capacity(base.len() + path.len() + 8);
    joined.push_str(base);
    if let Some(version) = insert {
        joined.push('/');
        joined.push_str(version);
    }
    if !path.is_empty() || joined.is_empty() {
        joined.push('/');
        joined.push_str(path);
    }
    joined
}

/// `v1/v1/messages` to `v1/messages`.
fn collapse(mut path: &str) -> &str {
    loop {
        let (head, rest) = first(path);
        if !is_version(head) || first(rest).0 != head {
            return path;
        }
        path = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_never_missing_and_never_doubled() {
        let insert = Version::Insert("v1".into());
        let cases = [
            (
                "/v1",
                &Version::AsSent,
                "chat/completions",
                "/v1/chat/completions",
            ),
            (
                "/v1",
                &Version::AsSent,
                "v1/chat/completions",
                "/v1/chat/completions",
            ),
            ("/v1", &Version::AsSent, "v1/v1/models", "/v1/models"),
            ("/v1/", &Version::AsSent, "models", "/v1/models"),
            (
                "/openai/v1",
                &Version::AsSent,
                "v1/models",
                "/openai/v1/models",
            ),
            ("/v1", &Version::AsSent, "", "/v1"),
            ("/v1", &Version::AsSent, "v1", "/v1"),
            (
                "/v1",
                &Version::AsSent,
                "v1beta/models",
                "/v1/v1beta/models",
            ),
            (
                "/api/v4",
                &Version::Drop,
                "v1/chat/completions",
                "/api/v4/chat/completions",
            ),
            (
                "/api/v4",
                &Version::Drop,
                "v4/chat/completions",
                "/api/v4/chat/completions",
            ),
            ("", &insert, "messages", "/v1/messages"),
            ("", &insert, "v1/messages", "/v1/messages"),
            ("", &insert, "v1/v1/messages", "/v1/messages"),
            ("", &insert, "v2/chat", "/v2/chat"),
            ("", &insert, "", "/v1"),
            (
                "",
                &Version::Drop,
                "v1/chat/completions",
                "/chat/completions",
            ),
            ("", &Version::Drop, "chat/completions", "/chat/completions"),
            (
                "",
                &Version::AsSent,
                "v1beta/models/m:generateContent",
                "/v1beta/models/m:generateContent",
            ),
            (
                "",
                &Version::AsSent,
                "v1beta/v1beta/models",
                "/v1beta/models",
            ),
            ("", &Version::AsSent, "", "/"),
            ("", &Version::AsSent, "voices/v1/x", "/voices/v1/x"),
            ("/api", &Version::AsSent, "a//b/", "/api/a//b/"),
        ];
        for (base, version, path, expected) in cases {
            assert_eq!(
                join(base, version, path),
                expected,
                "{base:?} {version:?} {path:?}"
            );
        }
    }

    #[test]
    fn only_versions_are_versions() {
        for segment in ["v1", "v2", "v1beta", "v1beta1", "v1alpha"] {
            assert!(is_version(segment), "{segment}");
        }
        for segment in [
            "",
            "v",
            "voices",
            "1",
            "V1",
            "v1.1",
            "v1/..",
            "v1%2f",
            "v1aaaaaaaaaaaaaaaa",
        ] {
            assert!(!is_version(segment), "{segment}");
        }
    }
}
