//! What comes back: as little parsing as proves that an answer is whole.

use crate::Outcome;
use crate::upstream::ANSWER_LENGTH;

/// A response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head itself.
    pub length: usize,
    /// How the body ends.
    pub body: Framing,
    /// Whether it came out of a cache.
    pub cache: CacheStatus,
}

/// What an answer says of a cache.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Nothing: there is none.
    #[default]
    Unsaid,
    /// It came out of the cache.
    Hit,
    /// The provider was asked.
    Miss,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
}

/// Parses a head with status 200; nothing while it is incomplete.
pub fn head(bytes: &[u8]) -> Outcome<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|e| format!("response head: {e}"))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    if response.code != Some(200) {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]);
        return Err(format!("answered {}: {text}", response.code.unwrap_or(0)));
    }
    let body = response.headers.iter().find_map(framing);
    let body = body.ok_or("response without a length")?;
    let cache = response.headers.iter().find_map(cache_status);
    Ok(Some(Head {
        length,
        body,
        cache: cache.unwrap_or_default(),
    }))
}

fn cache_status(header: &httparse::Header) -> Option<CacheStatus> {
    if !header.name.eq_ignore_ascii_case("cf-aig-cache-status") {
        return None;
    }
    match header.value {
        b"HIT" => Some(CacheStatus::Hit),
        b"MISS" => Some(CacheStatus::Miss),
        _ => None,
    }
}

fn framing(header: &httparse::Header) -> Option<Framing> {
    if header.name.eq_ignore_ascii_case("content-length") {
        return std::str::from_utf8(header.value)
            .ok()?
            .parse()
            .ok()
            .map(Framing::Length);
    }
    let chunked = header.name.eq_ignore_ascii_case("transfer-encoding")
        && header.value.eq_ignore_ascii_case(b"chunked");
    chunked.then_some(Framing::Chunked)
}

/// What the plain answer says of a cache once `bytes` are all of it; an error when they are
/// something else.
pub fn whole(bytes: &[u8]) -> Outcome<Option<CacheStatus>> {
    let Some(head) = head(bytes)? else {
        return Ok(None);
    };
    if head.body != Framing::Length(ANSWER_LENGTH) {
        return Err(format!("answer of another length: {:?}", head.body));
    }
    let whole = head.length + ANSWER_LENGTH;
    if bytes.len() > whole || (bytes.len() == whole && bytes[whole - 1] != b'}') {
        return Err("answer with another body".into());
    }
    Ok((bytes.len() == whole).then_some(head.cache))
}

/// Takes the chunked framing off a body, in pieces of any size.
#[derive(Debug, Default)]
pub struct Dechunker {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size line; the size so far, and whether digits may still follow.
    #[default]
    SizeStart,
    Size(usize, bool),
    Data(usize),
    /// In the line end after data.
    DataEnd,
    /// In the lines after the last chunk; whether the current one is empty so far.
    Trailer(bool),
    End,
}

impl Dechunker {
    /// Appends the data in `bytes` to `out`; true once the last chunk has come.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Outcome<bool> {
        while let Some((&first, rest)) = bytes.split_first() {
            if let State::Data(left) = self.state {
                let (data, after) = bytes.split_at(left.min(bytes.len()));
                out.extend_from_slice(data);
                bytes = after;
                self.state = match left - data.len() {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
            } else {
                self.state = self.step(first)?;
                bytes = rest;
            }
        }
        Ok(self.state == State::End)
    }

    fn step(&self, byte: u8) -> Outcome<State> {
        let digit = char::from(byte).to_digit(16).map(|d| d as usize);
        match (self.state, byte, digit) {
            (State::SizeStart, _, Some(digit)) => Ok(State::Size(digit, true)),
            (State::Size(size, true), _, Some(digit)) => Ok(State::Size(size * 16 + digit, true)),
            (State::Size(0, _), b'\n', _) => Ok(State::Trailer(true)),
            (State::Size(size, _), b'\n', _) => Ok(State::Data(size)),
            (State::Size(size, _), _, _) => Ok(State::Size(size, false)),
            (State::DataEnd, b'\r', _) => Ok(State::DataEnd),
            (State::DataEnd, b'\n', _) => Ok(State::SizeStart),
            (State::Trailer(_), b'\r', _) => Ok(self.state),
            (State::Trailer(true), b'\n', _) => Ok(State::End),
            (State::Trailer(false), b'\n', _) => Ok(State::Trailer(true)),
            (State::Trailer(_), _, _) => Ok(State::Trailer(false)),
            (state, byte, _) => Err(format!("byte {byte:#x} in chunked framing at {state:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMED: &[u8] = b"5\r\nhello\r\n0b;x=y\r\n, wide worl\r\n1\r\nd\r\n0\r\nt: v\r\n\r\n";

    #[test]
    fn every_split_gives_the_same_data() {
        for at in 0..=FRAMED.len() {
            let (mut dechunker, mut out) = (Dechunker::default(), Vec::new());
            let first = dechunker.feed(&FRAMED[..at], &mut out).expect("framing");
            let last = dechunker.feed(&FRAMED[at..], &mut out).expect("framing");
            assert_eq!((first, last), (at == FRAMED.len(), true));
            assert_eq!(out, b"hello, wide world");
        }
    }

    #[test]
    fn broken_framing_is_an_error() {
        let mut out = Vec::new();
        assert!(Dechunker::default().feed(b"zz\r\n", &mut out).is_err());
        assert!(Dechunker::default().feed(b"1\r\nab", &mut out).is_err());
        assert!(
            Dechunker::default()
                .feed(b"0\r\n\r\nmore", &mut out)
                .is_err()
        );
    }

    #[test]
    fn only_the_whole_expected_answer_is_whole() {
        let body = "x".repeat(ANSWER_LENGTH - 1) + "}";
        let good = format!("HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{body}");
        assert_eq!(whole(good.as_bytes()), Ok(Some(CacheStatus::Unsaid)));
        assert_eq!(whole(&good.as_bytes()[..good.len() - 1]), Ok(None));
        assert_eq!(whole(&good.as_bytes()[..20]), Ok(None));
        assert!(whole((good.clone() + "x").as_bytes()).is_err());
        assert!(whole(good.replace("200", "502").as_bytes()).is_err());
        assert!(whole(good.replace("600", "601").as_bytes()).is_err());
        let hit = good.replace("\r\n\r\n", "\r\ncf-aig-cache-status: HIT\r\n\r\n");
        assert_eq!(whole(hit.as_bytes()), Ok(Some(CacheStatus::Hit)));
    }
}
