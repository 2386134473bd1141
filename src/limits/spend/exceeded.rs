//! Why a call was not let through, in words.

use std::fmt;

use super::account::Scope;
use super::window::Window;
use crate::pricing::Cost;

/// A budget that a call does not fit into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose rule it is.
    pub scope: Scope,
    /// Its id.
    pub rule: Box<str>,
    /// What it lacks.
    pub lack: Lack,
    /// Of the rule.
    pub limit: Cost,
    /// Of the rule.
    pub window: Window,
    /// What counts as spent now.
    pub spent: Cost,
    /// What is set aside for calls that run, here and in other processes.
    pub reserved: Cost,
    /// What the call could cost at most.
    pub asked: Cost,
    /// What calls may still set aside.
    pub remaining: Cost,
    /// When it may be tried again, in seconds, 1 at least; `None` if the call never fits. With a
    /// sliding window an estimate.
    pub retry_after: Option<u64>,
    /// For which provider the call was.
    pub provider: Box<str>,
    /// For which model, if it names one.
    pub model: Option<Box<str>>,
}

/// What was lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Money.
    Money,
    /// Room: clients made up so many values, each with a budget of its own, that no more can be
    /// counted.
    Room,
}

impl Exceeded {
    /// What the rule allows: `10 USD per 86400s, fixed`.
    pub fn allowed(&self) -> String {
        format!("{} USD per {}", self.limit, self.window)
    }
}

/// As Cloudflare's refusals begin, with what helps behind it.
impl fmt::Display for Exceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            limit,
            window,
            provider,
            ..
        } = self;
        write!(
            out,
            "Spend limit exceeded: rule '{rule}' (cost limit {limit} per {window}) for {provider}"
        )?;
        if let Some(model) = &self.model {
            write!(out, " {model}")?;
        }
        match self.lack {
            Lack::Money => write!(
                out,
                ": {} USD of it remain, and this request could cost {} USD",
                self.remaining, self.asked
            ),
            Lack::Room => out.write_str(
                ": too many different values have a budget of their own by this rule; one more is counted when the windows of others are over",
            ),
        }
    }
}

impl std::error::Error for Exceeded {}
