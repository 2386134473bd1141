//! Request bodies of a given size, and what is remembered of large ones.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256};

/// Length and SHA-256 of a body: what is compared when bodies are large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub length: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.update(bytes);
        digester.finish()
    }

    /// The digest as JSON, the body of [`super::Reply::Digest`].
    pub fn json(&self) -> String {
        format!(r#"{{"length":{},"sha256":"{}"}}"#, self.length, self.sha256)
    }
}

/// Digests a body piece by piece.
#[derive(Clone)]
pub struct Digester {
    context: Context,
    length: u64,
}

impl Default for Digester {
    fn default() -> Self {
        Self {
            context: Context::new(&SHA256),
            length: 0,
        }
    }
}

impl Digester {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        let mut sha256 = String::with_capacity(64);
        for byte in self.context.finish().as_ref() {
            let _ = write!(sha256, "{byte:02x}");
        }
        Digest {
            length: self.length,
            sha256,
        }
    }
}

/// A JSON object of exactly `size` bytes (none at all for 0) that names `model`
/// and does not repeat itself, so that lost and swapped pieces show.
pub fn json_of_size(model: &str, size: usize) -> Vec<u8> {
    let start = format!(r#"{{"model":"{model}","padding":""#);
    let end = r#""}"#;
    if size == 0 {
        return Vec::new();
    }
    assert!(size >= start.len() + end.len(), "no room for the JSON");
    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(start.as_bytes());
    let room = size - start.len() - end.len();
    body.extend(noise().map(|byte| b'a' + byte % 26).take(room));
    body.extend_from_slice(end.as_bytes());
    body
}

/// `size` bytes of every value.
pub fn octets(size: usize) -> Vec<u8> {
    noise().take(size).collect()
}

/// An endless deterministic sequence of bytes.
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

/// `bytes` as an answer with this `content-encoding` carries them.
pub fn encoded(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match encoding {
        "identity" => bytes.to_vec(),
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        "br" => {
            let mut compressed = Vec::new();
            brotli::CompressorWriter::new(&mut compressed, 4096, 4, 20)
                .write_all(bytes)
                .expect("memory");
            compressed
        }
        "zstd" => zstd::encode_all(bytes, 1).expect("memory"),
        other => panic!("no encoder for {other}"),
    }
}
