//! How filters compare (contract, logs REST API).

use serde::{Deserialize, Serialize};

/// A comparison. Those with equality come from the flat parameters only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Equal to any of the values.
    Eq,
    /// Equal to none of the values; what is absent is equal to none.
    Neq,
    /// Contains any of the values; upper and lower case are one in ASCII.
    Contains,
    /// Less than any of the values.
    Lt,
    /// Greater than any of the values.
    Gt,
    /// Less than or equal to.
    Le,
    /// Greater than or equal to.
    Ge,
}

impl Operator {
    /// As the API writes it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "eq" => Self::Eq,
            "neq" => Self::Neq,
            "contains" => Self::Contains,
            "lt" => Self::Lt,
            "gt" => Self::Gt,
            _ => return None,
        })
    }

    /// In SQL, for one value.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Eq | Self::Neq => "=",
            Self::Contains => "LIKE",
            Self::Lt => "<",
            Self::Gt => ">",
            Self::Le => "<=",
            Self::Ge => ">=",
        }
    }
}
