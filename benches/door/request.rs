//! Requests as an SDK sends them, built once as bytes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Range;

use crate::Outcome;
use crate::answer::CacheStatus;
use crate::figures::MIB;
use crate::legs::Leg;

/// Text with what real prompts have: words, line ends, quotes, characters beyond ASCII.
const PARAGRAPH: &str = concat!(
    "The committee met on Tuesday to weigh the proposal, and after an hour it had settled ",
    "on nothing but the date of the next meeting.\\n\\nShe said: \\\"We could ask the people ",
    "who do the work.\\\" Nobody had thought of it; the caf\u{e9} downstairs had. Costs rose by ",
    "\\u20ac1,250 (see C:\\\\reports\\\\q3) while revenue stayed where it was, at 12.5 percent. ",
);

/// What other texts are made of.
const WORDS: [&str; 24] = [
    "the",
    "of",
    "and",
    "to",
    "we",
    "that",
    "it",
    "for",
    "committee",
    "proposal",
    "settled",
    "meeting",
    "revenue",
    "because",
    "percent",
    "asked",
    "people",
    "work",
    "weather",
    "before",
    "translate",
    "summary",
    "between",
    "answer",
];

/// How many texts a varied load has at most: far more than a log store compresses together.
const VARIANTS: usize = 512;
/// What the texts of a varied load take at most, in bytes.
const VARIED: usize = 64 * MIB;

/// A stream that the upstream is asked for.
#[derive(Debug, Clone, Copy)]
pub struct StreamShape {
    /// How many events, before the terminator.
    pub events: u32,
    /// Pause between two events, in milliseconds.
    pub interval_ms: u64,
}

impl StreamShape {
    /// The request header that carries it to the upstream.
    pub const HEADER: &'static str = "x-bench-stream";

    /// Reads the header's value.
    pub fn parse(value: &str) -> Option<Self> {
        let (events, interval) = value.split_once('/')?;
        Some(Self {
            events: events.parse().ok()?,
            interval_ms: interval.parse().ok()?,
        })
    }
}

/// Every prompt begins with this and a number, so that requests of equal length can differ.
const QUESTION: &str = "Question ";
/// Digits of that number: any 64-bit number has room.
const DIGITS: usize = 20;

/// Which numbers the prompts of a load have, one after the other and from the start again.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

impl Numbers {
    /// The same one always.
    pub const ONE: Self = Self { first: 0, count: 1 };
}

/// What a load sends, and what it expects.
#[derive(Debug)]
pub struct Questions {
    /// Its requests, in turn; all have one length.
    pub requests: Vec<Vec<u8>>,
    /// What their numbers are.
    pub numbers: Numbers,
    /// What every answer must say of the cache; none when anything will do.
    pub expected: Option<CacheStatus>,
    digits: Range<usize>,
}

impl Questions {
    /// Chat requests with JSON bodies of exactly `size` bytes.
    pub fn new(leg: &Leg, size: usize, numbers: Numbers, expected: Option<CacheStatus>) -> Self {
        Self::of(vec![plain(leg, size)], numbers, expected)
    }

    fn of(requests: Vec<Vec<u8>>, numbers: Numbers, expected: Option<CacheStatus>) -> Self {
        let found = memchr::memmem::find(&requests[0], QUESTION.as_bytes());
        let start = found.expect("every prompt begins with it") + QUESTION.len();
        Self {
            requests,
            numbers,
            expected,
            digits: start..start + DIGITS,
        }
    }

    /// The same request always, and nothing is cached.
    pub fn same(leg: &Leg, size: usize) -> Self {
        Self::new(leg, size, Numbers::ONE, Some(CacheStatus::Unsaid))
    }

    /// Texts that compress as prose does, alone and together: what is sent again and again
    /// would cost a log store next to nothing.
    pub fn varied(leg: &Leg, size: usize) -> Self {
        let requests = texts(leg, size, "");
        Self::of(requests, Numbers::ONE, Some(CacheStatus::Unsaid))
    }

    /// The same from a user who brings `key`, for a cache that has none of the answers.
    pub fn governed(leg: &Leg, size: usize, key: &str, numbers: Numbers) -> Self {
        let headers = format!(
            "cf-aig-authorization: Bearer {key}\r\ncf-aig-metadata: {{\"user\":\"ann\"}}\r\n"
        );
        let requests = texts(leg, size, &headers);
        Self::of(requests, numbers, Some(leg.says(CacheStatus::Miss)))
    }

    /// An error when an answer says another thing of the cache than it must.
    pub fn check(&self, said: CacheStatus) -> Outcome<()> {
        match self.expected {
            Some(expected) if said != expected => {
                Err(format!("cache status {said:?} instead of {expected:?}"))
            }
            _ => Ok(()),
        }
    }

    /// One of them, to be made another by [`Self::turn`].
    pub fn first(&self) -> Vec<u8> {
        self.requests[0].clone()
    }

    /// Makes one of the requests the one whose turn it is.
    pub fn turn(&self, turn: u64, request: &mut [u8]) {
        if self.requests.len() > 1 {
            let variant = turn % self.requests.len() as u64;
            request.copy_from_slice(&self.requests[variant as usize]);
        }
        let mut number = self.numbers.first + turn % self.numbers.count;
        for digit in request[self.digits.clone()].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
}

/// A chat request with a JSON body of exactly `size` bytes.
pub fn plain(leg: &Leg, size: usize) -> Vec<u8> {
    let body = body(size, "", prose);
    whole(leg.address, leg.path, "", &body)
}

/// Chat requests with `headers` whose texts differ.
fn texts(leg: &Leg, size: usize, headers: &str) -> Vec<Vec<u8>> {
    let mut words = Words(1);
    let request = |_| {
        let body = body(size, "", |room| words.text(room));
        whole(leg.address, leg.path, headers, &body)
    };
    let count = (VARIED / size).clamp(1, VARIANTS);
    (0..count).map(request).collect()
}

/// A small chat request for a stream.
pub fn streamed(leg: &Leg, shape: StreamShape) -> Vec<u8> {
    let header = format!(
        "{}: {}/{}\r\n",
        StreamShape::HEADER,
        shape.events,
        shape.interval_ms
    );
    whole(
        leg.address,
        leg.path,
        &header,
        &body(1024, r#","stream":true"#, prose),
    )
}

fn whole(host: SocketAddr, path: &str, extra: &str, body: &str) -> Vec<u8> {
    let mut text = String::with_capacity(body.len() + 1024);
    let key = "sk-proj-".to_owned() + &"benchmark".repeat(6);
    write!(
        text,
        "POST {path} HTTP/1.1\r\n\
         Host: {host}\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         Connection: keep-alive\r\n\
         Accept: application/json\r\n\
         Content-Type: application/json\r\n\
         User-Agent: OpenAI/Python 2.8.1\r\n\
         X-Stainless-Lang: python\r\n\
         X-Stainless-Package-Version: 2.8.1\r\n\
         X-Stainless-OS: Linux\r\n\
         X-Stainless-Arch: x64\r\n\
         X-Stainless-Runtime: CPython\r\n\
         X-Stainless-Runtime-Version: 3.12.3\r\n\
         X-Stainless-Async: false\r\n\
         x-stainless-retry-count: 0\r\n\
         x-stainless-read-timeout: 600\r\n\
         Authorization: Bearer {key}\r\n\
         {extra}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("writing to a string cannot fail");
    text.into_bytes()
}

/// The same paragraph again and again, and what is missing.
fn prose(room: usize) -> String {
    let mut text = PARAGRAPH.repeat(room / PARAGRAPH.len());
    text.extend(std::iter::repeat_n('x', room - text.len()));
    text
}

/// Words and numbers by chance, the same in every run.
#[derive(Debug)]
pub struct Words(pub u64);

impl Words {
    /// ASCII of exactly `room` bytes that needs no escapes in JSON.
    pub fn text(&mut self, room: usize) -> String {
        let mut text = String::with_capacity(room + 16);
        while text.len() < room {
            let chance = self.next();
            text.push_str(WORDS[(chance % WORDS.len() as u64) as usize]);
            if chance >> 62 == 0 {
                write!(text, " {:x}", (chance >> 20) & 0xff_ffff)
                    .expect("writing to a string cannot fail");
            }
            text.push(' ');
        }
        text.truncate(room);
        text
    }

    /// Marsaglia's xorshift.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn body(size: usize, extra: &str, mut filler: impl FnMut(usize) -> String) -> String {
    let mut text = String::with_capacity(size);
    text.push_str(r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are a careful assistant."},{"role":"user","content":""#);
    write!(text, "{QUESTION}{:0DIGITS$}: ", 0).expect("writing to a string cannot fail");
    let end = format!(r#""}}],"temperature":0.7,"max_tokens":512{extra}}}"#);
    let room = size.saturating_sub(text.len() + end.len());
    text.push_str(&filler(room));
    text.push_str(&end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_exactly_the_size_asked_for() {
        for size in [1024, 32 * 1024, 1024 * 1024] {
            let body = body(size, "", prose);
            assert_eq!(body.len(), size);
            assert!(body.starts_with('{') && body.ends_with("512}"));
        }
    }

    #[test]
    fn questions_differ_in_their_number_only() {
        let leg = crate::legs::direct(([127, 0, 0, 1], 80).into());
        let numbers = Numbers {
            first: 998,
            count: 3,
        };
        let questions = Questions::new(&leg, 1024, numbers, None);
        let request = |turn| {
            let mut request = questions.first();
            questions.turn(turn, &mut request);
            String::from_utf8(request).expect("text")
        };
        let first = "Question 00000000000000000998: ";
        assert!(request(0).contains(first));
        assert_eq!(request(2), request(0).replace("0998", "1000"));
        assert_eq!(request(3), request(0));
    }

    #[test]
    fn varied_questions_differ_and_have_one_length() {
        let leg = crate::legs::direct(([127, 0, 0, 1], 80).into());
        let questions = Questions::varied(&leg, 2048);
        let same = Questions::same(&leg, 2048);
        let all: std::collections::HashSet<_> = questions.requests.iter().collect();
        assert_eq!(all.len(), VARIANTS);
        assert!(
            all.iter()
                .all(|request| request.len() == same.first().len())
        );
        let mut request = questions.first();
        questions.turn(1, &mut request);
        assert_eq!(request, questions.requests[1]);
    }

    #[test]
    fn governed_questions_bring_a_key_and_differ_also_where_texts_come_again() {
        let leg = crate::legs::direct(([127, 0, 0, 1], 80).into());
        let numbers = Numbers {
            first: 7,
            count: u64::MAX,
        };
        let questions = Questions::governed(&leg, MIB, "tg-1-x", numbers);
        let count = questions.requests.len();
        assert_eq!(count, VARIED / MIB);
        let (mut one, mut again) = (questions.first(), questions.first());
        questions.turn(1, &mut one);
        questions.turn(1 + count as u64, &mut again);
        let differ = one.iter().zip(&again).filter(|(one, again)| one != again);
        assert_eq!(differ.count(), 2, "08 and 72");
        let text = String::from_utf8(one).expect("text");
        assert!(text.contains("\r\ncf-aig-authorization: Bearer tg-1-x\r\n"));
        assert!(text.contains("\r\ncf-aig-metadata: {\"user\":\"ann\"}\r\n"));
    }

    #[test]
    fn the_stream_header_is_read_as_written() {
        let shape = StreamShape::parse("20/100").expect("well-formed");
        assert_eq!((shape.events, shape.interval_ms), (20, 100));
        assert!(StreamShape::parse("20").is_none());
    }
}
