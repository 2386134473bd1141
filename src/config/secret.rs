//! A value that is never printed.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Deserializer, de};

/// Largest secret file, in bytes. A service account is about 2 KiB; anything far
/// larger is a wrong path, such as a device.
const MAX_FILE: u64 = 64 * 1024;

/// A secret as configured: the text itself, or `file:/path` to read it from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The name under which a secret is deserialized. The loader knows secrets by it
    /// and keeps their values out of its messages.
    pub(super) const TYPE_NAME: &'static str = "tollgate secret";

    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret. Call it only where the value goes onto the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the configured text stands for: the content of the file for `file:/path`,
    /// the text itself otherwise.
    ///
    /// # Errors
    /// As for [`Secret::from_file`].
    pub fn read(&self) -> Result<Self, String> {
        match self.0.strip_prefix("file:") {
            None => Ok(self.clone()),
            Some("") => Err("`file:` needs a path, such as `file:/run/secrets/key`".to_owned()),
            Some(path) => Self::from_file(Path::new(path)),
        }
    }

    /// The content of the file at `path`, at most 64 KiB of UTF-8, without the white
    /// space around it: editors end files with a line break that no key contains.
    ///
    /// # Errors
    /// Names the file and why it cannot be used: the operating system's error, empty,
    /// too large or not text. Never says what is in it.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let refuse =
            |reason: &dyn fmt::Display| format!("secret file `{}`: {reason}", path.display());
        let mut content = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content))
            .map_err(|error| refuse(&error))?;
        if content.len() as u64 > MAX_FILE {
            return Err(refuse(&format_args!("larger than {} KiB", MAX_FILE / 1024)));
        }
        let text = str::from_utf8(&content)
            .map_err(|_| refuse(&"is not UTF-8 text"))?
            .trim();
        if text.is_empty() {
            return Err(refuse(&"is empty"));
        }
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(Self::TYPE_NAME, SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file_with(content: &[u8]) -> (tempfile::TempDir, Secret) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        let secret = Secret::new(format!("file:{}", path.display()));
        (directory, secret)
    }

    #[test]
    fn plain_text_is_the_secret() {
        assert_eq!(Secret::new("sk-1 ").read(), Ok(Secret::new("sk-1 ")));
        assert_eq!(Secret::new("").read(), Ok(Secret::new("")));
    }

    #[test]
    fn a_file_is_read_without_the_white_space_around_it() {
        let (_directory, secret) = file_with(b" sk-1\r\n\n");
        assert_eq!(secret.read().unwrap().expose(), "sk-1");
    }

    #[test]
    fn a_json_file_keeps_its_inner_lines() {
        let (_directory, secret) = file_with(b"{\n  \"a\": 1\n}\n");
        assert_eq!(secret.read().unwrap().expose(), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn errors_name_the_file_and_the_reason() {
        let error = Secret::new("file:/nonexistent/key").read().unwrap_err();
        assert_eq!(
            error,
            "secret file `/nonexistent/key`: No such file or directory (os error 2)"
        );
        assert!(
            Secret::new("file:")
                .read()
                .unwrap_err()
                .contains("needs a path")
        );
        let directory = tempfile::tempdir().unwrap();
        let error = Secret::from_file(directory.path()).unwrap_err();
        assert!(error.contains("directory"), "{error}");
    }

    #[test]
    fn errors_never_show_the_content() {
        let (_directory, empty) = file_with(b" \n");
        assert!(empty.read().unwrap_err().ends_with("is empty"));
        let (_directory, binary) = file_with(b"sk-hidden\xff");
        let error = binary.read().unwrap_err();
        assert!(error.ends_with("is not UTF-8 text"), "{error}");
        let (_directory, large) = file_with(&b"sk-hidden".repeat(8 * 1024));
        let error = large.read().unwrap_err();
        assert!(error.ends_with("larger than 64 KiB"), "{error}");
    }

    #[test]
    fn debug_hides_it() {
        assert_eq!(format!("{:?}", Some(Secret::new("sk-1"))), "Some(***)");
    }
}
