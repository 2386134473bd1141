//! Probes: requests of the gateway's own that look whether providers are there.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::conf::entry;
use crate::support::metrics::Metrics;
use crate::support::upstream::Received;
use crate::support::wait::eventually;
use crate::support::{Answer, Authority, Gateway, NameServer, Reply, Request, Upstream};

const PROBE: &str = "probe: { path: models, every: 1s }";

/// `custom-a` and `custom-b` in the route `r`; `a` and `b`: what they say beyond their place.
fn conf(upstreams: [&Upstream; 2], a: &str, b: &str, failures: u32) -> String {
    let [at_a, at_b] = upstreams;
    format!(
        "providers:\n{}{}{}",
        entry(at_a, "custom-a", "/v1", a),
        entry(at_b, "custom-b", "/v1", b),
        accounts(&["custom-a", "custom-b"], failures)
    )
}

/// A gateway with a route over these, which leaves alone for long who fails.
fn accounts(providers: &[&str], failures: u32) -> String {
    let target = |provider| format!("{{ provider: {provider}, model: m }}, ");
    let targets: String = providers.iter().map(target).collect();
    format!(
        "accounts: {{ default: {{ gateways: {{ default: {{ \
         authentication: {{ anyone_may_spend_stored_keys: true }}, \
         health: {{ failures: {failures}, open_for: 1h, longest: 1h }}, \
         routes: {{ r: {{ targets: [ {targets} ] }} }} }} }} }} }}\n"
    )
}

/// Two upstreams that answer who they are.
async fn upstreams() -> [Upstream; 2] {
    let both = [Upstream::h1().await, Upstream::h1().await];
    for (upstream, letter) in both.iter().zip(["a", "b"]) {
        upstream.always(Answer::json(&format!(r#"{{"from":"{letter}"}}"#)));
    }
    both
}

/// Who answers a call of the route.
async fn answers(gateway: &Gateway) -> String {
    let request = Request::post(
        "/v1/default/default/compat/chat/completions",
        r#"{"model":"dynamic/r","messages":[]}"#,
    );
    let request = request.header("content-type", "application/json");
    let answer = request.send(gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["from"].as_str().unwrap().to_owned()
}

fn found(metrics: &Metrics, provider: &str, result: &str) -> f64 {
    let labels = [("provider", provider), ("result", result)];
    metrics.sum("tollgate_probes_total", &labels)
}

/// Waits until so many probes of `custom-a` found this.
async fn probed(gateway: &Gateway, result: &str, times: f64) -> Metrics {
    let what = format!("{times} probes of custom-a: {result}");
    let enough = |metrics: &Metrics| found(metrics, "custom-a", result) >= times;
    gateway.metrics_when(&what, enough).await
}

fn is_left_alone(metrics: &Metrics) -> bool {
    let labels = [("provider", "custom-a"), ("model", "")];
    metrics.sum("tollgate_breaker_open", &labels) > 0.0
}

fn probes(upstream: &Upstream) -> Vec<Received> {
    let mut requests = upstream.requests();
    requests.retain(|request| request.method == "GET");
    requests
}

async fn reload(gateway: &Gateway, change: impl FnOnce(String) -> String) {
    let path = gateway.conf();
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    gateway.signal(Signal::SIGHUP);
    let reloaded = |metrics: &Metrics| metrics.sum("tollgate_config_reloads_total", &[]) >= 1.0;
    gateway.metrics_when("a reload", reloaded).await;
}

#[tokio::test]
async fn who_is_down_is_left_alone_before_a_client_meets_it_and_asked_when_it_is_back() {
    let [a, b] = upstreams().await;
    // A connection that breaks: to a client's call it would have cost a try.
    a.always(Reply::Reset);
    let probed = format!("auth: none, {PROBE}");
    let gateway = Gateway::start(&conf([&a, &b], &probed, "auth: none", 2)).await;
    gateway
        .metrics_when("custom-a left alone", is_left_alone)
        .await;
    assert_eq!(answers(&gateway).await, "b");
    assert_eq!(probes(&a).len(), a.requests().len(), "no call went there");
    let metrics = gateway.metrics().await;
    let opened = [("provider", "custom-a"), ("model", "")];
    assert_eq!(metrics.sum("tollgate_breaker_opened_total", &opened), 1.0);
    // It is left alone for an hour, but for the probe that finds it back.
    a.always(Answer::json(r#"{"from":"a"}"#));
    let closed = |metrics: &Metrics| !is_left_alone(metrics);
    gateway.metrics_when("custom-a is back", closed).await;
    assert_eq!(answers(&gateway).await, "a");
    let log = gateway.logged("custom-a passes its probe again").await;
    let lines = |needle: &str| log.lines().filter(|line| line.contains(needle)).count();
    assert_eq!(lines("custom-a fails its probe"), 1, "{log}");
    assert_eq!(
        lines("custom-a of default/default is left alone"),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn who_cannot_be_connected_to_is_left_alone() {
    let [a, b] = upstreams().await;
    let yaml = conf([&a, &b], &format!("auth: none, {PROBE}"), "auth: none", 1);
    drop(a);
    let gateway = Gateway::start(&yaml).await;
    gateway
        .metrics_when("custom-a left alone", is_left_alone)
        .await;
    assert_eq!(answers(&gateway).await, "b");
    let metrics = gateway.metrics().await;
    let failed = metrics.sum("tollgate_upstream_attempts_failed_total", &[]);
    assert_eq!(failed, 0.0, "the first client did not meet it");
    probed(&gateway, "failed", 3.0).await;
    let log = gateway.log();
    let mut told = log.lines().filter(|line| !line.contains("status="));
    assert!(
        told.all(|line| !line.contains("ERROR") && !line.contains("pingora")),
        "{log}"
    );
    assert_eq!(log.matches("custom-a").count(), 2, "{log}");
}

#[tokio::test]
async fn a_probe_carries_what_a_call_of_the_gateway_would_and_is_none() {
    let [a, b] = upstreams().await;
    let says = "headers: { x-team: research }, \
                keys: [{ alias: spare, value: sk-spare, weight: 1 }, { value: sk-default }], \
                probe: { path: 'models?limit=1', every: 1s }";
    let pooled = "keys: [{ alias: idle, value: sk-idle }, { alias: p, value: sk-p, weight: 1 }], \
                  probe: { path: models, every: 1s }";
    let gateway = Gateway::start(&conf([&a, &b], says, pooled, 5)).await;
    let metrics = probed(&gateway, "ok", 2.0).await;
    let of_a = &a.requests()[0];
    assert_eq!(
        (&*of_a.method, &*of_a.target),
        ("GET", "/v1/models?limit=1")
    );
    assert_eq!(of_a.header("host").unwrap(), a.address().to_string());
    assert_eq!(of_a.header("x-team"), Some("research"));
    assert_eq!(of_a.header("authorization"), Some("Bearer sk-default"));
    assert_eq!(of_a.body, b"");
    let of_the_gateway = |name: &str| name.starts_with("cf-") || name.starts_with("tollgate-");
    let names = of_a.headers.iter().map(|(name, _)| name.to_lowercase());
    assert!(!names.clone().any(|name| of_the_gateway(&name)), "{of_a:?}");
    b.reached(1).await;
    let key = b.requests()[0].header("authorization").map(str::to_owned);
    assert_eq!(key.as_deref(), Some("Bearer sk-p"));
    // Each on a connection of its own.
    eventually("another probe", || (a.requests().len() >= 2).then_some(())).await;
    assert!(a.connections() >= 2);
    for name in [
        "tollgate_requests_total",
        "tollgate_upstream_attempts_total",
        "tollgate_upstream_attempts_failed_total",
        "tollgate_route_requests_total",
    ] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    let log = gateway.log();
    assert!(!log.contains("status=") && !log.contains("probe"), "{log}");
}

#[tokio::test]
async fn whoever_refuses_is_there() {
    let [a, b] = upstreams().await;
    let says = format!("keys: [{{ value: sk-wrong }}], {PROBE}");
    let gateway = Gateway::start(&conf([&a, &b], &says, "auth: none", 1)).await;
    a.always(Answer::new(401));
    let metrics = probed(&gateway, "ok", 2.0).await;
    assert!(!is_left_alone(&metrics));
    assert_eq!(metrics.sum("tollgate_key_cooled_total", &[]), 0.0);
    a.always(Answer::new(429));
    let metrics = probed(&gateway, "busy", 1.0).await;
    assert!(!is_left_alone(&metrics));
    assert_eq!(found(&metrics, "custom-a", "failed"), 0.0);
    a.always(Answer::new(503));
    gateway
        .metrics_when("custom-a left alone", is_left_alone)
        .await;
    gateway
        .logged("custom-a fails its probe: it answers 503")
        .await;
    // An answer that says nothing does not bring it back; a refusal does.
    a.always(Answer::new(408));
    let metrics = probed(&gateway, "busy", 2.0).await;
    assert!(is_left_alone(&metrics));
    a.always(Answer::new(404));
    let closed = |metrics: &Metrics| !is_left_alone(metrics);
    gateway.metrics_when("custom-a is back", closed).await;
}

#[tokio::test]
async fn who_is_too_slow_fails() {
    let [a, b] = upstreams().await;
    a.always(Reply::Silence);
    let probe = "auth: none, probe: { path: models, every: 1s, timeout: 200ms }";
    let gateway = Gateway::start(&conf([&a, &b], probe, "auth: none", 1)).await;
    gateway
        .metrics_when("custom-a left alone", is_left_alone)
        .await;
    gateway
        .logged("custom-a fails its probe: no answer within 200ms")
        .await;
    a.abandoned(1).await;
    assert_eq!(answers(&gateway).await, "b");
    // What stops after its head is there all the same, and is not waited for.
    let stopping = Answer::json("[").pause(Duration::from_secs(60));
    a.always(stopping);
    let closed = |metrics: &Metrics| !is_left_alone(metrics);
    gateway.metrics_when("custom-a is back", closed).await;
}

#[tokio::test]
async fn a_body_without_end_is_not_read() {
    let [a, b] = upstreams().await;
    let mut endless = Answer::new(200).chunked();
    for _ in 0..64 {
        endless = endless.bytes(&[b'x'; 16 * 1024]);
    }
    a.always(endless.pause(Duration::from_secs(60)));
    let probe = "auth: none, probe: { path: models, every: 2s, timeout: 2s }";
    let gateway = Gateway::start(&conf([&a, &b], probe, "auth: none", 1)).await;
    probed(&gateway, "ok", 1.0).await;
    a.abandoned(1).await;
    assert_eq!(a.requests().len(), 1, "long before its time is up");
}

#[tokio::test]
async fn targets_learn_nothing_from_probes() {
    let [a, b] = upstreams().await;
    let seldom = "auth: none, probe: { path: models, every: 3s }";
    let gateway = Gateway::start(&conf([&a, &b], seldom, "auth: none", 1)).await;
    probed(&gateway, "ok", 1.0).await;
    // One reply for whoever comes first: the next probe is three seconds off.
    a.script(Answer::new(501));
    let from = answers(&gateway).await;
    let met = a.requests().iter().filter(|r| r.method == "POST").count();
    assert_eq!((&*from, met), ("b", 1));
    let before = found(&gateway.metrics().await, "custom-a", "ok");
    probed(&gateway, "ok", before + 1.0).await;
    assert_eq!(answers(&gateway).await, "b");
}

#[tokio::test]
async fn a_reload_ends_and_begins_probes() {
    let [a, b] = upstreams().await;
    let yaml = conf(
        [&a, &b],
        &format!("auth: none, {PROBE}"),
        "auth: none, timeouts: {}",
        1,
    );
    let gateway = Gateway::start(&yaml).await;
    probed(&gateway, "ok", 1.0).await;
    b.untouched();
    reload(&gateway, |yaml| {
        let without = yaml.replace(PROBE, "timeouts: { }");
        without.replace("timeouts: {}", PROBE)
    })
    .await;
    b.reached(1).await;
    let last = a.requests().len();
    b.reached(3).await;
    assert_eq!(a.requests().len(), last);
}

#[tokio::test]
async fn nobody_is_probed_who_does_not_say_so_or_whom_no_route_asks() {
    let [a, b] = upstreams().await;
    let c = Upstream::h1().await;
    let yaml = format!(
        "providers:\n{}{}{}{}",
        entry(&a, "custom-a", "/v1", &format!("auth: none, {PROBE}")),
        entry(&b, "custom-b", "/v1", "auth: none"),
        entry(&c, "custom-c", "/v1", &format!("auth: none, {PROBE}")),
        accounts(&["custom-a", "custom-b"], 1)
    );
    let gateway = Gateway::start(&yaml).await;
    let metrics = probed(&gateway, "ok", 3.0).await;
    b.untouched();
    c.untouched();
    assert_eq!(
        found(&metrics, "custom-b", "ok") + found(&metrics, "custom-c", "ok"),
        0.0
    );
}

#[tokio::test]
async fn at_most_eight_are_asked_at_the_same_time() {
    let upstream = Upstream::h1().await;
    upstream.always(Reply::Silence);
    let slugs: Vec<_> = ('a'..='l')
        .map(|letter| format!("custom-{letter}"))
        .collect();
    let probe = "auth: none, probe: { path: models, every: 1h, timeout: 2s }";
    let providers = slugs
        .iter()
        .map(|slug| entry(&upstream, slug, "/v1", probe));
    let providers: String = providers.collect();
    let slugs: Vec<_> = slugs.iter().map(String::as_str).collect();
    let yaml = format!("providers:\n{providers}{}", accounts(&slugs, 1));
    let _gateway = Gateway::start(&yaml).await;
    upstream.reached(8).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(upstream.requests().len(), 8);
    upstream.received(12).await;
}

#[tokio::test]
async fn a_process_on_its_way_out_probes_nobody() {
    let [a, b] = upstreams().await;
    let gateway = Gateway::start(&conf(
        [&a, &b],
        &format!("auth: none, {PROBE}"),
        "auth: none",
        1,
    ))
    .await;
    probed(&gateway, "ok", 1.0).await;
    // A call that is never answered keeps the process.
    a.always(Reply::Silence);
    let address = gateway.public();
    let held = tokio::spawn(async move {
        let call = Request::post("/v1/default/default/custom-b/chat/completions", "{}");
        call.send(address).await
    });
    b.always(Reply::Silence);
    b.reached(1).await;
    gateway.signal(Signal::SIGTERM);
    gateway.logged("to finish what is in flight").await;
    let last = probes(&a).len();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(probes(&a).len(), last);
    held.abort();
}

#[tokio::test]
async fn after_an_upgrade_the_new_process_probes_alone() {
    let [a, b] = upstreams().await;
    let probe = format!("auth: none, {PROBE}");
    let gateway = Gateway::start(&conf([&a, &b], &probe, "auth: none", 1)).await;
    probed(&gateway, "ok", 1.0).await;
    // A call that is never answered keeps the old process.
    b.always(Reply::Silence);
    let address = gateway.public();
    let held = tokio::spawn(async move {
        let call = Request::post("/v1/default/default/custom-b/chat/completions", "{}");
        call.send(address).await
    });
    b.reached(1).await;
    let upgraded = gateway.ask(Request::new("POST", "/-/upgrade")).await;
    assert_eq!(upgraded.status, 200, "{}", upgraded.text());
    probed(&gateway, "ok", 1.0).await;
    let before = a.requests().len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let probes = a.requests().len() - before;
    assert!((2..=5).contains(&probes), "{probes} probes in four seconds");
    held.abort();
}

#[tokio::test]
async fn probes_go_under_the_same_trust_and_version_to_the_same_place_as_calls() {
    let authority = Authority::new();
    for (http, alpn, version) in [
        ("h1", "http/1.1", "HTTP/1.1"),
        ("h2", "h2", "HTTP/2.0"),
        ("auto", "h2", "HTTP/2.0"),
    ] {
        let identity = authority.issue(&["api.provider.example"]);
        let upstream = Upstream::tls(identity.server(&[alpn])).await;
        upstream.always(Answer::json("{}"));
        let provider = |ca: &str| {
            format!(
                "{{ base_url: \"https://api.provider.example/v1\", auth: none, {ca}\
                 connect_to: \"{}\", http: {http}, {PROBE} }}",
                upstream.address()
            )
        };
        let ca = format!("tls: {{ ca: {} }}, ", authority.path().display());
        let yaml = format!(
            "providers:\n  custom-a: {}\n  custom-b: {}\n{}",
            provider(&ca),
            provider(""),
            accounts(&["custom-a", "custom-b"], 1)
        );
        let gateway = Gateway::start(&yaml).await;
        let metrics = probed(&gateway, "ok", 2.0).await;
        let request = &upstream.requests()[0];
        assert_eq!(request.version, version);
        assert_eq!(request.header("host"), Some("api.provider.example"));
        eventually("another", || (upstream.requests().len() >= 2).then_some(())).await;
        let connections = [0, 1].map(|place| upstream.requests()[place].connection);
        assert_ne!(connections[0], connections[1], "{http}");
        assert_eq!(found(&metrics, "custom-b", "ok"), 0.0, "{http}");
        gateway.logged("custom-b fails its probe").await;
    }
}

#[tokio::test]
async fn probes_never_go_to_a_forbidden_address() {
    let names = NameServer::start(&["169.254.169.254"]).await;
    let yaml = format!(
        "{}providers: {{ custom-a: {{ base_url: \"https://api.provider.example/v1\", auth: none, {PROBE} }} }}\n{}",
        names.yaml(),
        accounts(&["custom-a"], 1)
    );
    let gateway = Gateway::start(&yaml).await;
    gateway
        .logged("custom-a fails its probe: api.provider.example resolves to link-local")
        .await;
    gateway
        .metrics_when("custom-a left alone", is_left_alone)
        .await;
}
