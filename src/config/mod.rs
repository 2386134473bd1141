//! YAML to what the code needs: [`schema`] is what users write, [`resolve`] checks
//! it and builds the immutable snapshot that requests read.

pub mod load;
pub mod resolve;
pub mod schema;
pub mod secret;
pub mod units;

/// One mistake in a configuration, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `providers.openai.base_url`; empty for the whole file.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Reads `${NAME}` values. The process environment in production, a map in tests.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;
