//! What commands have in common that ask the running process: how they ask, what may go wrong, and how
//! they end then.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::{nobody_answers, refusal};
use crate::admin::client::Place;

/// Why a command did not do what it was to do.
pub(super) enum Problem {
    /// No process answers.
    Nobody(io::Error),
    /// It answers that it will not, or what is said cannot be meant.
    Refused(String),
    /// Nobody reads what is written.
    Output,
    /// It is done, and what it answered, which is shown this once, is lost; what to do about it.
    Lost(String),
}

/// What the process answers, where it did what was asked.
pub(super) fn ask(
    place: &Place,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, Problem> {
    let answer = place.send(method, path, body).map_err(Problem::Nobody)?;
    match answer.done {
        true => Ok(answer.body),
        false => Err(Problem::Refused(refusal(&answer.body))),
    }
}

/// Writes a line for whoever reads the output.
pub(super) fn print(text: &str) -> Result<(), Problem> {
    writeln!(io::stdout(), "{text}").map_err(|_| Problem::Output)
}

/// Tells what went wrong.
pub(super) fn ended(place: &Place, done: Result<(), Problem>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem::Nobody(error)) => nobody_answers(place, &error),
        Err(Problem::Refused(why) | Problem::Lost(why)) => {
            eprintln!("tollgate: {why}");
            ExitCode::FAILURE
        }
        // Such as `head` that has seen enough.
        Err(Problem::Output) => ExitCode::SUCCESS,
    }
}
