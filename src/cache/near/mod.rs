//! What made a request miss: of a body that differs from an earlier one only in things that
//! change from request to request, the JSON pointer that differs.
//!
//! Bodies are near when they are equal without their volatile parts: the top-level members
//! in `VOLATILE`, and what `mask` hides inside strings. Meant for a sample of misses: it
//! reads the body into a tree. What two bodies may not tell each other is the caller's to
//! say, in `tenant`.

mod mask;
mod sample;
mod words;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::hash::{BuildHasher, Hash, Hasher};

use ahash::RandomState;
use serde_json::Value;

use mask::mask;
pub use sample::Sample;

/// Larger bodies are not looked at.
const MOST_BODY: usize = 256 << 10;

/// Leaves kept of one body's content: a difference beyond them is not named.
const MOST_LEAVES: usize = 512;

/// Leaves kept of its volatile members.
const MOST_VOLATILE: usize = 64;

/// Top-level members by which applications label a request; they do not say what is asked.
const VOLATILE: [&str; 19] = [
    "client_metadata",
    "correlation_id",
    "idempotency_key",
    "labels",
    "metadata",
    "nonce",
    "prompt_cache_key",
    "requestMetadata",
    "request_id",
    "run_id",
    "safety_identifier",
    "seed",
    "session_id",
    "tags",
    "timestamp",
    "trace",
    "trace_id",
    "user",
    "user_id",
];

/// Remembers the bodies of misses by what they have in common.
///
/// Keeps no text, only 64-bit digests: at most 512 × 8 bytes for a body's content, 64 × 24
/// for its volatile members, and about 100 around them, so at most 5.7 KiB for each of
/// `capacity` bodies; a usual chat takes a tenth of that.
#[derive(Debug)]
pub struct Near {
    capacity: usize,
    seen: HashMap<u64, Trace, RandomState>,
    /// The near keys in the order in which they were first seen.
    order: VecDeque<u64>,
}

/// What is kept of a body.
#[derive(Debug, Default)]
struct Trace {
    /// Digests of the content's leaves in canonical order. Bodies of one near key have
    /// their leaves at the same places.
    content: Vec<u64>,
    volatile: Vec<Label>,
}

/// One leaf of a volatile member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label {
    /// Index in [`VOLATILE`].
    member: u8,
    path: u64,
    value: u64,
}

/// One step of the way to a leaf.
struct Step<'a> {
    segment: Segment<'a>,
    /// A digest of the way up to and with this step.
    path: u64,
    /// Index in [`VOLATILE`] of the member in which the way begins.
    member: Option<u8>,
}

#[derive(Hash)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl Near {
    /// For so many bodies; the one first seen longest ago makes room.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            seen: HashMap::with_hasher(digests()),
            order: VecDeque::new(),
        }
    }

    /// Remembers a body that missed. If the last body near it had another content, tells
    /// where the first difference is: in the content, in canonical order, otherwise in the
    /// volatile members. `tenant` is a hash of everything else that makes the cache key.
    pub fn observe(&mut self, tenant: u64, body: &[u8]) -> Option<String> {
        if body.len() > MOST_BODY {
            return None;
        }
        // Checked as a whole, UTF-8 need not be checked string by string.
        let document = serde_json::from_str(str::from_utf8(body).ok()?).ok()?;
        let (key, trace) = read(tenant, &document);
        let earlier = self.seen.get(&key);
        let difference = earlier.and_then(|earlier| difference(earlier, &trace, &document));
        self.remember(key, trace);
        difference
    }

    fn remember(&mut self, key: u64, trace: Trace) {
        if self.capacity == 0 {
            return;
        }
        if self.seen.insert(key, trace).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

/// The same in every run. A body made to collide with another misleads only about itself.
fn digests() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// The near key of a document, and what is kept of it.
fn read(tenant: u64, document: &Value) -> (u64, Trace) {
    let mut trace = Trace::default();
    let mut key = digests().build_hasher();
    tenant.hash(&mut key);
    let (mut number, mut masked) = (String::new(), Vec::new());
    leaves(document, &mut |way, leaf| {
        let path = way.last().map_or(0, |step| step.path);
        // `"1"` is not `1`.
        let (quoted, text) = (leaf.is_string(), text(leaf, &mut number));
        if let Some(member) = volatile_member(way) {
            trace.label(member, path, &(quoted, text));
            return;
        }
        masked.clear();
        mask(text.as_bytes(), &mut masked);
        (path, quoted, &masked).hash(&mut key);
        trace.content(&(quoted, text));
    });
    (key.finish(), trace)
}

impl Trace {
    fn content(&mut self, value: &impl Hash) {
        if self.content.len() < MOST_LEAVES {
            self.content.push(digests().hash_one(value));
        }
    }

    fn label(&mut self, member: u8, path: u64, value: &impl Hash) {
        if self.volatile.len() < MOST_VOLATILE {
            self.volatile.push(Label {
                member,
                path,
                value: digests().hash_one(value),
            });
        }
    }

    fn has_member(&self, member: u8) -> bool {
        self.volatile.iter().any(|label| label.member == member)
    }

    fn has_path(&self, path: u64) -> bool {
        self.volatile.iter().any(|label| label.path == path)
    }
}

fn volatile_member(way: &[Step]) -> Option<u8> {
    way.last()?.member
}

impl<'a> Step<'a> {
    fn new(earlier: Option<&Self>, segment: Segment<'a>) -> Self {
        Self {
            path: digests().hash_one((earlier.map(|step| step.path), &segment)),
            member: earlier.map_or_else(|| segment.volatile(), |step| step.member),
            segment,
        }
    }
}

/// What a leaf says. `number` is where a number is spelled out.
fn text<'a>(leaf: &'a Value, number: &'a mut String) -> &'a str {
    match leaf {
        Value::String(text) => text,
        Value::Number(value) => {
            number.clear();
            // Writing to a string does not fail.
            let _ = write!(number, "{value}");
            number
        }
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Array(_) => "[]",
        Value::Object(_) => "{}",
    }
}

fn difference(earlier: &Trace, now: &Trace, document: &Value) -> Option<String> {
    let content = earlier.content.iter().zip(&now.content);
    if let Some(at) = content.clone().position(|(one, other)| one != other) {
        return pointer(document, at, |way| volatile_member(way).is_none());
    }
    let changed = now
        .volatile
        .iter()
        .position(|label| !earlier.volatile.contains(label));
    if let Some(at) = changed {
        let member = now.volatile[at].member;
        if !earlier.has_member(member) {
            return Some(member_pointer(member));
        }
        return pointer(document, at, |way| volatile_member(way).is_some());
    }
    let gone = earlier
        .volatile
        .iter()
        .find(|label| !now.has_path(label.path))?;
    Some(member_pointer(gone.member))
}

fn member_pointer(member: u8) -> String {
    format!("/{}", VOLATILE[usize::from(member)])
}

/// The pointer to leaf number `at` of those that are counted.
fn pointer(document: &Value, at: usize, counted: fn(&[Step]) -> bool) -> Option<String> {
    let (mut number, mut found) = (0, None);
    leaves(document, &mut |way, _| {
        if counted(way) {
            if number == at {
                found = Some(way.iter().map(|step| step.segment.escaped()).collect());
            }
            number += 1;
        }
    });
    found
}

impl Segment<'_> {
    /// Index in [`VOLATILE`] of the member to which it leads from the top.
    fn volatile(&self) -> Option<u8> {
        let Self::Key(key) = self else {
            return None;
        };
        let member = VOLATILE.binary_search(key).ok()?;
        u8::try_from(member).ok()
    }

    fn escaped(&self) -> String {
        match self {
            Self::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Self::Index(index) => format!("/{index}"),
        }
    }
}

/// Visits what is no container, or an empty one, with the way to it; members in order of
/// their keys.
fn leaves(document: &Value, visit: &mut dyn FnMut(&[Step], &Value)) {
    descend(document, &mut Vec::new(), visit);
}

fn descend<'a>(value: &'a Value, way: &mut Vec<Step<'a>>, visit: &mut dyn FnMut(&[Step], &Value)) {
    let mut step = |segment, value| {
        way.push(Step::new(way.last(), segment));
        descend(value, way, visit);
        way.pop();
    };
    match value {
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                step(Segment::Index(index), element);
            }
        }
        Value::Object(members) if !members.is_empty() => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            for (key, member) in members {
                step(Segment::Key(key), member);
            }
        }
        leaf => visit(way, leaf),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn observe(near: &mut Near, body: &Value) -> Option<String> {
        near.observe(1, body.to_string().as_bytes())
    }

    /// What is said of `other` when `one` was seen before.
    fn told(one: &Value, other: &Value) -> Option<String> {
        let mut near = Near::new(10);
        assert_eq!(observe(&mut near, one), None);
        observe(&mut near, other)
    }

    fn chat(text: &str) -> Value {
        json!({"model": "m", "messages": [{"role": "system", "content": text}, {"role": "user", "content": "Hello"}]})
    }

    #[test]
    fn the_first_difference_is_named() {
        let gemini = |text: &str| json!({"contents": [{"parts": [{"text": text}]}]});
        let anthropic = |text: &str| {
            json!({"model": "m", "max_tokens": 9, "messages": [], "system": [
            {"type": "text", "text": "Be brief."}, {"type": "text", "text": text}]})
        };
        let with = |key: &str, value: Value| {
            let mut body = chat("Be brief.");
            body[key] = value;
            body
        };
        let id = |digit: &str| format!("f81d4fae-7dec-11d0-a765-00a0c91e6b{digit}");
        let trace = |digit: &str| json!({"trace_id": id(digit), "team": "search"});
        let cases = [
            (
                chat("It is 2026-08-01T10:15:00Z."),
                chat("It is 2026-08-01T10:15:07Z."),
                "/messages/0/content",
            ),
            (
                chat("Today: Saturday, August 1, 2026"),
                chat("Today: Sunday, August 2, 2026"),
                "/messages/0/content",
            ),
            (
                with("user", json!("u-1")),
                with("user", json!("u-2")),
                "/user",
            ),
            (with("user", json!("u-1")), chat("Be brief."), "/user"),
            (chat("Be brief."), with("user", json!("u-1")), "/user"),
            (with("seed", json!(1)), with("seed", json!(2)), "/seed"),
            (
                with("metadata", trace("f6")),
                with("metadata", trace("f7")),
                "/metadata/trace_id",
            ),
            (
                with("metadata", trace("f6")),
                chat("Be brief."),
                "/metadata",
            ),
            (
                chat("Be brief."),
                with("metadata", trace("f6")),
                "/metadata",
            ),
            (
                with("metadata", json!({"a": 1})),
                with("metadata", json!({"a": 1, "b": 1})),
                "/metadata/b",
            ),
            (
                with("metadata", json!({"a": 1, "b": 1})),
                with("metadata", json!({"a": 1})),
                "/metadata",
            ),
            (
                with("x/y~z", json!({"at": 1_785_578_400})),
                with("x/y~z", json!({"at": 1_785_578_401})),
                "/x~1y~0z/at",
            ),
            (
                gemini("at 10:15"),
                gemini("at 10:16"),
                "/contents/0/parts/0/text",
            ),
            (anthropic(&id("f6")), anthropic(&id("f7")), "/system/1/text"),
        ];
        for (one, other, pointer) in cases {
            assert_eq!(
                told(&one, &other).as_deref(),
                Some(pointer),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn other_questions_are_not_near() {
        let cases = [
            (chat("Be brief."), chat("Be verbose.")),
            (chat("Be brief."), chat("Be brief. It is 10:15.")),
            (
                chat("x"),
                json!({"model": "n", "messages": chat("x")["messages"]}),
            ),
            (json!({"a": 1}), json!({"a": "1"})),
            (json!({"a": [1]}), json!({"a": {"0": 1}})),
            (json!({"a": []}), json!({"a": {}})),
            (json!({"temperature": 0.1}), json!({"temperature": 0.2})),
            (json!({"a": {"user": "x"}}), json!({"a": {"user": "y"}})),
        ];
        for (one, other) in cases {
            assert_eq!(told(&one, &other), None, "{one} {other}");
        }
    }

    #[test]
    fn equal_bodies_have_no_difference() {
        let body = json!({"user": "u", "messages": [{"content": "10:15"}], "metadata": {}});
        assert_eq!(told(&body, &body), None);
        let mut near = Near::new(10);
        near.observe(1, br#"{"a":"10:15","b":1}"#);
        assert_eq!(near.observe(1, br#"{ "b":1, "a":"10\u003a15" }"#), None);
    }

    #[test]
    fn tenants_do_not_meet() {
        let mut near = Near::new(10);
        assert_eq!(near.observe(1, br#"{"user":"a"}"#), None);
        assert_eq!(near.observe(2, br#"{"user":"b"}"#), None);
        assert_eq!(
            near.observe(1, br#"{"user":"b"}"#).as_deref(),
            Some("/user")
        );
    }

    #[test]
    fn the_last_body_is_compared_with() {
        let mut near = Near::new(10);
        let bodies = [
            ("10:15", None),
            ("10:16", Some("/a")),
            ("10:16", None),
            ("10:15", Some("/a")),
        ];
        for (time, expected) in bodies {
            assert_eq!(observe(&mut near, &json!({"a": time})).as_deref(), expected);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut near = Near::new(3);
        for number in 0..100 {
            observe(&mut near, &json!({"a": number, "b": "10:15"}));
        }
        assert_eq!((near.seen.len(), near.order.len()), (3, 3));
        assert_eq!(observe(&mut near, &json!({"a": 1, "b": "10:16"})), None);
        assert_eq!(
            observe(&mut near, &json!({"a": 99, "b": "10:16"})).as_deref(),
            Some("/b")
        );
        let mut none = Near::new(0);
        assert_eq!(observe(&mut none, &json!({"user": 1})), None);
        assert_eq!(observe(&mut none, &json!({"user": 2})), None);
        assert!(none.seen.is_empty());
    }

    #[test]
    fn leaves_beyond_the_bound_are_not_named() {
        let body = |at: usize| {
            let mut list = vec!["10:15"; 2 * MOST_LEAVES];
            list[at] = "10:16";
            json!({"list": list, "metadata": list})
        };
        assert_eq!(
            told(&body(0), &body(MOST_LEAVES)).as_deref(),
            Some("/list/0")
        );
        assert_eq!(told(&body(MOST_LEAVES), &body(MOST_LEAVES + 1)), None);
        let (_, trace) = read(1, &body(0));
        assert_eq!(
            (trace.content.len(), trace.volatile.len()),
            (MOST_LEAVES, MOST_VOLATILE)
        );
    }

    #[test]
    fn what_is_no_json_or_too_large_is_not_looked_at() {
        let mut near = Near::new(10);
        let large = |time| format!(r#"{{"a":"{time}","b":"{}"}}"#, "x".repeat(MOST_BODY));
        for time in ["10:15", "10:16"] {
            assert_eq!(near.observe(1, large(time).as_bytes()), None);
            assert_eq!(near.observe(1, time.as_bytes()), None);
            assert_eq!(near.observe(1, b"\xff\x00{"), None);
        }
        assert!(near.seen.is_empty());
    }

    #[test]
    fn volatile_members_are_in_order() {
        assert!(VOLATILE.is_sorted());
    }
}
