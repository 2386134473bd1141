//! Undoes a whole answer's content encoding, so that it can be looked into.

use std::borrow::Cow;

use super::decoding::Decoding;

/// The answer without its content encoding (`gzip`, `deflate`, `br`, `zstd`, or several in a
/// list); `None` if it is another, is broken off, or comes to more than `most` bytes.
pub fn decoded<'a>(content_encoding: &str, body: &'a [u8], most: usize) -> Option<Cow<'a, [u8]>> {
    let mut decoding = Decoding::new(content_encoding, most).ok()?;
    if decoding.is_identity() {
        return (body.len() <= most).then_some(Cow::Borrowed(body));
    }
    let mut plain = Vec::new();
    let mut sink = |part: &[u8]| {
        plain.extend_from_slice(part);
        Ok(())
    };
    decoding.push(body, &mut sink).ok()?;
    let is_whole = decoding.finish(&mut sink).ok()?;
    is_whole.then_some(Cow::Owned(plain))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn encode(coding: &str, plain: &[u8]) -> Vec<u8> {
        let level = Compression::fast();
        match coding {
            "gzip" => finish(GzEncoder::new(Vec::new(), level), plain, |e| e.finish()),
            "deflate" => finish(ZlibEncoder::new(Vec::new(), level), plain, |e| e.finish()),
            "bare" => finish(DeflateEncoder::new(Vec::new(), level), plain, |e| {
                e.finish()
            }),
            "br" => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, 3, 20);
                finish(writer, plain, |e| Ok(e.into_inner()))
            }
            _ => zstd::encode_all(plain, 1).unwrap(),
        }
    }

    fn finish<E: Write>(
        mut encoder: E,
        plain: &[u8],
        end: fn(E) -> std::io::Result<Vec<u8>>,
    ) -> Vec<u8> {
        encoder.write_all(plain).unwrap();
        end(encoder).unwrap()
    }

    #[test]
    fn every_coding_is_undone_within_the_bound() {
        let plain = b"{\"usage\":{}}".repeat(1000);
        for coding in ["gzip", "deflate", "bare", "br", "zstd"] {
            let name = if coding == "bare" { "deflate" } else { coding };
            let body = encode(coding, &plain);
            let decode = |most| decoded(name, &body, most);
            assert_eq!(decode(plain.len()).as_deref(), Some(&plain[..]), "{coding}");
            assert_eq!(decode(plain.len() - 1), None, "{coding}");
            assert_eq!(decode(0), None, "{coding}");
            assert_eq!(
                decoded(&name.to_uppercase(), &body, plain.len()).unwrap(),
                plain
            );
            let half = &body[..body.len() / 2];
            assert_eq!(decoded(name, half, plain.len()), None, "{coding}");
        }
    }

    #[test]
    fn codings_are_undone_in_turn() {
        let body = encode("br", &encode("gzip", b"x"));
        assert_eq!(decoded("gzip, br", &body, 100).unwrap().as_ref(), b"x");
        assert_eq!(
            decoded("identity,gzip , br", &body, 100).unwrap().as_ref(),
            b"x"
        );
        assert_eq!(decoded("br, gzip", &body, 100), None);
    }

    #[test]
    fn plain_bodies_are_borrowed() {
        for coding in ["", "identity", " Identity "] {
            assert!(matches!(
                decoded(coding, b"abc", 3),
                Some(Cow::Borrowed(b"abc"))
            ));
            assert_eq!(decoded(coding, b"abc", 2), None);
        }
        assert_eq!(decoded("gzip", b"", 0).unwrap().as_ref(), b"");
    }

    #[test]
    fn nonsense_decodes_to_nothing() {
        for coding in ["gzip", "deflate", "zstd", "compress", "aws-chunked"] {
            for body in [
                &b"{}"[..],
                b"\x00",
                b"\x1f\x8b",
                &[0xff; 100],
                b"\x28\xb5\x2f\xfd",
            ] {
                assert_eq!(decoded(coding, body, 1000), None, "{coding} {body:?}");
            }
        }
    }
}
