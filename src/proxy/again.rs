//! Trying again: what a failed attempt leads to, the wait before the next one, and how long
//! each may take.

use std::os::fd::RawFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;

use crate::error::{Failure, Kind};
use crate::record::Tried;
use crate::routing::plan::{MAX_TRIES, Target};
use crate::routing::retry::{LONGEST_DELAY, Retry};
use crate::routing::timeouts::Timeouts;
use crate::routing::verdict::{Cause, Verdict};

use super::cancel::{self, Socket};
use super::context::{Body, Context};
use super::{
    Door, attempt, blame, caching, failure, keys, limiting, overload, planning, reset, serve,
};

/// The longest that a target is waited for while another one could be asked.
const LONGEST_BEFORE_ANOTHER: Duration = Duration::from_secs(5);

/// How often this request's target is tried: the request's own word goes before the target's,
/// and that before the gateway's.
pub fn retry(ctx: &Context) -> Retry {
    let gateway = ctx.gateway.as_ref().map(|gateway| gateway.retry);
    let target = target(ctx).map(|target| target.retry);
    let configured = gateway
        .unwrap_or_default()
        .with(&target.unwrap_or_default());
    configured.with(&ctx.directives.retry)
}

/// How long this request's target may take: its own word goes before its provider's, and that
/// before the gateway's.
pub fn timeouts(ctx: &Context) -> Timeouts {
    let target = target(ctx).map(|target| target.timeouts);
    let provider = ctx.provider.as_ref();
    let provider = provider.map(|mounted| mounted.provider.connection.timeouts);
    let gateway = ctx.gateway.as_ref().map(|gateway| gateway.timeouts);
    let own = target.unwrap_or_default().or(provider.unwrap_or_default());
    own.or(gateway.unwrap_or_default())
}

fn target(ctx: &Context) -> Option<&Target> {
    ctx.planned.as_ref()?.target()
}

/// An attempt has failed, and nothing of an answer has reached the client: whether another one
/// follows, at the same target or at the next. Then its wait is set. `asked`: the patience that
/// the provider asks for.
pub fn is_worth_it(
    door: &Door,
    session: &Session,
    ctx: &mut Context,
    cause: Cause,
    asked: Option<Duration>,
) -> bool {
    note(ctx, cause);
    // Nobody is to blame for being slower than a client's own idea of fast.
    if cause != Cause::Timeout || !is_as_wished(ctx) {
        blame::failed(door, ctx, cause, asked);
    }
    if cause == Cause::Timeout {
        blame::was_late(ctx);
    }
    let verdict = cause.verdict();
    if verdict == Verdict::Pass
        || ctx.attempt.count - ctx.attempt.earlier >= MAX_TRIES
        || left_of_all(ctx).is_some_and(|left| left.is_zero())
        || !can_be_sent_again(session, ctx)
    {
        return false;
    }
    if keys::next(door, ctx, cause.blame()) {
        return true;
    }
    let wait = match verdict {
        Verdict::Retry => wait_at_same(ctx, asked),
        _ => None,
    };
    if let Some(wait) = wait {
        ctx.attempt.tries += 1;
        ctx.attempt.wait = wait;
    } else if planning::next(session, ctx) {
        ctx.attempt.tries = 1;
        ctx.attempt.stale = 0;
        ctx.attempt.target_began = None;
    } else {
        return false;
    }
    ctx.attempt.failed_connections = 0;
    true
}

/// The wait before the same target is tried again: as long as it asks for, and no shorter than
/// is configured. `None`: it has been tried often enough, or the wait is too long.
fn wait_at_same(ctx: &Context, asked: Option<Duration>) -> Option<Duration> {
    let retry = retry(ctx);
    if ctx.attempt.tries >= retry.max_attempts {
        return None;
    }
    let own = retry.wait(ctx.attempt.tries, caching::chance());
    let wait = own.max(asked.unwrap_or_default());
    let longest = match ctx.has_another() {
        true => LONGEST_BEFORE_ANOTHER.max(own),
        false => LONGEST_DELAY,
    };
    let fits = wait <= longest && left(ctx).is_none_or(|left| wait < left);
    fits.then_some(wait)
}

fn note(ctx: &mut Context, cause: Cause) {
    let began = ctx.attempt.started.unwrap_or(ctx.clock);
    ctx.tried.push(Tried {
        cause,
        took: began.elapsed(),
        provider: ctx.provider.clone(),
        target: target(ctx).map(|target| target.label().into()),
    });
}

/// Whether all of the body that was sent can be sent once more.
pub fn can_be_sent_again(session: &Session, ctx: &Context) -> bool {
    matches!(ctx.body, Body::Held { .. }) || !session.as_ref().retry_buffer_truncated()
}

/// An error behind which a peer is asked for again.
pub fn again() -> Box<Error> {
    let mut error = Error::new_up(ErrorType::new("to be tried again"));
    error.set_retry(true);
    error
}

/// What comes before an attempt: its wait, a place for it, what rates leave it, and its turn at a target that was left
/// alone. A turn that is taken must be used, so the place comes first.
async fn ready(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<(), Failure> {
    // Who leaves during the wait leaves no call: the last one has failed.
    ctx.attempt.body_sent = false;
    pause(session, ctx).await?;
    planning::put_well_first(door, session, ctx);
    loop {
        limiting::leave_others(ctx);
        overload::enter(door, session, ctx).await?;
        if !limiting::leads_on(door, session, ctx)? && !planning::passes_over(door, session, ctx) {
            return Ok(());
        }
    }
}

/// Whom the next attempt goes to.
pub async fn peer(
    door: &Door,
    session: &mut Session,
    ctx: &mut Context,
) -> pingora_core::Result<Box<HttpPeer>> {
    let peer = match ready(door, session, ctx).await {
        Ok(()) => in_time(left(ctx), attempt::peer(door, session, ctx)).await,
        Err(failure) => Err(failure),
    };
    peer.map_err(|failure| failure::has_no_peer(door, session, ctx, failure))
}

/// Waits for as long as was decided before the next attempt. The client may leave meanwhile.
async fn pause(session: &mut Session, ctx: &mut Context) -> Result<(), Failure> {
    let wait = std::mem::take(&mut ctx.attempt.wait);
    if wait.is_zero() {
        return Ok(());
    }
    let mut waited = pin!(pingora_timeout::sleep(wait));
    // What an unread body brings must not be lost.
    let looks = matches!(ctx.body, Body::Held { .. }) || session.is_body_done();
    let gone = tokio::select! {
        () = &mut waited => return Ok(()),
        gone = serve::client_left(session), if looks => gone,
    };
    if !caching::is_leading(ctx) {
        return Err(gone);
    }
    // Others may wait for this answer. If nobody does, the request is ended from outside.
    caching::client_left(ctx);
    waited.await;
    Ok(())
}

/// What `work` gives, if it does within the time that the request may take.
async fn in_time<T>(
    left: Option<Duration>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(left) = left else { return work.await };
    match pingora_timeout::timeout(left, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(Kind::UpstreamTimeout)),
    }
}

/// What is left of the time that this target may take; `None` when that is not limited.
pub fn left(ctx: &Context) -> Option<Duration> {
    let own = target(ctx).and_then(|target| target.timeouts.total);
    let began = ctx.attempt.target_began.map(|began| began.elapsed());
    let own = own.map(|total| total.saturating_sub(began.unwrap_or_default()));
    match (own, left_of_all(ctx)) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What is left of the time that a request may take, whoever is asked.
fn left_of_all(ctx: &Context) -> Option<Duration> {
    let provider = ctx.provider.as_ref();
    let provider = provider.map(|mounted| mounted.provider.connection.timeouts);
    let gateway = ctx.gateway.as_ref().map(|gateway| gateway.timeouts);
    let total = provider
        .unwrap_or_default()
        .or(gateway.unwrap_or_default())
        .total?;
    Some(total.saturating_sub(ctx.clock.elapsed()))
}

/// Whether the time to the first byte is bounded by what the client asks for, and not by what is
/// configured.
fn is_as_wished(ctx: &Context) -> bool {
    let configured = timeouts(ctx).first_byte;
    let wished = ctx.directives.first_byte;
    wished.is_some_and(|wished| configured.is_none_or(|configured| wished < configured))
}

/// The times of this attempt's connection, as far as Pingora looks after them.
pub fn bound(peer: &mut HttpPeer, ctx: &Context) -> Result<(), Failure> {
    let timeouts = timeouts(ctx);
    let left = left(ctx);
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Failure::new(Kind::UpstreamTimeout));
    }
    let connect = timeouts.connect.unwrap_or(Timeouts::CONNECT);
    let connect = connect.min(left.unwrap_or(Duration::MAX));
    let idle = timeouts.idle.unwrap_or(Timeouts::IDLE);
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    // Pingora has one for the head and the body; what is shorter is watched (`connected`).
    options.read_timeout = Some(idle.max(first_byte(ctx).unwrap_or_default()));
    // Without it a provider that stops reading would hold the request for ever: nobody looks at
    // the answer while it is written.
    options.write_timeout = Some(idle);
    if is_watched(ctx) {
        // A connection that is shut down must not carry others' requests.
        options.max_h2_streams = 1;
    }
    Ok(())
}

/// How long this attempt's provider may take to its first byte. What the request says of it does
/// not hold for the last of several tries: better late than nothing.
fn first_byte(ctx: &Context) -> Option<Duration> {
    let configured = timeouts(ctx).first_byte;
    let most = retry(ctx).max_attempts;
    let several = most > 1 || ctx.planned.is_some() || ctx.step.is_some();
    let is_last = several && ctx.attempt.tries >= most && !ctx.has_another();
    let wished = ctx.directives.first_byte.filter(|_| !is_last);
    match (configured, wished) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_watched(ctx: &Context) -> bool {
    first_byte(ctx).is_some() || timeouts(ctx).total.is_some()
}

/// The connection is there: from now on the provider is watched, where Pingora's own timeout
/// does not do.
pub fn connected(session: &mut Session, peer: &HttpPeer, socket: RawFd, ctx: &mut Context) {
    if !is_watched(ctx) {
        return;
    }
    let Some(switch) = cancel::current() else {
        return;
    };
    let tunnel = ctx.attempt.tunnel.as_ref();
    let socket = tunnel
        .and_then(|known| known.get().copied())
        .unwrap_or(socket);
    let socket = match peer.options.alpn {
        ALPN::H1 => Socket::Own(socket),
        _ => match reset::duplicate(socket) {
            Ok(socket) => Socket::Shared(socket),
            Err(error) => return log::warn!("an attempt's time is not watched: {error}"),
        },
    };
    // Before all of the request is sent the first byte is not due. Over HTTP/2 nothing tells of
    // a body that there is not (`sent`).
    let within = first_byte(ctx).filter(|_| session.as_mut().is_body_empty());
    switch.watch(socket, due(ctx, within));
    ctx.attempt.watched = Some(switch);
}

/// The last of the request is on its way: from now on the first byte is waited for.
pub fn sent(ctx: &Context) {
    if let Some(switch) = &ctx.attempt.watched {
        switch.extend(due(ctx, first_byte(ctx)));
    }
}

/// The head, or a piece of the body, has arrived.
pub fn arrived(end_of_stream: bool, ctx: &Context) {
    let Some(switch) = &ctx.attempt.watched else {
        return;
    };
    match end_of_stream {
        true => switch.let_be(),
        false => switch.extend(due(ctx, timeouts(ctx).idle.or(Some(Timeouts::IDLE)))),
    }
}

/// Another attempt begins: what became of the last one does not explain it.
pub fn begins(ctx: &mut Context) {
    ctx.attempt.watched = None;
}

/// This attempt is over, or goes on as a tunnel, which may be open for as long as it likes.
pub fn ended(ctx: &Context) {
    if let Some(switch) = &ctx.attempt.watched {
        switch.let_be();
    }
}

fn due(ctx: &Context, within: Option<Duration>) -> Instant {
    let now = Instant::now();
    let far = Duration::from_secs(24 * 3600);
    now + within.unwrap_or(far).min(left(ctx).unwrap_or(far))
}

/// What made an attempt fail before the answer's head.
pub fn cause(error: &Error, ctx: &Context) -> Cause {
    match failure::classify(error, false, ctx).kind {
        Kind::UpstreamTimeout => Cause::Timeout,
        Kind::UpstreamTls => Cause::Tls,
        Kind::UpstreamInvalid => Cause::Invalid,
        _ => Cause::Reset,
    }
}

/// Whether the last attempt was ended because it took too long.
pub fn is_overdue(ctx: &Context) -> bool {
    let watched = ctx.attempt.watched.as_ref();
    watched.is_some_and(|switch| switch.is_overdue())
}
