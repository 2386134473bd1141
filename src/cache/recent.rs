//! Digests of bodies that are asked again and again, byte for byte, as a hot prompt is: they
//! need not be read again.
//!
//! A body is looked for by a sample of its bytes and then compared whole, so a wrong digest
//! is never given. Only what is seen a second time is remembered: prompts that come once would
//! fill the processor's caches with what is never looked at.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use bytes::Bytes;

use super::canonical::Body;

/// Bodies that are remembered.
const PLACES: usize = 64;

/// Bodies of which it is known that they came once; eight bytes each.
const SEEN: usize = 2048;

/// The largest that is remembered, in bytes. All together hold at most 4 MiB, or 8 if their
/// buffers have as much spare room as a buffer that grows by doubling may have.
const MOST: usize = 64 << 10;

/// Bytes at a time that go into the sample, and how many such parts of a body do.
const PART: usize = 32;
const PARTS: usize = 8;

/// The bodies and their digests. Meant for one thread: it has no lock.
pub struct Recent {
    places: Vec<Option<(Bytes, Body)>>,
    /// Samples of the bodies that came last, each in its place.
    seen: Vec<u64>,
    sampler: RandomState,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            places: vec![None; PLACES],
            seen: vec![0; SEEN],
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
        let sample = self.sample(body);
        let place = &mut self.places[sample as usize % PLACES];
        if let Some((known, made)) = place
            && known == body
        {
            return made.clone();
        }
        let made = digest();
        let seen = &mut self.seen[sample as usize % SEEN];
        if std::mem::replace(seen, sample) == sample {
            *place = Some((body.clone(), made.clone()));
        }
        made
    }

    /// Depends on parts from everywhere in the body, its end among them: prompts often begin alike.
    fn sample(&self, body: &[u8]) -> u64 {
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
        sample.finish()
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
    fn what_is_seen_twice_is_known_the_third_time() {
        let mut recent = Recent::default();
        for length in [0, 1, 255, 256, 257, 5000, MOST] {
            let body = Bytes::from(vec![b'x'; length]);
            assert_eq!(recent.digest(&body, || made(0)), made(0));
            assert_eq!(recent.digest(&body, || made(1)), made(1));
            let equal = Bytes::from(vec![b'x'; length]);
            assert_eq!(recent.digest(&equal, known), made(1), "{length}");
        }
    }

    #[test]
    fn any_other_byte_is_another_body() {
        let mut recent = Recent::default();
        let body = Bytes::from(vec![b'x'; 4096]);
        for at in 0..body.len() {
            for _ in 0..2 {
                recent.digest(&body, || made(1));
            }
            assert_eq!(recent.digest(&body, known), made(1));
            let mut other = body.to_vec();
            other[at] = b'y';
            assert_eq!(recent.digest(&Bytes::from(other), || made(2)), made(2));
        }
    }

    #[test]
    fn large_bodies_are_not_remembered() {
        let mut recent = Recent::default();
        let body = Bytes::from(vec![b'x'; MOST + 1]);
        for number in 1..4 {
            assert_eq!(recent.digest(&body, || made(number)), made(number));
        }
        assert!(recent.places.iter().all(Option::is_none));
    }
}
