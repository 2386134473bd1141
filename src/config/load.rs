//! YAML text to [`super::schema::Config`], with every mistake and not only the first.
//!
//! 1. `tree`: text to a tree, or the one syntax error.
//! 2. `check`: duplicate keys, and `${NAME}` put in (`interpolate`).
//! 3. `reader`: the tree to types. Serde stops at its first error, so the value that
//!    failed is marked as broken and the tree is read again without it, until it passes.
//!
//! A message never shows what a variable holds nor any part of a secret: `failure` says
//! how that is made sure. What values mean together is checked by [`super::resolve`].

use serde::de::DeserializeOwned;

use super::{Environment, Problem, schema};
use finding::Finding;
use reader::Reader;
use tree::Node;

mod check;
mod failure;
mod finding;
mod interpolate;
mod reader;
mod tree;

/// Largest configuration, in bytes.
const MAX_TEXT: usize = 16 * 1024 * 1024;

/// Problems reported at once, and times the tree is read to find them.
const MAX_PROBLEMS: usize = 100;

/// Reads a configuration.
///
/// `${NAME}` and `${NAME:-default}` in its values are looked up in `environment`; `$$`
/// stands for `$`.
///
/// # Errors
/// Every mistake in the text, in its order, at most 100.
pub fn parse(text: &str, environment: Environment<'_>) -> Result<schema::Config, Vec<Problem>> {
    parse_as(text, environment)
}

/// Reads any configured type, such as the provider catalogue. See [`parse`].
///
/// # Errors
/// Every mistake in the text, in its order, at most 100.
pub fn parse_as<T: DeserializeOwned>(
    text: &str,
    environment: Environment<'_>,
) -> Result<T, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        let message = format!("larger than {} MiB, which cannot be meant", MAX_TEXT >> 20);
        return Err(vec![Problem::new("", message)]);
    }
    let mut root = tree::read(text).map_err(|problem| vec![problem])?;
    let mut findings = check::check(&mut root, environment);
    match read(&root, &mut findings) {
        Some(value) if findings.is_empty() => Ok(value),
        _ => Err(in_order(findings)),
    }
}

/// Reads the tree until what is left of it passes. `None` when nothing is left, or when
/// there are too many mistakes.
fn read<T: DeserializeOwned>(root: &Node, findings: &mut Vec<Finding>) -> Option<T> {
    for _ in 0..=MAX_PROBLEMS {
        if root.is_broken() {
            return None;
        }
        match T::deserialize(Reader(root)) {
            Ok(value) => return Some(value),
            Err(failure) => findings.extend(failure.into_finding()),
        }
    }
    None
}

fn in_order(mut findings: Vec<Finding>) -> Vec<Problem> {
    findings.sort_by_key(|finding| finding.order);
    let more = findings.len() > MAX_PROBLEMS;
    let mut problems: Vec<_> = findings
        .into_iter()
        .take(MAX_PROBLEMS)
        .map(|finding| finding.problem)
        .collect();
    if more {
        problems.push(Problem::new(
            "",
            format!("more than {MAX_PROBLEMS} mistakes: correct these first"),
        ));
    }
    problems
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
