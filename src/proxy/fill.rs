//! How an answer gets into a flight: what `pingora-cache` asks of a storage.
//!
//! Of Pingora's cache one half is used: an answer that is being recorded is read on even when
//! the client that asked for it has left, and what the client gets is read back from the
//! recording. The other half, looking answers up and waiting for each other, is ours
//! ([`super::caching`]): Pingora does not notice a client that leaves while it waits for
//! another's answer, and lets all who wait ask at once after a few failures.

use std::any::Any;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_cache::CacheMeta;
use pingora_cache::key::CacheKey;
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget,
    PurgeType, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use crate::cache::flight::{Reader, Recording};

use super::caching::{Keep, Started};

/// Where a request leaves its recording for Pingora to fetch it. Travels with the cache key:
/// that is all that a storage is given.
#[derive(Default)]
pub struct Desk {
    recording: Mutex<Option<(Recording, Option<Keep>)>>,
    reader: Mutex<Option<FirstReader>>,
}

impl Desk {
    /// Leaves a recording, what to do with it when it is whole, and its first reader.
    pub fn leave(&self, started: Started) {
        let Started {
            recording,
            keep,
            reader,
            told,
        } = started;
        *self.recording.lock() = Some((recording, keep));
        *self.reader.lock() = Some(FirstReader {
            reader,
            left: told,
            last: None,
        });
    }
}

/// The key under which Pingora fills, with the desk attached. The key's own bytes are never
/// compared with anything.
pub fn key(desk: &Arc<Desk>) -> CacheKey {
    let mut key = CacheKey::new("", "");
    key.extensions.insert(Arc::clone(desk));
    key
}

/// The storage that records.
pub struct Fill;

/// The one storage: it has no state of its own.
pub static FILL: Fill = Fill;

fn desk(key: &CacheKey) -> Result<&Arc<Desk>> {
    let desk = key.extensions.get::<Arc<Desk>>();
    desk.ok_or_else(|| internal("a cache key without a desk"))
}

fn internal(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, what)
}

#[async_trait]
impl Storage for Fill {
    /// Looked up already, before the request got here.
    async fn lookup(
        &'static self,
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        Ok(None)
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        _tag: Option<&[u8]>,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let reader = desk(key)?.reader.lock().take();
        let reader = reader.ok_or_else(|| internal("a recording without a reader"))?;
        // Pingora asks for a meta and drops it.
        let (now, head) = (SystemTime::UNIX_EPOCH, ResponseHeader::build(200, Some(0))?);
        let meta = CacheMeta::new(now, now, 0, 0, head);
        Ok(Some((meta, Box::new(reader))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        let left = desk(key)?.recording.lock().take();
        let (recording, keep) = left.ok_or_else(|| internal("nothing was left to be recorded"))?;
        Ok(Box::new(Filling { recording, keep }))
    }

    async fn purge(
        &'static self,
        _target: PurgeTarget<'_>,
        _why: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        Ok(PurgeOutcome::NotFound)
    }

    async fn update_meta(
        &'static self,
        _key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        Ok(false)
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// Takes the answer in.
struct Filling {
    recording: Recording,
    keep: Option<Keep>,
}

#[async_trait]
impl HandleMiss for Filling {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        let written = self.recording.write(data, Instant::now());
        written.map_err(|_| internal("no memory for an answer that its client reads too slowly"))
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let Self { recording, keep } = *self;
        if let (Some(recorded), Some(keep)) = (recording.finish(), keep) {
            keep(recorded);
        }
        Ok(MissFinishType::Created(0))
    }
}

/// Gives the answer to the client that asked first.
///
/// A client that has all that was told takes its answer for ended, and may ask again on the same
/// connection or leave, while the answer is recorded until its provider ends it. So its last piece
/// waits for that end.
struct FirstReader {
    reader: Reader,
    /// What is still to come of the length that was told.
    left: Option<u64>,
    /// The last piece.
    last: Option<Bytes>,
}

impl FirstReader {
    /// Whether the answer has all that was told with a piece of `length` bytes.
    fn completes(&mut self, length: usize) -> bool {
        let Some(left) = &mut self.left else {
            return false;
        };
        *left = left.saturating_sub(length as u64);
        *left == 0
    }
}

#[async_trait]
impl HandleHit for FirstReader {
    // Pingora may drop it and call again: nothing is lost.
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        loop {
            let next = self.reader.next().await;
            let next = next.map_err(|_| internal("the recording broke off"))?;
            match next {
                Some(piece) if self.last.is_none() && self.completes(piece.len()) => {
                    self.last = Some(piece);
                }
                Some(piece) => {
                    return Ok(Some(match &mut self.last {
                        // Longer than it was told to be.
                        Some(last) => std::mem::replace(last, piece),
                        None => piece,
                    }));
                }
                None => return Ok(self.last.take()),
            }
        }
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
