//! How long a provider may take, and who says so.

use std::time::Duration;

/// What was said, at one place; what is `None` is said elsewhere, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Option<Duration>,
    /// From the request's last byte to the answer's head.
    pub first_byte: Option<Duration>,
    /// The longest silence within an answer.
    pub idle: Option<Duration>,
    /// From the request's head to the answer's last byte, all tries together.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// To connect, where nothing is said.
    pub const CONNECT: Duration = Duration::from_secs(10);
    /// The longest silence, where nothing is said.
    pub const IDLE: Duration = Duration::from_secs(600);
    /// The longest time that may be said, of any of them.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// What is said here, and what is said in `other` of the rest.
    pub fn or(self, other: Self) -> Self {
        Self {
            connect: self.connect.or(other.connect),
            first_byte: self.first_byte.or(other.first_byte),
            idle: self.idle.or(other.idle),
            total: self.total.or(other.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_holds() {
        let seconds = |number| Some(Duration::from_secs(number));
        let provider = Timeouts {
            connect: seconds(1),
            idle: seconds(2),
            ..Timeouts::default()
        };
        let gateway = Timeouts {
            idle: seconds(3),
            total: seconds(4),
            ..Timeouts::default()
        };
        let both = provider.or(gateway);
        assert_eq!((both.connect, both.idle), (seconds(1), seconds(2)));
        assert_eq!((both.first_byte, both.total), (None, seconds(4)));
    }
}
