//! One request, as its client, the access log and the providers know it: whether they agree.

use super::Who;
use super::journal::Line;
use super::judge::{Outcome, Told};
use super::provider::Attempt;
use super::script::Act;

/// One request, as all sides know it.
pub struct Entry<'a> {
    pub told: &'a Told,
    pub line: &'a Line,
    pub heard: &'a [Attempt],
}

impl Entry<'_> {
    /// What does not agree.
    pub fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                wrongs.push(what.to_owned());
            }
        };
        let (told, line) = (self.told, self.line);
        if let Outcome::Wrong(why) = &told.outcome {
            expect(false, why);
            return wrongs;
        }
        expect(
            told.id.as_ref().is_none_or(|id| *id == line.id),
            "another id in the log",
        );
        if let Some(status) = told.outcome.status() {
            expect(status == line.status, "another status in the log");
        }
        expect(self.error_is_right(), "another end in the log");
        self.check_attempts(&mut expect);
        if told.outcome.stayed() {
            expect(
                told.sent.is_none_or(|sent| sent == line.bytes_in),
                "another request's length",
            );
            expect(self.length_is_right(), "another length in the log");
            let joined = matches!(line.cache.as_deref(), Some("hit" | "coalesced"));
            let unseen = matches!(told.outcome, Outcome::Reset | Outcome::Refused(..));
            expect(told.hit == joined || unseen, "another use of the cache");
        }
        wrongs
    }

    fn error_is_right(&self) -> bool {
        let error = self.line.error.as_deref();
        let broke = matches!(error, Some("upstream_cut" | "upstream_timeout"));
        match &self.told.outcome {
            Outcome::Whole(_) if broke => self.may_be_whole_though_it_broke(),
            Outcome::Whole(429) => error == Some("provider_429"),
            Outcome::Whole(400..=499) => error == Some("provider_4xx"),
            Outcome::Whole(500..) => error == Some("provider_5xx"),
            Outcome::Whole(_) => error.is_none(),
            Outcome::Refused(504, _) => error == Some("upstream_timeout"),
            Outcome::Refused(..) => matches!(
                error,
                Some("upstream_unreachable" | "upstream_invalid" | "upstream_cut")
            ),
            Outcome::Broken(..) | Outcome::Reset => broke,
            // It may have ended in any way in the moment in which its client left.
            Outcome::Left(_) | Outcome::Wrong(_) => true,
        }
    }

    /// Over HTTP/2 the end of an answer comes apart from its last byte. Where the head told the
    /// length, the client has all by then; that the end did not come in time is the provider's
    /// fault all the same.
    fn may_be_whole_though_it_broke(&self) -> bool {
        self.told.length_told && self.line.provider == Who::Groq.name()
    }

    fn length_is_right(&self) -> bool {
        let (got, sent) = (self.told.got, self.line.bytes_out);
        match self.told.outcome {
            Outcome::Whole(_) | Outcome::Refused(..) => got == sent,
            Outcome::Broken(..) => got <= sent,
            _ => true,
        }
    }

    /// Each attempt is one that a provider has heard of, or never came so far; each that failed
    /// did so for a reason that the provider knows.
    fn check_attempts(&self, expect: &mut impl FnMut(bool, &str)) {
        let attempts = usize::try_from(self.line.attempts).unwrap_or_default();
        let arrived = self.heard.len() + self.failed("connect");
        expect(arrived <= attempts, "more heads than attempts");
        let unheard = attempts.saturating_sub(arrived);
        // A connection that breaks before the head has arrived is reset, or silent, or none.
        let broke = self.failed("reset") + self.failed("timeout") + self.failed("invalid");
        let untold = attempts.saturating_sub(self.line.tried.len());
        expect(
            unheard <= broke + untold || !self.told.outcome.stayed(),
            "attempts that nobody knows of",
        );
        for cause in STATUSES {
            self.check_status(cause, expect);
        }
        let no_http = self.heard.iter().filter(|one| one.act == Act::NotHttp);
        expect(
            self.failed("invalid") <= no_http.count() + unheard,
            "no HTTP from one who speaks it",
        );
        expect(self.failed("tls") == 0, "TLS where there is none");
        expect(self.failed("none") == 0, "a failure that is none");
    }

    /// Statuses that were said are those that are counted. One that came too late is a timeout,
    /// also where the connection broke then.
    fn check_status(&self, cause: &str, expect: &mut impl FnMut(bool, &str)) {
        let said = self.heard.iter();
        let said = said.filter(|one| one.act.answers() && cause_of(one.status) == Some(cause));
        let (said, failed) = (said.count(), self.failed(cause));
        expect(failed <= said, "a status that no provider said");
        let late = said.saturating_sub(failed);
        expect(
            late <= self.failed("timeout") + self.failed("reset") || !self.told.outcome.stayed(),
            "a status that nobody counts",
        );
    }

    fn failed(&self, cause: &str) -> usize {
        let tried = self.line.tried.iter();
        tried.filter(|tried| *tried == cause).count()
    }
}

/// The causes that are statuses.
const STATUSES: [&str; 7] = [
    "key",
    "unknown",
    "busy",
    "rate_limited",
    "request",
    "overloaded",
    "server_error",
];

/// As the README counts a status.
fn cause_of(status: u16) -> Option<&'static str> {
    match status {
        0..=399 => None,
        401..=403 => Some("key"),
        404 | 410 => Some("unknown"),
        408 | 409 | 425 => Some("busy"),
        429 => Some("rate_limited"),
        400..=499 => Some("request"),
        503 | 529 => Some("overloaded"),
        _ => Some("server_error"),
    }
}
