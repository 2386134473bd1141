//! The beginning of a text, kept without memory of its own: enough to tell the words that matter.

/// Bytes that are kept; the longest word that matters has 28.
const KEPT: usize = 32;

/// A text's first bytes, and how long it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    kept: [u8; KEPT],
    /// Of the whole text, in bytes.
    pub length: usize,
}

impl Start {
    pub fn of(text: &str) -> Self {
        let mut kept = [0; KEPT];
        let length = text.len().min(KEPT);
        kept[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self {
            kept,
            length: text.len(),
        }
    }

    /// The whole text where it is short; empty for a long one, which is no word that matters.
    pub fn word(&self) -> &str {
        let kept = self.kept.get(..self.length).unwrap_or_default();
        std::str::from_utf8(kept).unwrap_or_default()
    }

    /// Whether it begins so, in whatever case of letters; `start` must be short.
    pub fn begins(&self, start: &str) -> bool {
        let kept = self.kept.get(..start.len().min(self.length));
        kept.is_some_and(|kept| kept.eq_ignore_ascii_case(start.as_bytes()))
    }
}
