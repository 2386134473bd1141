//! Digests of the bodies that were digested last: what is asked again byte for byte, as a hot
//! prompt is, need not be read again.
//!
//! A body is looked for by a sample of its bytes and then compared whole, so a wrong digest
//! is never given; two bodies of one sample take turns in one place.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use bytes::Bytes;

use super::canonical::Body;

/// Bodies that are remembered.
const PLACES: usize = 64;

/// The largest that is remembered, in bytes. All together hold at most 4 MiB, or 8 if their
/// buffers have as much spare room as a buffer that grows by doubling may have.
const MOST: usize = 64 << 10;

/// Bytes at a time that go into the sample, and how many such parts of a body do.
const PART: usize = 32;
const PARTS: usize = 8;

/// The bodies and their digests. Meant for one thread: it has no lock.
pub struct Recent {
    places: Vec<Option<(Bytes, Body)>>,
    sampler: RandomState,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            places: vec![None; PLACES],
            sampler: RandomState::new(),
        }
    }
}

impl Recent {
    /// The digest of `body`: the one remembered, or the one that `digest` makes.
    pub fn digest(&mut self, body: &Bytes, digest: impl FnOnce() -> Body) -> Body {
        if body.len() > MOST {
            return digest();
        }
        let place = self.place(body);
        match &self.places[place] {
            Some((known, made)) if known == body => made.clone(),
            _ => {
                let made = digest();
                self.places[place] = Some((body.clone(), made.clone()));
                made
            }
        }
    }

    /// Depends on parts from everywhere in the body, its end among them: prompts often begin alike.
    fn place(&self, body: &[u8]) -> usize {
        let mut sample = self.sampler.build_hasher();
        sample.write_usize(body.len());
        if body.len() <= PART * PARTS {
            sample.write(body);
        } else {
            let last = body.len() - PART;
            for part in 0..PARTS {
                let start = last * part / (PARTS - 1);
                sample.write(&body[start..start + PART]);
            }
        }
        sample.finish() as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(number: u8) -> Body {
        Body {
            digest: [number; 32],
            ..Body::default()
        }
    }

    fn known() -> Body {
        unreachable!("it is remembered")
    }

    #[test]
    fn equal_bytes_are_digested_once() {
        let mut recent = Recent::default();
        for length in [0, 1, 255, 256, 257, 5000, MOST] {
            let body = Bytes::from(vec![b'x'; length]);
            assert_eq!(recent.digest(&body, || made(1)), made(1));
            let equal = Bytes::from(vec![b'x'; length]);
            assert_eq!(recent.digest(&equal, known), made(1), "{length}");
        }
    }

    #[test]
    fn any_other_byte_is_another_body() {
        let mut recent = Recent::default();
        let body = vec![b'x'; 4096];
        for at in 0..body.len() {
            let mut other = body.clone();
            other[at] = b'y';
            recent.digest(&Bytes::from(body.clone()), || made(1));
            assert_eq!(recent.digest(&Bytes::from(other), || made(2)), made(2));
        }
    }

    #[test]
    fn large_bodies_are_not_remembered() {
        let mut recent = Recent::default();
        let body = Bytes::from(vec![b'x'; MOST + 1]);
        recent.digest(&body, || made(1));
        assert_eq!(recent.digest(&body, || made(2)), made(2));
        assert!(recent.places.iter().all(Option::is_none));
    }
}
