//! The client's side of an exchange.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use pingora_core::protocols::http::HttpTask;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::provider::Conversation;
use super::recorder::Recorder;
use crate::proxy::caching;
use crate::proxy::context::Context;
use crate::proxy::response;

/// How many pieces are taken in before the first of them is given: what comes at once leaves at
/// once.
const AHEAD: usize = 4;

/// What happens next.
pub enum Event {
    /// Something came from the provider.
    Came(Result<HttpTask>),
    /// Nothing more comes at once: what is there is to be given.
    IsGiven,
    /// The client took what was given.
    Took(Result<()>),
    /// The client left.
    Left(Box<Error>),
}

/// What the client has, and is to have.
#[derive(Default)]
pub struct Client {
    /// What is there and has not been given.
    waiting: Vec<HttpTask>,
    /// The end is given, or waits to be.
    has_end: bool,
    has_left: bool,
    /// Whose turn it is where both sides are ready.
    after_provider: bool,
}

impl Client {
    /// Has nothing yet. It may have left during an earlier try.
    pub fn new(ctx: &Context) -> Self {
        Self {
            has_left: caching::has_lost_its_client(ctx),
            ..Self::default()
        }
    }

    /// Whether it has left, and others are served.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// Whether more may be taken in: as long as there is room for it, and while it is given what was
    /// recorded before.
    pub fn lets_read(&self, session: &Session) -> bool {
        self.has_room() || session.has_pending_downstream_tasks()
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < AHEAD
    }

    /// Whether it has all of an answer that has ended.
    pub fn has_all(&self, session: &Session) -> bool {
        let has_it = self.waiting.is_empty() && !session.has_pending_downstream_tasks();
        self.has_left || (self.has_end && has_it)
    }

    /// It is to have this next.
    pub fn is_to_have(&mut self, task: HttpTask) {
        self.has_end |= task.is_end();
        self.waiting.push(task);
    }

    /// It is to have this of the body. What has no bytes may be the end to Pingora, and is left out
    /// where it is not.
    pub fn is_to_have_of_body(&mut self, ctx: &mut Context, task: HttpTask) {
        if let HttpTask::Body(piece, ends) = &task {
            let piece = piece.as_ref().filter(|piece| !piece.is_empty());
            if piece.is_none() && !ends {
                return;
            }
            response::body_leaves(piece, ctx);
        }
        self.is_to_have(task);
    }

    /// It is to have what has been recorded, as far as it can take more.
    pub fn reads_back(
        &mut self,
        session: &Session,
        ctx: &mut Context,
        recorder: &mut Recorder,
        ended: bool,
    ) {
        if self.has_left || self.has_end || session.has_pending_downstream_tasks() {
            return;
        }
        while self.has_room() {
            match recorder.next() {
                Some(piece) => {
                    self.is_to_have_of_body(ctx, HttpTask::Body(Some(piece), false));
                }
                None if ended => return self.is_to_have(HttpTask::Done),
                None => return,
            }
        }
    }

    /// What `work` gives. A client that leaves meanwhile ends it, unless others wait for the answer.
    pub async fn stays_during<T>(
        &mut self,
        session: &mut Session,
        ctx: &Context,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                error = left(session), if !self.has_left => {
                    self.leaves(session, ctx, error, caching::is_leading(ctx))?;
                }
            }
        }
    }

    /// What happens next. Where nothing is to be taken in, there is something to be given.
    pub async fn next(
        &mut self,
        session: &mut Session,
        provider: &mut Conversation,
        reads: bool,
    ) -> Event {
        let writes = session.has_pending_downstream_tasks();
        let gives = !writes && !self.has_left && !self.waiting.is_empty();
        let stays = !self.has_left;
        // Both sides may be ready for long: neither is to wait for the other.
        self.after_provider = !(writes && self.after_provider);
        let after_provider = self.after_provider;
        let mut came = pin!(async {
            match reads {
                true => Event::Came(provider.next().await),
                false => pending().await,
            }
        });
        let mut turn = pin!(async {
            match (stays, writes) {
                (false, _) => pending().await,
                (true, true) => {
                    Event::Took(session.write_downstream_proxy_tasks().await.map(|_| ()))
                }
                (true, false) => Event::Left(left(session).await),
            }
        });
        poll_fn(|context| {
            if !after_provider && let Poll::Ready(event) = turn.as_mut().poll(context) {
                return Poll::Ready(event);
            }
            if let Poll::Ready(event) = came.as_mut().poll(context) {
                return Poll::Ready(event);
            }
            match (gives, after_provider) {
                (true, _) => Poll::Ready(Event::IsGiven),
                (false, true) => turn.as_mut().poll(context),
                (false, false) => Poll::Pending,
            }
        })
        .await
    }

    /// Gives what is there: to be written while the provider is listened to, where that is asked for
    /// and the protocol allows it, and at once otherwise. True when it has all that its head told.
    pub async fn give(&mut self, session: &mut Session, apart: bool) -> Result<bool> {
        let tasks = std::mem::take(&mut self.waiting);
        if tasks.is_empty() {
            return Ok(false);
        }
        if !apart || !session.as_downstream().supports_proxy_task_api() {
            let written = session.write_response_tasks(tasks).await;
            return written.map_err(|error| error.into_down());
        }
        for task in tasks {
            session.send_downstream_proxy_task(task).await?;
        }
        Ok(false)
    }

    /// It has left. That is an error, unless the answer is for others, too.
    pub fn leaves(
        &mut self,
        session: &mut Session,
        ctx: &Context,
        error: Box<Error>,
        for_others: bool,
    ) -> Result<()> {
        if !for_others {
            return Err(error.into_down());
        }
        self.has_left = true;
        self.waiting.clear();
        if !response::is_given(session, ctx) {
            caching::client_left(ctx);
        }
        session.as_downstream_mut().on_proxy_failure(error);
        Ok(())
    }

    /// The exchange is over.
    pub async fn end(&mut self, session: &mut Session) {
        let ended = match self.has_left {
            true => Err(gone()),
            false => session.as_downstream_mut().finish_body().await,
        };
        if let Err(error) = ended {
            log::debug!("the client's connection is not kept: {error}");
            session.set_keepalive(None);
        }
    }
}

/// Resolves when the client has left.
async fn left(session: &mut Session) -> Box<Error> {
    loop {
        let read = session.as_downstream_mut().read_body_or_idle(true).await;
        if let Err(error) = read {
            return error;
        }
    }
}

/// The client has left, some time ago.
pub fn gone() -> Box<Error> {
    Error::new_down(ErrorType::ConnectionClosed)
}
