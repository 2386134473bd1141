//! Providers that cannot be reached, stay silent, or speak nonsense.

use crate::support::conf::{CHAT, at, openai};
use crate::support::metrics::Metrics;
use crate::support::{
    Answer, Authority, Connection, Ending, Gateway, NameServer, Reply, Request, Response, Upstream,
    body, ports,
};

/// Asserts a failure of the provider's connection: envelope, and nothing of the inside.
fn assert_failure(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["internalCode"], &body["httpCode"]),
        (&2005.into(), &status.into())
    );
    assert_eq!(body["error"][0]["code"], 2005);
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    for header in ["cf-aig-log-id", "cf-aig-request-id", "cf-aig-event-id"] {
        assert!(answer.header(header).is_some(), "{header}");
    }
    assert_eq!(
        (
            answer.header("cf-aig-step"),
            answer.header("cf-aig-provider")
        ),
        (Some("0"), Some("openai"))
    );
}

/// Asserts that none of `inside` is visible to the client.
fn assert_discreet(answer: &Response, inside: &[&str]) {
    let visible = answer.everything();
    for secret in inside {
        assert!(!visible.contains(secret), "{secret:?} in {visible}");
    }
}

fn https_at(upstream: &Upstream, more: &str) -> String {
    format!(
        "providers: {{ openai: {{ connect_to: \"{}\", {more} }} }}\n",
        upstream.address()
    )
}

#[tokio::test]
async fn a_refused_connection_is_502() {
    let port = ports::refusing();
    let yaml = format!(
        "providers: {{ openai: {{ base_url: \"http://127.0.0.1:{}/v1\", allow_insecure: true }} }}\n",
        port.number()
    );
    let gateway = Gateway::start(&yaml).await;
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert_failure(&answer, 502);
    assert_discreet(
        &answer,
        &[&port.number().to_string(), "127.0.0.1", "refused", "ECONN"],
    );
}

#[tokio::test]
async fn an_unknown_name_is_502() {
    let names = NameServer::start(&[]).await;
    let gateway = Gateway::start(&names.yaml()).await;
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert_failure(&answer, 502);
    assert_discreet(&answer, &["api.openai.com", "NXDOMAIN"]);
}

#[tokio::test]
async fn a_silent_provider_is_504() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        upstream.script(Reply::Silence);
        let more = format!("{version}, timeouts: {{ idle: 300ms }}");
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", &more)).await;
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        assert_failure(&answer, 504);
        assert_discreet(&answer, &[&upstream.address().to_string()]);
        upstream.abandoned(1).await;
        assert_eq!(
            upstream.requests().len(),
            1,
            "a silent provider is not asked twice"
        );
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_502() {
    for (upstream, version) in [
        (Upstream::h1().await, "http: h1"),
        (Upstream::h2c().await, "http: h2"),
    ] {
        let gateway = Gateway::start(&at(&upstream, "openai", "/v1", version)).await;
        for (number, reply) in [Reply::Close, Reply::Reset].into_iter().enumerate() {
            upstream.script(reply);
            let answer = Request::post(CHAT, "{}").send(&gateway).await;
            assert_failure(&answer, 502);
            assert_discreet(&answer, &[&upstream.address().to_string(), "127.0.0.1"]);
            assert_eq!(
                upstream.requests().len(),
                number + 1,
                "a fresh connection's failure is not retried"
            );
        }
    }
}

#[tokio::test]
async fn nonsense_is_502() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(2 << 20));
    let nonsense = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "<html>not HTTP</html>",
        &long,
    ];
    for bytes in nonsense {
        upstream.script(Reply::Raw(bytes.as_bytes().to_vec()));
        let answer = Request::post(CHAT, "{}").send(&gateway).await;
        let shown = &bytes[..bytes.len().min(60)];
        assert_eq!(answer.status, 502, "{shown:?}: {}", answer.text());
        assert_failure(&answer, 502);
    }
}

#[tokio::test]
async fn failed_tls_is_502_and_nothing_is_sent() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let trusted = format!("tls: {{ ca: {} }}", ours.path().display());
    let good = ours.issue(&["api.openai.com"]);
    let cases = [
        (
            "an unknown authority",
            theirs.issue(&["api.openai.com"]),
            trusted.as_str(),
        ),
        (
            "a private authority nobody configured",
            ours.issue(&["api.openai.com"]),
            "http: h1",
        ),
        (
            "another name",
            ours.issue(&["api.openai.com.evil.com"]),
            trusted.as_str(),
        ),
    ];
    for (what, identity, more) in cases {
        let upstream = Upstream::tls(identity.server(&["http/1.1"])).await;
        let gateway = Gateway::start(&https_at(&upstream, more)).await;
        let answer = Request::post(CHAT, "{}")
            .header("authorization", "Bearer sk-own")
            .send(&gateway)
            .await;
        assert_eq!(answer.status, 502, "{what}");
        assert_failure(&answer, 502);
        assert_discreet(
            &answer,
            &[
                "127.0.0.1",
                &upstream.address().port().to_string(),
                "certificate",
                "sk-own",
            ],
        );
        upstream.untouched();
    }
    let upstream = Upstream::tls(good.server(&["http/1.1"])).await;
    upstream.script(Answer::json("{}"));
    let gateway = Gateway::start(&https_at(&upstream, &trusted)).await;
    assert_eq!(
        Request::post(CHAT, "{}").send(&gateway).await.status,
        200,
        "the set-up itself works"
    );
}

#[tokio::test]
async fn alpn_chooses_the_version_where_the_configuration_leaves_it_open() {
    let authority = Authority::new();
    for (offered, http, wanted) in [
        (&["h2", "http/1.1"][..], "auto", "HTTP/2.0"),
        (&["http/1.1"], "auto", "HTTP/1.1"),
        (&["h2", "http/1.1"], "h1", "HTTP/1.1"),
        (&["h2"], "h2", "HTTP/2.0"),
    ] {
        let upstream = Upstream::tls(authority.issue(&["api.openai.com"]).server(offered)).await;
        upstream.script(Answer::json("{}"));
        let more = format!(
            "http: {http}, tls: {{ ca: {} }}",
            authority.path().display()
        );
        let gateway = Gateway::start(&https_at(&upstream, &more)).await;
        assert_eq!(
            Request::post(CHAT, "{}").send(&gateway).await.status,
            200,
            "{http}"
        );
        let seen = upstream.only().await;
        assert_eq!(
            (seen.version.as_str(), seen.all("host")),
            (wanted, vec!["api.openai.com"]),
            "{http}"
        );
    }
}

#[tokio::test]
async fn connections_are_reused_and_a_stale_one_is_replaced_unseen() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for reply in [
        Answer::json("{}").into(),
        Answer::json("{}").into(),
        Reply::Close,
        Answer::json("{}").into(),
    ] {
        upstream.script(reply);
    }
    for number in 0..3 {
        let body = format!("{{\"n\":{number}}}");
        let answer = Request::post(CHAT, &body).send(&gateway).await;
        assert_eq!(
            (answer.status, answer.ending),
            (200, Ending::Whole),
            "{}",
            answer.text()
        );
        // A request is counted after its connection has gone back to the pool.
        let counted =
            |metrics: &Metrics| metrics.sum("tollgate_requests_total", &[]) > f64::from(number);
        gateway
            .metrics_when("the request in the metrics", counted)
            .await;
    }
    let seen = upstream.received(4).await;
    let connections: Vec<_> = seen.iter().map(|request| request.connection).collect();
    assert_eq!(
        connections,
        [0, 0, 0, 1],
        "the third was tried on the old connection and again on a new one"
    );
    assert_eq!(
        (seen[2].text().as_str(), seen[3].text().as_str()),
        ("{\"n\":2}", "{\"n\":2}")
    );
}

#[tokio::test]
async fn clients_keep_their_connection_across_answers_and_refusals() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    let (unknown, chat) = (
        Request::get("/v1/default/default/nobody/x"),
        Request::post(CHAT, "{}"),
    );
    for (request, status) in [
        (&chat, 200),
        (&unknown, 400),
        (&chat, 200),
        (&unknown, 400),
        (&chat, 200),
    ] {
        let answer = connection.exchange(request).await.unwrap();
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_kept_is_announced() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let mut connection = Connection::open(&gateway).await;
    let refused = connection
        .exchange(&Request::post("/v1/default/default/nobody/x", "{}"))
        .await
        .unwrap();
    assert_eq!(refused.status, 400);
    // The body was not read; either it is skipped or the client is told.
    if refused.header("connection") == Some("close") {
        assert_eq!(connection.rest().await, b"");
    } else {
        upstream.script(Answer::json("{}"));
        assert_eq!(
            connection
                .exchange(&Request::post(CHAT, "{}"))
                .await
                .unwrap()
                .status,
            200
        );
    }
}

#[tokio::test]
async fn an_answer_before_the_body_is_passed_on() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let large = body::json_of_size("m", 8 << 20);
    upstream.script(
        Answer::new(401)
            .text("{\"error\":\"no key\"}")
            .before_body(),
    );
    let answer = Request::post(CHAT, &large).send(&gateway).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (401, "{\"error\":\"no key\"}")
    );
    assert_eq!(answer.header("tollgate-error-source"), Some("provider"));
}
