//! Identical requests at the same time: one call, and nobody is worse off for it.

use std::time::Duration;

use crate::cache::{BODY, cached, chat, status, stored, with_cache};
use crate::support::conf::{CHAT, at};
use crate::support::upstream::End;
use crate::support::{
    Answer, Connection, Ending, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body,
    within,
};

/// Asks for a stream.
const STREAM: &str = r#"{"stream":true}"#;
const DONE: &str = "data: [DONE]\n\n";

/// A provider that speaks this version of HTTP, and a gateway that caches in front of it.
async fn speaking(http: Protocol) -> (Upstream, Gateway) {
    let (upstream, version) = match http {
        Protocol::H1 => (Upstream::h1().await, "http: h1"),
        Protocol::H2 => (Upstream::h2c().await, "http: h2"),
    };
    let provider = at(&upstream, "openai", "/v1", version);
    let accounts = "accounts: { default: { gateways: { default: { cache: {} } } } }\n";
    let gateway = Gateway::start(&(provider + accounts)).await;
    (upstream, gateway)
}

/// Sends `count` copies of `request` at once.
fn all_at_once(
    gateway: &Gateway,
    request: &Request,
    count: usize,
) -> Vec<tokio::task::JoinHandle<Response>> {
    let address = gateway.public();
    let send = |request: Request| tokio::spawn(async move { request.send(address).await });
    (0..count).map(|_| send(request.clone())).collect()
}

async fn joined(tasks: Vec<tokio::task::JoinHandle<Response>>) -> Vec<Response> {
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(within("an answer", task).await.unwrap());
    }
    answers
}

/// Waits until `count` requests are in flight in the gateway.
async fn in_flight(gateway: &Gateway, count: usize) {
    gateway
        .metrics_when("requests in flight", |metrics| {
            metrics.sum("tollgate_requests_in_flight", &[]) >= count as f64
        })
        .await;
    // Counted when their heads are read: their bodies follow, and then they join.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// What `count` clients get that ask the same at once: `reply`, which begins when all wait.
async fn asked_at_once(
    gateway: &Gateway,
    upstream: &Upstream,
    reply: Answer,
    count: usize,
) -> Vec<Response> {
    let gate = Gate::new();
    upstream.script(reply.after(&gate));
    let tasks = all_at_once(gateway, &chat(BODY), count);
    in_flight(gateway, count).await;
    gate.open();
    joined(tasks).await
}

/// A client that leaves after the first event of its stream.
async fn one_leaves(gateway: &Gateway) {
    let mut live = chat(STREAM).open(gateway).await;
    live.read_past("1\n\n").await;
}

/// A gateway that drains calls for `time`.
async fn draining(upstream: &Upstream, time: &str) -> Gateway {
    let beside = format!(", on_client_disconnect: {{ drain: {time} }}");
    Gateway::start(&with_cache(upstream, "ttl: 5m", &beside)).await
}

/// An answer of a byte and, when the gate opens, `length` more.
fn large(length: usize, gate: &Gate) -> Answer {
    let bytes = body::octets(length);
    let reply = Answer::new(200).chunked().text("x").wait(gate);
    bytes.chunks(50_000).fold(reply, Answer::bytes)
}

#[tokio::test]
async fn late_joiners_get_what_has_passed_at_once_and_then_follow_live() {
    for http in [Protocol::H1, Protocol::H2] {
        let (upstream, gateway) = speaking(http).await;
        let (one, two) = (Gate::new(), Gate::new());
        upstream.script(
            Answer::sse()
                .text("data: 1\n\n")
                .text("data: 2\n\n")
                .wait(&one)
                .text("data: 3\n\n")
                .wait(&two)
                .text(DONE),
        );
        let request = chat(STREAM);
        let mut leader = request.open(&gateway).await;
        leader.read_past("2\n\n").await;
        let mut followers = Vec::new();
        for protocol in [Protocol::H1, Protocol::H2] {
            let mut follower = request.clone().over(protocol).open(&gateway).await;
            assert_eq!(follower.header("cf-aig-cache-status"), Some("HIT"));
            assert_eq!(follower.header("content-type"), Some("text/event-stream"));
            let passed = follower.read_past("2\n\n").await;
            assert_eq!(passed, "data: 1\n\ndata: 2\n\n");
            followers.push(follower);
        }
        one.open();
        leader.read_past("3\n\n").await;
        for follower in &mut followers {
            follower.read_past("3\n\n").await;
        }
        two.open();
        assert_eq!(leader.finish().await.ending, Ending::Whole);
        for follower in followers {
            let rest = follower.finish().await;
            assert_eq!((rest.text().as_str(), rest.ending), (DONE, Ending::Whole));
        }
        upstream.only().await;
    }
}

#[tokio::test]
async fn a_thousand_identical_streams_are_one_call_and_a_thousand_whole_answers() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&cached(&upstream)).start().await;
    let gate = Gate::new();
    let mut reply = Answer::sse().wait(&gate);
    for number in 0..50 {
        reply = reply.text(&format!("data: {{\"n\":{number}}}\n\n"));
        if number % 10 == 0 {
            reply = reply.pause(Duration::from_millis(20));
        }
    }
    upstream.script(reply.text(DONE));
    let tasks = all_at_once(&gateway, &chat(STREAM), 1000);
    in_flight(&gateway, 1000).await;
    gate.open();
    let answers = joined(tasks).await;
    let first = answers[0].text();
    assert!(first.ends_with(DONE) && first.contains("\"n\":49"));
    assert!(answers.iter().all(|answer| answer.ending == Ending::Whole));
    assert!(answers.iter().all(|answer| answer.text() == first));
    let misses = answers.iter().filter(|answer| status(answer) == "MISS");
    assert_eq!(misses.count(), 1);
    upstream.only().await;
    gateway
        .metrics_when("999 that shared it", |metrics| {
            let count =
                |status| metrics.sum("tollgate_cache_requests_total", &[("status", status)]);
            count("coalesced") == 999.0 && count("miss") == 1.0
        })
        .await;
}

#[tokio::test]
async fn a_thousand_wait_out_a_bad_minute_with_a_handful_of_calls() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let json = |code| Answer::new(code).header("content-type", "application/json");
    upstream.script(json(429).text("{\"error\":\"slow\"}").after(&gates[0]));
    upstream.script(json(500).text("{\"error\":\"oops\"}").after(&gates[1]));
    upstream.script(json(200).text("{\"choices\":[]}").after(&gates[2]));
    let tasks = all_at_once(&gateway, &chat(BODY), 1000);
    in_flight(&gateway, 1000).await;
    gates.iter().for_each(Gate::open);
    let answers = joined(tasks).await;
    let count = |code| {
        answers
            .iter()
            .filter(|answer| answer.status == code)
            .count()
    };
    assert_eq!((count(429), count(500), count(200)), (1, 1, 998));
    assert!(answers.iter().all(|answer| answer.ending == Ending::Whole));
    assert_eq!(upstream.received(3).await.len(), 3);
}

#[tokio::test]
async fn an_endless_bad_moment_is_everybodys_after_three_tries() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::new(503)
        .header("content-type", "application/json")
        .text("{\"busy\":1}");
    upstream.always(reply.clone());
    for answer in asked_at_once(&gateway, &upstream, reply, 50).await {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (503, "{\"busy\":1}")
        );
        assert_eq!(answer.header("tollgate-error-source"), Some("provider"));
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn who_wait_for_a_provider_that_cannot_be_reached_get_an_honest_error() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(Reply::Close);
    let answers = joined(all_at_once(&gateway, &chat(BODY), 30)).await;
    for answer in &answers {
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    }
    let calls = upstream.requests().len();
    assert!(calls <= 12, "a few calls and not one each: {calls}");
}

#[tokio::test]
async fn a_provider_that_asks_for_long_patience_keeps_nobody_waiting() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::new(429).header("retry-after", "3600");
    let answers = asked_at_once(&gateway, &upstream, reply, 20).await;
    assert!(answers.iter().all(|answer| answer.status == 429));
    upstream.only().await;
}

#[tokio::test]
async fn an_error_that_blames_the_request_is_given_to_all_who_wait_and_not_kept() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::new(422)
        .header("content-type", "application/json")
        .text("{\"error\":\"no\"}");
    for answer in asked_at_once(&gateway, &upstream, reply, 40).await {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (422, "{\"error\":\"no\"}")
        );
    }
    upstream.only().await;
    stored(&gateway).await;
    upstream.script(Answer::json("{}"));
    assert_eq!(chat(BODY).send(&gateway).await.status, 200);
}

#[tokio::test]
async fn a_leader_that_leaves_does_not_fail_those_who_follow() {
    for http in [Protocol::H1, Protocol::H2] {
        for protocol in [Protocol::H1, Protocol::H2] {
            let (upstream, gateway) = speaking(http).await;
            let (head, rest) = (Gate::new(), Gate::new());
            upstream.script(
                Answer::sse()
                    .wait(&head)
                    .text("data: 1\n\n")
                    .wait(&rest)
                    .text(DONE),
            );
            let request = chat(STREAM).over(protocol);
            let leader = request.clone().open(&gateway).await;
            let mut follower = request.open(&gateway).await;
            drop(leader);
            head.open();
            follower.read_past("1\n\n").await;
            // Whoever comes when the leader has long gone follows too.
            let late = chat(STREAM).open(&gateway).await;
            rest.open();
            assert_eq!(follower.finish().await.ending, Ending::Whole);
            assert_eq!(late.finish().await.text(), format!("data: 1\n\n{DONE}"));
            assert_eq!(upstream.requests().len(), 1, "{http:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_leader_that_leaves_before_the_head_does_not_fail_those_who_follow() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::json("{\"choices\":[]}");
    let gate = Gate::new();
    upstream.script(reply.after(&gate));
    let leader = tokio::spawn({
        let (request, address) = (chat(BODY), gateway.public());
        async move { request.try_open(address).await.is_some() }
    });
    upstream.reached(1).await;
    let follower = all_at_once(&gateway, &chat(BODY), 1);
    in_flight(&gateway, 2).await;
    leader.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    let answer = joined(follower).await.remove(0);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"choices\":[]}")
    );
    upstream.only().await;
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    for http in [Protocol::H1, Protocol::H2] {
        let (upstream, gateway) = speaking(http).await;
        // Before the head, alone and with a follower that leaves too; and in the middle.
        for (number, followers) in [0, 2].into_iter().enumerate() {
            upstream.script(Reply::Silence);
            let tasks = all_at_once(
                &gateway,
                &chat(&format!("{{\"n\":{number}}}")),
                1 + followers,
            );
            in_flight(&gateway, 1 + followers).await;
            upstream.reached(number + 1).await;
            tasks.iter().for_each(|task| task.abort());
            upstream.abandoned(number + 1).await;
        }
        upstream.script(Answer::sse().text("data: 1\n\n").wait(&Gate::new()));
        one_leaves(&gateway).await;
        upstream.abandoned(3).await;
        stored(&gateway).await;
        // What it had been given is known.
        let line = gateway.logged(" status=200 ").await;
        assert!(line.contains(" bytes_out=9 "), "{line}");
        // Every request has its line, also those that were ended from outside.
        gateway
            .metrics_when("five requests", |metrics| {
                metrics.sum("tollgate_requests_total", &[]) == 5.0
                    && metrics.sum("tollgate_errors_total", &[("kind", "client_gone")]) == 5.0
            })
            .await;
    }
}

#[tokio::test]
async fn a_call_that_is_drained_is_kept() {
    let upstream = Upstream::h1().await;
    let gateway = draining(&upstream, "30s").await;
    let gate = Gate::new();
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&gate).text(DONE));
    one_leaves(&gateway).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    stored(&gateway).await;
    let again = chat(STREAM).send(&gateway).await;
    assert_eq!(status(&again), "HIT");
    assert_eq!(again.text(), format!("data: 1\n\n{DONE}"));
    assert!(!upstream.only().await.abandoned);
    gateway.logged("client_gone").await;
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let upstream = Upstream::h1().await;
    let gateway = draining(&upstream, "300ms").await;
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&Gate::new()));
    one_leaves(&gateway).await;
    upstream.abandoned(1).await;
}

#[tokio::test]
async fn a_broken_answer_is_broken_for_everybody_and_says_so() {
    for end in [End::Close, End::Reset] {
        let upstream = Upstream::h1().await;
        let gateway = Gateway::start(&cached(&upstream)).await;
        let gate = Gate::new();
        upstream.script(
            Answer::sse()
                .text("data: 1\n\n")
                .wait(&gate)
                .text("data: 2\n\n")
                .end(end),
        );
        let request = chat(STREAM);
        let mut leader = request.open(&gateway).await;
        leader.read_past("1\n\n").await;
        let follower = request.open(&gateway).await;
        gate.open();
        for live in [leader, follower] {
            let rest = live.finish().await;
            assert!(
                rest.text().contains("stream_interrupted"),
                "{}",
                rest.text()
            );
            assert!(!rest.text().contains("[DONE]"));
        }
        stored(&gateway).await;
        upstream.script(Answer::json("{}"));
        assert_eq!(status(&request.send(&gateway).await), "MISS");
    }
}

#[tokio::test]
async fn a_slow_leader_slows_nobody_over_http1() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&with_cache(&upstream, "max_body: 8MiB", "")).await;
    let gate = Gate::new();
    upstream.script(large(6_000_000, &gate));
    // It reads nothing, and far more comes than sockets take.
    let leader = chat(BODY).open(&gateway).await;
    let follower = chat(BODY).open(&gateway).await;
    gate.open();
    assert_eq!(follower.finish().await.body.len(), 6_000_001);
    stored(&gateway).await;
    assert_eq!(status(&chat(BODY).send(&gateway).await), "HIT");
    let slow = leader.finish().await;
    assert_eq!((slow.body.len(), slow.ending), (6_000_001, Ending::Whole));
    upstream.only().await;
}

#[tokio::test]
async fn who_wait_for_an_error_learn_how_long_to_wait() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let reply = Answer::new(503)
        .header("retry-after", "99")
        .header("set-cookie", "a=b");
    let answers = asked_at_once(&gateway, &upstream, reply, 10).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.header("retry-after") == Some("99"))
    );
    let cookies = answers
        .iter()
        .filter(|answer| answer.header("set-cookie").is_some());
    assert_eq!(cookies.count(), 1);
}

#[tokio::test]
async fn an_encoding_that_was_not_asked_for_is_shared_with_nobody() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let zipped = body::encoded("gzip", b"{}");
    let reply = Answer::json("")
        .header("content-encoding", "gzip")
        .bytes(&zipped);
    upstream.always(Answer::json("{}"));
    let answers = asked_at_once(&gateway, &upstream, reply, 10).await;
    let zipped = answers
        .iter()
        .filter(|answer| answer.header("content-encoding").is_some());
    assert_eq!(zipped.count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_slow_follower_slows_nobody() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&with_cache(&upstream, "max_body: 8MiB", "")).await;
    let gate = Gate::new();
    upstream.script(large(4_000_000, &gate));
    let leader = chat(BODY).open(&gateway).await;
    let slow = chat(BODY).open(&gateway).await;
    let quick = chat(BODY).open(&gateway).await;
    gate.open();
    assert_eq!(leader.finish().await.body.len(), 4_000_001);
    assert_eq!(quick.finish().await.body.len(), 4_000_001);
    assert_eq!(slow.finish().await.body.len(), 4_000_001);
    upstream.only().await;
}

#[tokio::test]
async fn a_client_that_has_its_whole_answer_has_not_left_when_it_leaves() {
    for http in [Protocol::H1, Protocol::H2] {
        let (upstream, gateway) = speaking(http).await;
        let end = Gate::new();
        let whole = r#"{"object":"chat.completion","choices":[]}"#;
        // Over HTTP/1.1 the length that was told is the end, whatever the provider does then.
        let reply = Answer::json(whole);
        upstream.script(match http {
            Protocol::H1 => reply.wait(&end),
            Protocol::H2 => reply,
        });
        let answer = chat(BODY).send(&gateway).await;
        assert_eq!(
            (answer.text().as_str(), answer.ending),
            (whole, Ending::Whole)
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
        end.open();
        gateway
            .metrics_when("a stored answer", |metrics| {
                metrics.sum("tollgate_cache_stored_total", &[("tier", "memory")]) == 1.0
            })
            .await;
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.sum("tollgate_errors_total", &[]), 0.0, "{http:?}");
        assert_eq!(status(&chat(BODY).send(&gateway).await), "HIT");
    }
}

/// Over HTTP/2 a provider says that an answer has ended after the last byte of the length it told.
/// A client over HTTP/1.1 that had that byte would take its answer for ended, and ask again on a
/// connection that is not ready.
#[tokio::test]
async fn the_last_byte_waits_for_the_end_of_the_answer() {
    let (upstream, gateway) = speaking(Protocol::H2).await;
    let end = Gate::new();
    let whole = r#"{"object":"chat.completion","choices":[]}"#;
    upstream.script(Answer::json(whole).wait(&end));
    upstream.script(Answer::json("[]"));
    let mut connection = Connection::open(&gateway).await;
    let ending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        end.open();
    });
    let first = connection.exchange(&chat(BODY)).await.unwrap();
    assert!(ending.is_finished());
    assert_eq!(
        (first.text().as_str(), first.ending),
        (whole, Ending::Whole)
    );
    let second = connection.exchange(&chat(r#"{"n":2}"#)).await;
    assert_eq!(second.expect("an answer").text(), "[]");
    stored(&gateway).await;
    assert_eq!(
        gateway.metrics().await.sum("tollgate_errors_total", &[]),
        0.0
    );
    assert_eq!(status(&chat(BODY).send(&gateway).await), "HIT");
}

#[tokio::test]
async fn an_answer_that_breaks_before_its_end_is_not_whole() {
    let (upstream, gateway) = speaking(Protocol::H2).await;
    let reply = Answer::json("{}").pause(Duration::from_millis(50));
    upstream.script(reply.end(End::Reset));
    let answer = chat(BODY).send(&gateway).await;
    assert_eq!(answer.ending, Ending::Cut);
    stored(&gateway).await;
    upstream.script(Answer::json("{}"));
    assert_eq!(status(&chat(BODY).send(&gateway).await), "MISS");
}

#[tokio::test]
async fn an_answer_that_its_client_gave_up_amid_does_not_end_in_order() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let gate = Gate::new();
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&gate).text(DONE));
    let mut leader = Connection::open(&gateway).await;
    let length = STREAM.len();
    let asked = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-one\r\ncontent-length: {length}\r\n\r\n{STREAM}"
    );
    leader.write(asked).await;
    assert!(leader.head().await.is_some());
    let mut follower = chat(STREAM).open(&gateway).await;
    follower.read_past("1\n\n").await;
    // What is not asked for before the answer is there ends it, and the client still reads.
    leader.write("X").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    assert!(follower.finish().await.text().ends_with(DONE));
    let rest = leader.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
    upstream.only().await;
}
