//! Where a batch goes, and what became of it there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::file::Lines;
use super::otlp::{self, Encoding, Partial, Resource, SpansRequest};
use super::place::Place;
use super::post::{Answer, Client};

/// Where batches go.
pub enum Destination {
    /// To a collector, as spans.
    Spans(Web, Encoding, Arc<Resource>),
    /// To a collector; the item is the whole request.
    Metrics(Web, Encoding),
    /// To a webhook, as lines.
    Hook(Web),
    /// Into a file, as lines.
    File(Arc<Mutex<Lines>>),
}

/// A place, and what posts there.
pub struct Web {
    /// The place.
    pub place: Place,
    /// Shared by all.
    pub client: Arc<Client>,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken, but for what the collector threw away of it.
    Taken(Partial),
    /// It will never be taken.
    Refused(String),
    /// It may be taken later.
    Later {
        /// What was wrong.
        why: String,
        /// How long to wait, where that was said.
        patience: Option<Duration>,
        /// So many of its items were taken all the same.
        taken: usize,
    },
}

impl Outcome {
    fn later(why: String) -> Self {
        Self::Later {
            why,
            patience: None,
            taken: 0,
        }
    }
}

impl Destination {
    /// Sends a batch there.
    pub async fn send(&self, items: &[Bytes]) -> Outcome {
        match self {
            Self::Spans(web, encoding, resource) => {
                let request = SpansRequest {
                    resource,
                    spans: items,
                };
                let body = otlp::encode(*encoding, &request);
                web.send(body.into(), Some(*encoding)).await
            }
            Self::Metrics(web, encoding) => web.send(items.concat().into(), Some(*encoding)).await,
            Self::Hook(web) => web.send(items.concat().into(), None).await,
            Self::File(lines) => add(Arc::clone(lines), items.to_vec()).await,
        }
    }
}

/// Files may block for as long as their disk wants: that is none of the other exporters' business.
async fn add(lines: Arc<Mutex<Lines>>, items: Vec<Bytes>) -> Outcome {
    let added = tokio::task::spawn_blocking(move || lines.lock().add(&items));
    match added.await {
        Ok(Ok(())) => Outcome::Taken(Partial::default()),
        Ok(Err((taken, error))) => Outcome::Later {
            why: format!("cannot be written: {error}"),
            patience: None,
            taken,
        },
        Err(error) => Outcome::later(format!("cannot be written: {error}")),
    }
}

impl Web {
    async fn send(&self, body: Bytes, otlp: Option<Encoding>) -> Outcome {
        match self.client.post(&self.place, body).await {
            Ok(answer) => self.judge(answer, otlp),
            Err(why) => Outcome::later(why),
        }
    }

    /// By OTLP's rules, which suit webhooks too: only 429, 502, 503 and 504 are worth another try.
    fn judge(&self, answer: Answer, otlp: Option<Encoding>) -> Outcome {
        let why = || format!("answers {}", answer.status);
        match answer.status {
            200..=299 => {
                let partial = otlp.map(|encoding| Partial::read(encoding, &answer.body));
                let mut partial = partial.unwrap_or_default();
                partial.message = self.place.shown(&partial.message);
                Outcome::Taken(partial)
            }
            429 | 502 | 503 | 504 => Outcome::Later {
                why: why(),
                patience: answer.patience,
                taken: 0,
            },
            _ => Outcome::Refused(why()),
        }
    }
}
