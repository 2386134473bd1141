//! The exchange with a provider of a request whose body is held: one try after the other, until
//! one has an answer that goes to the client.
//!
//! Pingora's own engine sends the body while it reads the answer, in two halves that pass each
//! other pieces over channels. Of a held body nothing is still to come, so one line of steps does:
//! connect, ask, take the answer in, give it. That costs less, sends again what is larger than Pingora's
//! replay buffer, and records answers on the way. Bodies that stream through, and upgrades,
//! are Pingora's. Both ways call the same functions of this directory for all that is decided; each
//! keeps connections of its own.

mod connections;
mod giving;
mod head;
mod idle;
mod provider;
mod recorder;

use bytes::Bytes;
use http::{StatusCode, Version};
use pingora_core::protocols::http::HttpTask;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::{Body, Context};
use super::response::{self, Head};
use super::{Door, again, attempt, caching, cork, failure};
pub use connections::Connections;
use giving::{Client, Event};
use provider::Conversation;
use recorder::Recorder;

/// Whether a request takes this way.
pub fn takes(session: &Session, ctx: &Context) -> bool {
    matches!(ctx.body, Body::Held { .. }) && !attempt::is_websocket(session)
}

/// Asks until an answer has been given. An error is what the last try failed with; what of the
/// answer has been given by then can be told by the session.
pub async fn run(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<()> {
    loop {
        match try_once(door, session, ctx).await {
            // How often is bounded where it is decided (`again`, `failure`).
            Err(error) if error.retry() => {}
            ended => return ended,
        }
    }
}

async fn try_once(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<()> {
    let peer = again::peer(door, session, ctx).await?;
    let connected = door.connections.get(&peer).await;
    let (http, reused) = connected.map_err(|mut error| {
        error.as_up();
        failure::could_not_connect(door, session, ctx, error).into_up()
    })?;
    ctx.attempt.reused = reused;
    let mut provider = Conversation::new(http, &peer);
    cork::request(session, &peer, provider.socket());
    again::connected(session, &peer, provider.socket(), ctx);
    let mut exchange = Exchange {
        door,
        client: Client::new(ctx),
        recorder: None,
    };
    let ended = exchange.converse(session, ctx, &peer, &mut provider).await;
    let has_left = exchange.client.has_left();
    // What others read of it ends here, too.
    drop(exchange);
    match ended {
        Ok(()) => {
            provider.end(&door.connections, &peer).await;
            // Pingora would end in order what is not said to have failed.
            match has_left && !response::is_given(session, ctx) {
                true => Err(giving::gone()),
                false => Ok(()),
            }
        }
        Err(mut error) => {
            provider.abandon(&door.connections, &peer, &mut error).await;
            Err(failure::broke(door, session, ctx, error, reused))
        }
    }
}

/// One try, once it is connected.
struct Exchange<'a> {
    door: &'a Door,
    client: Client,
    /// Takes the answer in for others than the client, too.
    recorder: Option<Recorder>,
}

impl Exchange<'_> {
    async fn converse(
        &mut self,
        session: &mut Session,
        ctx: &mut Context,
        peer: &HttpPeer,
        provider: &mut Conversation,
    ) -> Result<()> {
        let head = head::of(session, ctx, provider.is_http2(), peer.is_tls())?;
        let body = held(ctx);
        let asking = provider.ask(head, body.is_empty());
        self.client.stays_during(session, ctx, asking).await??;
        ctx.attempt.body_sent = true;
        again::sent(ctx);
        let sending = provider.send(body);
        self.client.stays_during(session, ctx, sending).await?;
        loop {
            let next = provider.next();
            let next = self.client.stays_during(session, ctx, next).await??;
            let HttpTask::Header(head, ends) = next else {
                return Err(invalid("an answer without a head"));
            };
            let is_final = !head.status.is_informational();
            self.take_head(session, ctx, head, ends)?;
            if is_final {
                return self.pass(session, ctx, provider).await;
            }
            // It says that the answer takes its time, and is not to wait for it.
            if let Err(error) = self.client.give(session, false).await {
                self.client
                    .leaves(session, ctx, error, caching::is_leading(ctx))?;
            }
        }
    }

    /// The head is there. It leaves with the first of the body, if that is there, too.
    fn take_head(
        &mut self,
        session: &mut Session,
        ctx: &mut Context,
        mut head: Box<ResponseHeader>,
        ends: bool,
    ) -> Result<()> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(invalid("an upgrade that nobody asked for"));
        }
        match response::head_arrived(self.door, session, &head, ctx) {
            Ok(Head::Passes) => {}
            Ok(Head::IsGivenUp) => return Err(again::again()),
            Err(failure) => return Err(ctx.fail(failure)),
        }
        if !head.status.is_informational() {
            let recording = caching::record(self.door, session, &head, ctx);
            self.recorder = recording.map(Recorder::new);
            // Then the answer is taken in while its first reader is slow. Over HTTP/2 Pingora cannot:
            // there it is taken in as that reader takes it.
            session.set_proxy_tasks_enabled(self.recorder.is_some());
            if ends && let Some(recorder) = &mut self.recorder {
                recorder.finish();
            }
        }
        if self.client.has_left() {
            // Nobody else wants it.
            let is_for_others = self.recorder.is_some() || head.status.is_informational();
            return is_for_others.then_some(()).ok_or_else(giving::gone);
        }
        if head.status.is_informational() && session.req_header().version == Version::HTTP_10 {
            // It knows none (RFC 9110, 15.2).
            return Ok(());
        }
        head::leaves(session, &mut head, ends, ctx)?;
        self.client.is_to_have(HttpTask::Header(head, ends));
        Ok(())
    }

    /// Takes the body in and gives it.
    async fn pass(
        &mut self,
        session: &mut Session,
        ctx: &mut Context,
        provider: &mut Conversation,
    ) -> Result<()> {
        loop {
            let ended = provider.is_over();
            let is_recorded = self.recorder.is_some();
            if let Some(recorder) = &mut self.recorder {
                self.client.reads_back(session, ctx, recorder, ended);
            }
            if ended && self.client.has_all(session) {
                break;
            }
            // An answer that others wait for is not held up by a slow client.
            let apart = is_recorded && !ended;
            let reads = !ended && self.client.lets_read(session);
            let has_what_was_told = match self.client.next(session, provider, reads).await {
                Event::Came(task) => self.comes(session, ctx, task).await.map(|()| false),
                Event::IsGiven => match self.client.give(session, apart).await {
                    Err(error) => self.leaves(session, ctx, error),
                    given => given,
                },
                Event::Took(Ok(())) => Ok(false),
                Event::Took(Err(error)) | Event::Left(error) => self.leaves(session, ctx, error),
            }?;
            // The provider's own end may come much later.
            if has_what_was_told && !is_recorded {
                break;
            }
        }
        self.client.end(session).await;
        Ok(())
    }

    /// The client has left: it has nothing then.
    fn leaves(&mut self, session: &mut Session, ctx: &Context, error: Box<Error>) -> Result<bool> {
        let is_recorded = self.recorder.is_some();
        let left = self.client.leaves(session, ctx, error, is_recorded);
        left.map(|()| false)
    }

    /// The next of the body, or why there is none. What came before that is the client's, but for a
    /// head alone that is refused here: a status can still tell.
    async fn comes(
        &mut self,
        session: &mut Session,
        ctx: &mut Context,
        task: Result<HttpTask>,
    ) -> Result<()> {
        let broke = task.is_err();
        let Err(error) = task.and_then(|task| self.take(ctx, task)) else {
            return Ok(());
        };
        if broke || ctx.answer.first_byte.is_some() {
            self.client.give(session, false).await?;
        }
        Err(error)
    }

    /// The next of the body is there, or its end.
    fn take(&mut self, ctx: &mut Context, task: HttpTask) -> Result<()> {
        if let HttpTask::Body(piece, ends) = &task {
            let arrived = response::body_arrived(piece.as_ref(), *ends, ctx);
            arrived.map_err(|failure| ctx.fail(failure))?;
        }
        let Some(recorder) = &mut self.recorder else {
            self.client.is_to_have_of_body(ctx, task);
            return Ok(());
        };
        let ends = task.is_end();
        if let HttpTask::Body(Some(piece), _) = task {
            recorder.write(piece)?;
        }
        if ends {
            recorder.finish();
        }
        Ok(())
    }
}

fn held(ctx: &Context) -> Bytes {
    match &ctx.body {
        Body::Held { bytes, .. } => bytes.clone(),
        Body::Unread | Body::Streaming { .. } => Bytes::new(),
    }
}

/// What a provider may not answer.
fn invalid(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}
