//! What becomes of those who ask the same at the same time.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::memory::Memory;
use crate::telemetry::metrics::Metrics;

fn flights() -> Arc<Flights> {
    Arc::default()
}

fn key(byte: u8) -> Key {
    Key::from_hex(&format!("{byte:02x}").repeat(32)).unwrap()
}

fn lead(flights: &Arc<Flights>) -> Lead {
    match flights.join(key(1), WhenAlone::Cancel) {
        Seat::Lead(lead) => lead,
        Seat::Follow(_) => panic!("somebody leads already"),
    }
}

fn follow(flights: &Arc<Flights>) -> Follower {
    match flights.join(key(1), WhenAlone::Cancel) {
        Seat::Follow(follower) => follower,
        Seat::Lead(_) => panic!("nobody leads"),
    }
}

fn head() -> Head {
    Head {
        status: 200,
        headers: Vec::new(),
        answerer: None,
    }
}

fn open(lead: Lead, whole: u64, process: u64) -> Recording {
    let memory = Arc::new(Memory::new(Arc::new(Metrics::new().unwrap())));
    lead.open(head(), Bounds { whole, process }, memory.reserve_nothing())
}

async fn reader(mut follower: Follower) -> Reader {
    match follower.turn().await {
        Turn::Read(reader) => reader,
        _ => panic!("nothing to read"),
    }
}

fn write(recording: &mut Recording, text: &'static str) {
    let written = recording.write(Bytes::from_static(text.as_bytes()), Instant::now());
    written.unwrap();
}

async fn text(reader: &mut Reader) -> Option<String> {
    let piece = reader.next().await.unwrap()?;
    Some(String::from_utf8(piece.to_vec()).unwrap())
}

/// Counts how often a call was ended.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Cancel for Calls {
    fn cancel(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn whoever_joins_late_gets_what_has_passed_at_once_and_then_the_rest() {
    let flights = flights();
    let lead = lead(&flights);
    let listener = Arc::clone(lead.listener());
    let mut recording = open(lead, 100, 1000);
    write(&mut recording, "one ");
    write(&mut recording, "two ");
    let mut follower = reader(follow(&flights)).await;
    assert_eq!(text(&mut follower).await.as_deref(), Some("one two "));
    write(&mut recording, "three");
    let recorded = recording.finish().unwrap();
    assert_eq!(text(&mut follower).await.as_deref(), Some("three"));
    assert_eq!(text(&mut follower).await, None);
    let mut first = listener.reader();
    assert_eq!(text(&mut first).await.as_deref(), Some("one two three"));
    assert_eq!(recorded.pieces.len(), 3);
    assert_eq!(flights.len(), 1, "findable until it is stored");
    drop(recorded);
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_leader_that_stands_down_leaves_its_place_to_one() {
    let flights = flights();
    let failure = Failure::new(Kind::UpstreamTimeout);
    let first = lead(&flights);
    let (mut one, mut two) = (follow(&flights), follow(&flights));
    first.stand_down(Duration::ZERO, &failure);
    let Turn::Lead(second) = one.turn().await else {
        panic!("nobody takes over")
    };
    assert_eq!((second.turn(), second.is_last()), (2, false));
    let waiting = tokio::time::timeout(Duration::from_millis(20), two.turn());
    assert!(waiting.await.is_err(), "the other one goes on waiting");
    second.stand_down(Duration::ZERO, &failure);
    let Turn::Lead(third) = two.turn().await else {
        panic!("nobody takes over")
    };
    let mut late = follow(&flights);
    assert!(third.is_last());
    third.stand_down(Duration::ZERO, &failure);
    assert!(matches!(late.turn().await, Turn::Failed(last) if last == failure));
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_leader_that_is_dropped_leaves_its_place_at_once() {
    let flights = flights();
    let first = lead(&flights);
    let mut follower = follow(&flights);
    drop(first);
    assert!(matches!(follower.turn().await, Turn::Lead(..)));
}

#[tokio::test]
async fn a_failure_of_all_is_everybodys() {
    let flights = flights();
    let lead = lead(&flights);
    let mut follower = follow(&flights);
    lead.fail(Failure::new(Kind::Credential));
    assert!(
        matches!(follower.turn().await, Turn::Failed(failure) if failure.kind == Kind::Credential)
    );
}

#[tokio::test]
async fn the_last_to_leave_ends_the_call() {
    let flights = flights();
    let calls = Arc::new(Calls::default());
    let lead = lead(&flights);
    lead.cancel_with(calls.clone());
    let listener = Arc::clone(lead.listener());
    let follower = follow(&flights);
    listener.leave();
    listener.leave();
    assert_eq!(calls.0.load(Ordering::SeqCst), 0, "somebody listens");
    drop(follower);
    assert_eq!(calls.0.load(Ordering::SeqCst), 1);
    assert!(flights.is_empty(), "nobody joins a call that was ended");
}

#[tokio::test]
async fn a_whole_answer_is_not_ended_by_leaving() {
    let flights = flights();
    let calls = Arc::new(Calls::default());
    let lead = lead(&flights);
    lead.cancel_with(calls.clone());
    let listener = Arc::clone(lead.listener());
    let recorded = open(lead, 100, 1000).finish();
    listener.leave();
    assert_eq!(calls.0.load(Ordering::SeqCst), 0);
    assert_eq!(flights.len(), 1, "findable until it is stored");
    drop(recorded);
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_drained_call_goes_on_until_its_time_is_up() {
    let flights = flights();
    let calls = Arc::new(Calls::default());
    let patience = Duration::from_millis(50);
    let Seat::Lead(lead) = flights.join(key(2), WhenAlone::Drain(patience)) else {
        panic!()
    };
    lead.cancel_with(calls.clone());
    lead.listener().leave();
    assert_eq!(calls.0.load(Ordering::SeqCst), 0);
    assert_eq!(flights.len(), 1);
    while calls.0.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(flights.is_empty());
}

#[tokio::test]
async fn an_answer_too_large_to_keep_passes_and_is_dropped_behind_its_readers() {
    let flights = flights();
    let lead = lead(&flights);
    let listener = Arc::clone(lead.listener());
    let mut recording = open(lead, 8, 16);
    let (mut one, mut two) = (listener.reader(), reader(follow(&flights)).await);
    write(&mut recording, "12345678");
    for _ in 0..20 {
        write(&mut recording, "abcdefgh");
        assert!(flights.is_empty(), "nobody can join any more");
        while one.arrived().is_some() {}
        while two.arrived().is_some() {}
    }
    assert!(recording.flight.state.lock().held <= 16);
    // Who falls too far behind is cut off; the first reader is not.
    write(&mut recording, "abcdefgh");
    while one.arrived().is_some() {}
    write(&mut recording, "abcdefgh");
    write(&mut recording, "abcdefgh");
    assert!(matches!(two.step(), Some(Err(Broken))));
    assert_eq!(one.arrived().map(|piece| piece.len()), Some(16));
    assert!(recording.finish().is_none());
}

#[test]
fn who_does_not_read_uses_up_the_memory_there_is_and_no_more() {
    let flights = flights();
    let lead = lead(&flights);
    let _listener = Arc::clone(lead.listener());
    let mut recording = open(lead, 8, 1 << 20);
    let piece = Bytes::from(vec![0; 64 << 10]);
    let written = (0..100).take_while(|_| recording.write(piece.clone(), Instant::now()).is_ok());
    assert_eq!(written.count(), 16);
}

#[tokio::test]
async fn the_patience_that_a_provider_asks_for_outlives_who_was_to_wait_for_it() {
    let flights = flights();
    let first = lead(&flights);
    let (mut one, mut two) = (follow(&flights), follow(&flights));
    let delay = Duration::from_secs(5);
    first.stand_down(delay, &Failure::new(Kind::UpstreamTimeout));
    let Turn::Lead(second) = one.turn().await else {
        panic!("nobody takes over")
    };
    let not_before = second.not_before();
    assert!(not_before > Instant::now());
    drop((second, one));
    let Turn::Lead(third) = two.turn().await else {
        panic!("nobody takes over")
    };
    assert_eq!(third.not_before(), not_before);
}

#[tokio::test]
async fn a_broken_answer_is_told_to_who_has_begun_to_read_and_to_who_has_not() {
    let flights = flights();
    let lead = lead(&flights);
    let _listener = Arc::clone(lead.listener());
    let mut begun = {
        let follower = follow(&flights);
        let mut recording = open(lead, 100, 1000);
        write(&mut recording, "one");
        let reader = reader(follower).await;
        let mut late = follow(&flights);
        drop(recording);
        assert!(matches!(late.turn().await, Turn::Failed(_)));
        reader
    };
    assert_eq!(text(&mut begun).await.as_deref(), Some("one"));
    assert_eq!(begun.next().await, Err(Broken));
    assert!(flights.is_empty());
}

#[test]
fn pieces_that_come_together_are_marked_as_one() {
    let flights = flights();
    let mut recording = open(lead(&flights), 100, 1000);
    let began = Instant::now();
    let write = |recording: &mut Recording, after: u64| {
        let now = began + Duration::from_millis(after);
        recording.write(Bytes::from_static(b"xy"), now).unwrap();
    };
    for after in [0, 0, 5, 9, 9] {
        write(&mut recording, after);
    }
    let marks: Vec<_> = recording
        .marks
        .iter()
        .map(|mark| (mark.length, mark.after))
        .collect();
    assert_eq!(marks, [(4, 0), (2, 5), (4, 9)]);
}
