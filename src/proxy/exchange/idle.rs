//! HTTP/1.1 connections to providers that wait for their next request.
//!
//! Pingora's own pool gives every connection that waits a task, which listens for its end, and a
//! timer; both end with the next request. For a small call that is a twentieth of all its work. Here
//! a connection is looked at when it is taken, and by a sweep once a second.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

/// Maps by provider, each under a lock of its own, which is held for a look-up.
const SHARDS: usize = 16;

/// How long a connection that has ended may lie here.
const SWEEP: Duration = Duration::from_secs(1);

/// How many a sweep looks at before requests have their turn.
const AT_ONCE: usize = 64;

/// Connections by what tells those to one provider from all others.
pub struct Idle {
    shards: [Mutex<Shard>; SHARDS],
    count: AtomicUsize,
    most: usize,
    is_swept: AtomicBool,
}

/// The newest of a provider last. What is empty goes with the next sweep.
type Shard = HashMap<u64, Vec<Waiting>>;

struct Waiting {
    stream: Stream,
    since: Instant,
    /// How long it may wait.
    idle: Duration,
}

impl Idle {
    /// Keeps at most `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
            count: AtomicUsize::new(0),
            most,
            is_swept: AtomicBool::new(false),
        })
    }

    /// The connection that came last and is still good.
    pub fn take(&self, key: u64) -> Option<Stream> {
        loop {
            let newest = self.shard(key).lock().get_mut(&key)?.pop()?;
            self.count.fetch_sub(1, Ordering::Relaxed);
            if let Some(good) = newest.if_good(Instant::now()) {
                return Some(good.stream);
            }
        }
    }

    /// Keeps a connection for as long as `idle`, if it is good. Where too many are there, the one
    /// goes that has waited longest of those in its shard; of another, if it is alone there.
    pub fn put(self: &Arc<Self>, key: u64, stream: Stream, idle: Duration) {
        let since = Instant::now();
        let waiting = Waiting {
            stream,
            since,
            idle,
        };
        let Some(waiting) = waiting.if_good(since) else {
            return;
        };
        let (is_full, mut oldest) = {
            let mut shard = self.shard(key).lock();
            let is_full = self.count.fetch_add(1, Ordering::Relaxed) >= self.most;
            let oldest = is_full.then(|| take_oldest(&mut shard)).flatten();
            shard.entry(key).or_default().push(waiting);
            (is_full, oldest)
        };
        if is_full && oldest.is_none() {
            oldest = self.take_of_any();
        }
        if oldest.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.is_swept.load(Ordering::Relaxed) && !self.is_swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        &self.shards[key as usize % SHARDS]
    }

    fn take_of_any(&self) -> Option<Waiting> {
        let mut shards = self.shards.iter();
        shards.find_map(|shard| take_oldest(&mut shard.lock()))
    }

    /// Closes what is no longer good.
    async fn clear(&self, now: Instant) {
        for shard in &self.shards {
            let keys: Vec<_> = shard.lock().keys().copied().collect();
            for key in keys {
                let mut next = Some(0);
                while let Some(from) = next {
                    next = self.clear_some(key, from, now);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Looks at some of a provider's connections, and tells with which to go on.
    fn clear_some(&self, key: u64, from: usize, now: Instant) -> Option<usize> {
        let mut shard = self.shard(key).lock();
        let waiting = shard.get_mut(&key)?;
        let from = from.min(waiting.len());
        let to = (from + AT_ONCE).min(waiting.len());
        let bad: Vec<_> = waiting
            .extract_if(from..to, |one| !one.is_good(now))
            .collect();
        let next = to - bad.len();
        let is_all = next == waiting.len();
        if waiting.is_empty() {
            shard.remove(&key);
        }
        drop(shard);
        self.count.fetch_sub(bad.len(), Ordering::Relaxed);
        (!is_all).then_some(next)
    }
}

impl Waiting {
    /// Itself, unless it has waited too long, or its provider has closed it or said something that
    /// nobody asked for.
    fn if_good(mut self, now: Instant) -> Option<Self> {
        self.is_good(now).then_some(self)
    }

    fn is_good(&mut self, now: Instant) -> bool {
        let mut byte = [0];
        // A task that has done much would be told to wait.
        let read = pin!(tokio::task::unconstrained(self.stream.read(&mut byte)));
        let heard = read.poll(&mut Context::from_waker(Waker::noop()));
        heard.is_pending() && now.duration_since(self.since) < self.idle
    }
}

fn take_oldest(shard: &mut Shard) -> Option<Waiting> {
    let waiting = shard.values_mut().filter(|waiting| !waiting.is_empty());
    let oldest = waiting.min_by_key(|waiting| waiting[0].since)?;
    Some(oldest.remove(0))
}

/// Ends with what it sweeps.
async fn sweep(idle: Weak<Idle>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(idle) = idle.upgrade() else { return };
        idle.clear(Instant::now()).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pingora_core::protocols::l4::stream::Stream as Connection;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(50);

    /// A connection, and its provider's end.
    async fn connection() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, provider) = tokio::join!(stream, listener.accept());
        let stream: Stream = Box::new(Connection::from(stream.unwrap()));
        (stream, provider.unwrap().0)
    }

    /// Keeps a new connection under `key`: its number, and its provider's end.
    async fn put(idle: &Arc<Idle>, key: u64) -> (i32, TcpStream) {
        let (stream, provider) = connection().await;
        let number = stream.id();
        idle.put(key, stream, LONG);
        (number, provider)
    }

    fn take(idle: &Idle, key: u64) -> Option<i32> {
        idle.take(key).map(|stream| stream.id())
    }

    /// What the provider has done is seen once the runtime has looked.
    async fn looked() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn the_newest_of_a_provider_is_taken_first() {
        let idle = Idle::new(9);
        let (one, _one) = put(&idle, 1).await;
        let (two, _two) = put(&idle, 1).await;
        let (other, _other) = put(&idle, 1 + SHARDS as u64).await;
        let taken = idle.take(1).unwrap();
        assert_eq!(taken.id(), two);
        idle.put(1, taken, LONG);
        assert_eq!(idle.take(2).map(|stream| stream.id()), None);
        let both = [idle.take(1).unwrap(), idle.take(1).unwrap()];
        assert_eq!(both.map(|stream| stream.id()), [two, one]);
        assert_eq!(take(&idle, 1), None);
        assert_eq!(take(&idle, 1 + SHARDS as u64), Some(other));
        assert_eq!(idle.count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_its_provider_has_closed_or_spoken_on_is_not_used() {
        let idle = Idle::new(9);
        let (good, _good) = put(&idle, 1).await;
        let (_, closed) = put(&idle, 1).await;
        let (_, mut spoken_on) = put(&idle, 1).await;
        drop(closed);
        spoken_on.write_all(b"HTTP/1.1 408 ").await.unwrap();
        looked().await;
        assert_eq!(take(&idle, 1), Some(good));
        assert_eq!(take(&idle, 1), None);
        assert_eq!(idle.count.load(Ordering::Relaxed), 0);
        // It is not even kept.
        let (stream, provider) = connection().await;
        drop(provider);
        looked().await;
        idle.put(1, stream, LONG);
        assert_eq!(idle.count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_has_ended_is_swept() {
        let idle = Idle::new(9);
        let (_, closed) = put(&idle, 1).await;
        let (good, _good) = put(&idle, 2).await;
        drop(closed);
        looked().await;
        idle.clear(Instant::now()).await;
        assert_eq!(idle.count.load(Ordering::Relaxed), 1);
        assert_eq!(idle.shards[1].lock().len(), 0);
        assert_eq!(take(&idle, 2), Some(good));

        let (_, mut provider) = put(&idle, 2).await;
        idle.clear(Instant::now() + LONG).await;
        assert_eq!(idle.count.load(Ordering::Relaxed), 0);
        let end = tokio::io::AsyncReadExt::read(&mut provider, &mut [0]).await;
        assert_eq!(end.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_sweep_sees_all_of_a_provider() {
        let idle = Idle::new(999);
        let mut providers = Vec::new();
        for _ in 0..AT_ONCE + 9 {
            providers.push(put(&idle, 1).await.1);
        }
        providers.truncate(2);
        looked().await;
        idle.clear(Instant::now()).await;
        assert_eq!(idle.count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_sweep_runs_by_itself_and_ends_with_what_it_sweeps() {
        let idle = Idle::new(9);
        let (stream, mut provider) = connection().await;
        idle.put(1, stream, Duration::from_millis(10));
        // Closed by nobody but the sweep.
        let end = tokio::io::AsyncReadExt::read(&mut provider, &mut [0]).await;
        assert_eq!(end.unwrap(), 0);
        drop(idle);
        let alive = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        assert_eq!(alive(), 1);
        while alive() > 0 {
            looked().await;
        }
    }

    #[tokio::test]
    async fn where_too_many_wait_the_oldest_goes() {
        let idle = Idle::new(2);
        let (_, _first) = put(&idle, 1).await;
        let (second, _second) = put(&idle, 1 + SHARDS as u64).await;
        let (third, _third) = put(&idle, 1).await;
        assert_eq!(idle.count.load(Ordering::Relaxed), 2);
        assert_eq!(take(&idle, 1), Some(third));
        assert_eq!(take(&idle, 1), None);
        assert_eq!(take(&idle, 1 + SHARDS as u64), Some(second));
        // The only one in its shard.
        let (_, _first) = put(&idle, 1).await;
        let (_, _second) = put(&idle, 1).await;
        let (third, _third) = put(&idle, 2).await;
        assert_eq!(take(&idle, 2), Some(third));
        assert_eq!(idle.count.load(Ordering::Relaxed), 1);
        // There is no room at all.
        let idle = Idle::new(0);
        let (_, _provider) = put(&idle, 1).await;
        assert_eq!(take(&idle, 1), None);
    }
}
