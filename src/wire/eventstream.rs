//! The AWS event stream encoding: where a message ends, and how an exception looks.
//!
//! Layout (AWS, "Event stream encoding"): total length and headers length, each a big-endian
//! u32, CRC32 of these eight bytes, headers, payload, CRC32 of everything before it.

/// Bytes of the prelude that hold the total length.
const LENGTH_BYTES: u8 = 4;
/// Bytes before the headers: both lengths and their checksum.
const PRELUDE: usize = 12;
/// Bytes of the checksum at a message's end.
const CHECKSUM: usize = 4;
/// Type of a string header value.
const STRING: u8 = 7;

/// Knows whether a stream stopped between two messages.
#[derive(Debug, Default, Clone)]
pub struct Boundary {
    /// Bytes of the length field read so far, 0 to 4.
    read: u8,
    length: u32,
    /// Bytes of the message still to come, once its length is known.
    remaining: u64,
}

impl Boundary {
    /// Looks at bytes that pass.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.remaining > 0 {
                let step = self.remaining.min(bytes.len() as u64);
                self.remaining -= step;
                bytes = &bytes[step as usize..];
                continue;
            }
            self.length = (self.length << 8) | u32::from(bytes[0]);
            self.read += 1;
            bytes = &bytes[1..];
            if self.read == LENGTH_BYTES {
                // A length that cannot be is taken as one that never ends.
                self.remaining = match u64::from(self.length).checked_sub(u64::from(LENGTH_BYTES)) {
                    Some(rest) if rest > 0 => rest,
                    _ => u64::MAX,
                };
                self.read = 0;
                self.length = 0;
            }
        }
    }

    /// Whether a message of our own can begin here.
    pub fn is_between_messages(&self) -> bool {
        self.remaining == 0 && self.read == 0
    }
}

/// The payloads of the messages in a complete body, as far as it is well formed. Checksums
/// are not looked at.
pub fn payloads(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let total = word(body, 0)?;
        let headers = word(body, 4)?;
        let (message, rest) = body.split_at_checked(total)?;
        body = rest;
        message.get(PRELUDE.checked_add(headers)?..total.checked_sub(CHECKSUM)?)
    })
}

/// Finds payloads in a stream that comes in pieces, cut anywhere: what [`payloads`] does for a
/// complete body. Keeps an unfinished message.
#[derive(Debug)]
pub struct Reader {
    message: Vec<u8>,
    /// Bytes of a message that is left out, still to come.
    skip: usize,
    /// What came is no event stream: nothing more can be found.
    is_broken: bool,
    most: usize,
}

impl Reader {
    /// Leaves out messages larger than `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            message: Vec::new(),
            skip: 0,
            is_broken: false,
            most,
        }
    }

    /// Takes the next piece; `payload` is called with that of each message that it completes.
    pub fn push(&mut self, mut piece: &[u8], payload: &mut impl FnMut(&[u8])) {
        while !piece.is_empty() && !self.is_broken {
            let skipped = self.skip.min(piece.len());
            self.skip -= skipped;
            piece = &piece[skipped..];
            let wanted = self.wanted().min(piece.len());
            self.message.extend_from_slice(&piece[..wanted]);
            piece = &piece[wanted..];
            self.read(payload);
        }
    }

    /// Bytes that it keeps.
    pub fn held(&self) -> usize {
        self.message.capacity()
    }

    /// Bytes until the length of the message is known, then until its end.
    fn wanted(&self) -> usize {
        let end = word(&self.message, 0).unwrap_or(PRELUDE);
        end.max(PRELUDE).saturating_sub(self.message.len())
    }

    /// Reads the message if it is whole; looks at its length as soon as that is known.
    fn read(&mut self, payload: &mut impl FnMut(&[u8])) {
        let Some(length) = word(&self.message, 0).filter(|_| self.message.len() >= PRELUDE) else {
            return;
        };
        if length < PRELUDE + CHECKSUM {
            self.is_broken = true;
        } else if length > self.most {
            self.skip = length - self.message.len();
            self.message.clear();
        } else if length == self.message.len() {
            match payloads(&self.message).next() {
                Some(found) => payload(found),
                None => self.is_broken = true,
            }
            self.message.clear();
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*word)).ok()
}

/// An exception message, which AWS SDKs raise as an error of that name.
pub fn exception(name: &str, message: &str) -> Vec<u8> {
    let payload = serde_json::json!({ "message": message }).to_string();
    let mut headers = Vec::new();
    for (key, value) in [
        (":message-type", "exception"),
        (":exception-type", name),
        (":content-type", "application/json"),
    ] {
        headers.push(key.len() as u8);
        headers.extend_from_slice(key.as_bytes());
        headers.push(STRING);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = PRELUDE + headers.len() + payload.len() + CHECKSUM;
    let mut frame = Vec::with_capacity(total);
    frame.extend_from_slice(&(total as u32).to_be_bytes());
    frame.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_found_however_the_stream_is_cut() {
        let one = exception("modelStreamErrorException", "no");
        let stream = [one.clone(), one.clone()].concat();
        for cut in 0..=stream.len() {
            let mut boundary = Boundary::default();
            boundary.feed(&stream[..cut]);
            let between = cut == 0 || cut == one.len() || cut == stream.len();
            assert_eq!(boundary.is_between_messages(), between, "cut at {cut}");
            boundary.feed(&stream[cut..]);
            assert!(boundary.is_between_messages());
        }
        let mut boundary = Boundary::default();
        stream.chunks(1).for_each(|byte| boundary.feed(byte));
        assert!(boundary.is_between_messages());
    }

    #[test]
    fn nonsense_is_never_a_boundary() {
        let mut boundary = Boundary::default();
        boundary.feed(&[0, 0, 0, 0]);
        assert!(!boundary.is_between_messages());
        boundary.feed(&[1; 1000]);
        assert!(!boundary.is_between_messages());
    }

    #[test]
    fn payloads_are_found_as_far_as_there_are_any() {
        let one = exception("a", "one");
        let stream = [one.clone(), exception("b", "two")].concat();
        let found: Vec<_> = payloads(&stream).collect();
        assert_eq!(found, [br#"{"message":"one"}"#, br#"{"message":"two"}"#]);
        for cut in 0..stream.len() {
            let whole = usize::from(cut >= one.len());
            assert_eq!(payloads(&stream[..cut]).count(), whole, "cut at {cut}");
        }
        for nonsense in [&[0; 64][..], &[255; 64], &[0, 0, 0, 15, 0, 0, 0, 9], b"{}"] {
            assert_eq!(payloads(nonsense).count(), 0);
        }
    }

    #[test]
    fn a_reader_finds_the_same_payloads_however_the_stream_is_cut() {
        let large = exception("large", &"x".repeat(200));
        let stream = [exception("a", "one"), large, exception("b", "two")].concat();
        for most in [150, 1000] {
            let all = payloads(&stream).map(<[u8]>::to_vec);
            let expected: Vec<_> = all.filter(|found| found.len() < most).collect();
            for size in 1..=stream.len() {
                let (mut reader, mut found) = (Reader::new(most), Vec::new());
                for piece in stream.chunks(size) {
                    reader.push(piece, &mut |payload| found.push(payload.to_vec()));
                }
                assert_eq!(found, expected, "{size}");
            }
        }
    }

    #[test]
    fn a_reader_finds_nothing_in_nonsense() {
        for nonsense in [&[0; 64][..], &[255; 64], &[0, 0, 0, 15, 0, 0, 0, 9], b"{}"] {
            let mut reader = Reader::new(1 << 20);
            for byte in nonsense.chunks(1) {
                reader.push(byte, &mut |_| panic!("{nonsense:?}"));
            }
            assert!(reader.held() < 100);
        }
    }

    #[test]
    fn an_exception_has_valid_lengths_and_checksums() {
        let frame = exception("internalServerException", "broke off");
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, frame.len());
        assert_eq!(word(8), crc32fast::hash(&frame[..8]));
        assert_eq!(
            word(frame.len() - 4),
            crc32fast::hash(&frame[..frame.len() - 4])
        );
        let payload = &frame[12 + word(4) as usize..frame.len() - 4];
        assert_eq!(payload, br#"{"message":"broke off"}"#);
    }
}
