//! A place for every call: before it goes to a provider it enters the gates that are configured
//! for the provider, the gateway and the process, and it keeps its places to its end: through all
//! tries at the same provider, and for as long as its stream or its tunnel is open.
//!
//! What needs no provider needs no place: answers from the cache, requests that wait for
//! another's answer, and those that only carry the bytes of a subrequest.

use std::io;
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_proxy::Session;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::error::{Failure, Kind};
use crate::gateway::Mounted;
use crate::limits::concurrency::{Full, Gate, Passes, Reason, Scope, enter_all, try_enter_all};
use crate::routing::verdict::Cause;

use super::context::Context;
use super::{Door, again, caching, reset, serve};

/// The places of a request, and the time that it waited for them.
#[derive(Default)]
pub struct Places {
    held: Option<Held>,
    /// Of a wait that is not over: when it began.
    since: Option<Instant>,
    waited: Waited,
}

/// Places for calls at one provider.
struct Held {
    provider: Arc<Mounted>,
    _passes: Passes,
}

/// How long a request waited for places.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waited {
    /// All together.
    pub total: Duration,
    /// That of it which came after its first try had begun.
    pub between_tries: Duration,
}

/// Why a call got no place.
enum NoPlace {
    Full(Full),
    ClientGone(Failure),
}

impl Places {
    /// No call is made any more.
    pub fn leave(&mut self) {
        self.held = None;
    }

    /// What is known of them, for the request's next step. No place is taken along.
    pub fn for_next_step(&self) -> Self {
        Self {
            waited: self.waited,
            ..Self::default()
        }
    }

    fn are_at(&self, provider: &Arc<Mounted>) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| Arc::ptr_eq(&held.provider, provider))
    }
}

/// How long the request has waited for places. A wait that is not over ends with it.
pub fn waited(ctx: &mut Context) -> Waited {
    let places = &mut ctx.places;
    if let Some(since) = places.since.take() {
        let time = since.elapsed();
        places.waited.total += time;
        if ctx.attempt.began.is_some() {
            places.waited.between_tries += time;
        }
    }
    places.waited
}

/// Takes the places for a call at the request's provider, unless it has them, and waits for them
/// if it must. Where a provider stays full, the next target of the request's route is asked.
pub async fn enter(door: &Door, session: &mut Session, ctx: &mut Context) -> Result<(), Failure> {
    while let Some(provider) = without_a_place(door, ctx) {
        let gates = gates(door, ctx, &provider);
        let passes = match try_enter_all(gates) {
            Some(passes) => Ok(passes),
            // What only some requests do lies on the heap.
            None => Box::pin(wait(session, ctx, gates)).await,
        };
        match passes {
            Ok(_passes) => ctx.places.held = Some(Held { provider, _passes }),
            Err(NoPlace::ClientGone(failure)) => return Err(failure),
            Err(NoPlace::Full(full)) if goes_elsewhere(door, &full, session, ctx) => {}
            Err(NoPlace::Full(full)) => return Err(busy(&full)),
        }
    }
    Ok(())
}

/// The provider that is called next, if the request needs a place there and has none. Places at
/// others are given back.
fn without_a_place(door: &Door, ctx: &mut Context) -> Option<Arc<Mounted>> {
    let provider = ctx.provider.as_ref()?;
    if ctx.places.are_at(provider) {
        return None;
    }
    ctx.places.leave();
    let needs_one = !gates(door, ctx, provider).is_empty();
    needs_one.then(|| Arc::clone(provider))
}

/// What a call at `provider` must enter. Looked up once for each configuration: requests after
/// that take no lock.
fn gates<'a>(door: &Door, ctx: &Context, provider: &'a Mounted) -> &'a [Arc<Gate>] {
    provider.gates.get_or_init(|| {
        let gateway = ctx.gateway.as_deref();
        let scopes = gateway.map(|gateway| ctx.snapshot.capped(gateway, provider));
        let scopes = scopes.unwrap_or_default();
        let gates = scopes.iter().filter_map(|scope| door.gates.gate(scope));
        gates.collect()
    })
}

/// Waits for places, within the time that the request may take.
async fn wait(
    session: &mut Session,
    ctx: &mut Context,
    gates: &[Arc<Gate>],
) -> Result<Passes, NoPlace> {
    let now = Instant::now();
    // If it is in vain, it counts as a try that took so long.
    ctx.attempt.started = Some(now);
    ctx.places.since = Some(now);
    // Nobody is asked meanwhile.
    ctx.attempt.in_flight = None;
    let latest = again::left(ctx).map(|left| (now + left).into());
    let passes = turn(session, ctx, enter_all(gates, latest)).await;
    waited(ctx);
    passes
}

/// Waits until `entering` is done. The client may leave meanwhile.
async fn turn(
    session: &mut Session,
    ctx: &Context,
    entering: impl Future<Output = Result<Passes, Full>>,
) -> Result<Passes, NoPlace> {
    let mut entering = pin!(entering);
    let gone = tokio::select! {
        biased;
        entered = &mut entering => return entered.map_err(NoPlace::Full),
        gone = client_left(session) => gone,
    };
    if !caching::is_leading(ctx) {
        return Err(NoPlace::ClientGone(gone));
    }
    // Others may wait for this answer. If nobody does, the request is ended from outside.
    caching::client_left(ctx);
    entering.await.map_err(NoPlace::Full)
}

/// Whether the request's route has another target that may have a place: one that has none at
/// its gateway, or in the process, has none anywhere.
fn goes_elsewhere(door: &Door, full: &Full, session: &Session, ctx: &mut Context) -> bool {
    matches!(*full.scope, Scope::Provider(_))
        && again::is_worth_it(door, session, ctx, Cause::Full, None)
}

/// What the client is told: which cap it was, but not whom else it may hold for.
fn busy(full: &Full) -> Failure {
    let (whose, key) = match *full.scope {
        Scope::Process => ("tollgate has", "server.in_flight"),
        Scope::Gateway(_) => (
            "This gateway has",
            "accounts.<account>.gateways.<gateway>.in_flight",
        ),
        Scope::Provider(_) => ("This provider has", "providers.<slug>.in_flight"),
    };
    let why = match full.reason {
        Reason::WaitOver => "no place became free in time",
        Reason::QueueFull => "as many wait for a place as may",
    };
    let message =
        format!("{whose} as many calls in flight as {key} allows, and {why}; try again later");
    Failure::because(Kind::Busy, message)
        .with_retry_after(full.retry_after)
        .with_detail(full.to_string())
}

/// Resolves when the client has left, whether its request has been read or not.
async fn client_left(session: &mut Session) -> Failure {
    if session.is_body_done() {
        return serve::client_left(session).await;
    }
    // HTTP/2 tells beside the body that a client has left. An HTTP/1 body must stay where it is,
    // or it could not be sent on; one that does not fit into the socket's buffer hides its end.
    let Some(http1) = session.as_http1() else {
        return serve::client_left(session).await;
    };
    match hung_up(http1.stream().id()).await {
        Ok(()) => Failure::new(Kind::ClientGone).with_detail("it left while it waited for a place"),
        Err(error) => {
            log::warn!("a client that leaves while it waits for a place is not noticed: {error}");
            std::future::pending().await
        }
    }
}

/// Resolves when the peer has closed the connection, or its side of it. What it has sent before
/// may be unread, and stays so.
async fn hung_up(socket: RawFd) -> io::Result<()> {
    let socket = TcpStream::from_std(reset::duplicate(socket)?.into())?;
    while !socket.ready(Interest::READABLE).await?.is_read_closed() {
        // Nothing is read, but said to have been: then the next change is waited for.
        let read = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = socket.try_io(Interest::READABLE, read);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_is_noticed_behind_what_it_has_sent() {
        for reset in [false, true] {
            let (mut client, mut server) = pair().await;
            let mut noticed = pin!(hung_up(server.as_raw_fd()));
            for piece in ["one", "two"] {
                client.write_all(piece.as_bytes()).await.unwrap();
                let pause = Duration::from_millis(50);
                assert!(tokio::time::timeout(pause, &mut noticed).await.is_err());
            }
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            noticed.await.unwrap();
            if !reset {
                let mut sent = String::new();
                server.read_to_string(&mut sent).await.unwrap();
                assert_eq!(sent, "onetwo");
            }
        }
    }

    #[test]
    fn the_client_learns_which_cap_it_was_and_not_whom_else_it_holds_for() {
        let full = |scope, reason| Full {
            scope: Arc::new(scope),
            reason,
            retry_after: 7,
        };
        let scopes = [
            (Scope::Process, "server.in_flight"),
            (
                Scope::Gateway("secret/tenant".into()),
                "gateways.<gateway>.in_flight",
            ),
            (
                Scope::Provider("custom-secret".into()),
                "providers.<slug>.in_flight",
            ),
        ];
        for (scope, key) in scopes {
            let shown = scope.to_string();
            let failure = busy(&full(scope, Reason::WaitOver));
            assert_eq!((failure.kind, failure.retry_after()), (Kind::Busy, Some(7)));
            assert!(failure.public.contains(key), "{}", failure.public);
            assert!(!failure.public.contains("secret"), "{}", failure.public);
            assert!(failure.detail.unwrap().starts_with(&shown));
        }
        let failure = busy(&full(Scope::Process, Reason::QueueFull));
        assert!(failure.public.contains("as many wait for a place as may"));
    }
}
