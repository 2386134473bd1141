//! A comment in a stream of events, put in front of the one that ends it.
//!
//! Clients stop reading at their dialect's last event, so what is to be told must come before it;
//! and what is told may stand in that very event. So this one is held until it is whole, and with
//! it what may be the beginning of one: a few bytes of an event that nobody can use yet. All other
//! bytes pass as they come, and none is changed. Where a dialect has no last event the comment comes
//! at the end of the stream, if that is the end of an event.
//!
//! Which lines begin a last event is the same for all dialects: hosts serve others' formats under
//! their own paths. Sources: API references of OpenAI (chat, Responses: streaming events), Anthropic
//! (streaming messages), Cohere (v2 chat, streaming).

use bytes::Bytes;

/// How the last events of streams begin.
const LAST: [&[u8]; 7] = [
    b"data: [DONE]",
    b"event: message_stop",
    b"event: message-end",
    b"event: response.completed",
    b"event: response.incomplete",
    b"event: response.failed",
    b"event: response.cancelled",
];
/// Largest last event that is held until it is whole, in bytes.
const MAX_HELD: usize = 1 << 20;

/// Finds the place of the comment in a stream that comes in pieces, cut anywhere.
#[derive(Debug, Default)]
pub struct Aside {
    place: Place,
    /// The line at the beginning of an event, without its end, while it may begin the last one.
    line: Vec<u8>,
    /// What has not passed: it is, or may be, the beginning of the last event.
    held: Vec<u8>,
    /// The last byte was CR: an LF that follows is a part of that line end.
    is_after_cr: bool,
    /// Something has come.
    has_begun: bool,
}

/// Where in the stream the last byte was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between events, or in a line that may begin the last one.
    #[default]
    Between,
    /// In a comment between events.
    Comment,
    /// In an event that is not the last, and there in a line or between two.
    Event { in_line: bool },
    /// In the last event, likewise.
    Last { in_line: bool },
    /// The comment has its place, or none.
    Behind,
}

/// What becomes of a byte.
enum Step {
    Passes,
    IsHeld,
    /// It is the end of the last event.
    Ends,
}

impl Aside {
    /// Takes the next piece, and returns what goes on. `comment` is asked for when its place is
    /// there; without one nothing is put in.
    pub fn push(&mut self, piece: Bytes, comment: impl FnOnce() -> Option<Bytes>) -> Bytes {
        if self.place == Place::Behind {
            return piece;
        }
        self.has_begun |= !piece.is_empty();
        // Where what is held begins in this piece; what was held before is in front of its start.
        let mut held_from = (!self.held.is_empty()).then_some(0);
        let mut is_same = held_from.is_some();
        for (at, byte) in piece.iter().enumerate() {
            match self.step(*byte) {
                Step::Passes => (held_from, is_same) = (None, false),
                Step::IsHeld => held_from = held_from.or(Some(at)),
                Step::Ends => {
                    let at = held_from.unwrap_or(at);
                    let comment = comment().unwrap_or_default();
                    self.place = Place::Behind;
                    return match is_same {
                        true => joined(&[&comment, &std::mem::take(&mut self.held), &piece]),
                        false => {
                            let held = std::mem::take(&mut self.held);
                            joined(&[&held, &piece[..at], &comment, &piece[at..]])
                        }
                    };
                }
            }
        }
        self.keep(piece, held_from, is_same)
    }

    /// Keeps a piece from `from` on; `is_same`: it goes on with what was held before.
    fn keep(&mut self, piece: Bytes, from: Option<usize>, is_same: bool) -> Bytes {
        let before = match is_same {
            true => Vec::new(),
            false => std::mem::take(&mut self.held),
        };
        let from = from.unwrap_or(piece.len());
        self.held.extend_from_slice(&piece[from..]);
        if self.held.len() > MAX_HELD {
            self.place = Place::Behind;
            return joined(&[&before, &piece[..from], &std::mem::take(&mut self.held)]);
        }
        match before.is_empty() {
            true => piece.slice(..from),
            false => joined(&[&before, &piece[..from]]),
        }
    }

    /// The stream has ended as it should: what is left of it, with the comment if it is not in yet.
    pub fn finish(&mut self, comment: impl FnOnce() -> Option<Bytes>) -> Bytes {
        let place = std::mem::replace(&mut self.place, Place::Behind);
        let held = std::mem::take(&mut self.held);
        let has_place = match place {
            Place::Between => self.line.is_empty() || begins_last(&self.line),
            Place::Last { .. } => true,
            Place::Comment | Place::Event { .. } | Place::Behind => false,
        };
        match has_place && self.has_begun {
            true => joined(&[&comment().unwrap_or_default(), &held]),
            false => held.into(),
        }
    }

    /// The stream has broken off: what was held of it. There is no comment any more.
    pub fn let_go(&mut self) -> Bytes {
        self.place = Place::Behind;
        std::mem::take(&mut self.held).into()
    }

    fn step(&mut self, byte: u8) -> Step {
        let goes_with_cr = self.is_after_cr && byte == b'\n';
        self.is_after_cr = byte == b'\r';
        if goes_with_cr {
            return match self.place {
                Place::Last { .. } => Step::IsHeld,
                _ => Step::Passes,
            };
        }
        let ends_line = matches!(byte, b'\n' | b'\r');
        match self.place {
            Place::Between if ends_line => self.end_first_line(),
            Place::Between => self.read_first_line(byte),
            Place::Comment => {
                if ends_line {
                    self.place = Place::Between;
                }
                Step::Passes
            }
            Place::Event { in_line } => {
                self.place = match (ends_line, in_line) {
                    (true, false) => Place::Between,
                    (ends_line, _) => Place::Event {
                        in_line: !ends_line,
                    },
                };
                Step::Passes
            }
            Place::Last { in_line: false } if ends_line => Step::Ends,
            Place::Last { .. } => {
                self.place = Place::Last {
                    in_line: !ends_line,
                };
                Step::IsHeld
            }
            Place::Behind => Step::Passes,
        }
    }

    fn read_first_line(&mut self, byte: u8) -> Step {
        self.line.push(byte);
        if LAST.iter().any(|last| may_begin(last, &self.line)) {
            return Step::IsHeld;
        }
        self.place = match self.line[0] {
            b':' => Place::Comment,
            _ => Place::Event { in_line: true },
        };
        self.line.clear();
        Step::Passes
    }

    fn end_first_line(&mut self) -> Step {
        let is_last = begins_last(&self.line);
        let is_empty = self.line.is_empty();
        self.line.clear();
        match (is_last, is_empty) {
            (true, _) => {
                self.place = Place::Last { in_line: false };
                Step::IsHeld
            }
            (false, true) => Step::Passes,
            (false, false) => {
                self.place = Place::Event { in_line: false };
                Step::Passes
            }
        }
    }
}

fn begins_last(line: &[u8]) -> bool {
    let mut last = LAST.iter();
    last.any(|last| last.len() == line.len() + missing_blank(line) && may_begin(last, line))
}

/// Whether `line` is the beginning of `last`, with the blank behind its colon or without.
fn may_begin(last: &[u8], line: &[u8]) -> bool {
    if missing_blank(line) == 0 {
        return last.starts_with(line);
    }
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (name, value) = line.split_at(colon + 1);
    last.strip_prefix(name)
        .and_then(|last| last.strip_prefix(b" "))
        .is_some_and(|last| last.starts_with(value))
}

/// 1 where no blank follows the colon, else 0.
fn missing_blank(line: &[u8]) -> usize {
    let colon = line.iter().position(|byte| *byte == b':');
    let behind = colon.and_then(|colon| line.get(colon + 1));
    usize::from(behind.is_some_and(|byte| *byte != b' '))
}

fn joined(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COMMENT: &[u8] = b": c\n\n";

    fn comment() -> Option<Bytes> {
        Some(Bytes::from_static(COMMENT))
    }

    /// What becomes of a stream in these pieces that ends as it should.
    fn passed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut aside = Aside::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&aside.push(Bytes::copy_from_slice(piece), comment));
        }
        out.extend_from_slice(&aside.finish(comment));
        String::from_utf8(out).unwrap()
    }

    /// Streams; `|` is the place of the comment.
    const STREAMS: [&str; 24] = [
        "data: {\"a\":1}\n\n|data: [DONE]\n\n",
        "data: {\"a\":1}\r\n\r\n|data: [DONE]\r\n\r\n",
        "data: {\"a\":1}\r\r|data: [DONE]\r\r",
        "data:{}\n\n|data:[DONE]\n\n",
        "data: {}\n\n|data: [DONE]\n",
        "data: {}\n\n|data: [DONE]",
        "data: {}\n\n|data: [DONE]\n\ndata: [DONE]\n\n",
        "|data: [DONE]\n\n",
        "data: [DONE!]\n\ndata: [DONE\n\n\n|data: [DONE]\n\n",
        "data: a\ndata: [DONE]\n\n|data: [DONE]\n\n",
        ": ping\n\n: ping\n|data: [DONE]\n\n",
        "event: message_start\ndata: {}\n\nevent: message_delta\ndata: {}\n\n|event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        "event: message_delta\r\ndata: {}\r\n\r\n|event: message_stop\r\ndata: {}\r\n\r\n",
        "event: message-start\ndata: {}\n\n|event: message-end\ndata: {\"usage\":1}\n\ndata: [DONE]\n\n",
        "event: response.created\ndata: {}\n\n|event: response.completed\ndata: {\"usage\":1}\n\n",
        "|event: response.incomplete\ndata: {}\ndata: {}\n\n",
        "|event: response.failed\ndata: {}\n\nrest",
        // Without a last event: at the end, where that is one.
        "data: {\"a\":1}\n\n|",
        "data: {\"a\":1}\r\n\r\n|",
        "data: {}\n\n: ping\n|",
        "data: {\"a\":1}\n",
        "data: {\"a\":1}",
        "data: {}\n\nevent: message_sto",
        "",
    ];

    #[test]
    fn the_comment_has_the_same_place_however_the_stream_is_cut() {
        for stream in STREAMS {
            let expected = stream.replace('|', std::str::from_utf8(COMMENT).unwrap());
            let stream = stream.replace('|', "");
            let bytes = stream.as_bytes();
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(passed([head, tail]), expected, "{stream:?} cut at {cut}");
            }
            for size in 1..=9 {
                assert_eq!(passed(bytes.chunks(size)), expected, "{stream:?} by {size}");
            }
        }
    }

    #[test]
    fn nothing_is_held_but_what_may_be_the_last_event() {
        let mut aside = Aside::default();
        for (piece, passes) in [
            ("data: {\"a\":1}\n\n", "data: {\"a\":1}\n\n"),
            ("data: ", ""),
            ("{\"a\"", "data: {\"a\""),
            (":2}\n\nda", ":2}\n\n"),
            ("ta: {}\n\ndata: [D", "data: {}\n\n"),
            ("ATA]\n\n", "data: [DATA]\n\n"),
            (": pi", ": pi"),
            ("ng\n", "ng\n"),
            ("event: response.comp", ""),
            ("leted\ndata: {", ""),
            ("}\n", ""),
        ] {
            let out = aside.push(Bytes::from(piece), comment);
            assert_eq!(out, passes, "{piece:?}");
        }
        let out = aside.push(Bytes::from("\nx"), comment);
        assert_eq!(out, ": c\n\nevent: response.completed\ndata: {}\n\nx");
        assert_eq!(
            aside.push(Bytes::from("data: [DONE]"), comment),
            "data: [DONE]"
        );
    }

    #[test]
    fn a_piece_that_passes_is_not_copied() {
        let mut aside = Aside::default();
        let piece = Bytes::from("data: {}\n\n".repeat(9));
        let out = aside.push(piece.clone(), comment);
        assert_eq!((out.as_ptr(), out.len()), (piece.as_ptr(), piece.len()));
    }

    #[test]
    fn what_is_held_goes_out_as_it_is_when_the_stream_breaks_off() {
        let mut aside = Aside::default();
        assert_eq!(
            aside.push(Bytes::from("data: {}\n\ndata: [DONE]"), comment),
            "data: {}\n\n"
        );
        assert_eq!(aside.let_go(), "data: [DONE]");
        assert_eq!(aside.finish(comment), "");
    }

    #[test]
    fn a_last_event_that_is_too_large_passes_without_a_comment() {
        let start = "event: response.completed\ndata: ";
        let stream = format!("{start}{}\n\n", "x".repeat(2 * MAX_HELD));
        for size in [1000, 70_000, stream.len()] {
            let out = passed(stream.as_bytes().chunks(size));
            // One that comes in one piece delays nothing.
            assert_eq!(out.starts_with(": c"), size == stream.len(), "{size}");
            assert_eq!(out.trim_start_matches(": c\n\n"), stream, "{size}");
        }
    }

    #[test]
    fn without_a_comment_nothing_is_put_in() {
        let mut aside = Aside::default();
        let stream = Bytes::from("data: {}\n\ndata: [DONE]\n\n");
        assert_eq!(aside.push(stream.clone(), || None), stream);
        assert_eq!(aside.finish(|| None), "");
    }
}
