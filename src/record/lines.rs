//! A head as it is kept: lines of `name: value`, names in lower case. One buffer is copied and
//! freed faster than the map that a head comes as, and that keeps the buffer it was read into.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

/// What stands between a name, which has no colon, and its value.
const BETWEEN: &[u8] = b": ";

/// The lines of a head. No value has a line end in it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Those of a head.
    pub fn of(head: &HeaderMap) -> Self {
        // Most names and values are short.
        let mut lines = Self(Vec::with_capacity(head.len() * 48));
        // A `HeaderValue` has no line end in it.
        for (name, value) in head {
            lines.push_as_it_is(name.as_str().as_bytes(), value.as_bytes());
        }
        lines
    }

    /// None yet, with room for so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a line. A line end in a value, which no head has, becomes a space.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(BETWEEN);
        self.end(value);
    }

    /// Ends a line that has its name.
    fn end(&mut self, value: &[u8]) {
        let start = self.0.len();
        self.0.extend_from_slice(value);
        if memchr::memchr(b'\n', value).is_some() {
            let line_ends = self.0[start..].iter_mut().filter(|byte| **byte == b'\n');
            line_ends.for_each(|byte| *byte = b' ');
        }
        self.0.push(b'\n');
    }

    fn push_as_it_is(&mut self, name: &[u8], value: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(BETWEEN);
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The same lines, with other values where there are any.
    pub fn with_values<'a>(
        &'a self,
        other: impl Fn(&'a [u8], &'a [u8]) -> Option<Cow<'a, [u8]>>,
    ) -> Self {
        let mut lines = Self(Vec::with_capacity(self.0.len() + 64));
        // What stays as it is between two other values is copied as one.
        let (mut copied, mut read) = (0, 0);
        for (name, value) in self.iter() {
            let begins = read + name.len() + BETWEEN.len();
            read = begins + value.len() + 1;
            if let Some(other) = other(name, value) {
                lines.0.extend_from_slice(&self.0[copied..begins]);
                lines.end(&other);
                copied = read;
            }
        }
        lines.0.extend_from_slice(&self.0[copied..read]);
        lines
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Self::read(&self.0)
    }

    /// Names and values of [`Self::bytes`].
    pub fn read(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest)?;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon..].strip_prefix(BETWEEN)?))
        })
    }

    /// The first value of a name, where it is text.
    pub fn get(&self, name: &HeaderName) -> Option<&str> {
        let begins = |at: &usize| *at == 0 || self.0[at - 1] == b'\n';
        let name = name.as_str().as_bytes();
        let at = memchr::memmem::find_iter(&self.0, name).find(|at| {
            // Not the end of another name, nor its beginning, nor a part of a value.
            begins(at) && self.0[at + name.len()..].starts_with(BETWEEN)
        })?;
        let (_, value) = Self::read(&self.0[at..]).next()?;
        std::str::from_utf8(value).ok()
    }

    /// All lines, each with its end.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::header::{CONTENT_TYPE, HeaderValue};

    use super::*;

    #[test]
    fn a_head_comes_back_line_by_line() {
        let mut head = HeaderMap::new();
        for (name, value) in [
            ("content-type", &b"a/b"[..]),
            ("x", b"b: c"),
            ("empty", b""),
            ("x", b"\xe4"),
        ] {
            let name = HeaderName::from_static(name);
            head.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let lines = Lines::of(&head);
        let found: Vec<_> = lines.iter().collect();
        let expected: Vec<_> = head
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(lines.get(&CONTENT_TYPE), Some("a/b"));
        for name in ["y", "type", "content", "b", "emp"] {
            assert_eq!(lines.get(&HeaderName::from_static(name)), None, "{name}");
        }
        assert_eq!(lines.get(&HeaderName::from_static("empty")), Some(""));
        assert_eq!(Lines::default().iter().count(), 0);
    }

    #[test]
    fn a_line_end_adds_no_line() {
        let mut lines = Lines::default();
        lines.push(b"a", b"b\nc: d");
        assert_eq!(
            lines.iter().collect::<Vec<_>>(),
            [(&b"a"[..], &b"b c: d"[..])]
        );
    }

    #[test]
    fn lines_with_other_values_are_the_same_but_for_those() {
        let lines = |lines: &[(&str, &str)]| {
            let mut all = Lines::default();
            let pairs = lines.iter();
            pairs.for_each(|(name, value)| all.push(name.as_bytes(), value.as_bytes()));
            all
        };
        let before = [("a", "1"), ("b", ""), ("c", "3: 3"), ("d", "4")];
        for changed in ["", "a", "b", "c", "d", "ab", "bd", "acd", "abcd"] {
            let other = |name: &[u8], value: &[u8]| {
                let is_changed = changed.as_bytes().contains(&name[0]);
                is_changed.then(|| [b"x\n", value].concat().into())
            };
            let expected = before.map(|(name, value)| match changed.contains(name) {
                true => (name, format!("x {value}")),
                false => (name, value.to_owned()),
            });
            let expected = expected.each_ref().map(|(name, value)| (*name, &**value));
            let found = lines(&before).with_values(other);
            assert_eq!(found, lines(&expected), "{changed}");
        }
        for damage in ["no colon\n", "c:d\n"] {
            let damaged = Lines(["a: b\n", damage, "e: f\n"].concat().into_bytes());
            assert_eq!(damaged.with_values(|_, _| None).bytes(), b"a: b\n");
        }
    }

    #[test]
    fn damage_ends_the_lines() {
        let damaged = [
            "a: b\nno colon\nc: d\n",
            "a: b\nc: d",
            "a: b\nc:\n",
            "a: b\nc:d\n",
        ];
        for bytes in damaged {
            assert_eq!(Lines::read(bytes.as_bytes()).count(), 1, "{bytes:?}");
        }
    }
}
