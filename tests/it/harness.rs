//! The harness proves itself: clients directly against fake upstreams.

use crate::support::client::Told;
use crate::support::wire::Piece;
use crate::support::{
    Answer, Authority, Connection, Digest, Ending, Gate, Protocol, Reply, Request, Upstream, body,
};

/// An upstream of each protocol with a request that fits it.
async fn pairs() -> Vec<(Upstream, Request)> {
    let authority = Authority::new();
    let post = |path| Request::post(path, "{}");
    let mut pairs = vec![
        (Upstream::h1().await, post("/a?b=%2F")),
        (Upstream::h2c().await, post("/a?b=%2F").over(Protocol::H2)),
    ];
    for (alpn, protocol) in [("http/1.1", Protocol::H1), ("h2", Protocol::H2)] {
        let server = authority.issue(&["localhost"]).server(&[alpn]);
        let request = post("/a?b=%2F")
            .over(protocol)
            .tls(authority.client(&[alpn]));
        pairs.push((Upstream::tls(server).await, request));
    }
    pairs
}

#[tokio::test]
async fn every_protocol_carries_request_and_answer() {
    for (upstream, request) in pairs().await {
        upstream.script(Answer::json(r#"{"ok":true}"#).header("x-one", "1"));
        let answer = request.header("x-two", "2").send(&upstream).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, r#"{"ok":true}"#.into())
        );
        assert_eq!(answer.header("x-one"), Some("1"));
        assert_eq!(answer.ending, Ending::Whole);
        let received = upstream.only().await;
        assert_eq!(
            (received.method.as_str(), received.target.as_str()),
            ("POST", "/a?b=%2F")
        );
        assert_eq!(
            (received.header("x-two"), received.text()),
            (Some("2"), "{}".into())
        );
        assert!(received.header("host").is_some());
    }
}

#[tokio::test]
async fn large_bodies_are_digested_in_every_framing() {
    let bytes = body::octets(1_000_000);
    for (upstream, request) in pairs().await {
        for told in [Told::Length, Told::Open] {
            upstream.script(Reply::Digest);
            let answer = request
                .clone()
                .body(&bytes)
                .told(told)
                .send(&upstream)
                .await;
            assert_eq!(answer.text(), Digest::of(&bytes).json());
        }
        let lengths: Vec<_> = upstream
            .received(2)
            .await
            .iter()
            .map(|request| request.header("content-length").is_some())
            .collect();
        assert_eq!(lengths, [true, false], "only one length was told");
    }
}

#[tokio::test]
async fn continue_is_awaited_before_the_body() {
    let upstream = Upstream::answering(Reply::Digest).await;
    let request = Request::post("/", "abc").told(Told::AfterContinue);
    let answer = request.send(&upstream).await;
    assert_eq!(answer.interim, [100]);
    assert_eq!(answer.text(), Digest::of(b"abc").json());
}

#[tokio::test]
async fn gates_hold_events_back_until_opened() {
    for (upstream, request) in pairs().await {
        let gate = Gate::new();
        upstream.script(
            Answer::sse()
                .text("data: 1\n\n")
                .wait(&gate)
                .text("data: 2\n\n"),
        );
        let mut live = request.open(&upstream).await;
        assert_eq!(live.piece().await, Piece::Data(b"data: 1\n\n".to_vec()));
        gate.open();
        let rest = live.finish().await;
        assert_eq!(
            (rest.text(), rest.ending),
            ("data: 2\n\n".into(), Ending::Whole)
        );
    }
}

#[tokio::test]
async fn broken_bodies_are_told_from_whole_ones() {
    use crate::support::upstream::End::{Close, Reset};
    for end in [Close, Reset] {
        for (upstream, request) in pairs().await {
            upstream.script(Answer::sse().text("data: 1\n\n").end(end));
            let answer = request.send(&upstream).await;
            assert_eq!(answer.ending, Ending::Cut);
        }
    }
    let upstream = Upstream::answering(Answer::new(200).text("abc").declaring(5).end(Close)).await;
    assert_eq!(Request::get("/").send(&upstream).await.ending, Ending::Cut);
    let upstream = Upstream::answering(Answer::new(200).text("abc").until_close()).await;
    assert_eq!(
        Request::get("/").send(&upstream).await.ending,
        Ending::EndOfStream
    );
}

#[tokio::test]
async fn failures_before_the_head_give_no_response() {
    for reply in [Reply::Close, Reply::Reset] {
        for (upstream, request) in pairs().await {
            upstream.script(reply.clone());
            assert!(request.try_open(&upstream).await.is_none());
        }
    }
}

#[tokio::test]
async fn clients_that_leave_are_noticed() {
    for (upstream, request) in pairs().await {
        upstream.script(Reply::Silence);
        let address = upstream.address();
        let waiting = tokio::spawn(async move { request.try_open(address).await.is_some() });
        upstream.reached(1).await;
        waiting.abort();
        upstream.abandoned(1).await;
    }
    for (upstream, request) in pairs().await {
        upstream.script(Answer::sse().text("data: 1\n\n").wait(&Gate::new()));
        let mut live = request.open(&upstream).await;
        live.read_past("1").await;
        drop(live);
        upstream.abandoned(1).await;
    }
}

#[tokio::test]
async fn upgrades_echo() {
    let upstream =
        Upstream::answering(Reply::Upgrade(vec![("upgrade".into(), "websocket".into())])).await;
    let mut connection = Connection::open(&upstream).await;
    connection
        .write("GET /rt HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let head = connection.head().await.unwrap();
    assert!(head.start.starts_with("HTTP/1.1 101"));
    connection.write([0, 1, 255]).await;
    assert_eq!(connection.exactly(3).await, [0, 1, 255]);
}

#[tokio::test]
#[should_panic(expected = "scripted replies that nobody asked for")]
async fn an_unused_script_fails() {
    drop(Upstream::answering(Reply::Silence).await);
}

#[tokio::test]
#[should_panic(expected = "no reply was scripted for")]
async fn an_unscripted_request_fails() {
    let upstream = Upstream::h1().await;
    assert_eq!(Request::get("/").send(&upstream).await.status, 599);
}
