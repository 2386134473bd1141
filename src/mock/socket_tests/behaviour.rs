//! What a model name asks for: errors, pauses, cuts; and clients that go away.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn errors_have_their_status_and_headers() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    for (status, retry_after) in [(429, Some("1")), (503, Some("1")), (401, None), (529, None)] {
        let model = format!("mock-status-{status}");
        let answer = client.send_request(h2_chat(&model, true)).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let header = answer.headers().get("retry-after");
        assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after);
        assert!(text(answer).await.contains(&format!("fail with {status}")));
    }
    let request = h2_post(
        "/v1/messages",
        r#"{"model":"mock-status-529","messages":[]}"#,
    );
    let answer = client.send_request(request).await.unwrap();
    let id = answer.headers()["request-id"].to_str().unwrap().to_owned();
    assert!(
        text(answer)
            .await
            .contains(&format!("\"request_id\":\"{id}\""))
    );
}

#[tokio::test]
async fn events_drip_one_by_one() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    // Only lower bounds: no machine is too slow for them.
    let pauses = Duration::from_millis(40);
    let began = Instant::now();
    let model = "mock-latency-40ms-ttft-40ms-drip-40ms-tokens-1";
    let answer = client.send_request(h2_chat(model, true)).await.unwrap();
    assert!(began.elapsed() >= pauses);
    let mut body = answer.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.unwrap().into_data().unwrap();
        if !frame.is_empty() {
            frames.push(frame);
        }
    }
    assert_eq!(frames.len(), 4, "role, word, finish, [DONE]: {frames:?}");
    assert!(began.elapsed() >= pauses * 5);
}

/// Model names, and how many of a whole stream's seven events come before the cut.
const CUTS: [(&str, usize); 4] = [
    ("mock-cut-3", 3),
    ("mock-cut-3-drip-1ms", 3),
    ("mock-cut-0", 0),
    ("mock-cut-100", 7),
];

#[tokio::test]
async fn a_cut_stream_has_its_events_and_no_end() {
    let mock = Mock::start().await;
    for (model, events) in CUTS {
        let mut client = mock.connect().await;
        let request = post_chat(model, true);
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("data: ").count(), events, "{answer}");
        assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_cut_h2_stream_has_its_events_and_is_reset() {
    let mock = Mock::start().await;
    for (model, events) in CUTS {
        let mut client = mock.connect_h2().await;
        let answer = client.send_request(h2_chat(model, true)).await.unwrap();
        let mut body = answer.into_body();
        let mut read = Vec::new();
        let end = loop {
            match body.frame().await.expect("the stream ended well") {
                Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap()),
                Err(error) => break format!("{error:?}"),
            }
        };
        let answer = String::from_utf8(read).unwrap();
        assert_eq!(answer.matches("data: ").count(), events, "{answer}");
        assert!(end.contains("Reset(StreamId(1), INTERNAL_ERROR"), "{end}");
    }
}

#[tokio::test]
async fn a_cut_answer_is_shorter_than_its_length() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client
        .write_all(post_chat("mock-cut-1", false).as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut client).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    assert_eq!(body.len(), length / 2);

    let mut client = mock.connect_h2().await;
    let answer = client
        .send_request(h2_chat("mock-cut-1", false))
        .await
        .unwrap();
    assert!(answer.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_reset_connection_brings_no_byte() {
    let mock = Mock::start().await;
    let mut client = mock.connect().await;
    client
        .write_all(post_chat("mock-reset", false).as_bytes())
        .await
        .unwrap();
    assert_eq!(read_to_end(&mut client).await, "");

    let mut client = mock.connect_h2().await;
    let error = client
        .send_request(h2_chat("mock-reset", true))
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("Reset(StreamId(1), INTERNAL_ERROR"),
        "{error:?}"
    );
    let answer = client.send_request(h2_chat("mock", false)).await.unwrap();
    assert_eq!(answer.status(), 200, "the connection lives on");
}

const ENDLESS: [&str; 4] = [
    "mock-silent",
    "mock-latency-10m",
    "mock-ttft-10m",
    "mock-drip-10m",
];
/// Long enough for an answer that should not come to come.
const QUIET: Duration = Duration::from_millis(20);

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Waits until no more tasks are left than before a request: one that sleeps on for a
/// client that is gone would keep the count up.
async fn until_tasks_are(before: usize) {
    let patience = Instant::now();
    while tasks() > before {
        let lingering = tasks() - before;
        assert!(
            patience.elapsed().as_secs() < 20,
            "{lingering} tasks linger"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_closed_connection_ends_the_work() {
    let mock = Mock::start().await;
    let before = tasks();
    for model in ENDLESS {
        let mut client = mock.connect().await;
        let request = post_chat(model, true);
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = timeout(QUIET, read_to_end(&mut client)).await;
        assert!(answer.is_err(), "{model} is answered whole: {answer:?}");
        drop(client);
        until_tasks_are(before).await;
    }
}

#[tokio::test]
async fn a_reset_h2_stream_ends_the_work() {
    let mock = Mock::start().await;
    let mut client = mock.connect_h2().await;
    let answer = client.send_request(h2_chat("mock", false)).await.unwrap();
    text(answer).await;
    tokio::time::sleep(QUIET).await;
    let before = tasks();
    for model in ENDLESS {
        let request = client.send_request(h2_chat(model, true));
        let answer = timeout(QUIET, async { text(request.await.unwrap()).await }).await;
        assert!(answer.is_err(), "{model} is answered whole: {answer:?}");
        // Dropped, which resets the stream; the connection lives on.
        until_tasks_are(before).await;
    }
    assert!(!client.is_closed());
}
