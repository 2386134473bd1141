//! Reads what an answer says of itself while it passes, without holding it up.
//!
//! A small answer, and that is nearly every one, only waits here, and is read when it is over, off
//! the path of its request. What is larger is read as it comes, so that no answer takes more
//! than [`MAX_WAITING`] and what one of its events, or its document, may take.

use bytes::Bytes;

use super::ServiceTier;
use super::decoding::{Decoding, Fault};
use super::document::Document;
use super::events::Events;
use super::text::Text;
use super::words::Said;
use super::{Heard, Told, Usage};
use crate::config::schema::Format;
use crate::wire::{Framing, eventstream, sse};

/// Bytes of an answer that wait for its end, as they came.
pub(super) const MAX_WAITING: usize = 256 << 10;
/// Pieces that are smaller are copied: that costs less than counting references to them.
const SMALL: usize = 2 << 10;
/// Most bytes that any content coding may come to; the rest of an answer is not looked into.
const MAX_DECODED: usize = 64 << 20;
/// Largest event that is looked into, in bytes.
const MAX_EVENT: usize = 1 << 20;

/// Watches one answer. Costs a copy or a reference per piece, for almost every answer.
pub struct Observer {
    setup: Setup,
    /// What has not been read.
    waiting: Vec<Bytes>,
    /// Small pieces behind it.
    gathered: Vec<u8>,
    /// Bytes in both.
    length: usize,
    reading: Option<Box<Reading>>,
    /// Another reads the same answer.
    heard: Option<Heard>,
}

/// What the head of the answer tells.
struct Setup {
    is_opaque: bool,
    framing: Framing,
    encoding: Option<Box<str>>,
}

/// How an answer comes: by that it can be told what it took where it does not say so itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As events: how much is written is seen as far as they have come.
    Events,
    /// As a document, which says what it took where that can be told by it.
    Document,
    /// As what cannot be read, such as sound.
    #[default]
    Unreadable,
}

impl Form {
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::Sse | Framing::EventStream => Self::Events,
            Framing::Other => Self::Document,
        }
    }
}

/// What an answer says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What it took; `None` where it reports nothing. Of a stream that did not end it may be
    /// what was reported at its beginning.
    pub usage: Option<Usage>,
    /// The class of service that was given.
    pub tier: ServiceTier,
    /// The model that it names, 1 to 256 bytes.
    pub model: Option<Box<str>>,
    /// What it wrote that `usage` does not count.
    pub text: Text,
    /// Its last event has come, or the whole of its document.
    pub ended: bool,
    /// How it comes.
    pub form: Form,
    /// Why it was not looked into to its end.
    pub fault: Option<Fault>,
}

impl Observed {
    /// What its price depends on; `None` where it reports no tokens.
    pub fn told(self) -> Option<Told> {
        Some(Told {
            usage: self.usage?,
            tier: self.tier,
            model: self.model,
        })
    }

    /// Of a whole answer that has told this, and has nothing else to tell.
    fn whole(told: Told, form: Form) -> Self {
        Self {
            usage: Some(told.usage),
            tier: told.tier,
            model: told.model,
            text: Text::default(),
            ended: true,
            form,
            fault: None,
        }
    }

    /// What another need not read again: all that a whole answer tells.
    fn all(&self) -> Option<Told> {
        if !self.ended || self.fault.is_some() || !self.text.is_empty() {
            return None;
        }
        Some(Told {
            usage: self.usage?,
            tier: self.tier,
            model: self.model.clone(),
        })
    }
}

impl Observer {
    /// For an answer with this head.
    pub fn new(
        format: Format,
        content_type: Option<&[u8]>,
        content_encoding: Option<&str>,
    ) -> Self {
        Self {
            setup: Setup {
                is_opaque: format == Format::Opaque || is_media(content_type),
                framing: Framing::of(content_type, None),
                encoding: content_encoding.map(Into::into),
            },
            waiting: Vec::new(),
            gathered: Vec::new(),
            length: 0,
            reading: None,
            heard: None,
        }
    }

    /// Another reads the same answer: what the whole of it tells is read once.
    pub fn share(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// It is asked before the answer has ended, and may not have seen all of it by then.
    pub fn read_alone(&mut self) {
        self.heard = None;
    }

    /// Looks at the next piece of its body, as it came from the provider.
    pub fn push(&mut self, piece: &Bytes) {
        if self.setup.is_opaque {
            return;
        }
        if let Some(reading) = &mut self.reading {
            return reading.push(piece);
        }
        self.length += piece.len();
        if piece.len() < SMALL {
            self.gathered.extend_from_slice(piece);
        } else {
            self.gather();
            self.waiting.push(piece.clone());
        }
        if self.length > MAX_WAITING {
            self.begin();
        }
    }

    /// Reads a piece that cannot be kept at once.
    pub(super) fn read(&mut self, piece: &[u8]) {
        if !self.setup.is_opaque {
            self.begin().read(piece);
        }
    }

    /// Bytes that it holds in memory.
    pub fn held(&self) -> usize {
        let reading = self.reading.as_ref().map_or(0, |reading| reading.held());
        size_of::<Self>() + self.length + reading
    }

    /// What it saw. Does the work that was put off: not for the path of a request.
    pub fn finish(mut self) -> Observed {
        if self.setup.is_opaque {
            return Observed::default();
        }
        let heard = self.heard.take();
        if let Some(told) = heard.as_ref().and_then(|heard| heard.get()) {
            return Observed::whole(told.clone(), Form::of(self.setup.framing));
        }
        self.begin();
        let reading = self.reading.take();
        let observed = reading.map(|reading| reading.finish()).unwrap_or_default();
        if let Some((heard, told)) = heard.zip(observed.all()) {
            // Another may have been faster: it read the same.
            let _ = heard.set(told);
        }
        observed
    }

    fn gather(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.waiting.push(gathered.into());
        }
    }

    /// Reads what waits.
    fn begin(&mut self) -> &mut Reading {
        self.gather();
        let reading = self
            .reading
            .get_or_insert_with(|| Box::new(Reading::new(&self.setup)));
        self.length = 0;
        for piece in std::mem::take(&mut self.waiting) {
            reading.push(&piece);
        }
        reading
    }
}

/// Sounds and images say nothing of themselves.
fn is_media(content_type: Option<&[u8]>) -> bool {
    let kind = content_type.unwrap_or_default().trim_ascii_start();
    let media = [&b"audio/"[..], b"image/", b"video/"];
    media.iter().any(|prefix| {
        let start = kind.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

/// Reads an answer as it comes.
struct Reading {
    /// `None` where its end has been reached.
    decoding: Option<Decoding>,
    reader: Reader,
    fault: Option<Fault>,
}

enum Reader {
    Sse(sse::Reader, Events),
    Messages(eventstream::Reader, Events),
    Document(Document),
}

impl Reading {
    fn new(setup: &Setup) -> Self {
        let encoding = setup.encoding.as_deref().unwrap_or_default();
        let decoding = Decoding::new(encoding, MAX_DECODED);
        Self {
            fault: decoding.as_ref().err().copied(),
            decoding: decoding.ok(),
            reader: Reader::new(setup.framing),
        }
    }

    fn push(&mut self, piece: &Bytes) {
        match (&self.decoding, &mut self.reader) {
            (Some(decoding), Reader::Document(document)) if decoding.is_identity() => {
                document.push(piece.clone());
            }
            _ => self.read(piece),
        }
    }

    fn read(&mut self, piece: &[u8]) {
        let Some(decoding) = &mut self.decoding else {
            return;
        };
        let reader = &mut self.reader;
        let pushed = decoding.push(piece, &mut |plain| {
            reader.read(plain);
            Ok(())
        });
        if let Err(fault) = pushed {
            self.fault = Some(fault);
            self.decoding = None;
        }
    }

    fn held(&self) -> usize {
        size_of::<Self>() + self.reader.held()
    }

    fn finish(mut self) -> Observed {
        if let Some(decoding) = self.decoding {
            let reader = &mut self.reader;
            let finished = decoding.finish(&mut |plain| {
                reader.read(plain);
                Ok(())
            });
            self.fault = finished.err();
        }
        let form = self.reader.form();
        let (said, text, ended) = self.reader.finish();
        match self.fault {
            // What was read before may be as wrong.
            Some(Fault::Broken | Fault::UnknownCoding) => Observed {
                fault: self.fault,
                ..Observed::default()
            },
            fault => Observed {
                usage: said.report.usage(),
                tier: said.tier.unwrap_or_default(),
                model: said.model,
                text,
                ended,
                form,
                fault,
            },
        }
    }
}

impl Reader {
    fn new(framing: Framing) -> Self {
        match framing {
            Framing::Sse => Self::Sse(sse::Reader::new(MAX_EVENT), Events::default()),
            Framing::EventStream => {
                Self::Messages(eventstream::Reader::new(MAX_EVENT), Events::default())
            }
            Framing::Other => Self::Document(Document::default()),
        }
    }

    fn form(&self) -> Form {
        match self {
            Self::Sse(..) | Self::Messages(..) => Form::Events,
            Self::Document(_) => Form::Document,
        }
    }

    fn read(&mut self, plain: &[u8]) {
        match self {
            Self::Sse(reader, events) => reader.push(plain, &mut |data| events.read(data)),
            Self::Messages(reader, events) => {
                reader.push(plain, &mut |payload| events.read_message(payload));
            }
            Self::Document(document) => document.push(Bytes::copy_from_slice(plain)),
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Sse(reader, events) => reader.held() + events.held(),
            Self::Messages(reader, events) => reader.held() + events.held(),
            Self::Document(document) => document.held(),
        }
    }

    fn finish(self) -> (Said, Text, bool) {
        match self {
            Self::Sse(reader, mut events) => {
                reader.finish(&mut |data| events.read(data));
                let ended = events.ended();
                (events.said, events.text, ended)
            }
            Self::Messages(_, events) => {
                let ended = events.ended();
                (events.said, events.text, ended)
            }
            Self::Document(document) => document.read(),
        }
    }
}
