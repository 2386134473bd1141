//! TLS on both legs with a private authority, HTTP/1.1 and h2 on each.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::client::Told;
use crate::support::conf::CHAT;
use crate::support::gateway::Builder;
use crate::support::upstream::End;
use crate::support::{
    Answer, Authority, Digest, Ending, Gate, Gateway, Protocol, Reply, Request, Upstream, body,
    within,
};

/// A gateway that serves TLS for `localhost` in front of a TLS upstream.
async fn both_legs(authority: &Authority, upstream: &Upstream, http: &str) -> Gateway {
    let provider = format!(
        "providers: {{ openai: {{ connect_to: \"{}\", http: {http}, tls: {{ ca: {} }} }} }}\n",
        upstream.address(),
        authority.path().display(),
    );
    serving(authority, Gateway::with(&provider)).start().await
}

fn serving(authority: &Authority, gateway: Builder) -> Builder {
    let identity = authority.issue(&["localhost"]);
    let (certificate, key) = identity.pem();
    gateway
        .file("cert.pem", certificate)
        .file("key.pem", key)
        .server("tls: { cert: \"{dir}/cert.pem\", key: \"{dir}/key.pem\" }")
}

#[tokio::test]
async fn requests_streams_and_bodies_pass_over_tls_on_both_legs() {
    let authority = Authority::new();
    let large = body::json_of_size("m", 1 << 20);
    for (http, alpn) in [("h1", "http/1.1"), ("h2", "h2")] {
        let identity = authority.issue(&["api.openai.com"]);
        let upstream = Upstream::tls(identity.server(&[alpn])).await;
        let gateway = both_legs(&authority, &upstream, http).await;
        for (protocol, offered) in [(Protocol::H1, "http/1.1"), (Protocol::H2, "h2")] {
            let trust = authority.client(&[offered]);
            let request = |body: &[u8]| Request::post(CHAT, body).over(protocol).tls(trust.clone());
            for told in [Told::Length, Told::Open] {
                upstream.script(Reply::Digest);
                let answer = request(&large).told(told).send(&gateway).await;
                assert_eq!(
                    (answer.status, answer.text()),
                    (200, Digest::of(&large).json()),
                    "{protocol:?} {http} {told:?}"
                );
            }
            let gate = Gate::new();
            upstream.script(
                Answer::sse()
                    .text("data: 1\n\n")
                    .wait(&gate)
                    .text("data: 2\n\n"),
            );
            let mut live = request(b"{}").open(&gateway).await;
            assert_eq!(live.read_past("\n\n").await, "data: 1\n\n");
            gate.open();
            let rest = live.finish().await;
            assert_eq!(
                (rest.text().as_str(), rest.ending),
                ("data: 2\n\n", Ending::Whole)
            );
        }
        for seen in upstream.received(6).await {
            assert_eq!(seen.all("host"), ["api.openai.com"]);
        }
    }
}

/// Pingora writes all of a held body before it looks at the answer: over HTTP/2 an early refusal of
/// a body that does not fit the window would be lost.
#[tokio::test]
async fn a_held_body_that_fits_no_window_goes_over_http1_where_both_are_spoken() {
    let authority = Authority::new();
    let identity = authority.issue(&["api.openai.com"]);
    let upstream = Upstream::tls(identity.server(&["h2", "http/1.1"])).await;
    let gateway = both_legs(&authority, &upstream, "auto").await;
    let trust = authority.client(&["h2"]);
    let send = async |size: usize| {
        let body = body::json_of_size("m", size);
        let request = Request::post(CHAT, body)
            .over(Protocol::H2)
            .tls(trust.clone());
        let twice = request.header("cf-aig-max-attempts", "2");
        twice.send(&gateway).await
    };
    upstream.script(Reply::Digest);
    upstream.script(Reply::Digest);
    upstream.script(Answer::new(401).text("no key").before_body());
    for size in [65_535, 65_536] {
        assert_eq!(send(size).await.status, 200);
    }
    let refused = send(4 << 20).await;
    assert_eq!((refused.status, refused.text().as_str()), (401, "no key"));
    // The last one is not whole.
    let seen = upstream.requests();
    let versions = seen.iter().map(|seen| seen.version.as_str());
    assert!(
        versions.eq(["HTTP/2.0", "HTTP/1.1", "HTTP/1.1"]),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_tls_listener_serves_clients_without_alpn_and_no_plain_text() {
    let authority = Authority::new();
    let upstream = Upstream::answering(Answer::json("{}")).await;
    let gateway = serving(
        &authority,
        Gateway::with(&crate::support::conf::openai(&upstream)),
    )
    .start()
    .await;
    let answer = Request::post(CHAT, "{}")
        .tls(authority.client(&[]))
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
    let plain = Request::post(CHAT, "{}").try_open(&gateway).await;
    assert!(plain.is_none_or(|answer| answer.status >= 400));
}

#[tokio::test]
async fn a_malformed_head_over_tls_is_refused_in_the_envelope() {
    let authority = Authority::new();
    let upstream = Upstream::h1().await;
    let openai = crate::support::conf::openai(&upstream);
    let gateway = serving(&authority, Gateway::with(&openai)).start().await;
    let answer = Request::get(CHAT)
        .header("host", "one.example")
        .header("host", "two.example")
        .tls(authority.client(&["http/1.1"]))
        .send(&gateway)
        .await;
    assert_eq!(
        (answer.status, &answer.json()["internalCode"]),
        (400, &8002.into())
    );
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    upstream.untouched();
}

#[tokio::test]
async fn a_broken_answer_to_http10_over_tls_does_not_end_well() {
    let authority = Authority::new();
    let upstream = Upstream::h1().await;
    let openai = crate::support::conf::openai(&upstream);
    let gateway = serving(&authority, Gateway::with(&openai)).start().await;
    let broken = Answer::new(200).chunked().text("{\"partial\":");
    upstream.script(broken.pause(Duration::from_millis(50)).end(End::Close));
    let socket = TcpStream::connect(gateway.public()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(authority.client(&["http/1.1"]));
    let mut stream = connector.connect(name, socket).await.unwrap();
    let head = format!("GET {CHAT} HTTP/1.0\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = within("the end", stream.read_to_end(&mut bytes)).await;
    assert!(bytes.ends_with(b"{\"partial\":"));
    assert!(end.is_err(), "neither a reset nor a missing close_notify");
}
