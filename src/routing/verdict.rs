//! What a failed try means: the one table of it, told to users in the README, which a
//! test holds against the code.
//!
//! Only what can be told without reading the answer's body counts. Leaves out how often and when
//! it is tried again (`retry`), how long a provider asks to be left alone (`patience`), and
//! whether anything has reached the client already, after which nothing can be tried again.

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection came about.
    Connect,
    /// There was a connection, but TLS could not be agreed on: a certificate that is not trusted,
    /// another name, no common version.
    Tls,
    /// The connection broke before the answer's head was there.
    Reset,
    /// The time to connect, or the time to the answer's first byte, ran out.
    Timeout,
    /// What came is not HTTP.
    Invalid,
    /// The stored key could not be used: no token came for it.
    Credential,
    /// It did not come to a try: the provider has as many calls in flight as it may.
    Full,
    /// It did not come to a try: a rule of ours for this provider or model had nothing left.
    Limited,
    /// The answer's status, of a good answer too.
    Status(u16),
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The answer passes as it is, or its error is told.
    Pass,
    /// The same target may do better at another try.
    Retry,
    /// Another target, or another key, may do better; this one will not.
    Next,
}

/// Who is left alone for a while because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody.
    Nobody,
    /// The provider: all its targets.
    Provider,
    /// The target: this provider with this model.
    Target,
    /// The stored key that was spent.
    Key,
    /// That key, for this model.
    KeyForModel,
    /// That key, for this model, until its limit refills.
    Limit,
}

impl Cause {
    /// Its name in metrics and logs: a closed vocabulary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Credential => "credential",
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Status(status) => name_of(status),
        }
    }

    /// What follows from it.
    pub const fn verdict(self) -> Verdict {
        match self {
            // Another connection may be luckier. One that broke, or was silent for too long, may
            // have led to work all the same: a second try can then be paid twice, which is less
            // bad than no answer, and what the clients of OpenAI and Anthropic do.
            Self::Connect | Self::Reset | Self::Timeout => Verdict::Retry,
            // Certificates, and what listens on a port, do not change within seconds.
            Self::Tls | Self::Invalid => Verdict::Next,
            // It is wrong, or who gives tokens is away.
            Self::Credential => Verdict::Next,
            // It has been waited for as long as the configuration says; what a rule leaves is not
            // waited for.
            Self::Full | Self::Limited => Verdict::Next,
            Self::Status(status) => verdict_of(status),
        }
    }

    /// Who is to blame.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Connect | Self::Tls | Self::Invalid => Blame::Provider,
            Self::Reset | Self::Timeout => Blame::Target,
            Self::Credential => Blame::Key,
            Self::Full | Self::Limited => Blame::Nobody,
            Self::Status(status) => match status {
                401 | 402 => Blame::Key,
                // A key may be without the right to one model, or be refused for what one
                // prompt says: that must not cost everybody the others.
                403 => Blame::KeyForModel,
                429 => Blame::Limit,
                // A timeout of the client's, a conflict, and what came too early.
                100..=499 => Blame::Nobody,
                525 | 526 => Blame::Provider,
                _ => Blame::Target,
            },
        }
    }
}

const fn name_of(status: u16) -> &'static str {
    match status {
        100..=399 => "none",
        401..=403 => "key",
        404 | 410 => "unknown",
        408 | 409 | 425 => "busy",
        429 => "rate_limited",
        400..=499 => "request",
        503 | 529 => "overloaded",
        _ => "server_error",
    }
}

const fn verdict_of(status: u16) -> Verdict {
    match status {
        // The key is at fault (wrong, without money, without the right), not the provider.
        401..=403 => Verdict::Next,
        // The provider itself asks for another try: it was too slow, locked, early, or limited.
        408 | 409 | 425 | 429 => Verdict::Retry,
        // This provider does not have the model, or no more; another one may.
        404 | 410 => Verdict::Next,
        // The request is at fault, and is so everywhere. What a content filter refuses, and what
        // is too long for the model, comes as 400 too.
        100..=499 => Verdict::Pass,
        // What the provider cannot do, or how it is set up, stays so: not implemented (501), the
        // HTTP version (505), negotiation in a circle (506), a full disk (507), a loop (508), a
        // traffic allowance that is used up (509), a missing extension (510), a network that
        // wants a login first (511).
        501 | 505..=511 => Verdict::Next,
        // Cloudflare, which many providers sit behind, could not agree on TLS with them (525), or
        // does not trust them (526): the same as if it had happened to us.
        525 | 526 => Verdict::Next,
        // Trouble that passes, Cloudflare's 520 to 524 with it: the provider behind it is away
        // or slow. Unknown ones count as 500 and what is no status at all as 5xx, as RFC 9110,
        // section 15, has it.
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::RangeInclusive;

    use super::Verdict::{Next, Pass, Retry};
    use super::*;

    #[test]
    fn a_failure_without_an_answer() {
        let table = [
            (Cause::Connect, "connect", Retry),
            (Cause::Tls, "tls", Next),
            (Cause::Reset, "reset", Retry),
            (Cause::Timeout, "timeout", Retry),
            (Cause::Invalid, "invalid", Next),
            (Cause::Credential, "credential", Next),
            (Cause::Full, "full", Next),
            (Cause::Limited, "limited", Next),
        ];
        for (cause, name, verdict) in table {
            assert_eq!((cause.name(), cause.verdict()), (name, verdict));
        }
    }

    #[test]
    fn every_status() {
        const fn one(status: u16) -> RangeInclusive<u16> {
            status..=status
        }
        let table = [
            (100..=399, "none", Pass),
            (one(400), "request", Pass),
            (401..=403, "key", Next),
            (one(404), "unknown", Next),
            (405..=407, "request", Pass),
            (408..=409, "busy", Retry),
            (one(410), "unknown", Next),
            (411..=424, "request", Pass),
            (one(425), "busy", Retry),
            (426..=428, "request", Pass),
            (one(429), "rate_limited", Retry),
            (430..=499, "request", Pass),
            (one(500), "server_error", Retry),
            (one(501), "server_error", Next),
            (one(502), "server_error", Retry),
            (one(503), "overloaded", Retry),
            (one(504), "server_error", Retry),
            (505..=511, "server_error", Next),
            (512..=524, "server_error", Retry),
            (525..=526, "server_error", Next),
            (527..=528, "server_error", Retry),
            (one(529), "overloaded", Retry),
            (530..=599, "server_error", Retry),
        ];
        let mut next = 100;
        for (statuses, name, verdict) in table {
            assert_eq!(*statuses.start(), next, "a gap, or twice");
            next = statuses.end() + 1;
            for status in statuses {
                let cause = Cause::Status(status);
                assert_eq!((cause.name(), cause.verdict()), (name, verdict), "{status}");
            }
        }
        assert_eq!(next, 600);
    }

    #[test]
    fn what_is_no_status_counts_as_a_server_error() {
        for status in [0, 99, 600, 999, u16::MAX] {
            let cause = Cause::Status(status);
            assert_eq!((cause.name(), cause.verdict()), ("server_error", Retry));
        }
    }

    #[test]
    fn the_manual_says_what_the_code_does() {
        let rows = manual();
        let statuses = (100..=599).map(Cause::Status);
        let others = [
            Cause::Connect,
            Cause::Tls,
            Cause::Reset,
            Cause::Timeout,
            Cause::Invalid,
            Cause::Credential,
            Cause::Full,
            Cause::Limited,
        ];
        let mut used = vec![0_u32; rows.len()];
        for cause in statuses.chain(others) {
            let row = row_of(&rows, cause);
            used[row] += 1;
            let said = (rows[row].name, rows[row].verdict, rows[row].blame);
            let done = (cause.name(), cause.verdict(), cause.blame());
            assert_eq!(said, done, "{cause:?}");
        }
        for (row, used) in rows.iter().zip(used) {
            assert!(used > 0, "no cause is in the row {:?}", row.what);
        }
    }

    /// A row of the README's table: `| what | counted as | what follows | to blame | why |`.
    struct Row {
        what: &'static str,
        name: &'static str,
        verdict: Verdict,
        blame: Blame,
    }

    fn manual() -> Vec<Row> {
        let lines = include_str!("../../README.md").lines();
        // No other table there has five columns.
        let rows = lines.filter(|line| line.split(" | ").count() == 5 && line.contains(" | `"));
        rows.map(row).collect()
    }

    fn row(line: &'static str) -> Row {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        let words = BTreeMap::from([("pass", Pass), ("retry", Retry), ("next", Next)]);
        let blamed = BTreeMap::from([
            ("nobody", Blame::Nobody),
            ("provider", Blame::Provider),
            ("target", Blame::Target),
            ("key", Blame::Key),
            ("key for the model", Blame::KeyForModel),
            ("key for the model, until its limit refills", Blame::Limit),
        ]);
        Row {
            what: cells[0],
            name: cells[1].trim_matches('`'),
            verdict: words[cells[2]],
            blame: blamed[cells[3]],
        }
    }

    /// Statuses are found by their number, or else as the other ones of their class; the rest is
    /// found by its name, for there is one row for each.
    fn row_of(rows: &[Row], cause: Cause) -> usize {
        let Cause::Status(status) = cause else {
            return only(rows, |row| row.name == cause.name()).unwrap();
        };
        let class = format!("{}xx", status / 100);
        let other = |row: &Row| row.what.split([' ', ',']).any(|word| word == class);
        only(rows, |row| names(row.what, status))
            .or_else(|| only(rows, other))
            .unwrap()
    }

    fn only(rows: &[Row], fits: impl Fn(&Row) -> bool) -> Option<usize> {
        let mut fitting = (0..rows.len()).filter(|row| fits(&rows[*row]));
        let first = fitting.next();
        assert!(fitting.next().is_none(), "two rows for the same");
        first
    }

    /// Whether the cell has the status: `500, 502–504`.
    fn names(what: &str, status: u16) -> bool {
        what.split(", ").any(|part| {
            let (from, to) = part.split_once('–').unwrap_or((part, part));
            match (from.parse::<u16>(), to.parse()) {
                (Ok(from), Ok(to)) => (from..=to).contains(&status),
                _ => false,
            }
        })
    }
}
