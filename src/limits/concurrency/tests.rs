//! What a gate, several of them, and their registry promise.

#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const MILLISECOND: Duration = Duration::from_millis(1);

fn settings(cap: u32) -> Settings {
    Settings {
        max_in_flight: Some(cap),
        ..Settings::default()
    }
}

fn gate(settings: Settings) -> Arc<Gate> {
    Arc::new(Gate::new(provider("openai"), settings))
}

fn provider(slug: &str) -> Scope {
    Scope::Provider(slug.into())
}

/// Enters: at once when there is room and nobody waits, else in the order of coming.
async fn enter(gate: &Arc<Gate>) -> Result<Pass, Full> {
    match gate.try_enter() {
        Some(pass) => Ok(pass),
        None => gate.wait(Instant::now() + LONGEST_WAIT).await,
    }
}

async fn enter_all(gates: &[&Arc<Gate>]) -> Result<Passes, Full> {
    let gates: Vec<_> = gates.iter().copied().map(Arc::clone).collect();
    super::enter_all(&gates, None).await
}

fn capped(cap: u32) -> Arc<Gate> {
    gate(settings(cap))
}

fn counts(gate: &Gate) -> (u32, u32) {
    let now = gate.reading();
    (now.in_flight, now.waiting)
}

/// A call that goes on until it is aborted, once it has had time to enter or to wait.
async fn call(gate: &Arc<Gate>) -> JoinHandle<()> {
    let gate = Arc::clone(gate);
    let call = tokio::spawn(async move {
        let _pass = enter(&gate).await.unwrap();
        std::future::pending::<()>().await;
    });
    sleep(MILLISECOND).await;
    call
}

async fn end(call: JoinHandle<()>) {
    call.abort();
    let _ = call.await;
    sleep(MILLISECOND).await;
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn without_a_cap_everybody_enters_and_is_counted() {
    let gate = gate(Settings::default());
    let passes: Vec<_> = (0..1000).map(|_| gate.try_enter().unwrap()).collect();
    assert_eq!(counts(&gate), (1000, 0));
    assert_eq!(gate.reading().max_in_flight, None);
    drop(passes);
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_is_refused_when_the_wait_is_over() {
    let gate = gate(Settings {
        max_wait: Duration::from_millis(2500),
        ..settings(1)
    });
    let _pass = enter(&gate).await.unwrap();
    let began = Instant::now();
    let full = enter(&gate).await.unwrap_err();
    assert_eq!(
        (full.reason, full.retry_after, &*full.scope),
        (Reason::WaitOver, 3, &provider("openai"))
    );
    assert!((2500..2510).contains(&began.elapsed().as_millis()));
    assert_eq!(counts(&gate), (1, 0));
    assert_eq!(gate.refused(Reason::WaitOver), 1);
    assert_eq!(gate.refused(Reason::QueueFull), 0);
    assert_eq!(
        full.to_string(),
        "provider openai is full: no turn came in time; try again in 3 s"
    );
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_by_default_by_the_cap() {
    let gate = capped(2);
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(call(&gate).await);
    }
    assert_eq!(counts(&gate), (2, 2));
    let began = Instant::now();
    let full = enter(&gate).await.unwrap_err();
    assert_eq!((full.reason, full.retry_after), (Reason::QueueFull, 1));
    assert_eq!(began.elapsed(), Duration::ZERO, "refused at once");
    assert_eq!(gate.refused(Reason::QueueFull), 1);
    for call in calls {
        end(call).await;
    }
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn zeros_refuse_at_once() {
    for (zero, reason) in [
        (settings(0), Reason::QueueFull),
        (
            Settings {
                max_waiting: Some(0),
                ..settings(1)
            },
            Reason::QueueFull,
        ),
        (
            Settings {
                max_wait: Duration::ZERO,
                ..settings(1)
            },
            Reason::WaitOver,
        ),
    ] {
        let gate = gate(zero);
        let _pass = gate.try_enter();
        let began = Instant::now();
        let full = enter(&gate).await.unwrap_err();
        assert_eq!((full.reason, full.retry_after), (reason, 1));
        assert!(began.elapsed() <= MILLISECOND);
        assert_eq!(gate.reading().waiting, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_wait_is_cut() {
    let gate = gate(Settings {
        max_wait: Duration::MAX,
        ..settings(1)
    });
    let _pass = enter(&gate).await.unwrap();
    assert_eq!(enter(&gate).await.unwrap_err().retry_after, 60);
    assert_eq!(enter_all(&[&gate]).await.unwrap_err().retry_after, 60);
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_the_order_of_coming() {
    let gate = capped(1);
    gate.set(Settings {
        max_waiting: Some(20),
        ..settings(1)
    });
    let pass = enter(&gate).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for number in 0..20 {
        let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
        calls.push(tokio::spawn(async move {
            let _pass = enter(&gate).await.unwrap();
            order.lock().push(number);
            sleep(MILLISECOND).await;
        }));
        sleep(MILLISECOND).await;
    }
    drop(pass);
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_leaves_no_trace() {
    let gate = capped(3);
    let passes: Vec<_> = (0..3).map(|_| gate.try_enter().unwrap()).collect();
    let first = call(&gate).await;
    let middle = call(&gate).await;
    let last = call(&gate).await;
    assert_eq!(counts(&gate), (3, 3));
    end(middle).await;
    assert_eq!(counts(&gate), (3, 2));
    end(first).await;
    assert_eq!(counts(&gate), (3, 1));
    drop(passes);
    sleep(MILLISECOND).await;
    assert_eq!(counts(&gate), (1, 0), "the one that stayed");
    end(last).await;
    assert_eq!(counts(&gate), (0, 0));
    assert!(Reason::ALL.iter().all(|reason| gate.refused(*reason) == 0));
}

#[tokio::test(start_paused = true)]
async fn a_pass_given_to_who_goes_before_taking_it_goes_to_the_next() {
    let gate = capped(2);
    let passes = (gate.try_enter().unwrap(), gate.try_enter().unwrap());
    let mut gone = Box::pin(enter(&gate));
    assert!(poll(gone.as_mut()).is_pending());
    let mut next = Box::pin(enter(&gate));
    assert!(poll(next.as_mut()).is_pending());
    drop(passes.0);
    assert_eq!(counts(&gate), (2, 1), "given, not taken");
    drop(gone);
    assert_eq!(counts(&gate), (2, 0));
    assert!(poll(next.as_mut()).is_ready());
    assert_eq!(counts(&gate), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_came_before_the_deadline_counts_even_when_seen_after_it() {
    let gate = capped(1);
    let pass = gate.try_enter().unwrap();
    let mut entering = Box::pin(enter(&gate));
    assert!(poll(entering.as_mut()).is_pending());
    drop(pass);
    tokio::time::advance(DEFAULT_WAIT * 2).await;
    assert!(matches!(poll(entering.as_mut()), Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn a_raised_cap_lets_in_as_many_as_it_adds() {
    let gate = capped(1);
    gate.set(Settings {
        max_waiting: Some(9),
        ..settings(1)
    });
    let mut calls = Vec::new();
    for _ in 0..6 {
        calls.push(call(&gate).await);
    }
    assert_eq!(counts(&gate), (1, 5));
    gate.set(settings(3));
    assert_eq!(counts(&gate), (3, 3));
    gate.set(Settings::default());
    assert_eq!(counts(&gate), (6, 0));
    gate.set(settings(7));
    let seventh = gate.try_enter().unwrap();
    assert!(gate.try_enter().is_none(), "entered uncapped, yet counted");
    drop(seventh);
    for call in calls {
        end(call).await;
    }
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lowered_cap_lets_nobody_in_until_enough_have_left() {
    let gate = capped(5);
    let mut passes: Vec<_> = (0..5).map(|_| gate.try_enter().unwrap()).collect();
    let waiting = call(&gate).await;
    gate.set(settings(2));
    assert_eq!(gate.reading().max_in_flight, Some(2));
    for left in [4, 3, 2] {
        passes.pop();
        sleep(MILLISECOND).await;
        assert_eq!(counts(&gate), (left, 1));
    }
    passes.pop();
    sleep(MILLISECOND).await;
    assert_eq!(counts(&gate), (2, 0), "one that stayed and one that waited");
    gate.set(settings(3));
    let third = gate.try_enter();
    assert!(third.is_some() && gate.try_enter().is_none());
    drop((passes, third));
    end(waiting).await;
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_stalled_provider_holds_nothing_of_others() {
    let (stalled, healthy) = (capped(2), capped(2));
    let (gateway, process) = (capped(4), capped(4));
    let hang = |_| {
        let gates = [&stalled, &gateway, &process].map(Arc::clone);
        tokio::spawn(async move {
            let gates: Vec<_> = gates.iter().collect();
            let _passes = enter_all(&gates).await?;
            std::future::pending::<Result<(), Full>>().await
        })
    };
    let calls: Vec<_> = (0..100).map(hang).collect();
    sleep(MILLISECOND).await;
    assert_eq!(counts(&stalled), (2, 2));
    assert_eq!((counts(&gateway), counts(&process)), ((2, 0), (2, 0)));
    for _ in 0..100 {
        let gates = [&healthy, &gateway, &process];
        let _both = (enter_all(&gates).await, enter_all(&gates).await);
        assert_eq!(counts(&healthy), (2, 0), "not even a wait");
        assert_eq!(counts(&process), (4, 0));
    }
    sleep(DEFAULT_WAIT).await;
    assert_eq!(stalled.refused(Reason::QueueFull), 96);
    assert_eq!(stalled.refused(Reason::WaitOver), 2);
    calls.iter().for_each(JoinHandle::abort);
    sleep(MILLISECOND).await;
    for gate in [&stalled, &healthy, &gateway, &process] {
        assert_eq!(counts(gate), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_full_gateway_holds_nothing_of_its_providers() {
    let (provider, full, idle) = (capped(2), capped(1), capped(1));
    let held = full.try_enter().unwrap();
    let gates = [&provider, &full];
    let mut waits = Box::pin(enter_all(&gates));
    assert!(poll(waits.as_mut()).is_pending());
    assert_eq!((counts(&provider), counts(&full)), ((0, 0), (1, 1)));
    let others = enter_all(&[&provider, &idle]).await.unwrap();
    drop(held);
    assert!(matches!(poll(waits.as_mut()), Poll::Ready(Ok(_))));
    drop(others);
}

#[tokio::test(start_paused = true)]
async fn a_turn_at_one_gate_is_given_on_when_another_has_filled_up() {
    let (first, second) = (capped(1), capped(1));
    let gates = [&first, &second];
    let at_first = first.try_enter().unwrap();
    let mut entering = Box::pin(enter_all(&gates));
    assert!(poll(entering.as_mut()).is_pending());
    let at_second = second.try_enter().unwrap();
    drop(at_first);
    assert!(poll(entering.as_mut()).is_pending());
    assert_eq!((counts(&first), counts(&second)), ((0, 0), (1, 1)));
    drop(at_second);
    let Poll::Ready(Ok(passes)) = poll(entering.as_mut()) else {
        unreachable!("both have room")
    };
    assert_eq!((counts(&first), counts(&second)), ((1, 0), (1, 0)));
    drop(passes);
    assert_eq!((counts(&first), counts(&second)), ((0, 0), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn all_gates_share_one_deadline() {
    let (first, second, third) = (capped(1), capped(1), capped(1));
    let frees_first = first.try_enter().unwrap();
    let _held = second.try_enter().unwrap();
    tokio::spawn(async move {
        sleep(Duration::from_millis(700)).await;
        drop(frees_first);
    });
    let began = Instant::now();
    let full = enter_all(&[&first, &second, &third]).await.unwrap_err();
    assert!((1000..1010).contains(&began.elapsed().as_millis()));
    assert_eq!(full.reason, Reason::WaitOver);
    assert_eq!((counts(&first), counts(&third)), ((0, 0), (0, 0)));
    let refused = [&first, &second].map(|gate| gate.refused(Reason::WaitOver));
    assert_eq!(refused, [0, 1], "by the one it waited for last");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_call_has_time() {
    let gates = [capped(1)];
    let _held = gates[0].try_enter().unwrap();
    let began = Instant::now();
    for (time, waits) in [(300, 300), (0, 0), (5000, 1000)] {
        let began = Instant::now();
        let latest = began + MILLISECOND * time;
        let full = super::enter_all(&gates, Some(latest)).await.unwrap_err();
        assert_eq!((full.reason, full.retry_after), (Reason::WaitOver, 1));
        assert!((waits..waits + 10).contains(&began.elapsed().as_millis()));
    }
    let past = super::enter_all(&gates, Some(began)).await.unwrap_err();
    assert_eq!(past.reason, Reason::WaitOver);
    assert_eq!(counts(&gates[0]), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn at_each_gate_its_own_wait_holds_within_the_longest() {
    let patient = gate(Settings {
        max_wait: Duration::from_secs(5),
        ..settings(1)
    });
    let hasty = capped(1);
    let _held = hasty.try_enter().unwrap();
    let began = Instant::now();
    let full = enter_all(&[&patient, &hasty]).await.unwrap_err();
    assert!((1000..1010).contains(&began.elapsed().as_millis()));
    assert_eq!(full.retry_after, 1);
    assert_eq!(counts(&patient), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_waiting_for_several_leaves_no_trace() {
    let (first, second) = (capped(1), capped(1));
    let held = second.try_enter().unwrap();
    let gates = [&first, &second];
    let mut entering = Box::pin(enter_all(&gates));
    assert!(poll(entering.as_mut()).is_pending());
    drop(held);
    assert_eq!(counts(&second), (1, 0), "given, not taken");
    drop(entering);
    assert_eq!((counts(&first), counts(&second)), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn the_same_gate_twice_is_refused_in_the_end() {
    let gate = gate(Settings {
        max_wait: MILLISECOND * 20,
        ..settings(1)
    });
    let full = enter_all(&[&gate, &gate]).await.unwrap_err();
    assert_eq!(full.reason, Reason::WaitOver);
    assert_eq!(counts(&gate), (0, 0));
}

#[test]
fn nobody_overtakes_between_a_place_given_back_and_its_being_handed_on() {
    let gate = capped(1);
    let pass = gate.try_enter().unwrap();
    let mut first = gate.stand_in_line().unwrap();
    std::thread::scope(|scope| {
        let line = gate.line.lock();
        scope.spawn(|| drop(pass));
        while counts(&gate) != (0, 1) {
            std::thread::yield_now();
        }
        let overtakes = gate.try_enter();
        drop(line);
        assert!(overtakes.is_none());
    });
    assert!(first.turn.try_recv().is_ok());
}

/// The caps of a configuration.
fn caps<const N: usize>(caps: [(Scope, u32); N]) -> BTreeMap<Scope, Settings> {
    let caps = caps.into_iter();
    caps.map(|(scope, cap)| (scope, settings(cap))).collect()
}

fn names(registry: &Registry) -> Vec<String> {
    let gates = registry.gates();
    gates.iter().map(|gate| gate.scope().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_gate_survives_reloads_while_calls_are_in_flight_and_is_then_forgotten() {
    let (registry, openai) = (Registry::default(), provider("openai"));
    registry.apply(caps([(openai.clone(), 1)]));
    let gate = registry.gate(&openai).unwrap();
    let pass = enter(&gate).await.unwrap();
    let waiting = call(&gate).await;
    assert_eq!(counts(&gate), (1, 1));
    registry.apply(caps([(openai.clone(), 2), (Scope::Process, 9)]));
    assert!(Arc::ptr_eq(&gate, &registry.gate(&openai).unwrap()));
    sleep(MILLISECOND).await;
    assert_eq!(counts(&gate), (2, 0), "a raised cap holds at once");
    assert_eq!(names(&registry), ["process", "provider openai"]);
    registry.apply(caps([(Scope::Gateway("a/b".into()), 1)]));
    assert_eq!(gate.reading().max_in_flight, None, "nobody is held up");
    assert_eq!(names(&registry), ["gateway a/b", "provider openai"]);
    drop(gate);
    registry.apply(caps([(openai.clone(), 1)]));
    let again = registry.gate(&openai).unwrap();
    assert_eq!(counts(&again), (2, 0), "the calls kept it");
    registry.apply(BTreeMap::new());
    drop((pass, again));
    assert_eq!(names(&registry), ["provider openai"]);
    end(waiting).await;
    assert_eq!(names(&registry), [""; 0]);
    assert!(registry.gate(&openai).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_cap_that_is_gone_lets_everybody_in() {
    let registry = Registry::default();
    registry.apply(caps([(Scope::Process, 1)]));
    let gate = registry.gate(&Scope::Process).unwrap();
    let calls = [call(&gate).await, call(&gate).await];
    assert_eq!(counts(&gate), (1, 1));
    registry.apply(BTreeMap::new());
    sleep(MILLISECOND).await;
    assert_eq!(counts(&gate), (2, 0));
    for call in calls {
        end(call).await;
    }
}

/// Runs `work` on eight threads, each with a number, until all are done.
fn on_eight_threads(work: impl Fn(usize) + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || work(number));
        }
    });
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

/// Enters, and checks against a count of its own that no more than `most` are inside.
async fn visit(gate: &Arc<Gate>, inside: &AtomicU32, most: u32) {
    let _pass = enter(gate).await.unwrap();
    assert!(inside.fetch_add(1, Ordering::SeqCst) < most);
    tokio::task::yield_now().await;
    inside.fetch_sub(1, Ordering::SeqCst);
}

#[test]
fn eight_threads_never_exceed_the_cap_and_all_get_their_turn() {
    let gate = gate(Settings {
        max_wait: LONGEST_WAIT,
        max_waiting: Some(8),
        ..settings(3)
    });
    let inside = AtomicU32::new(0);
    on_eight_threads(|_| {
        block_on(async {
            for _ in 0..3000 {
                visit(&gate, &inside, 3).await;
            }
        });
    });
    assert_eq!(counts(&gate), (0, 0));
    assert!(Reason::ALL.iter().all(|reason| gate.refused(*reason) == 0));
}

#[test]
fn eight_threads_with_gates_in_common_all_get_their_turn() {
    let patient = |cap| Settings {
        max_wait: LONGEST_WAIT,
        max_waiting: Some(8),
        ..settings(cap)
    };
    let providers = [gate(patient(2)), gate(patient(1))];
    let gateways = [gate(patient(2)), gate(patient(1))];
    let process = gate(patient(2));
    on_eight_threads(|thread| {
        let provider = &providers[thread % 2];
        let gateway = &gateways[thread / 2 % 2];
        block_on(async {
            for _ in 0..1000 {
                let _passes = enter_all(&[provider, gateway, &process]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    });
    for gate in providers.iter().chain(&gateways).chain([&process]) {
        assert_eq!(counts(gate), (0, 0));
    }
}

/// One call that stays, and one that leaves: while it waits, once it has a pass, or in the
/// moment between.
async fn come_and_go(gate: &Arc<Gate>) {
    let mut leaves = Box::pin(enter(gate));
    let _ = poll(leaves.as_mut());
    tokio::task::yield_now().await;
    drop(leaves);
    let _pass = enter(gate).await.unwrap();
    tokio::task::yield_now().await;
}

#[test]
fn nobody_is_forgotten_when_threads_leave_the_line_and_the_cap_changes_all_the_time() {
    let cap = |round: usize| Settings {
        max_in_flight: [Some(1), Some(4), None, Some(2)][round % 4],
        max_wait: LONGEST_WAIT,
        max_waiting: Some(16),
    };
    let gate = gate(cap(0));
    on_eight_threads(|thread| {
        block_on(async {
            for round in 0..3000 {
                if thread == 0 {
                    gate.set(cap(round));
                }
                come_and_go(&gate).await;
            }
        });
    });
    assert_eq!(counts(&gate), (0, 0));
    assert!(gate.line.lock().queue.is_empty());
    assert!(Reason::ALL.iter().all(|reason| gate.refused(*reason) == 0));
}
