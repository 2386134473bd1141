//! What a provider does with an attempt: a function of the seed, the provider, the topic and
//! how often that topic was asked there before.

use std::time::Duration;

use super::Who;
use super::ask::Topic;
use super::chance::Dice;

/// The header by which an answer says which attempt it belongs to: `{provider}/{try}/{topic}`.
pub const ATTEMPT: &str = "x-storm-answer";

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// A whole answer.
    Whole,
    /// A whole answer; then the connection ends without a word before.
    ThenCloses,
    /// A whole answer, slowly.
    Drips,
    /// The body is read slowly; then a whole answer.
    ReadsSlowly,
    /// A whole answer whose end only the end of the connection tells.
    UntilClose,
    /// A whole answer that is an error.
    Fails,
    /// The same before the body is read.
    FailsEarly,
    /// A stream that ends in order, but in the middle of an event.
    EndsMidEvent,
    /// The connection ends before the head.
    ClosesUnanswered,
    /// The connection (over HTTP/2: the stream) is reset before the head.
    ResetsUnanswered,
    /// No head ever comes.
    Stalls,
    /// What comes is not HTTP.
    NotHttp,
    /// Fewer bytes come than the head says.
    EndsShort,
    /// The connection ends in the middle of the body.
    ClosesMidway,
    /// The connection (over HTTP/2: the stream) is reset there.
    ResetsMidway,
    /// Nothing more comes from there.
    StallsMidway,
    /// The framing is nonsense from there.
    BreaksChunk,
    /// Nothing: the request came on a connection that the provider had just given up.
    Unheeded,
}

const ACTS: [(u64, Act); 17] = [
    (550, Act::Whole),
    (20, Act::ThenCloses),
    (20, Act::Drips),
    (20, Act::ReadsSlowly),
    (15, Act::UntilClose),
    (180, Act::Fails),
    (20, Act::FailsEarly),
    (15, Act::EndsMidEvent),
    (20, Act::ClosesUnanswered),
    (20, Act::ResetsUnanswered),
    (20, Act::Stalls),
    (15, Act::NotHttp),
    (15, Act::EndsShort),
    (20, Act::ClosesMidway),
    (20, Act::ResetsMidway),
    (15, Act::StallsMidway),
    (15, Act::BreaksChunk),
];

/// Every row of the table in the README, and what is no status at all.
const ERRORS: [u16; 36] = [
    400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 413, 415, 422, 425, 429, 429, 429, 451, 500,
    501, 502, 503, 503, 504, 505, 507, 511, 520, 522, 524, 525, 526, 529, 599, 600, 799,
];
/// What is none: a redirect and an answer without a body are the client's to read.
const PASSING: [u16; 4] = [201, 204, 302, 307];
/// How a provider asks to be left alone: for a moment, or for longer than anybody waits.
const PATIENCE: [Option<(&str, &str)>; 6] = [
    None,
    None,
    Some(("retry-after", "1")),
    Some(("retry-after", "86400")),
    Some(("retry-after-ms", "40")),
    Some(("retry-after-ms", "99999999")),
];

/// How an answer's length is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    Length(usize),
    Chunked,
    UntilClose,
}

/// All of what a provider does with an attempt.
pub struct Script {
    pub act: Act,
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub framed: Framed,
    /// An interim answer goes before.
    pub hints: bool,
    /// Where the pieces end in which the body goes out.
    pub pieces: Vec<usize>,
    /// The wait after each.
    pub pause: Duration,
    body: Vec<u8>,
    sent: usize,
}

impl Script {
    pub fn of(seed: u64, who: Who, topic: &Topic, attempt: u32) -> Self {
        let name = format!("{}/{attempt}/{}", who.name(), topic.text);
        let mut dice = Dice::of(seed, &name);
        let act = act(&mut dice, who, topic);
        let status = status(&mut dice, act);
        let streams = topic.streams && status == 200;
        let body = match status {
            204 => Vec::new(),
            _ if streams => events(&mut dice, &name),
            _ => json(&mut dice, &name),
        };
        let sent = match act {
            _ if act.ends_in_order() && act != Act::EndsMidEvent => body.len(),
            _ => dice.size(body.len().max(1)),
        };
        let mut script = Self {
            act,
            status,
            headers: headers(&mut dice, name, status, streams),
            framed: framed(&mut dice, act, streams, body.len()),
            hints: who == Who::Openai && dice.one_in(50),
            pieces: Vec::new(),
            pause: Duration::ZERO,
            body,
            sent,
        };
        script.cut_into_pieces(&mut dice, streams);
        script
    }

    /// The body, as far as it is sent.
    pub fn sent(&self) -> &[u8] {
        &self.body[..self.sent]
    }

    fn cut_into_pieces(&mut self, dice: &mut Dice, streams: bool) {
        let least = match self.act {
            Act::Drips => 4,
            _ if streams => 3,
            _ => 1,
        };
        let cuts = (1..least + dice.below(3)).map(|_| dice.size(self.sent + 1));
        self.pieces = cuts.chain([self.sent]).collect();
        self.pieces.sort_unstable();
        self.pieces.dedup();
        self.pieces.retain(|end| *end > 0);
        self.pause = match self.act {
            Act::Drips => Duration::from_millis(100) + dice.millis(300),
            _ if streams => dice.millis(20),
            _ => Duration::ZERO,
        };
    }
}

impl Act {
    /// What is sent is all there is, and its end is said.
    pub fn ends_in_order(self) -> bool {
        matches!(
            self,
            Self::Whole
                | Self::ThenCloses
                | Self::Drips
                | Self::ReadsSlowly
                | Self::UntilClose
                | Self::Fails
                | Self::FailsEarly
                | Self::EndsMidEvent
        )
    }

    /// A head of an answer comes.
    pub fn answers(self) -> bool {
        !self.is_silent()
    }

    /// No head of an answer comes.
    pub fn is_silent(self) -> bool {
        matches!(
            self,
            Self::ClosesUnanswered
                | Self::ResetsUnanswered
                | Self::Stalls
                | Self::NotHttp
                | Self::Unheeded
        )
    }
}

fn act(dice: &mut Dice, who: Who, topic: &Topic) -> Act {
    match (who, dice.weighted(&ACTS)) {
        (_, Act::EndsMidEvent) if !topic.streams => Act::Whole,
        // HTTP/2 has neither. Its connections begin with what is no HTTP/2, now and then.
        (Who::Groq, Act::NotHttp) => Act::ResetsUnanswered,
        (Who::Groq, Act::BreaksChunk) => Act::ResetsMidway,
        (Who::Groq, Act::UntilClose) => Act::Whole,
        (_, act) => act,
    }
}

fn status(dice: &mut Dice, act: Act) -> u16 {
    match act {
        Act::Fails | Act::FailsEarly => dice.pick(&ERRORS),
        Act::Whole if dice.one_in(30) => dice.pick(&PASSING),
        _ => 200,
    }
}

fn headers(
    dice: &mut Dice,
    name: String,
    status: u16,
    streams: bool,
) -> Vec<(&'static str, String)> {
    let content_type = match streams {
        true => "text/event-stream",
        false => "application/json",
    };
    let mut headers = vec![(ATTEMPT, name), ("content-type", content_type.to_owned())];
    if matches!(status, 302 | 307) {
        headers.push(("location", "/elsewhere".to_owned()));
    }
    if status >= 400
        && let Some((name, value)) = dice.pick(&PATIENCE)
    {
        headers.push((name, value.to_owned()));
    }
    headers
}

fn framed(dice: &mut Dice, act: Act, streams: bool, length: usize) -> Framed {
    match act {
        Act::UntilClose => Framed::UntilClose,
        Act::EndsShort => Framed::Length(length),
        Act::BreaksChunk => Framed::Chunked,
        _ if streams || dice.one_in(3) => Framed::Chunked,
        _ => Framed::Length(length),
    }
}

fn json(dice: &mut Dice, name: &str) -> Vec<u8> {
    let size = match dice.below(100) {
        0 => (256 << 10) + dice.size(1 << 20),
        1..=9 => OVER_ONE_PIECE,
        _ => 100 + dice.size(4 << 10),
    };
    let start = format!(r#"{{"attempt":"{name}","text":""#);
    [start.as_bytes(), dice.letters(size), br#""}"#].concat()
}

/// More than one read, and one frame, takes.
const OVER_ONE_PIECE: usize = 100 << 10;

fn events(dice: &mut Dice, name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..3 + dice.below(12) {
        let start = format!(r#"data: {{"attempt":"{name}","number":{number},"text":""#);
        body.extend_from_slice(start.as_bytes());
        let size = 20 + dice.size(200);
        body.extend_from_slice(dice.letters(size));
        body.extend_from_slice(b"\"}\n\n");
    }
    body.extend_from_slice(b"data: [DONE]\n\n");
    body
}
