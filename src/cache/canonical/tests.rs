//! What counts as the same body, and that nothing makes the digest fail.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt::Write;

use super::*;
use crate::call::names_one_model;

fn plain(body: &str) -> Body {
    digest(body.as_bytes(), &Pointers::default())
}

fn ignoring(body: &str, pointers: &[&str]) -> Body {
    let list: Vec<String> = pointers.iter().map(|&text| text.into()).collect();
    digest(body.as_bytes(), &Pointers::parse(&list).unwrap())
}

#[test]
fn spelling_does_not_matter() {
    let cases = [
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
        (r#"{"a":1}"#, " {\n\t\"a\" : 1 }\r\n"),
        (r#"{"a":"é/"}"#, r#"{"\u0061":"\u00e9\/"}"#),
        (r#"{"a":"😀"}"#, r#"{"a":"\ud83d\ude00"}"#),
        (
            r#"{"a":{"x":[1,{"d":1,"c":2}],"y":0}}"#,
            r#"{"a":{"y":0,"x":[1,{"c":2,"d":1}]}}"#,
        ),
        ("1.0", "1.00"),
        ("1.0", "10e-1"),
    ];
    for (one, other) in cases {
        assert!(plain(one).canonical, "{one}");
        assert_eq!(plain(one), plain(other), "{one} {other}");
    }
}

#[test]
fn values_matter() {
    let documents = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "1.0",
        "-1.0",
        "1.5",
        "128",
        "-128",
        "\"\"",
        "\"1\"",
        "\"null\"",
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "[null]",
        "[1,2]",
        "[2,1]",
        "[12]",
        "[[1],2]",
        "[[1,2]]",
        "[[1,[2]]]",
        r#"["a","b"]"#,
        r#"["ab",""]"#,
        r#"["","ab"]"#,
        r#"{"a":1}"#,
        r#"{"a":"1"}"#,
        r#"{"a":null}"#,
        r#"{"b":1}"#,
        r#"{"a":1,"b":1}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":{},"b":1}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":2,"a":1}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"":1}"#,
        r#"{"A":1}"#,
        r#"["a",1]"#,
        "\"a\\u0000\"",
        "\"a\"",
        "18446744073709551615",
        "9223372036854775807",
        "-9223372036854775808",
        "",
        " ",
        "{",
        "[1,2] x",
        "[1,2]]",
        "\u{feff}1",
        "18446744073709551616",
        "18446744073709551617",
        "1e400",
        "1e300",
        "\"\\ud800\"",
        "01",
        "nul",
    ];
    let mut seen = HashMap::new();
    for document in documents {
        let other = seen.insert(plain(document).digest, document);
        assert_eq!(other, None, "{document:?}");
    }
}

#[test]
fn long_values_are_told_apart_too() {
    let text = "x".repeat(LONG);
    let list = vec!["1"; 3 * LONG].join(",");
    let documents = [
        format!(r#"{{"a":"{text}","b":1}}"#),
        format!(r#"{{"a":"{text}y","b":1}}"#),
        format!(r#"{{"a":"{text}z","b":1}}"#),
        format!(r#"{{"a":["{text}y"],"b":1}}"#),
        format!(r#"{{"a":[{list}],"b":1}}"#),
        format!(r#"{{"a":[{list},1],"b":1}}"#),
        format!(r#"{{"a":[{list},[]],"b":1}}"#),
        format!(r#"{{"a":{{"c":[{list}]}},"b":1}}"#),
    ];
    let mut seen = HashMap::new();
    for document in &documents {
        let reordered = document
            .replace(r#"{"a""#, r#"{"b":1,"a""#)
            .replace(r#","b":1}"#, "}");
        assert_eq!(plain(document), plain(&reordered));
        assert!(plain(document).canonical);
        assert_eq!(
            seen.insert(plain(document).digest, document),
            None,
            "{document}"
        );
    }
}

#[test]
fn arrays_of_any_length_are_compared() {
    let list = |changed: usize, value: &str| {
        let mut elements = vec![r#"{"b":1,"a":"x"}"#; 100_000];
        elements[changed] = value;
        plain(&format!("[{}]", elements.join(",")))
    };
    let one = list(0, r#"{"a":"x", "b":1}"#);
    assert!(one.canonical);
    for changed in [0, 1, 50_000, 99_999] {
        assert_eq!(list(changed, r#"{"a":"x", "b":1}"#), one);
        assert_ne!(list(changed, "0").digest, one.digest);
    }
}

#[test]
fn members_are_sorted_however_many_there_are() {
    let member =
        |number: usize| format!("\"key{number}\":[{number},{{\"b\":1,\"a\":\"{number}\"}}]");
    let forwards: Vec<String> = (0..500).map(member).collect();
    let backwards: Vec<String> = (0..500).rev().map(member).collect();
    let one = plain(&format!("{{{}}}", forwards.join(",")));
    assert_eq!(one, plain(&format!("{{{}}}", backwards.join(","))));
    assert_ne!(one, plain(&format!("{{{}}}", forwards[1..].join(","))));
}

#[test]
fn pointers_leave_parts_out() {
    let same = [
        (&["/user"][..], r#"{"user":"a","x":1}"#, r#"{"x":1}"#),
        (
            &["/user"],
            r#"{"x":1,"user":{"a":[18446744073709551616]}}"#,
            r#"{"x":1,"user":"b"}"#,
        ),
        (
            &["/a/b", "/c"],
            r#"{"a":{"b":1,"d":1},"c":2}"#,
            r#"{"a":{"d":1}}"#,
        ),
        (
            &["/m/0/t"],
            r#"{"m":[{"t":1,"x":1},{"t":2}]}"#,
            r#"{"m":[{"x":1},{"t":2}]}"#,
        ),
        (
            &["/m/*/t"],
            r#"{"m":[{"t":1},{"t":2},{"t":3}]}"#,
            r#"{"m":[{},{},{"t":4}]}"#,
        ),
        (&["/m/1"], "{\"m\":[1,2,3]}", "{\"m\":[1,\"x\",3]}"),
        (&["/m/*"], "{\"m\":[1,2]}", "{\"m\":[[],{}]}"),
        (&["/1"], "[1,2]", "[1,3]"),
        (&["/"], r#"{"":1}"#, "{}"),
        (&["/a~1b"], r#"{"a/b":1}"#, "{}"),
        (&["/a"], r#"{"a":1,"a":2,"b":1}"#, r#"{"b":1}"#),
        (
            &["/model"],
            r#"{"model":"a"}"#,
            r#"{"model":"a","model":"a"}"#,
        ),
    ];
    for (pointers, one, other) in same {
        assert_eq!(
            ignoring(one, pointers),
            ignoring(other, pointers),
            "{pointers:?} {one}"
        );
        assert_ne!(plain(one).digest, plain(other).digest, "{one}");
    }
    let different = [
        (&["/user"][..], r#"{"a":{"user":1}}"#, r#"{"a":{"user":2}}"#),
        (
            &["/m/0/t"],
            r#"{"m":[{},{"t":1}]}"#,
            r#"{"m":[{},{"t":2}]}"#,
        ),
        (&["/m/*"], "{\"m\":[1]}", "{\"m\":[1,2]}"),
        (&["/m/*"], "{\"m\":[]}", "{\"m\":[1]}"),
        (&["/m/*"], r#"{"m":{"a":1}}"#, r#"{"m":{"a":2}}"#),
        (&["/m/1"], "{\"m\":[1]}", "{\"m\":[1,2]}"),
        // Not JSON: the bytes count, whatever the pointers say.
        (&["/user"], r#"{"user":1"#, r#"{"user":2"#),
    ];
    for (pointers, one, other) in different {
        assert_ne!(
            ignoring(one, pointers).digest,
            ignoring(other, pointers).digest,
            "{pointers:?} {one}"
        );
    }
}

#[test]
fn model_and_stream_are_read_in_passing() {
    let cases = [
        (r#"{"model":"gpt-5","stream":true}"#, Some("gpt-5"), true),
        (r#"{"stream":false,"model":"a\u002fb"}"#, Some("a/b"), false),
        (r#"{"messages":[{"model":"x","stream":true}]}"#, None, false),
        (
            r#"{"a":{"model":"x","stream":true},"model":"y"}"#,
            Some("y"),
            false,
        ),
        (r#"{"model":["x"],"stream":[true]}"#, None, false),
        (r#"{"model":{"model":"x"},"stream":"true"}"#, None, false),
        (
            r#"{"model":"x","stream":true,"model":"y","stream":null}"#,
            Some("y"),
            false,
        ),
        (r#"{"model":"x","model":1}"#, Some("x"), false),
        (r#"["model","stream",true]"#, None, false),
        (r#"{"model":"x","stream":true"#, None, false),
    ];
    for (body, model, stream) in cases {
        let read = plain(body);
        assert_eq!(
            (read.model.as_deref(), read.stream),
            (model, stream),
            "{body}"
        );
        let ignored = ignoring(body, &["/model", "/stream"]);
        assert_eq!(
            (ignored.model, ignored.stream),
            (read.model, read.stream),
            "{body}"
        );
    }
    let long = |length| plain(&format!(r#"{{"model":"{}"}}"#, "m".repeat(length))).model;
    assert_eq!(long(MAX_MODEL).unwrap().len(), MAX_MODEL);
    assert_eq!(long(MAX_MODEL + 1), None);
}

#[test]
fn several_models_are_noticed_as_they_are_where_nothing_is_cached() {
    let long = "m".repeat(MAX_MODEL + 1);
    let cases = [
        ("{}".to_owned(), false),
        (r#"{"model":"a","x":{"model":"b"}}"#.to_owned(), false),
        (r#"{"model":"a","model":"\u0061"}"#.to_owned(), false),
        (r#"{"model":"a","model":null}"#.to_owned(), false),
        (r#"{"model":"a","model":"b"}"#.to_owned(), true),
        (r#"{"model":"a","mod\u0065l":"b"}"#.to_owned(), true),
        (r#"{"\u006dodel":"a","model":"b"}"#.to_owned(), true),
        (r#"{"model":"a","mod\u0065ls":"b"}"#.to_owned(), false),
        (r#"{"model":"a","model":"b","model":"b"}"#.to_owned(), true),
        (r#"{"model":"a","model":""}"#.to_owned(), true),
        (format!(r#"{{"model":"a","model":"{long}"}}"#), true),
        (format!(r#"{{"model":"{long}","model":"a"}}"#), true),
    ];
    for (body, several) in cases {
        assert_eq!(plain(&body).names_several, several, "{body}");
        assert_eq!(names_one_model(body.as_bytes()), !several, "{body}");
        let ignored = ignoring(&body, &["/model"]);
        assert_eq!(ignored.names_several, several, "{body}");
    }
}

#[test]
fn what_cannot_be_compared_is_taken_by_its_bytes() {
    let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert!(plain(&deep(127)).canonical);
    let members: Vec<String> = (0..=MOST_MEMBERS).map(|n| format!("\"{n:x}\":1")).collect();
    let cases = [
        deep(128),
        deep(1 << 20),
        "[".repeat(1 << 20),
        r#"{"a":9223372036854775808000}"#.to_owned(),
        r#"{"a":-9223372036854775809}"#.to_owned(),
        r#"{"a":9007199254740993.0}"#.to_owned(),
        format!("{{{}}}", members.join(",")),
        format!(
            "{{{}}}",
            vec![format!("\"a\":\"{}\"", "x".repeat(LONG)); 600].join(",")
        ),
    ];
    for body in cases {
        let one = plain(&body);
        assert!(!one.canonical, "{}", &body[..body.len().min(40)]);
        assert_eq!((one.model, one.stream), (None, false));
        assert_ne!(one.digest, plain(&format!("{body} ")).digest);
    }
    let bytes = digest(b"{\"a\":\"\xff\"}", &Pointers::default());
    assert!(!bytes.canonical);
}

/// A small generator of numbers: the tests see the same ones every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn document(&mut self, depth: usize, out: &mut String) {
        let kinds = if depth == 0 { 4 } else { 7 };
        match self.below(kinds) {
            0 => out.push_str(["null", "true", "false"][self.below(3)]),
            1 => write!(out, "{}", self.below(3)).unwrap(),
            2 => write!(out, "{:.1}", self.below(3) as f64 / 2.0).unwrap(),
            3 => write!(out, "{:?}", ["", "a", "b", "ab"][self.below(4)]).unwrap(),
            4 => self.container(depth, out, ["[", "]"], |_, _| ()),
            _ => self.container(depth, out, ["{", "}"], |number, out| {
                write!(out, "\"{}\":", ["", "b", "a", "model"][number]).unwrap();
            }),
        }
    }

    fn container(
        &mut self,
        depth: usize,
        out: &mut String,
        brackets: [&str; 2],
        key: fn(usize, &mut String),
    ) {
        out.push_str(brackets[0]);
        let (first, count) = (self.below(4), self.below(4));
        for number in 0..count {
            out.push_str(if number > 0 { "," } else { "" });
            key((first + number) % 4, out);
            self.document(depth - 1, out);
        }
        out.push_str(brackets[1]);
    }
}

/// Two documents have the same digest exactly if a tree of each compares equal.
#[test]
fn digests_are_equal_exactly_when_documents_are() {
    let mut numbers = Numbers(1);
    let mut seen: HashMap<[u8; 32], serde_json::Value> = HashMap::new();
    let mut digests: HashMap<String, [u8; 32]> = HashMap::new();
    for _ in 0..20_000 {
        let mut text = String::new();
        numbers.document(3, &mut text);
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        let body = plain(&text);
        assert!(body.canonical);
        // Trees print with their keys in order.
        assert_eq!(
            *digests.entry(tree.to_string()).or_insert(body.digest),
            body.digest,
            "{text}"
        );
        assert_eq!(
            *seen.entry(body.digest).or_insert_with(|| tree.clone()),
            tree,
            "{text}"
        );
    }
    assert!(seen.len() > 2_000, "{}", seen.len());
}

#[test]
fn nothing_makes_it_fail() {
    let ignore = Pointers::parse(&["/a".into(), "/*/b".into(), "/model".into()]).unwrap();
    let mut numbers = Numbers(2);
    for round in 0..20_000 {
        let mut text = String::new();
        numbers.document(4, &mut text);
        let mut bytes = text.into_bytes();
        for _ in 0..=numbers.below(4) {
            let (at, byte) = (numbers.below(bytes.len() + 1), numbers.below(256) as u8);
            match numbers.below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ => bytes.extend([b'"', byte, b'{']),
            }
        }
        if round % 4 == 0 {
            bytes = (0..numbers.below(64))
                .map(|_| numbers.below(256) as u8)
                .collect();
        }
        assert_eq!(digest(&bytes, &ignore), digest(&bytes.clone(), &ignore));
    }
}

#[test]
fn what_changes_something_at_the_provider_is_told_from_questions() {
    let changes = |body: &str| digest(body.as_bytes(), &Pointers::default()).changes_state;
    for yes in [
        r#"{"background":true}"#,
        r#"{"conversation":"conv_1"}"#,
        r#"{"conversation":{"id":"conv_1"},"input":"x"}"#,
    ] {
        assert!(changes(yes), "{yes}");
    }
    for no in [
        r#"{"background":false}"#,
        r#"{"conversation":null}"#,
        r#"{"input":{"conversation":"x","background":true}}"#,
        r#"["background",true]"#,
    ] {
        assert!(!changes(no), "{no}");
    }
}
