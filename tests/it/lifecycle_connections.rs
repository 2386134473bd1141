//! Connections: slow and large request heads, keep-alive, and what the end of a process does.

use nix::sys::signal::Signal;

use crate::support::client::Multiplexed;
use crate::support::conf::{CHAT, openai};
use crate::support::wait::within;
use crate::support::{Answer, Connection, Ending, Gate, Gateway, Protocol, Request, Upstream};

async fn serving() -> (Upstream, Gateway) {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("\"hello\""));
    let gateway = Gateway::start(&openai(&upstream)).await;
    (upstream, gateway)
}

async fn upgrade(gateway: &Gateway) {
    assert_eq!(
        gateway.ask(Request::new("POST", "/-/upgrade")).await.status,
        200
    );
}

#[tokio::test]
async fn a_dripped_head_is_cut_at_its_deadline() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&openai(&upstream))
        .server("header_timeout: 500ms")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    let dripping = async {
        for byte in format!("GET {CHAT} HTTP/1.1\r\nx-slow: {}", "x".repeat(10_000)).bytes() {
            connection.write([byte]).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        unreachable!("the gateway waited for ten minutes");
    };
    // Every byte comes in time; all of them do not.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), dripping).await;
    let answer = String::from_utf8_lossy(&connection.rest().await).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("tollgate-error-source: gateway"),
        "{answer}"
    );
    upstream.untouched();
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_cut() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::with(&openai(&upstream))
        .server("header_timeout: 300ms")
        .start()
        .await;
    assert_eq!(Connection::open(&gateway).await.rest().await, b"");
    // Neither does half a preface of HTTP/2 hold it.
    let mut connection = Connection::open(&gateway).await;
    connection.write("PRI * HT").await;
    assert!(connection.rest().await.starts_with(b"HTTP/1.1 408 "));
}

#[tokio::test]
async fn http2_without_a_request_is_cut_and_idle_http2_is_kept_for_its_time_only() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("1"));
    let gateway = Gateway::with(&openai(&upstream))
        .server("header_timeout: 300ms")
        .server("keepalive_timeout: 1s")
        .start()
        .await;
    let mut silent = Connection::open(&gateway).await;
    silent.write(PREFACE).await;
    // Settings come; then the end, and not a test that times out.
    assert!(!silent.rest().await.is_empty());
    let mut idle = Multiplexed::open(&gateway).await;
    let request = Request::post(CHAT, "{}").over(Protocol::H2);
    for _ in 0..2 {
        let answer = idle.start(&request).await.unwrap().finish().await;
        assert_eq!(answer.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    let closed = async {
        while idle.start(&request).await.is_some() {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await
        }
    };
    within("the end of an idle HTTP/2 connection", closed).await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_only() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("1"));
    let gateway = Gateway::with(&openai(&upstream))
        .server("keepalive_timeout: 1s")
        .start()
        .await;
    let mut connection = Connection::open(&gateway).await;
    let request = Request::post(CHAT, "{}");
    for _ in 0..3 {
        assert_eq!(connection.exchange(&request).await.unwrap().status, 200);
    }
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let upstream = Upstream::answering(Answer::json("1")).await;
    let gateway = Gateway::with(&openai(&upstream))
        .server("max_header: 8KiB")
        .start()
        .await;
    let fits = Request::post(CHAT, "{}").header("x-large", &"x".repeat(7 * 1024));
    assert_eq!(fits.send(&gateway).await.status, 200);
    let large = Request::post(CHAT, "{}").header("x-large", &"x".repeat(9 * 1024));
    let answer = large.send(&gateway).await;
    assert_eq!(
        (answer.status, answer.header("tollgate-error-source")),
        (431, Some("gateway"))
    );
    assert_eq!(large.over(Protocol::H2).send(&gateway).await.status, 431);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_shortest_requests_are_answered() {
    let (_upstream, gateway) = serving().await;
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        let mut connection = Connection::open(&gateway).await;
        connection.write(request).await;
        let answer = connection.rest().await;
        assert!(answer.starts_with(b"HTTP/1.1 "), "{request:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_head_in_pieces_is_one_request() {
    let (upstream, gateway) = serving().await;
    let mut connection = Connection::open(&gateway).await;
    for piece in [
        "POST ",
        &format!("{CHAT} HTTP/1.1\r\nHo"),
        "st: a\r\ncontent-length: 4\r\n\r",
        "\nab",
        "cd",
    ] {
        connection.write(piece).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(connection.read().await.unwrap().status, 200);
    assert_eq!(upstream.only().await.text(), "abcd");
}

#[tokio::test]
async fn a_connection_made_before_the_upgrade_may_bring_its_request_after_it() {
    let (_upstream, gateway) = serving().await;
    let mut fresh = Connection::open(&gateway).await;
    let mut half = Connection::open(&gateway).await;
    half.write(format!("GET {CHAT} HTTP/1.1\r\n")).await;
    upgrade(&gateway).await;
    gateway.logged("handing over").await;
    let answer = fresh.exchange(&Request::post(CHAT, "{}")).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    half.write("Host: a\r\n\r\n").await;
    assert_eq!(half.read().await.unwrap().status, 200);
}

#[tokio::test]
async fn an_idle_connection_may_bring_one_more_request_after_the_upgrade() {
    let (_upstream, gateway) = serving().await;
    let mut connection = Connection::open(&gateway).await;
    let request = Request::post(CHAT, "{}");
    let first = connection.exchange(&request).await.unwrap();
    assert_ne!(first.header("connection"), Some("close"));
    upgrade(&gateway).await;
    gateway.logged("handing over").await;
    let last = connection.exchange(&request).await.unwrap();
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(connection.rest().await, b"");
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_stopping_process() {
    let (_upstream, mut gateway) = serving().await;
    let mut idle = Connection::open(&gateway).await;
    idle.exchange(&Request::post(CHAT, "{}")).await.unwrap();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(idle.rest().await, b"");
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn http2_streams_finish_after_sigterm_and_after_an_upgrade() {
    for upgrading in [false, true] {
        let (upstream, mut gateway) = serving().await;
        let gate = Gate::new();
        upstream.script(
            Answer::sse()
                .text("data: 1\n\n")
                .wait(&gate)
                .text("data: 2\n\n"),
        );
        let request = Request::post(CHAT, "{}").over(Protocol::H2);
        let mut stream = request.open(&gateway).await;
        stream.read_past("data: 1").await;
        if upgrading {
            upgrade(&gateway).await;
        } else {
            gateway.signal(Signal::SIGTERM);
        }
        gateway.logged("to finish what is in flight").await;
        gate.open();
        let rest = stream.finish().await;
        assert_eq!(
            (rest.text().trim(), rest.ending),
            ("data: 2", Ending::Whole),
            "upgrading: {upgrading}"
        );
        assert!(gateway.exited().await.success());
    }
}

#[tokio::test]
async fn the_admin_listener_answers_only_its_own_host_and_origin() {
    let (_upstream, gateway) = serving().await;
    let own = format!("localhost:{}", gateway.admin().port());
    let get = |path: &str| Request::get(path);
    assert_eq!(
        gateway
            .ask(get("/healthz").header("host", &own))
            .await
            .status,
        200
    );
    assert_eq!(
        gateway
            .ask(get("/healthz").header("host", "evil.example"))
            .await
            .status,
        403
    );
    let origin = format!("http://{own}");
    assert_eq!(
        gateway
            .ask(get("/metrics").header("origin", &origin))
            .await
            .status,
        200
    );
    for method in ["GET", "POST"] {
        let foreign = Request::new(method, "/-/reload").header("origin", "http://evil.example");
        assert_eq!(gateway.ask(foreign).await.status, 403);
    }
}

#[tokio::test]
async fn the_admin_listener_says_what_it_serves() {
    let (_upstream, gateway) = serving().await;
    let answer = gateway.ask(Request::get("/nowhere")).await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.json()["endpoints"]
            .to_string()
            .contains("/-/upgrade")
    );
    let answer = gateway.ask(Request::get("/-/reload")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = gateway
        .ask(Request::post("/-/reload", "x".repeat(100_000)))
        .await;
    assert_eq!(answer.status, 413);
    let answer = gateway.ask(Request::get("/readyz")).await;
    assert_eq!(answer.json()["status"], "serving");
}
