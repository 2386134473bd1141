//! What a collector says of a batch that it took: whether it threw a part of it away.
//!
//! `ExportTraceServiceResponse` and `ExportMetricsServiceResponse` are alike:
//! `{ partial_success = 1: { rejected = 1: int64, error_message = 2: string } }`. What cannot be
//! read says nothing: the batch was taken.

use serde::Deserialize;

use super::Encoding;

/// What of a batch was not taken.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Spans or points that were thrown away.
    pub rejected: u64,
    /// Why, or a warning where none were.
    pub message: String,
}

impl Partial {
    /// Reads the body of a good answer.
    pub fn read(encoding: Encoding, body: &[u8]) -> Self {
        match encoding {
            Encoding::Json => from_json(body),
            Encoding::Protobuf => from_protobuf(body).unwrap_or_default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    partial_success: Option<Told>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    #[serde(alias = "rejectedDataPoints")]
    rejected_spans: Option<Count>,
    error_message: Option<String>,
}

/// 64-bit integers are strings, but readers of the mapping take numbers too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

fn from_json(body: &[u8]) -> Partial {
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let told = answer.partial_success.unwrap_or_default();
    Partial {
        rejected: match told.rejected_spans {
            Some(Count::Number(count)) => count,
            Some(Count::Text(text)) => text.parse().unwrap_or_default(),
            None => 0,
        },
        message: told.error_message.unwrap_or_default(),
    }
}

fn from_protobuf(body: &[u8]) -> Option<Partial> {
    let mut partial = Partial::default();
    let mut answer = Reader(body);
    while let Some((field, value)) = answer.field()? {
        let (1, Wire::Bytes(told)) = (field, value) else {
            continue;
        };
        let mut told = Reader(told);
        while let Some((field, value)) = told.field()? {
            match (field, value) {
                // Negative ones are nonsense, and nothing.
                (1, Wire::Number(count)) => {
                    let count = i64::try_from(count).unwrap_or_default();
                    partial.rejected = count.unsigned_abs();
                }
                (2, Wire::Bytes(text)) => {
                    partial.message = String::from_utf8_lossy(text).into_owned();
                }
                _ => {}
            }
        }
    }
    Some(partial)
}

/// Reads protobuf field by field; `None` in its answers is what cannot be read.
struct Reader<'a>(&'a [u8]);

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Reader<'a> {
    /// The next field and its value, or `Some(None)` at the end.
    fn field(&mut self) -> Option<Option<(u64, Wire<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use prost::Message;

    use super::*;

    fn partial(rejected: u64, message: &str) -> Partial {
        Partial {
            rejected,
            message: message.to_owned(),
        }
    }

    fn answer(rejected_spans: i64, error_message: &str) -> ExportTraceServiceResponse {
        ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: error_message.to_owned(),
            }),
        }
    }

    #[test]
    fn both_forms_of_an_answer_are_read() {
        for (rejected, message) in [(3, "too old"), (0, "a warning"), (1 << 40, "")] {
            let expected = partial(rejected, message);
            let answer = answer(rejected.cast_signed(), message);
            let bytes = answer.encode_to_vec();
            assert_eq!(Partial::read(Encoding::Protobuf, &bytes), expected);
            let json = serde_json::to_vec(&answer).unwrap();
            assert_eq!(Partial::read(Encoding::Json, &json), expected);
        }
        let points = br#"{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"x"}}"#;
        assert_eq!(Partial::read(Encoding::Json, points), partial(2, "x"));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let none = Partial::default();
        let negative = answer(-1, "").encode_to_vec();
        for body in [
            &negative[..],
            b"",
            &[0x0a, 0xff],
            &[0xff; 20],
            b"\x0f",
            b"{}",
        ] {
            assert_eq!(Partial::read(Encoding::Protobuf, body), none, "{body:?}");
        }
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"partialSuccess":null}"#,
            "<html>",
        ] {
            assert_eq!(Partial::read(Encoding::Json, body.as_bytes()), none);
        }
        // All prefixes of a good one: nothing panics.
        let whole = answer(3, "too old").encode_to_vec();
        for end in 0..whole.len() {
            Partial::read(Encoding::Protobuf, &whole[..end]);
        }
    }
}
