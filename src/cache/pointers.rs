//! JSON pointers (RFC 6901) to the parts of a body that a cache key leaves out, compiled so
//! that a parser can ask at every step whether one leads on.
//!
//! Our extension: the segment `*` matches every element of an array, so
//! `/messages/*/timestamp` reaches into all messages. In an object it is an ordinary key.

use std::fmt;

/// Most pointers in one list: one bit each.
pub const MOST: usize = u64::BITS as usize;

/// A compiled list of pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointers {
    paths: Vec<Vec<Segment>>,
}

/// The pointers, by bit, that lead to or through a place.
pub type Active = u64;

/// What the pointers say of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The pointers that lead on through it.
    pub active: Active,
    /// One points at the child itself.
    pub ignored: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    key: Box<str>,
    elements: Elements,
}

/// The array elements a segment matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elements {
    None,
    One(usize),
    All,
}

/// Why a list of pointers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which pointer, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "pointer {}: {}", self.index, self.reason)
    }
}

impl std::error::Error for Problem {}

impl Pointers {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Compiles a list; the first mistake is named.
    pub fn parse(list: &[String]) -> Result<Self, Problem> {
        if list.len() > MOST {
            return Err(Problem {
                index: MOST,
                reason: "more than 64 pointers",
            });
        }
        let compiled = list
            .iter()
            .enumerate()
            .map(|(index, pointer)| segments(pointer).map_err(|reason| Problem { index, reason }));
        Ok(Self {
            paths: compiled.collect::<Result<_, _>>()?,
        })
    }

    /// Those that lead into the document: all of them.
    pub fn all(&self) -> Active {
        match self.paths.len() {
            MOST => Active::MAX,
            count => (1 << count) - 1,
        }
    }

    /// What those `active` at a container of this depth (0 is the document) say of its member.
    pub fn member(&self, active: Active, depth: usize, key: &[u8]) -> Step {
        self.step(active, depth, |segment| segment.key.as_bytes() == key)
    }

    /// The same of an element of an array.
    pub fn element(&self, active: Active, depth: usize, index: usize) -> Step {
        self.step(active, depth, |segment| match segment.elements {
            Elements::None => false,
            Elements::One(one) => one == index,
            Elements::All => true,
        })
    }

    fn step(&self, mut active: Active, depth: usize, matches: impl Fn(&Segment) -> bool) -> Step {
        let mut step = Step {
            active: 0,
            ignored: false,
        };
        while active != 0 {
            let bit = active.trailing_zeros() as usize;
            active &= active - 1;
            let path = &self.paths[bit];
            if path.get(depth).is_some_and(&matches) {
                step.active |= 1 << bit;
                step.ignored |= path.len() == depth + 1;
            }
        }
        step
    }
}

fn segments(pointer: &str) -> Result<Vec<Segment>, &'static str> {
    if pointer.is_empty() {
        return Err("empty: it would leave out the whole body");
    }
    let Some(path) = pointer.strip_prefix('/') else {
        return Err("must begin with /");
    };
    path.split('/').map(segment).collect()
}

fn segment(escaped: &str) -> Result<Segment, &'static str> {
    let mut tildes = escaped.split('~').skip(1);
    if !tildes.all(|after| after.starts_with(['0', '1'])) {
        return Err("~ must be followed by 0 (for ~) or 1 (for /)");
    }
    // In this order, as RFC 6901 section 4 has it: ~01 is the text ~1.
    let key = escaped.replace("~1", "/").replace("~0", "~");
    Ok(Segment {
        elements: elements(&key),
        key: key.into(),
    })
}

fn elements(key: &str) -> Elements {
    let digits = key.bytes().all(|byte| byte.is_ascii_digit());
    match key.parse() {
        _ if key == "*" => Elements::All,
        Ok(index) if digits && (key == "0" || !key.starts_with('0')) => Elements::One(index),
        _ => Elements::None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<Pointers, Problem> {
        let list: Vec<String> = list.iter().map(|&text| text.into()).collect();
        Pointers::parse(&list)
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (
                vec!["/a", ""],
                1,
                "empty: it would leave out the whole body",
            ),
            (vec!["a/b"], 0, "must begin with /"),
            (
                vec!["/a~2b"],
                0,
                "~ must be followed by 0 (for ~) or 1 (for /)",
            ),
            (
                vec!["/a", "/b", "/c~"],
                2,
                "~ must be followed by 0 (for ~) or 1 (for /)",
            ),
            (
                vec!["/~~0"],
                0,
                "~ must be followed by 0 (for ~) or 1 (for /)",
            ),
            (vec!["/a"; 65], 64, "more than 64 pointers"),
        ];
        for (list, index, reason) in cases {
            assert_eq!(parse(&list), Err(Problem { index, reason }), "{list:?}");
        }
        assert_eq!(parse(&["/a"; 64]).unwrap().all(), u64::MAX);
        assert_eq!(parse(&[]).unwrap().all(), 0);
    }

    #[test]
    fn segments_match_members() {
        let cases = [
            ("/user", "user", true),
            ("/user", "users", false),
            ("/", "", true),
            ("/a~1b", "a/b", true),
            ("/a~0b", "a~b", true),
            ("/~01", "~1", true),
            ("/0", "0", true),
            ("/*", "*", true),
            ("/*", "a", false),
        ];
        for (pointer, key, ignored) in cases {
            let pointers = parse(&[pointer]).unwrap();
            let step = pointers.member(pointers.all(), 0, key.as_bytes());
            assert_eq!(step.ignored, ignored, "{pointer} {key}");
        }
    }

    #[test]
    fn segments_match_elements() {
        let cases = [
            ("/0", 0, true),
            ("/10", 10, true),
            ("/10", 1, false),
            ("/01", 1, false),
            ("/+1", 1, false),
            ("/-", 0, false),
            ("/*", 7, true),
            ("/99999999999999999999999", 0, false),
        ];
        for (pointer, index, ignored) in cases {
            let pointers = parse(&[pointer]).unwrap();
            let step = pointers.element(pointers.all(), 0, index);
            assert_eq!(step.ignored, ignored, "{pointer} {index}");
        }
    }

    #[test]
    fn only_the_pointers_that_lead_here_lead_on() {
        let pointers = parse(&["/a/x", "/a/*/y", "/b/x"]).unwrap();
        let a = pointers.member(pointers.all(), 0, b"a");
        assert_eq!((a.active, a.ignored), (0b011, false));
        assert!(pointers.member(a.active, 1, b"x").ignored);
        let element = pointers.element(a.active, 1, 3);
        assert_eq!((element.active, element.ignored), (0b010, false));
        assert!(pointers.member(element.active, 2, b"y").ignored);
        assert!(!pointers.member(element.active, 2, b"x").ignored);
    }
}
