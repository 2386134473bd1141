//! What stands in front of each entry in a segment: enough to find the next one, and to know
//! at the opening whose it is, without a look at the entry.
//!
//! The entry has a checksum of its own ([`crate::cache::form`]), which every reading checks.
//! That of the header only has to tell a header from what a crash left, so 32 bits do.

/// The bytes of a header.
pub const HEADER: usize = 24;

const START: [u8; 4] = *b"tgs\x01";

/// The header of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the index knows its key by.
    pub hash: u64,
    /// The bytes of the entry behind it; none if what was stored before is removed.
    pub length: u32,
    /// When it is no longer of use: seconds since 1970.
    pub expires: u32,
}

impl Header {
    /// The header of a record that removes what was stored under `hash`.
    pub fn removal(hash: u64) -> Self {
        Self {
            hash,
            length: 0,
            expires: 0,
        }
    }

    /// The bytes of the whole record.
    pub fn whole(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&START);
        bytes[4..12].copy_from_slice(&self.hash.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.expires.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if there is a whole one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, rest) = bytes.split_first_chunk::<20>()?;
        let sum = u32::from_le_bytes(*rest.first_chunk()?);
        if !content.starts_with(&START) || sum != crc32fast::hash(content) {
            return None;
        }
        Some(Self {
            hash: u64::from_le_bytes(*content[4..].first_chunk()?),
            length: u32::from_le_bytes(*content[12..].first_chunk()?),
            expires: u32::from_le_bytes(*content[16..].first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_it_was_written_and_any_flipped_bit_is_noticed() {
        let header = Header {
            hash: 0x0123_4567_89ab_cdef,
            length: 70_000,
            expires: u32::MAX,
        };
        let good = header.encode();
        assert_eq!(Header::decode(&good), Some(header));
        for bit in 0..HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_header_is_told() {
        let good = Header::removal(7).encode();
        for length in 0..HEADER {
            assert_eq!(Header::decode(&good[..length]), None);
        }
        assert_eq!(Header::decode(&[0; HEADER]), None);
    }
}
