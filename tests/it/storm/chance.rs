//! Chance that can be repeated, and text that does not repeat itself.

use std::sync::LazyLock;
use std::time::Duration;

/// Dice that fall the same way for the same seed and subject.
pub struct Dice(u64);

impl Dice {
    /// FNV-1a of the subject, begun with the seed.
    pub fn of(seed: u64, subject: &str) -> Self {
        let mix = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let state = seed ^ 0xcbf2_9ce4_8422_2325;
        Self(subject.as_bytes().iter().fold(state, mix))
    }

    /// A number below `most` (SplitMix64).
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }

    /// As [`Dice::below`], for sizes.
    pub fn size(&mut self, most: usize) -> usize {
        usize::try_from(self.below(most as u64)).expect("below a size")
    }

    /// True once in `many` throws.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, several: &[T]) -> T {
        several[self.size(several.len())]
    }

    /// One of several, by their weights.
    pub fn weighted<T: Copy>(&mut self, several: &[(u64, T)]) -> T {
        let mut thrown = self.below(several.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in several {
            match thrown.checked_sub(*weight) {
                Some(left) => thrown = left,
                None => return *one,
            }
        }
        unreachable!("thrown below the sum of the weights")
    }

    /// A time below `most`.
    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }

    /// `length` letters, from another place for each subject: what two of them have in common,
    /// or what is lost between two pieces, shows.
    pub fn letters(&mut self, length: usize) -> &'static [u8] {
        let start = self.size(LETTERS.len() - length);
        &LETTERS[start..start + length]
    }
}

static LETTERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = Dice::of(0, "letters");
    let words = std::iter::repeat_with(|| dice.below(u64::MAX)).take(1 << 20);
    let letters = |word: u64| (0..8).map(move |at| b'a' + (word >> (at * 8)) as u8 % 26);
    words.flat_map(letters).collect()
});
