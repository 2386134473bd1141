//! The first page of the listener for operators, and what it is made of: compiled in, served as it
//! stands in `page/`, under a policy that lets a browser run nothing else. Its figures come from
//! `/-/analytics` and `/-/logs`.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, Method, Response, StatusCode};

use super::{response, wrong_method};

/// The page.
pub const ROOT: &str = "/";
/// What the paths of its parts begin with.
const PARTS: &str = "/-/page/";

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

const INDEX: &str = include_str!("page/index.html");

/// Its parts: name, kind and content.
const FILES: [(&str, &str, &str); 16] = [
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("calls.js", SCRIPT, include_str!("page/calls.js")),
    ("chart.js", SCRIPT, include_str!("page/chart.js")),
    ("charts.js", SCRIPT, include_str!("page/charts.js")),
    ("details.js", SCRIPT, include_str!("page/details.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("figures.js", SCRIPT, include_str!("page/figures.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("frame.js", SCRIPT, include_str!("page/frame.js")),
    ("groups.js", SCRIPT, include_str!("page/groups.js")),
    ("icon.svg", IMAGE, include_str!("page/icon.svg")),
    ("page.css", STYLE, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("scale.js", SCRIPT, include_str!("page/scale.js")),
    ("selection.js", SCRIPT, include_str!("page/selection.js")),
    ("tiles.js", SCRIPT, include_str!("page/tiles.js")),
];

/// Nothing but its own parts and figures; no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path may be one of the page and its parts.
pub fn has(path: &str) -> bool {
    path == ROOT || path.starts_with(PARTS)
}

/// The page, or a part of it; `None` for any other path.
pub fn answer(method: &Method, path: &str) -> Option<Response<Vec<u8>>> {
    let (kind, content) = match path {
        ROOT => ("text/html; charset=utf-8", INDEX),
        _ => {
            let name = path.strip_prefix(PARTS)?;
            let (_, kind, content) = FILES.iter().find(|(known, ..)| *known == name)?;
            (*kind, *content)
        }
    };
    if method != Method::GET {
        return Some(wrong_method(path, &Method::GET));
    }
    let mut answer = response(StatusCode::OK, kind, content.into());
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A newer binary has newer parts, and they are few.
        (CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in headers {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Some(answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_is_named_is_served() {
        let all = [INDEX]
            .into_iter()
            .chain(FILES.iter().map(|(_, _, content)| *content));
        let mut named = 0;
        for content in all {
            for part in content
                .split('"')
                .filter(|text| text.starts_with(PARTS) || text.starts_with("./"))
            {
                let path = part.replacen("./", PARTS, 1);
                assert!(answer(&Method::GET, &path).is_some(), "{path}");
                named += 1;
            }
        }
        assert!(named > FILES.len(), "{named}");
    }

    #[test]
    fn nothing_else_is_served() {
        for path in [
            "/-/page/",
            "/-/page/x.js",
            "/-/page/../page.js",
            "/page.js",
            "/index.html",
        ] {
            assert!(answer(&Method::GET, path).is_none(), "{path}");
        }
        assert_eq!(
            answer(&Method::POST, "/").unwrap().status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
