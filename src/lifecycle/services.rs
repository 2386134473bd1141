//! The services that Pingora runs for us, in the order in which they start:
//! [`Binder`], then each [`Listening`], then [`Control`].

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::pin::pin;
use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::{ServiceReadyNotifier, ServiceWithDependents};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::phase::{Phase, State};
use super::reload::Live;
use super::successor::Predecessor;
use super::upgrade::Upgrader;
use super::{program, systemd, watch};
use crate::cache::store::Cache;
use crate::probe::Prober;

/// How long a start takes at most, all parts included.
const STARTED: Duration = Duration::from_secs(1);
/// How often the clock of the cache is written down.
const CACHE_SAVED: Duration = Duration::from_secs(60);
/// How often a process on its way out asks what was purged.
const PURGES_LEARNED: Duration = Duration::from_secs(1);

/// The old process, while this one takes over from it.
pub type SharedPredecessor = Arc<Mutex<Option<Predecessor>>>;

/// Ends the process because it cannot serve, and tells people and the old process why.
fn refuse(predecessor: &SharedPredecessor, reason: &str) -> ! {
    eprintln!("tollgate: {reason}");
    if let Some(mut predecessor) = take(predecessor) {
        predecessor.refuse(reason, &[]);
    }
    exit(1)
}

fn take(predecessor: &SharedPredecessor) -> Option<Predecessor> {
    predecessor
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take()
}

/// Binds the listeners that no old process handed over. Pingora would retry for half a minute
/// and then fail inside a service, where nobody sees it.
pub struct Binder {
    /// What is listened on, all services together.
    pub addresses: Vec<SocketAddr>,
    /// Learns the listeners.
    pub upgrader: Arc<Upgrader>,
    /// Learns of a failure.
    pub predecessor: SharedPredecessor,
}

impl Binder {
    fn bind(&self, listeners: &ListenFds) -> Result<(), String> {
        let mut seen = HashSet::new();
        for address in &self.addresses {
            if !seen.insert(address) {
                return Err(format!(
                    "{address} is listed twice; server.listen and admin.listen must all differ"
                ));
            }
            let key = address.to_string();
            let handed_over = listeners.lock().get(&key).is_some();
            if !handed_over {
                let listener = bind(*address)
                    .map_err(|error| format!("cannot listen on {address}: {error}"))?;
                // Pingora's services take the descriptors out of this table and own them.
                listeners.lock().add(key, listener.into_raw_fd());
            }
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[async_trait]
impl ServiceWithDependents for Binder {
    async fn start_service(
        &mut self,
        listeners: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _tasks_per_listener: usize,
        ready: ServiceReadyNotifier,
    ) {
        let Some(listeners) = listeners else {
            refuse(&self.predecessor, "Pingora gave no table of listeners");
        };
        if let Err(reason) = self.bind(&listeners) {
            refuse(&self.predecessor, &reason);
        }
        self.upgrader.set_listeners(listeners);
        ready.notify_ready();
    }

    fn name(&self) -> &str {
        "binder"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// A listening service that is ready when it accepts, not before.
pub struct Listening<S> {
    /// Pingora's service.
    pub service: S,
    /// Counts the services that accept.
    pub accepting: Arc<AtomicUsize>,
}

#[async_trait]
impl<S: pingora_core::services::Service> ServiceWithDependents for Listening<S> {
    async fn start_service(
        &mut self,
        listeners: Option<ListenFds>,
        shutdown: ShutdownWatch,
        tasks_per_listener: usize,
        ready: ServiceReadyNotifier,
    ) {
        let mut serving = pin!(
            self.service
                .start_service(listeners, shutdown, tasks_per_listener)
        );
        // All descriptors are there already, so the first poll gets as far as accepting.
        let done = poll_fn(|context| Poll::Ready(serving.as_mut().poll(context).is_ready())).await;
        self.accepting.fetch_add(1, Ordering::AcqRel);
        ready.notify_ready();
        if !done {
            serving.await;
        }
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

/// Announces that the process is up, then reloads on SIGHUP and when files change, and probes.
pub struct Control {
    /// Is set to serving.
    pub phase: Arc<Phase>,
    /// Is reloaded.
    pub live: Arc<Live>,
    /// Stops accepting when this process is ready.
    pub predecessor: SharedPredecessor,
    /// Counts the services that accept.
    pub accepting: Arc<AtomicUsize>,
    /// How many must.
    pub expected: usize,
    /// Gives its disk up when another process takes over.
    pub cache: Arc<Cache>,
    /// Looks whether providers are there.
    pub prober: Prober,
    /// What is printed once, for people.
    pub greeting: String,
}

impl Control {
    async fn announce(&self) {
        // Pingora starts dependents even when what they depend on has panicked.
        if self.accepting.load(Ordering::Acquire) < self.expected {
            refuse(
                &self.predecessor,
                "a listener failed to start; see the messages above",
            );
        }
        if let Some(mut predecessor) = take(&self.predecessor) {
            // Its answer takes a moment; this thread has nothing else to do.
            predecessor.ready();
        }
        self.phase.advance(State::Serving);
        if self.live.snapshot().load().caches() {
            self.cache.open();
        }
        systemd::ready("serving");
        eprint!("{}", self.greeting);
    }

    async fn look_after_the_cache(&self) {
        loop {
            tokio::time::sleep(CACHE_SAVED).await;
            self.with_the_cache(Cache::save).await;
        }
    }

    /// The new process gets the disk. What its operators purge, this one still learns of: it
    /// may answer from its memory until it ends.
    async fn hand_the_cache_over(&self) {
        self.with_the_cache(Cache::release_disk).await;
        loop {
            tokio::time::sleep(PURGES_LEARNED).await;
            self.with_the_cache(Cache::learn_purges).await;
        }
    }

    /// Does something with the cache that waits for the disk.
    async fn with_the_cache(&self, something: impl FnOnce(&Cache) + Send + 'static) {
        let cache = self.cache.clone();
        let done = tokio::task::spawn_blocking(move || something(&cache)).await;
        if let Err(error) = done {
            log::error!("the cache: {error}");
        }
    }

    /// What a process does beside its requests until it is on its way out. Never returns.
    async fn carry_on(&self, hangups: io::Result<Signal>) {
        tokio::join!(
            self.reload_on_signal(hangups),
            watch::reload_on_change(&self.live),
            self.look_after_the_cache(),
            self.prober.run(),
            forget_the_start(),
        );
    }

    async fn reload_on_signal(&self, hangups: io::Result<Signal>) {
        match hangups {
            Ok(mut hangups) => {
                while hangups.recv().await.is_some() {
                    // The outcome is logged and counted.
                    let _ = self.live.reload("of SIGHUP").await;
                }
            }
            Err(error) => log::warn!("SIGHUP cannot be handled: {error}"),
        }
    }
}

/// What only the start has needed is dropped once all parts have started.
async fn forget_the_start() {
    tokio::time::sleep(STARTED).await;
    program::forget_how_it_started();
}

#[async_trait]
impl ServiceWithDependents for Control {
    async fn start_service(
        &mut self,
        _listeners: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _tasks_per_listener: usize,
        ready: ServiceReadyNotifier,
    ) {
        // Whoever is told that it is up may send the signal at once, which would end it.
        let hangups = signal(SignalKind::hangup());
        self.announce().await;
        ready.notify_ready();
        tokio::select! {
            // A process on its way out keeps its last configuration, and asks nobody how they are.
            () = self.phase.reached(State::HandingOver) => {}
            () = self.carry_on(hangups) => {}
        }
        if self.phase.state() == State::HandingOver {
            self.hand_the_cache_over().await;
        }
        // The signal keeps being handled, that is ignored, to the end of the process.
    }

    fn name(&self) -> &str {
        "control"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}
