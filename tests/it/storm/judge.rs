//! Whether what a client got is an answer, or an honest error.

use serde_json::Value;

use super::Who;
use super::ask::{Ask, Topic};
use super::client::Got;
use super::script::{ATTEMPT, Script};
use crate::support::{Ending, Response};

/// What a client tells of a request.
pub struct Told {
    pub number: u64,
    pub outcome: Outcome,
    /// `cf-aig-log-id`.
    pub id: Option<String>,
    /// `cf-aig-cache-status: HIT`.
    pub hit: bool,
    /// It was sent once more, on a new connection.
    pub again: bool,
    /// The answer's head told its length.
    pub length_told: bool,
    /// Bytes of the body that it got.
    pub got: u64,
    /// Bytes of the body that it sent, if all of it is held before anything is answered.
    pub sent: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of a provider's answer, or of its error.
    Whole(u16),
    /// An error of the gateway's own, and its code.
    Refused(u16, u64),
    /// An answer that visibly breaks: by an error event, or by its framing.
    Broken(u16, Break),
    /// A stream that was reset before its head was seen: a reset overtakes what is queued where
    /// the gateway's threads have more to do than it waits for. Only an answer that broke may
    /// end so.
    Reset,
    /// The client left; the status, if it had seen it.
    Left(Option<u16>),
    /// What must never happen.
    Wrong(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Event,
    Framing,
}

impl Outcome {
    /// The status that the client has seen.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Whole(status) | Self::Refused(status, _) | Self::Broken(status, _) => {
                Some(*status)
            }
            Self::Left(seen) => *seen,
            Self::Reset | Self::Wrong(_) => None,
        }
    }

    pub fn stayed(&self) -> bool {
        !matches!(self, Self::Left(_))
    }
}

/// Judges what came of `ask`.
pub fn judge(seed: u64, ask: &Ask, got: Got) -> Told {
    let mut told = Told {
        number: ask.number,
        outcome: Outcome::Wrong(String::new()),
        id: None,
        hit: false,
        again: false,
        length_told: false,
        sent: (!ask.topic.way.is_upload()).then_some(ask.body.len() as u64),
        got: 0,
    };
    told.outcome = match got {
        Got::Left(seen) => Outcome::Left(seen),
        Got::Reset => Outcome::Reset,
        Got::Nothing(why) => Outcome::Wrong(format!("no answer: {why}")),
        Got::Answer(answer) => {
            told.id = answer.header("cf-aig-log-id").map(str::to_owned);
            told.hit = answer.header("cf-aig-cache-status") == Some("HIT");
            told.length_told = answer.header("content-length").is_some();
            told.got = answer.body.len() as u64;
            outcome(seed, ask, &answer).unwrap_or_else(|why| {
                Outcome::Wrong(format!("{why}: {} {:?}", answer.status, answer.headers))
            })
        }
    };
    if let Outcome::Wrong(why) = &mut told.outcome {
        *why = format!(
            "{} of {} over {}: {why}",
            ask.number, ask.topic.text, ask.path
        );
    }
    told
}

fn outcome(seed: u64, ask: &Ask, answer: &Response) -> Result<Outcome, String> {
    match (
        answer.header(ATTEMPT),
        answer.header("tollgate-error-source"),
    ) {
        (None, Some("gateway")) => refusal(answer),
        (Some(attempt), None) if answer.status < 400 => given(seed, ask, answer, attempt),
        (Some(attempt), Some("provider")) if answer.status >= 400 => {
            given(seed, ask, answer, attempt)
        }
        other => Err(format!("of neither, or of both: {other:?}")),
    }
}

/// An answer of the gateway's own: an error for which the provider is to blame.
fn refusal(answer: &Response) -> Result<Outcome, String> {
    if answer.ending != Ending::Whole {
        return Err(format!("an error that ends with {:?}", answer.ending));
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let code = body["internalCode"].as_u64().unwrap_or(0);
    let told = body["success"] == false && body["httpCode"] == answer.status;
    match (told, answer.status, code) {
        (true, 502 | 504, 2005) => Ok(Outcome::Refused(answer.status, code)),
        _ => Err(format!("no honest error: {body}")),
    }
}

/// An answer of a provider's: of one attempt, for this request, byte for byte.
fn given(seed: u64, ask: &Ask, answer: &Response, attempt: &str) -> Result<Outcome, String> {
    let (who, script) = played(seed, &ask.topic, attempt).ok_or("of another request")?;
    if script.act.is_silent() {
        return Err(format!("an answer of one who did {:?}", script.act));
    }
    if answer.status != script.status {
        return Err(format!("the provider said {}", script.status));
    }
    check_headers(ask, answer, who, &script)?;
    let (sent, body) = (script.sent(), &answer.body[..]);
    if answer.ending == Ending::Cut {
        return match sent.starts_with(body) {
            true => Ok(Outcome::Broken(answer.status, Break::Framing)),
            false => Err(mix(sent, body)),
        };
    }
    if body == sent {
        return match script.act.ends_in_order() {
            true => Ok(Outcome::Whole(answer.status)),
            false => Err(format!("a clean end for one who did {:?}", script.act)),
        };
    }
    match ask.topic.streams && breaks_off(sent, body) {
        true => Ok(Outcome::Broken(answer.status, Break::Event)),
        false => Err(mix(sent, body)),
    }
}

/// A beginning of what was sent, and then the gateway's own error event, as an event of its own.
fn breaks_off(sent: &[u8], body: &[u8]) -> bool {
    let Some(told) = before_error_event(body) else {
        return false;
    };
    let ended = told.is_empty() || told.ends_with(b"\n\n");
    // Half an event is ended first.
    let ends = [&b""[..], b"\n", b"\n\n"];
    let mut told = ends.iter().filter_map(|end| told.strip_suffix(*end));
    ended && told.any(|told| sent.starts_with(told))
}

/// The provider, and what it did with this attempt.
fn played(seed: u64, topic: &Topic, attempt: &str) -> Option<(Who, Script)> {
    let mut words = attempt.splitn(3, '/');
    let name = words.next()?;
    let who = [Who::Openai, Who::Groq]
        .into_iter()
        .find(|who| who.name() == name)?;
    let number = words.next()?.parse().ok()?;
    let same = words.next()? == topic.text && topic.way.targets().contains(&who);
    same.then(|| (who, Script::of(seed, who, topic, number)))
}

fn check_headers(ask: &Ask, answer: &Response, who: Who, script: &Script) -> Result<(), String> {
    // What was another request's is told of the target that this one asked for.
    if answer.header("cf-aig-cache-status") == Some("HIT") {
        return Ok(());
    }
    let step = ask
        .topic
        .way
        .targets()
        .iter()
        .position(|target| *target == who);
    let step = step.unwrap_or_default().to_string();
    let model = match ask.topic.way.is_upload() {
        true => None,
        false => Some(ask.topic.way.model_at(who)),
    };
    let told = [
        ("cf-aig-step", Some(&*step)),
        ("cf-aig-provider", Some(who.name())),
        ("cf-aig-model", model),
    ];
    let said = script.headers.iter();
    let said = said.map(|(name, value)| (*name, Some(&**value)));
    for (name, value) in told.into_iter().chain(said) {
        if answer.header(name) != value {
            return Err(format!("{name} is not {value:?}"));
        }
    }
    Ok(())
}

/// Whether the gateway says at the end that the answer broke.
pub fn ends_with_error_event(body: &[u8]) -> bool {
    before_error_event(body).is_some()
}

fn before_error_event(body: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::rfind(body, b"data: {\"error\":")?;
    let data: Value = serde_json::from_slice(&body[start + "data: ".len()..]).ok()?;
    let is_ours = data["error"]["code"] == "stream_interrupted" && body.ends_with(b"\n\n");
    is_ours.then_some(&body[..start])
}

fn mix(sent: &[u8], got: &[u8]) -> String {
    let same = sent.iter().zip(got).take_while(|(one, other)| one == other);
    let same = same.count();
    let rest = String::from_utf8_lossy(&got[same..got.len().min(same + 200)]);
    format!(
        "not what the provider sent: {same} of {} bytes, then {rest:?}",
        sent.len()
    )
}
