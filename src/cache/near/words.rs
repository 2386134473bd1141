//! The words of a text among which `mask` looks for what is volatile.
//!
//! Whatever is volatile has a digit or eight hexadecimal letters in a row, at most two words
//! after the one that it begins with: `Sat, Aug 1`. Most of a text is far from such, and is
//! passed over many bytes at a time.

use std::ops::Range;

/// Letters and digits in a row, from the first to the last that may be volatile or begin
/// something that is.
pub struct Words<'a> {
    text: &'a [u8],
    /// Where the next word is looked for: at no word's middle.
    pub at: usize,
    /// Words that begin before this are not passed over.
    until: usize,
}

impl<'a> Words<'a> {
    /// From the start of a text.
    pub fn of(text: &'a [u8]) -> Self {
        let (at, until) = (0, 0);
        Self { text, at, until }
    }

    /// Where the next one lies.
    pub fn next(&mut self) -> Option<Range<usize>> {
        if self.at >= self.until {
            self.pass_over();
        }
        let start = run(self.text, self.at, |byte| !is_word(*byte));
        let end = run(self.text, start, |byte| is_word(*byte));
        self.at = end;
        (end > start).then_some(start..end)
    }

    fn pass_over(&mut self) {
        let rest = &self.text[self.at..];
        let (chunks, _) = rest.as_chunks();
        let calm = chunks.iter().take_while(|chunk| is_calm(chunk)).count() * CHUNK;
        self.until = self.text.len().min(self.at + calm + CHUNK);
        self.at += last_two_words(&rest[..calm]);
    }
}

/// Bytes that are looked at together: two vector registers.
const CHUNK: usize = 32;

/// Whether there is no digit, nor four hexadecimal letters from a multiple of four on: eight in
/// a row always have such. Loops that do not end early become vector instructions.
fn is_calm(chunk: &[u8; CHUNK]) -> bool {
    let digits = chunk.iter().map(u8::is_ascii_digit);
    let letters = chunk.map(|byte| u8::from(matches!(byte, b'a'..=b'f' | b'A'..=b'F')));
    let fours = letters.as_chunks().0.iter().map(|four| *four == [1; 4]);
    let any = |found: bool, one: bool| found | one;
    !(digits.fold(false, any) | fours.fold(false, any))
}

/// Where the last two words begin.
fn last_two_words(text: &[u8]) -> usize {
    (0..2).fold(text.len(), |at, _| {
        let end = run_before(text, at, |byte| !is_word(*byte));
        run_before(text, end, |byte| is_word(*byte))
    })
}

/// The end of the bytes from `at` on that are of a kind.
pub fn run(text: &[u8], at: usize, kind: impl Fn(&u8) -> bool) -> usize {
    let mut end = at;
    while end < text.len() && kind(&text[end]) {
        end += 1;
    }
    end
}

/// The start of the bytes before `at` that are of a kind.
fn run_before(text: &[u8], at: usize, kind: impl Fn(&u8) -> bool) -> usize {
    let other = text[..at].iter().rposition(|byte| !kind(byte));
    other.map_or(0, |other| other + 1)
}

/// Whether a byte is a letter or digit. Looked up: that is faster than to compare.
fn is_word(byte: u8) -> bool {
    const WORD: [bool; 256] = {
        let mut word = [false; 256];
        let mut byte = 0;
        while byte < word.len() {
            word[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        word
    };
    WORD[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Words::of(text.as_bytes());
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            found.push(&text[word]);
        }
        found
    }

    #[test]
    fn calm_stretches_are_passed_over() {
        let calm = "so it is, ".repeat(100);
        for (worth, count) in [("", 20), ("Sat, Aug 1", 40), ("feedfade", 40)] {
            let text = format!("{calm}{worth} {calm}");
            let found = words(&text);
            assert!(found.len() < count, "{found:?}");
            let found = found.join(" ");
            assert!(found.contains(&worth.replace(',', "")), "{found}");
        }
    }

    #[test]
    fn digits_and_eight_hexadecimal_letters_are_not_calm() {
        let plain = *b"A dead calm lay over the sea, and nobody on board said anything.";
        let is_calm = |text: &[u8]| text.as_chunks().0.iter().all(is_calm);
        assert!(is_calm(&plain));
        for found in ["7", "abCDefAB"] {
            for at in 0..=plain.len() - found.len() {
                let mut text = plain;
                text[at..at + found.len()].copy_from_slice(found.as_bytes());
                assert!(!is_calm(&text), "{found} {at}");
            }
        }
    }
}
