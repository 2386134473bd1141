//! The answer of a subrequest on its way to the client.
//!
//! It passes as it comes, but for one that is to tell in its head what it took and cost
//! ([`super::told`]): head and body are held until that is known at its end, within the memory of
//! all held bodies. A larger one passes without that header.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::subrequest::server::SubrequestHandle;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::sync::oneshot;

use super::context::Context;
use super::{Door, told};
use crate::error::{Failure, Kind};
use crate::memory::Reservation;

/// Largest answer whose head waits for its end, in bytes.
const MAX_HELD: u64 = 4 << 20;
/// How long a subrequest may take to end when its client has all of its answer.
const ENDING: Duration = Duration::from_secs(10);
/// How long the head of an answer waits behind its end.
const TELLING: Duration = Duration::from_secs(1);

/// How the carrying of an answer ended.
pub enum Carried {
    /// The client has all of it.
    Whole,
    /// Its status was one with which it goes no further.
    GivenUp,
}

/// Carries an answer.
pub struct Carrier {
    memory: Reservation,
    /// Most bytes of all held bodies together.
    limit: u64,
    held: Option<Held>,
}

/// An answer that waits for its end.
struct Held {
    head: Box<ResponseHeader>,
    body: Vec<Bytes>,
    length: u64,
    told: oneshot::Receiver<HeaderValue>,
}

impl Carrier {
    /// For the answer to one request.
    pub fn new(door: &Door, ctx: &Context) -> Self {
        Self {
            memory: door.memory.reserve_nothing(),
            limit: ctx.snapshot.limits.max_buffered,
            held: None,
        }
    }

    /// Carries the subrequest's answer to the client, watching whether it is still there. An answer
    /// of a status that is `given_up` is left where it is.
    pub async fn carry(
        mut self,
        session: &mut Session,
        mut handle: SubrequestHandle,
        given_up: impl Fn(u16) -> bool,
    ) -> Result<Carried, Failure> {
        loop {
            tokio::select! {
                task = handle.rx.recv() => match task {
                    Some(HttpTask::Header(head, _)) if given_up(head.status.as_u16()) => {
                        return Ok(Carried::GivenUp);
                    }
                    Some(task) => {
                        if self.take(session, task).await? {
                            let_end(handle);
                            return Ok(Carried::Whole);
                        }
                    }
                    None => {
                        self.give(session).await?;
                        return Err(cut());
                    }
                },
                idle = session.as_downstream_mut().read_body_or_idle(true) => {
                    idle.map_err(gone)?;
                }
            }
        }
    }

    /// Takes the next task of an answer. True: the client has all of it.
    pub async fn take(&mut self, session: &mut Session, task: HttpTask) -> Result<bool, Failure> {
        match (task, &mut self.held) {
            (HttpTask::Header(mut head, ends), None) => match told::waits(&mut head) {
                Some(told) => {
                    self.held = Some(Held::new(head, told));
                    Ok(false)
                }
                None => write(session, HttpTask::Header(head, ends)).await,
            },
            (task, None) => write(session, task).await,
            (HttpTask::Body(Some(piece), false), Some(held)) => {
                let length = piece.len() as u64;
                let has_room =
                    held.length + length <= MAX_HELD && self.memory.grow(length, self.limit);
                held.push(piece);
                match has_room {
                    true => Ok(false),
                    false => self.give(session).await,
                }
            }
            (task, Some(held)) => {
                held.is_told().await;
                self.give(session).await?;
                write(session, task).await
            }
        }
    }

    /// Gives what is held as it is.
    async fn give(&mut self, session: &mut Session) -> Result<bool, Failure> {
        let Some(held) = self.held.take() else {
            return Ok(false);
        };
        let mut is_whole = write(session, HttpTask::Header(held.head, false)).await?;
        for piece in held.body {
            let length = piece.len() as u64;
            is_whole = write(session, HttpTask::Body(Some(piece), false)).await?;
            self.memory.shrink(length);
        }
        Ok(is_whole)
    }
}

impl Held {
    fn new(head: Box<ResponseHeader>, told: oneshot::Receiver<HeaderValue>) -> Self {
        Self {
            head,
            body: Vec::new(),
            length: 0,
            told,
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.length += piece.len() as u64;
        self.body.push(piece);
    }

    /// Waits until the subrequest is settled, and takes down what it says.
    async fn is_told(&mut self) {
        let told = tokio::time::timeout(TELLING, &mut self.told).await;
        if let Ok(Ok(told)) = told
            && let Err(error) = told::put(&mut self.head, told)
        {
            log::error!("an answer does not tell what it cost: {error}");
        }
    }
}

async fn write(session: &mut Session, task: HttpTask) -> Result<bool, Failure> {
    session.write_response_tasks(vec![task]).await.map_err(gone)
}

fn gone(error: Box<pingora_core::Error>) -> Failure {
    Failure::new(Kind::ClientGone).with_detail(error.to_string())
}

/// An answer of a told length ends before the subrequest says so. If it could not say it, it would
/// take its client to be gone. The client does not wait for that, and may ask again; a subrequest
/// that does not end in time is ended.
pub fn let_end(handle: SubrequestHandle) {
    tokio::spawn(tokio::time::timeout(ENDING, hear_to_its_end(handle)));
}

/// Keeps both channels of a subrequest open until it has ended.
pub async fn hear_to_its_end(mut handle: SubrequestHandle) {
    while handle.rx.recv().await.is_some() {}
}

/// The subrequest ended without ending its answer: so must this one.
pub fn cut() -> Failure {
    Failure::new(Kind::UpstreamCut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use http::header::CONTENT_LENGTH;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::memory::Memory;
    use crate::telemetry::metrics::Metrics;

    fn carrier() -> Carrier {
        let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
        Carrier {
            memory: memory.reserve_nothing(),
            limit: 1 << 20,
            held: None,
        }
    }

    /// A client that has sent its request, and the session of it.
    async fn asked() -> (DuplexStream, Session) {
        let (mut client, server) = duplex(4096);
        let ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.write_all(ask).await.unwrap();
        let mut session = Session::new_h1(Box::new(server));
        session.as_downstream_mut().read_request().await.unwrap();
        (client, session)
    }

    /// A subrequest that answers what comes out of the channel.
    fn answering() -> (mpsc::Sender<HttpTask>, SubrequestHandle) {
        let (tx, _input) = mpsc::channel(4);
        let (output, rx) = mpsc::channel(4);
        let handle = SubrequestHandle {
            tx,
            rx,
            subreq_wants_body: oneshot::channel().1,
            subreq_proxy_error: oneshot::channel().1,
        };
        (output, handle)
    }

    fn head() -> Box<ResponseHeader> {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header(CONTENT_LENGTH, 2).unwrap();
        Box::new(head)
    }

    fn body() -> HttpTask {
        HttpTask::Body(Some(Bytes::from_static(b"{}")), false)
    }

    async fn received(mut client: DuplexStream, session: Session) -> String {
        drop(session);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_subrequest_is_heard_to_its_end() {
        let (client, mut session) = asked().await;
        let (output, handle) = answering();
        let answering = tokio::spawn(async move {
            for task in [HttpTask::Header(head(), false), body()] {
                output.send(task).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            output.send(HttpTask::Done).await.is_ok()
        });
        let carried = carrier().carry(&mut session, handle, |_| false).await;
        assert!(matches!(carried, Ok(Carried::Whole)));
        assert!(answering.await.unwrap());
        let answer = received(client, session).await;
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_that_waits_goes_out_when_it_has_been_told() {
        let (client, mut session) = asked().await;
        let mut carrier = carrier();
        let (tell, told) = oneshot::channel();
        carrier.held = Some(Held::new(head(), told));
        assert!(!carrier.take(&mut session, body()).await.unwrap());
        assert_eq!(session.response_written().map(|_| ()), None);
        tell.send(HeaderValue::from_static("{}")).unwrap();
        assert!(carrier.take(&mut session, HttpTask::Done).await.unwrap());
        let answer = received(client, session).await;
        assert!(answer.contains("cf-aig-usage: {}\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_that_waits_goes_out_without_memory_and_where_nobody_tells() {
        for (limit, tells) in [(1, true), (1 << 20, false)] {
            let (client, mut session) = asked().await;
            let mut carrier = carrier();
            carrier.limit = limit;
            let (tell, told) = oneshot::channel();
            carrier.held = Some(Held::new(head(), told));
            let early = carrier.take(&mut session, body()).await.unwrap();
            assert_eq!(early, tells);
            if !tells {
                drop(tell);
                assert!(carrier.take(&mut session, HttpTask::Done).await.unwrap());
            }
            let answer = received(client, session).await;
            assert!(!answer.contains("cf-aig-usage"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
        }
    }
}
