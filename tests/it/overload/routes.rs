//! In-flight caps where a request has more than one try, target, step or subrequest.

use std::time::{Duration, Instant};

use serde_json::json;

use super::answered;
use crate::support::client::Told;
use crate::support::conf::{CHAT, SPENDING, at, entry, path};
use crate::support::metrics::Metrics;
use crate::support::{Answer, Gate, Gateway, Request, Response, Upstream, body};

/// A route over two providers, which say this of their caps, in a process that says that.
struct Pair {
    first: Upstream,
    second: Upstream,
    gateway: Gateway,
}

const FULL_AT_ONCE: &str = "in_flight: { max: 1, queue: 0 }";
const ROUTE: &str = "/v1/default/default/custom-one/chat/completions";

impl Pair {
    async fn start(first_says: &str, second_says: &str, server: &str, gateway_says: &str) -> Self {
        Self::with_route("", first_says, second_says, server, gateway_says).await
    }

    async fn with_route(
        route_says: &str,
        first_says: &str,
        second_says: &str,
        server: &str,
        gateway_says: &str,
    ) -> Self {
        let (first, second) = (Upstream::h1().await, Upstream::h1().await);
        let with = |says: &str| format!("auth: none, {says}");
        let yaml = format!(
            "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ {gateway_says} routes: {{ r: {{ {route_says} targets: [ \
             {{ provider: custom-one, model: a }}, {{ provider: custom-two, model: b }} ] }} }} }} }} }} }}\n",
            entry(&first, "custom-one", "", &with(first_says)),
            entry(&second, "custom-two", "", &with(second_says)),
        );
        let mut gateway = Gateway::with(&yaml);
        if !server.is_empty() {
            gateway = gateway.server(server);
        }
        let gateway = gateway.start().await;
        Self {
            first,
            second,
            gateway,
        }
    }

    fn ask(&self) -> tokio::task::JoinHandle<Response> {
        let address = self.gateway.public();
        tokio::spawn(async move { route().send(address).await })
    }

    async fn in_flight(&self, name: &str, expected: f64) {
        let are =
            |metrics: &Metrics| metrics.sum("tollgate_in_flight", &[("name", name)]) == expected;
        let what = format!("{expected} in flight at {name:?}");
        self.gateway.metrics_when(&what, are).await;
    }
}

fn route() -> Request {
    Request::post(ROUTE, r#"{"model":"dynamic/r"}"#).header("tollgate-trace", "true")
}

#[tokio::test]
async fn a_route_goes_on_with_its_next_target_where_a_provider_is_full() {
    let pair = Pair::start(FULL_AT_ONCE, FULL_AT_ONCE, "", "").await;
    let (one, two) = (Gate::new(), Gate::new());
    pair.first.script(Answer::json("{}").after(&one));
    let at_first = pair.ask();
    pair.first.reached(1).await;
    pair.second.script(Answer::json("{}").after(&two));
    let at_second = pair.ask();
    pair.second.reached(1).await;
    // Nobody has a place: the last target says so.
    let answer = route().send(&pair.gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (503, Some("1"))
    );
    assert_eq!(answer.json()["internalCode"], 8013);
    let trace = answer.header("tollgate-trace").unwrap();
    assert!(
        trace.contains("custom-one/a:full:") && trace.contains("custom-two/b:full:"),
        "{trace}"
    );
    two.open();
    let answer = answered(at_second).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    assert_eq!(answer.header("cf-aig-provider"), Some("custom-two"));
    let trace = answer.header("tollgate-trace").unwrap();
    assert!(trace.starts_with("custom-one/a:full:"), "{trace}");
    one.open();
    assert_eq!(answered(at_first).await.header("cf-aig-step"), Some("0"));
    // Counted after their last bytes. Who got no place asked nobody.
    let asked = |metrics: &Metrics| metrics.sum("tollgate_upstream_attempts_total", &[]) == 2.0;
    let metrics = pair.gateway.metrics_when("two attempts", asked).await;
    let full = |provider| {
        let labels = [("provider", provider), ("cause", "full")];
        metrics.sum("tollgate_upstream_attempts_failed_total", &labels)
    };
    assert_eq!((full("custom-one"), full("custom-two")), (2.0, 1.0));
}

#[tokio::test]
async fn a_place_is_given_back_when_another_provider_is_asked() {
    let pair = Pair::start(FULL_AT_ONCE, FULL_AT_ONCE, "", "").await;
    let gate = Gate::new();
    pair.first.script(Answer::new(500));
    pair.second.script(Answer::json("{}").after(&gate));
    let call = pair.ask();
    pair.second.reached(1).await;
    pair.in_flight("custom-one", 0.0).await;
    pair.in_flight("custom-two", 1.0).await;
    gate.open();
    assert_eq!(answered(call).await.status, 200);
    pair.in_flight("custom-two", 0.0).await;
}

#[tokio::test]
async fn no_other_target_is_asked_where_none_can_have_a_place() {
    let server = "in_flight: { max: 1, queue: 0 }";
    for (server, gateway) in [(server, String::new()), ("", format!("{server},"))] {
        let pair = Pair::start("", "", server, &gateway).await;
        let gate = Gate::new();
        pair.first.script(Answer::json("{}").after(&gate));
        let held = pair.ask();
        pair.first.reached(1).await;
        let answer = route().send(&pair.gateway).await;
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (503, Some("0"))
        );
        gate.open();
        assert_eq!(answered(held).await.status, 200);
        pair.in_flight("custom-one", 0.0).await;
        // The one place goes along from target to target.
        pair.first.script(Answer::new(500));
        pair.second.script(Answer::json("{}"));
        let answer = route().send(&pair.gateway).await;
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (200, Some("1"))
        );
    }
}

#[tokio::test]
async fn a_provider_that_is_full_is_not_blamed_for_it() {
    let health = "health: { failures: 2 },";
    let pair = Pair::start(FULL_AT_ONCE, "", "", health).await;
    let gate = Gate::new();
    pair.first.script(Answer::json("{}").after(&gate));
    let held = pair.ask();
    pair.first.reached(1).await;
    pair.second.always(Answer::json("{}"));
    for _ in 0..10 {
        let answer = route().send(&pair.gateway).await;
        assert_eq!(answer.header("cf-aig-step"), Some("1"));
    }
    gate.open();
    answered(held).await;
    pair.in_flight("custom-one", 0.0).await;
    pair.first.script(Answer::json("{}"));
    let answer = route().send(&pair.gateway).await;
    assert_eq!(answer.header("cf-aig-step"), Some("0"));
}

#[tokio::test]
async fn a_call_that_waits_for_a_place_is_hedged_and_leaves_the_line_when_the_other_answers() {
    let hedge = "hedge: { after: 200ms, budget: 100% },";
    let patient = "in_flight: { max: 1, wait: 60s }";
    let pair = Pair::with_route(hedge, patient, patient, "", "").await;
    let gate = Gate::new();
    pair.first.script(Answer::json("{}").after(&gate));
    let mut native = Request::post("/v1/default/default/custom-one/chat/completions", "{}");
    native = native.header("content-type", "application/json");
    let address = pair.gateway.public();
    let held = tokio::spawn(async move { native.send(address).await });
    pair.first.reached(1).await;
    pair.second.script(Answer::json("{}"));
    let answer = route().send(&pair.gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    let nobody = |metrics: &Metrics| metrics.sum("tollgate_in_flight_waiting", &[]) == 0.0;
    pair.gateway.metrics_when("nobody waits", nobody).await;
    pair.in_flight("custom-two", 0.0).await;
    pair.in_flight("custom-one", 1.0).await;
    gate.open();
    assert_eq!(answered(held).await.status, 200);
    pair.in_flight("custom-one", 0.0).await;
    pair.first.received(1).await;
}

#[tokio::test]
async fn a_place_is_kept_from_try_to_try_at_the_same_provider() {
    let upstream = Upstream::h1().await;
    let yaml = at(
        &upstream,
        "openai",
        "/v1",
        "in_flight: { max: 1, wait: 60s }",
    );
    let gateway = Gateway::start(&yaml).await;
    upstream.script(Answer::new(503).header("retry-after-ms", "1000").text("{}"));
    let gate = Gate::new();
    upstream.script(Answer::json(r#"{"of":"first"}"#).after(&gate));
    upstream.script(Answer::json(r#"{"of":"second"}"#));
    let address = gateway.public();
    let first = Request::post(CHAT, "{}").header("cf-aig-max-attempts", "2");
    let first = tokio::spawn(async move { first.send(address).await });
    upstream.reached(1).await;
    let second = tokio::spawn(async move { Request::post(CHAT, "{}").send(address).await });
    upstream.reached(2).await;
    gate.open();
    assert_eq!(answered(first).await.text(), r#"{"of":"first"}"#);
    assert_eq!(answered(second).await.text(), r#"{"of":"second"}"#);
}

#[tokio::test]
async fn the_wait_is_part_of_the_time_that_a_request_may_take() {
    let upstream = Upstream::h1().await;
    let gateways = "accounts: { default: { gateways: { default: { timeouts: { total: 600ms } }, other: {} } } }\n";
    let cap = "in_flight: { max: 1, wait: 60s }";
    let gateway = Gateway::start(&(at(&upstream, "openai", "/v1", cap) + gateways)).await;
    let gate = Gate::new();
    upstream.script(Answer::json("{}").after(&gate));
    let other = Request::post(&CHAT.replace("/default/default/", "/default/other/"), "{}");
    let address = gateway.public();
    let held = tokio::spawn(async move { other.send(address).await });
    upstream.reached(1).await;
    let began = Instant::now();
    let answer = Request::post(CHAT, "{}").send(&gateway).await;
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("60"))
    );
    assert!(answer.text().contains("no place became free in time"));
    gate.open();
    assert_eq!(answered(held).await.status, 200);
}

#[tokio::test]
async fn steps_of_the_universal_endpoint_take_their_places_one_after_the_other() {
    let server = "in_flight: { max: 1, queue: 0 }";
    let pair = Pair::start(FULL_AT_ONCE, "", server, "").await;
    let step = |provider: &str| json!({ "provider": provider, "endpoint": "chat/completions", "headers": {}, "query": { "model": "m" } });
    let steps = json!([step("custom-one"), step("custom-two")]).to_string();
    let universal = Request::post("/v1/default/default", &steps);
    // The first step's place in the process is the second's.
    for _ in 0..20 {
        pair.first.script(Answer::new(500).text("{}"));
        pair.second.script(Answer::json("{}"));
        let answer = universal.send(&pair.gateway).await;
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (200, Some("1")),
            "{}",
            answer.text()
        );
        // The client has all of its answer a moment before.
        pair.in_flight("", 0.0).await;
    }
    let pair = Pair::start(FULL_AT_ONCE, "", "", "").await;
    let gate = Gate::new();
    pair.first.script(Answer::json("{}").after(&gate));
    let held = pair.ask();
    pair.first.reached(1).await;
    pair.second.script(Answer::json("{}"));
    let answer = universal.send(&pair.gateway).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    // The last step has no other.
    let alone = json!([step("custom-one")]).to_string();
    let answer = Request::post("/v1/default/default", &alone)
        .send(&pair.gateway)
        .await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(answer.json()["internalCode"], 8013);
    gate.open();
    answered(held).await;
}

#[tokio::test]
async fn a_request_that_runs_as_a_subrequest_takes_one_place() {
    let upstream = Upstream::h1().await;
    let keys = r#"keys: [{ value: '{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"very-secret","region":"us-east-1"}' }]"#;
    let says = format!("in_flight: {{ max: 1, queue: 1, wait: 60s }}, {keys}");
    let yaml = at(&upstream, "aws-bedrock", "", &says) + SPENDING;
    let gateway = Gateway::with(&yaml)
        .server("in_flight: { max: 1, queue: 1, wait: 60s }")
        .start()
        .await;
    let target = path("aws-bedrock", "bedrock-runtime/us-east-1/model/m/invoke");
    let request = Request::post(&target, body::json_of_size("m", 100_000)).told(Told::Open);
    let gate = Gate::new();
    upstream.script(Answer::json("{}").after(&gate));
    let address = gateway.public();
    let ask = |request: Request| tokio::spawn(async move { request.send(address).await });
    let first = ask(request.clone());
    upstream.reached(1).await;
    // One that leaves while it waits is noticed through the subrequest too.
    let leaving = ask(request.clone());
    let waiting = |count: f64| {
        move |metrics: &Metrics| metrics.sum("tollgate_in_flight_waiting", &[]) == count
    };
    gateway.metrics_when("one waits", waiting(1.0)).await;
    leaving.abort();
    gateway.metrics_when("nobody waits", waiting(0.0)).await;
    gateway.logged("error=client_gone").await;
    let second = ask(request);
    gateway.metrics_when("one waits", waiting(1.0)).await;
    upstream.script(Answer::json("{}"));
    gate.open();
    for call in [first, second] {
        assert_eq!(answered(call).await.status, 200);
    }
    upstream.received(2).await;
}
