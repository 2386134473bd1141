//! The body of the universal endpoint: steps, each a request to a provider of its own.
//!
//! `POST /v1/{account}/{gateway}` with an array of
//! `{"provider":…,"endpoint":…,"headers":{…},"query":{…}}`, or with one such object: contract of
//! Cloudflare AI Gateway, universal endpoint. Steps are tried in order until one succeeds.
//!
//! Here a body becomes [`Step`]s, and the headers of the request around them become those of
//! each step. Whether a provider exists and where its requests go is decided later, as for any
//! other request, and so is what a `cf-aig-*` header says.
//!
//! Bodies are JSON that is never built: a value is a piece of the text, its first byte tells its
//! type, and `query` goes to the provider byte for byte. `null` counts as absent everywhere, as
//! it does for the JavaScript clients that write these bodies. No message repeats a value: it
//! may be a secret, also where none belongs.

use std::borrow::Cow;
use std::fmt::{self, Display};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::directives;
use crate::error::{Failure, Kind};

/// Most steps of one request. The contract has no bound, but every step may cost a try.
pub const MAX_STEPS: usize = 32;
/// Most members of one step, and of its `headers`; more than [`MAX_STEPS`].
const MAX_MEMBERS: usize = 128;
/// Longest provider, endpoint, header name, and all of a step's headers in bytes.
const MAX_PROVIDER: usize = 64;
const MAX_ENDPOINT: usize = 8 << 10;
const MAX_NAME: usize = 256;
const MAX_HEADERS: usize = 64 << 10;

const FORM: &str = r#"The body must be an array of at least one step, such as [{"provider":"openai","endpoint":"chat/completions","headers":{},"query":{}}]"#;

/// One request to a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// Slug of the provider, as the client wrote it.
    pub provider: Box<str>,
    /// The provider's path and query without the leading `/`: raw, visible ASCII without `#`.
    /// Empty is the provider's root.
    pub target: Box<str>,
    /// The step's own headers; [`merged`] adds those of the request.
    pub headers: HeaderMap,
    /// What goes to the provider: a slice of the request's body.
    pub body: Bytes,
}

/// Targets, headers and bodies hold secrets.
impl fmt::Debug for Step {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let mut step = out.debug_struct("Step");
        step.field("provider", &self.provider);
        step.finish_non_exhaustive()
    }
}

/// Reads the steps of a request; at least one. A failure names the place, such as
/// `[1].endpoint`. A body that is a single object is step `[0]`.
///
/// # Errors
/// When the body is not JSON, or not of the contract's form, or over a bound.
pub fn parse(body: &Bytes) -> Result<Vec<Step>, Failure> {
    // Checked as a whole at memory speed, UTF-8 need not be checked string by string.
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        bad(format!("The body is not UTF-8 from byte {at} on"))
    })?;
    let steps = elements(text)?;
    let mut parsed = Vec::with_capacity(steps.len());
    for (index, step) in steps.into_iter().enumerate() {
        parsed.push(Place(index).step(step, body)?);
    }
    Ok(parsed)
}

/// The text of each step.
fn elements(text: &str) -> Result<Vec<&str>, Failure> {
    let elements = match text.trim_ascii_start().as_bytes().first() {
        Some(b'[') => parts(text).map(|parts| parts.into_iter().map(|(_, step)| step).collect()),
        Some(b'{') => serde_json::from_str(text).map(|step: &RawValue| vec![step.get()]),
        _ => Ok(Vec::new()),
    };
    // Only where, not why: serde_json may quote what it did not expect.
    let elements = elements.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        bad(format!(
            "The body is not JSON: see line {line}, column {column}"
        ))
    })?;
    match elements.len() {
        0 => Err(bad(FORM)),
        1..=MAX_STEPS => Ok(elements),
        _ => Err(bad(format!("The body must have at most {MAX_STEPS} steps"))),
    }
}

/// The step of this number, for messages.
#[derive(Clone, Copy)]
struct Place(usize);

impl Place {
    fn step(self, text: &str, body: &Bytes) -> Result<Step, Failure> {
        let members = self.members(text, &"")?;
        let member = |name| self.member(&members, name);
        let query = member("query")?;
        Ok(Step {
            provider: self.provider(member("provider")?)?,
            target: self.target(member("endpoint")?)?,
            headers: self.headers(member("headers")?, member("authorization")?)?,
            body: query.map_or_else(Bytes::new, |query| body.slice_ref(query.as_bytes())),
        })
    }

    /// Clients add members of their own, which mean nothing here. One that means something may
    /// not come twice: whoever checked the body before may have read the other one.
    fn member<'a>(self, members: &Named<'a>, name: &str) -> Result<Option<&'a str>, Failure> {
        let mut found = members.iter().filter(|(other, _)| other == name);
        let value = found.next().map(|(_, value)| *value);
        match found.next() {
            Some(_) => Err(self.wrong(&format_args!(".{name}"), "is given twice")),
            None => Ok(value.filter(|value| *value != "null")),
        }
    }

    fn provider(self, value: Option<&str>) -> Result<Box<str>, Failure> {
        let slug = value.and_then(string).filter(|slug| is_slug(slug));
        slug.map(Into::into).ok_or_else(|| {
            let rule = format!(
                "must be the slug of a provider, such as \"openai\": 1 to {MAX_PROVIDER} letters, digits, - and _"
            );
            self.wrong(&".provider", rule)
        })
    }

    /// One leading `/` may stand there; a second one belongs to the path.
    fn target(self, value: Option<&str>) -> Result<Box<str>, Failure> {
        let Some(value) = value else {
            return Ok("".into());
        };
        let target = string(value).filter(|target| is_target(target));
        let target = target.ok_or_else(|| {
            let rule = format!(
                "must be a path of at most {MAX_ENDPOINT} visible ASCII characters without space and #, such as \"chat/completions\"; percent-encode others"
            );
            self.wrong(&".endpoint", rule)
        })?;
        Ok(target.strip_prefix('/').unwrap_or(&target).into())
    }

    /// With the older `authorization` beside them, unless they have one themselves.
    fn headers(self, text: Option<&str>, beside: Option<&str>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let text = self.bounded(text.unwrap_or("{}"), &".headers")?;
        for (index, (name, value)) in self.members(text, &".headers")?.iter().enumerate() {
            let name = self.name(name, index)?;
            if *value != "null" && !is_not_a_steps(name.as_str()) {
                self.header(name, value, &mut headers)?;
            }
        }
        if let Some(value) = beside {
            let value = self.bounded(value, &".authorization")?;
            let value = self.value(&AUTHORIZATION, value, &".authorization")?;
            headers.entry(AUTHORIZATION).or_insert(value);
        }
        Ok(headers)
    }

    /// Names that differ in JSON may be one header. The same value twice leaves no doubt.
    fn header(self, name: HeaderName, value: &str, to: &mut HeaderMap) -> Result<(), Failure> {
        let place = format!(".headers[\"{name}\"]");
        let value = self.value(&name, value, &place)?;
        if to.get(&name).is_some_and(|before| *before != value) {
            return Err(self.wrong(&place, "is given twice, with different values"));
        }
        to.insert(name, value);
        Ok(())
    }

    fn bounded<'a>(self, text: &'a str, place: &dyn Display) -> Result<&'a str, Failure> {
        if text.len() > MAX_HEADERS {
            let rule = format!("must be at most {MAX_HEADERS} bytes of JSON");
            return Err(self.wrong(place, rule));
        }
        Ok(text)
    }

    /// A wrong name is told by its number: who wrote a whole header line there wrote its value
    /// there too.
    fn name(self, name: &str, index: usize) -> Result<HeaderName, Failure> {
        let parsed = Some(name).filter(|name| name.len() <= MAX_NAME);
        parsed.and_then(|name| name.parse().ok()).ok_or_else(|| {
            let rule = format!(
                "must have header names, at most {MAX_NAME} characters long, as its own; name number {} is none",
                index + 1
            );
            self.wrong(&".headers", rule)
        })
    }

    /// A header's value; structure is allowed where the header's own value is JSON.
    fn value(
        self,
        name: &HeaderName,
        value: &str,
        place: &dyn Display,
    ) -> Result<HeaderValue, Failure> {
        let takes_json = name.as_str().starts_with(directives::PREFIX);
        let text = match value.as_bytes().first() {
            Some(b'"') => string(value),
            Some(b'{' | b'[') => takes_json.then(|| compact(value)),
            _ => Some(value.to_owned()),
        };
        let of_a_line = |text: String| HeaderValue::from_str(text.trim_matches([' ', '\t'])).ok();
        text.and_then(of_a_line).ok_or_else(|| {
            let types = match takes_json {
                true => "a string without control characters, or another JSON value",
                false => "a string without control characters, a number or a boolean",
            };
            self.wrong(place, format!("must be {types}"))
        })
    }

    fn members<'a>(self, text: &'a str, place: &dyn Display) -> Result<Named<'a>, Failure> {
        if !text.starts_with('{') {
            return Err(self.wrong(place, "must be an object"));
        }
        // It is JSON, that was seen before: all that can be wrong is half a surrogate pair.
        let members =
            parts(text).map_err(|_| self.wrong(place, "must have Unicode text as its names"))?;
        if members.len() > MAX_MEMBERS {
            let rule = format!("must have at most {MAX_MEMBERS} members");
            return Err(self.wrong(place, rule));
        }
        Ok(members)
    }

    fn wrong(self, place: &dyn Display, rule: impl Display) -> Failure {
        bad(format!("[{}]{place} {rule}", self.0))
    }
}

fn bad(message: impl Into<Cow<'static, str>>) -> Failure {
    Failure::because(Kind::BadRequest, message)
}

fn is_slug(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_PROVIDER).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// It becomes part of a request line: nothing in it may end that line or its target.
fn is_target(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    text.len() <= MAX_ENDPOINT && text.bytes().all(is_allowed)
}

/// The string that a JSON value is.
fn string(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// JSON without the white space between its tokens, and otherwise as it came: numbers keep
/// their digits, objects their order.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let mut keeps = |character: char| {
        let kept = in_string || !character.is_ascii_whitespace();
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
        kept
    };
    json.chars().filter(|&character| keeps(character)).collect()
}

/// Headers that a step may bring and that are not its to say. They are dropped, not refused:
/// clients that wrap an SDK pass on whatever it would have sent.
fn is_not_a_steps(name: &str) -> bool {
    match name {
        // What speaks of one connection, of its framing, or of how a body is packed: the body is
        // what stands under `query`.
        "connection" | "content-encoding" | "content-length" | "expect" | "host"
        | "http2-settings" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            true
        }
        // Who asks is said once, by the request: no step may be somebody else's.
        "cf-aig-authorization" | "cf-access-jwt-assertion" | "cf-access-token" => true,
        _ => name.starts_with("proxy-"),
    }
}

/// Headers of the request that go on to its steps: those for the gateway, and which answers
/// the client can read, who it is, and the trace it is part of.
///
/// A list of what passes, not of what does not. Each step may go to another company, and the
/// request is made to none of them: a key in `Authorization`, `x-api-key`, `x-goog-api-key` or
/// any header that nobody has told us of would be shown to all, and cookies, addresses
/// (`x-forwarded-for`) and `baggage` with it. `Content-Type` and the like are the array's.
fn passes(name: &HeaderName) -> bool {
    let to_providers = matches!(
        name.as_str(),
        "accept" | "accept-encoding" | "traceparent" | "tracestate" | "user-agent"
    );
    to_providers || directives::is_for_gateway(name)
}

/// Headers that say one thing together: a step that sets one of them replaces both.
/// Otherwise an old name in a step would lose against the request's new one.
const TOGETHER: [[&str; 2]; 3] = [
    ["cf-aig-cache-ttl", "cf-cache-ttl"],
    ["cf-aig-skip-cache", "cf-skip-cache"],
    ["traceparent", "tracestate"],
];

/// The headers of a step's own request: the step's, then those of the request `outer` around
/// it that pass and of which the step says nothing. As with any request, those for the gateway
/// have yet to be removed on the way to the provider.
pub fn merged(outer: &HeaderMap, step: &HeaderMap) -> HeaderMap {
    let mut merged = step.clone();
    for (name, value) in outer {
        if passes(name) && !is_said(name, step) {
            merged.append(name, value.clone());
        }
    }
    let json = HeaderValue::from_static("application/json");
    merged.entry(CONTENT_TYPE).or_insert(json);
    merged
}

fn is_said(name: &HeaderName, step: &HeaderMap) -> bool {
    let says = |names: &[&str]| names.iter().any(|name| step.contains_key(*name));
    let together = TOGETHER.iter().find(|names| names.contains(&name.as_str()));
    together.map_or_else(|| step.contains_key(name), |names| says(names))
}

/// Values in an object or array, as text; those in an array have empty names.
type Named<'a> = Vec<(String, &'a str)>;

/// What is in a JSON object or array.
fn parts(text: &str) -> serde_json::Result<Named<'_>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let Parts(parts) = json.deserialize_any(Parts::default())?;
    json.end()?;
    Ok(parts)
}

#[derive(Default)]
struct Parts<'a>(Named<'a>);

impl<'a> Parts<'a> {
    /// One more than allowed is enough to tell: a body of millions takes no memory.
    fn keep(&mut self, name: String, value: &'a RawValue) {
        if self.0.len() <= MAX_MEMBERS {
            self.0.push((name, value.get()));
        }
    }
}

impl<'de> Visitor<'de> for Parts<'de> {
    type Value = Self;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<Self, A::Error> {
        while let Some(value) = array.next_element()? {
            self.keep(String::new(), value);
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Self, A::Error> {
        while let Some((name, value)) = object.next_entry()? {
            self.keep(name, value);
        }
        Ok(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cret";

    fn body(text: impl Into<Vec<u8>>) -> Bytes {
        text.into().into()
    }

    /// The only step of `[{"provider":"p", …}]`.
    fn step(members: &str) -> Step {
        parse(&wrapped(members)).unwrap().remove(0)
    }

    fn wrapped(members: &str) -> Bytes {
        body(format!(r#"[{{"provider":"p",{members}}}]"#))
    }

    fn refused(body: &Bytes) -> String {
        let failure = parse(body).unwrap_err();
        assert_eq!(failure.kind, Kind::BadRequest);
        failure.public.into_owned()
    }

    /// As lines, in order.
    fn listed(headers: &HeaderMap) -> Vec<String> {
        let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().into()).unwrap();
        let mut listed: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", text(value)))
            .collect();
        listed.sort();
        listed
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn reads_what_real_clients_send() {
        let steps = parse(&body(
            r#" [
              {"endpoint":"chat/completions","headers":{"Authorization":"Bearer a","Content-Type":"application/json",
                "cf-aig-cache-ttl":"0"},"provider":"openai","query":{"model":"gpt-4o-mini", "messages":[]}},
              {"provider":"custom-own_1","endpoint":"/v1/x/..%2f?api-version=1&b=?","query":[1.50,1e400]}
            ] "#,
        ))
        .unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(&*steps[0].provider, "openai");
        assert_eq!(&*steps[0].target, "chat/completions");
        assert_eq!(
            listed(&steps[0].headers),
            [
                "authorization: Bearer a",
                "cf-aig-cache-ttl: 0",
                "content-type: application/json"
            ]
        );
        assert_eq!(steps[0].body, r#"{"model":"gpt-4o-mini", "messages":[]}"#);
        assert_eq!(&*steps[1].provider, "custom-own_1");
        assert_eq!(&*steps[1].target, "v1/x/..%2f?api-version=1&b=?");
        assert_eq!(steps[1].headers, HeaderMap::new());
        assert_eq!(steps[1].body, "[1.50,1e400]");
    }

    #[test]
    fn one_object_is_one_step() {
        let steps = parse(&body("\n{\"provider\":\"compat\"}\n")).unwrap();
        assert_eq!(steps.len(), 1);
        assert_eq!(&*steps[0].provider, "compat");
    }

    #[test]
    fn the_query_is_a_slice_of_the_body_whatever_it_is() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let long = "9".repeat(100_000);
        for query in [
            r#"{ "a" : "\u00e9\ud800", "a":2,"n":-0.0 }"#,
            r#""a string \n""#,
            "false",
            "1e999999",
            &long,
            &deep,
        ] {
            let whole = wrapped(&format!(r#""query": {query} "#));
            let step = parse(&whole).unwrap().remove(0);
            assert_eq!(step.body, query);
            assert!(whole.as_ptr_range().contains(&step.body.as_ptr()));
        }
    }

    #[test]
    fn what_is_missing_or_null_is_absent() {
        for members in [
            r#""x":1"#,
            r#""endpoint":null,"headers":null,"query":null,"authorization":null"#,
            r#""endpoint":"","headers":{"a":null,"Authorization":null}"#,
            r#""endpoint":"/","headers":{}"#,
        ] {
            let step = step(members);
            assert_eq!((&*step.target, step.body.len()), ("", 0), "{members}");
            assert_eq!(step.headers, HeaderMap::new(), "{members}");
        }
    }

    #[test]
    fn only_one_slash_before_the_endpoint_is_dropped() {
        for (endpoint, target) in [
            ("v1/x", "v1/x"),
            ("/v1/x", "v1/x"),
            ("//v1/x", "/v1/x"),
            ("?a=b", "?a=b"),
            (r"\/v1\u002fx", "v1/x"),
        ] {
            let step = step(&format!(r#""endpoint":"{endpoint}""#));
            assert_eq!(&*step.target, target);
        }
    }

    #[test]
    fn header_values_of_every_type_become_text() {
        for (value, text) in [
            (r#""text""#, "text"),
            (r#"" \ttext\t ""#, "text"),
            (r#""""#, ""),
            (r#""caf\u00e9""#, "café"),
            ("60", "60"),
            ("-1.50e400", "-1.50e400"),
            ("true", "true"),
            (
                "{ \"user\" : \"a  b \\\" \\\\\",\r\n\"n\":1.0 , \"a\":[ 1 ] }",
                r#"{"user":"a  b \" \\","n":1.0,"a":[1]}"#,
            ),
            ("[ 1,\t2 ]", "[1,2]"),
        ] {
            let step = step(&format!(r#""headers":{{"CF-AIG-Metadata":{value}}}"#));
            let expected = format!("cf-aig-metadata: {text}");
            assert_eq!(listed(&step.headers), [expected], "{value}");
        }
    }

    #[test]
    fn headers_that_are_not_the_steps_are_dropped_whatever_they_hold() {
        let names = "Connection,Content-Encoding,Content-Length,Expect,HOST,HTTP2-Settings,\
            Keep-Alive,Proxy-Authorization,proxy-x,TE,Trailer,Transfer-Encoding,Upgrade,\
            cf-aig-authorization,Cf-Access-Jwt-Assertion,cf-access-token";
        for name in names.split(',') {
            for value in [r#""x\r\ny""#, "{}", "1"] {
                let step = step(&format!(r#""headers":{{"{name}":{value},"x-kept":1}}"#));
                assert_eq!(listed(&step.headers), ["x-kept: 1"], "{name}");
            }
        }
    }

    #[test]
    fn authorization_beside_the_headers_stands_in_for_theirs() {
        for (members, value) in [
            (r#""authorization":"Bearer a""#, "Bearer a"),
            (
                r#""authorization":"Bearer a","headers":{"authorization":null}"#,
                "Bearer a",
            ),
            (
                r#""authorization":"Bearer a","headers":{"AUTHORIZATION":"b"}"#,
                "b",
            ),
        ] {
            let expected = format!("authorization: {value}");
            assert_eq!(listed(&step(members).headers), [expected]);
        }
    }

    #[test]
    fn the_same_header_twice_is_refused_unless_it_says_the_same() {
        let same =
            step(r#""headers":{"Content-Type":"a/b","content-type":"a/b","Host":1,"host":2}"#);
        assert_eq!(listed(&same.headers), ["content-type: a/b"]);
        let differs = wrapped(r#""headers":{"X-A":"1","x-a":"2"}"#);
        assert_eq!(
            refused(&differs),
            "[0].headers[\"x-a\"] is given twice, with different values"
        );
    }

    #[test]
    fn a_mistake_in_a_step_names_the_place_and_never_the_value() {
        let long = "x".repeat(MAX_ENDPOINT + 1);
        let long_name = "x".repeat(MAX_NAME + 1);
        let large = format!("\"{}\"", "x".repeat(MAX_HEADERS));
        let many: Vec<_> = (0..=MAX_MEMBERS).map(|n| format!(r#""x{n}":1"#)).collect();
        let many = many.join(",");
        for (members, expected) in [
            (r#""provider":"s3cret""#, "[0].provider is given twice"),
            (
                r#""query":1,"qu\u0065ry":"s3cret""#,
                "[0].query is given twice",
            ),
            (r#""\udc00s3cret":1"#, "[0] must have Unicode text"),
            (&*many, "[0] must have at most 128 members"),
            (r#""endpoint":["s3cret"]"#, "[0].endpoint must be a path"),
            (r#""endpoint":"s3cret x""#, "[0].endpoint must be a path"),
            (r#""endpoint":"s3cret#x""#, "[0].endpoint must be a path"),
            (
                r#""endpoint":"s3cret\u007f""#,
                "[0].endpoint must be a path",
            ),
            (
                r#""endpoint":"x HTTP/1.1\r\nHost: s3cret""#,
                "[0].endpoint must",
            ),
            (r#""endpoint":"\u0000""#, "[0].endpoint must be a path"),
            (r#""endpoint":"é""#, "[0].endpoint must be a path"),
            (r#""endpoint":"\ud83d""#, "[0].endpoint must be a path"),
            (
                &format!(r#""endpoint":"{long}""#),
                "[0].endpoint must be a path",
            ),
            (r#""headers":"s3cret""#, "[0].headers must be an object"),
            (
                r#""headers":[["a","s3cret"]]"#,
                "[0].headers must be an object",
            ),
            (
                r#""headers":{"a":1,"X: s3cret":1}"#,
                "[0].headers must have header names",
            ),
            (
                r#""headers":{"a":1,"a\r\ns3cret":1}"#,
                "name number 2 is none",
            ),
            (r#""headers":{"":1}"#, "name number 1 is none"),
            (
                &format!(r#""headers":{{"{long_name}":1}}"#),
                "name number 1 is none",
            ),
            (
                r#""headers":{"\ud800":1}"#,
                "[0].headers must have Unicode text",
            ),
            (
                &format!(r#""headers":{{{many}}}"#),
                "[0].headers must have at most 128",
            ),
            (
                &format!(r#""headers":{{"a":{large}}}"#),
                "[0].headers must be at most 65536",
            ),
            (
                r#""headers":{"X-A":"s3cret\r\nX-B: 1"}"#,
                "[0].headers[\"x-a\"] must be a string",
            ),
            (
                r#""headers":{"X-A":"s3cret\n"}"#,
                "[0].headers[\"x-a\"] must be a string",
            ),
            (
                r#""headers":{"X-A":"s3cret\u0000"}"#,
                "[0].headers[\"x-a\"] must be a string",
            ),
            (
                r#""headers":{"X-A":"s3cret\udfff"}"#,
                "[0].headers[\"x-a\"] must be a string",
            ),
            (
                r#""headers":{"X-A":{"s3cret":1}}"#,
                "[0].headers[\"x-a\"] must be a string",
            ),
            (
                r#""headers":{"cf-aig-x":"\u007fs3cret"}"#,
                "[0].headers[\"cf-aig-x\"] must be",
            ),
            (
                "\"headers\":{\"cf-aig-x\":[\"\u{7f}s3cret\"]}",
                "[0].headers[\"cf-aig-x\"] must be",
            ),
            (
                r#""authorization":{"s3cret":1}"#,
                "[0].authorization must be a string",
            ),
            (
                r#""authorization":"s3cret\r\n""#,
                "[0].authorization must be a string",
            ),
            (
                &format!(r#""authorization":{large}"#),
                "[0].authorization must be at most",
            ),
        ] {
            let message = refused(&wrapped(members));
            assert!(message.contains(expected), "{members}: {message}");
            assert!(!message.contains(SECRET), "{message}");
            assert!(message.len() < 256, "{message}");
        }
    }

    #[test]
    fn providers_are_slugs() {
        let long = format!("\"{}\"", "x".repeat(MAX_PROVIDER + 1));
        for provider in [
            "null",
            "1",
            "{}",
            r#""""#,
            r#""a/b""#,
            r#""..""#,
            r#""a b""#,
            r#""é""#,
            r#""\ud800""#,
            r#""a\r\nb""#,
            &long,
        ] {
            let message = refused(&body(format!(r#"[{{"provider":{provider}}}]"#)));
            assert!(message.starts_with("[0].provider must be"), "{message}");
        }
        let longest = "x".repeat(MAX_PROVIDER);
        let longest = parse(&body(format!(r#"{{"provider":"{longest}"}}"#)));
        assert_eq!(longest.unwrap()[0].provider.len(), MAX_PROVIDER);
    }

    #[test]
    fn the_place_counts_the_steps() {
        let good = r#"{"provider":"p"}"#;
        for (second, expected) in [
            ("{}", "[1].provider must be"),
            (r#""s3cret""#, "[1] must be an object"),
            ("[]", "[1] must be an object"),
            ("null", "[1] must be an object"),
        ] {
            let message = refused(&body(format!("[{good},{second}]")));
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn what_is_no_array_of_steps_says_what_it_must_be() {
        for text in [
            "",
            " \n",
            "[]",
            "[ ]",
            r#""s3cret""#,
            "1",
            "null",
            "s3cret",
            "\u{feff}[]",
        ] {
            assert_eq!(refused(&body(text)), FORM);
        }
    }

    #[test]
    fn what_is_not_json_says_where() {
        let deep = "[".repeat(1_000_000);
        let deeper = "{\"a\":".repeat(1_000_000);
        for text in [
            "[",
            "{",
            "[{}",
            r#"[{"provider":"s3cret}]"#,
            "[{},]",
            "{} s3cret",
            "[{}]]",
            r#"{"provider":s3cret}"#,
            r#"{"a":01}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"s3cret\n\"}",
            &deep,
            &deeper,
        ] {
            let message = refused(&body(text));
            assert!(
                message.starts_with("The body is not JSON: see line"),
                "{message}"
            );
            assert!(message.len() < 100, "{message}");
        }
        let latin = refused(&body(*b"[{\"provider\":\"\xe9\"}]"));
        assert_eq!(latin, "The body is not UTF-8 from byte 14 on");
    }

    #[test]
    fn there_is_a_bound_to_the_steps() {
        let many = |count| {
            body(format!(
                "[{}]",
                vec![r#"{"provider":"p"}"#; count].join(",")
            ))
        };
        assert_eq!(parse(&many(MAX_STEPS)).unwrap().len(), MAX_STEPS);
        for count in [MAX_STEPS + 1, MAX_MEMBERS + 2, 100_000] {
            assert_eq!(refused(&many(count)), "The body must have at most 32 steps");
        }
    }

    #[test]
    fn a_step_does_not_show_its_secrets() {
        let step = step(r#""endpoint":"x?key=s3cret","headers":{"x":"s3cret"},"query":"s3cret""#);
        assert_eq!(format!("{step:?}"), r#"Step { provider: "p", .. }"#);
    }

    #[test]
    fn of_the_request_only_what_is_known_goes_to_the_steps() {
        let outer = map(&[
            ("accept", "*/*"),
            ("accept-encoding", "gzip"),
            ("api-key", SECRET),
            ("authorization", SECRET),
            ("baggage", SECRET),
            ("cf-access-token", "t"),
            ("cf-aig-authorization", "Bearer t"),
            ("cf-aig-cache-tag", "a"),
            ("cf-aig-cache-tag", "b"),
            ("cf-cache-ttl", "60"),
            ("content-encoding", "gzip"),
            ("content-length", "100"),
            ("content-type", "text/plain"),
            ("cookie", SECRET),
            ("host", "gateway"),
            ("traceparent", "00-1"),
            ("tracestate", "a=1"),
            ("user-agent", "node"),
            ("x-api-key", SECRET),
            ("x-forwarded-for", SECRET),
            ("x-goog-api-key", SECRET),
            ("x-own", SECRET),
        ]);
        let expected = [
            "accept-encoding: gzip",
            "accept: */*",
            "cf-access-token: t",
            "cf-aig-authorization: Bearer t",
            "cf-aig-cache-tag: a",
            "cf-aig-cache-tag: b",
            "cf-cache-ttl: 60",
            "content-type: application/json",
            "traceparent: 00-1",
            "tracestate: a=1",
            "user-agent: node",
        ];
        assert_eq!(listed(&merged(&outer, &HeaderMap::new())), expected);
    }

    #[test]
    fn a_step_goes_before_the_request() {
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: [(Pairs, Pairs, &[&str]); 5] = [
            (
                &[("user-agent", "node"), ("authorization", SECRET)],
                &[("user-agent", "sdk"), ("authorization", "Bearer own")],
                &["authorization: Bearer own", "user-agent: sdk"],
            ),
            (
                &[("cf-aig-cache-tag", "a"), ("cf-aig-cache-tag", "b")],
                &[("cf-aig-cache-tag", "c")],
                &["cf-aig-cache-tag: c"],
            ),
            (
                &[("cf-aig-cache-ttl", "60"), ("cf-cache-ttl", "70")],
                &[("cf-cache-ttl", "0")],
                &["cf-cache-ttl: 0"],
            ),
            (
                &[("cf-skip-cache", "true"), ("cf-aig-cache-ttl", "60")],
                &[("cf-aig-skip-cache", "false")],
                &["cf-aig-cache-ttl: 60", "cf-aig-skip-cache: false"],
            ),
            (
                &[("traceparent", "00-1"), ("tracestate", "a=1")],
                &[("traceparent", "00-2")],
                &["traceparent: 00-2"],
            ),
        ];
        for (outer, step, expected) in cases {
            let mut merged = merged(&map(outer), &map(step));
            assert_eq!(merged.remove(CONTENT_TYPE).unwrap(), "application/json");
            assert_eq!(listed(&merged), expected);
        }
    }

    #[test]
    fn a_step_may_have_a_content_type_of_its_own() {
        let own = map(&[("content-type", "application/x-ndjson")]);
        assert_eq!(merged(&HeaderMap::new(), &own), own);
    }
}
