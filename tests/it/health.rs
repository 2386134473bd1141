//! Who is left alone for a while, in which order targets are asked, and which key pays.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::conf::entry;
use crate::support::metrics::Metrics;
use crate::support::wait::eventually;
use crate::support::{Answer, Gate, Gateway, Reply, Request, Response, Upstream};

const ROUTE: &str = "/v1/default/default/compat/chat/completions";

/// A gateway with the route `r` over the providers `custom-a`, `custom-b`, …
struct Fleet {
    upstreams: Vec<Upstream>,
    gateway: Gateway,
}

impl Fleet {
    /// `targets`: what each target says beyond provider and model; `route` and `gateway`: what
    /// these say.
    async fn start(targets: &[&str], route: &str, gateway: &str) -> Self {
        let (mut upstreams, mut providers, mut all) = (Vec::new(), String::new(), String::new());
        for (letter, says) in ('a'..).zip(targets) {
            let upstream = Upstream::h1().await;
            upstream.always(Answer::json(&format!(r#"{{"from":"{letter}"}}"#)));
            providers += &entry(&upstream, &format!("custom-{letter}"), "", "auth: none");
            all += &format!("{{ provider: custom-{letter}, model: m{letter}{says} }},");
            upstreams.push(upstream);
        }
        let yaml = format!(
            "providers:\n{providers}accounts: {{ default: {{ gateways: {{ default: {{ \
             {gateway}routes: {{ r: {{ {route}targets: [ {all} ] }} }} }} }} }} }}\n"
        );
        Self {
            upstreams,
            gateway: Gateway::start(&yaml).await,
        }
    }

    async fn ask(&self) -> Response {
        ask_for("r").send(&self.gateway).await
    }

    /// Who answered so many calls.
    async fn answers(&self, calls: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..calls {
            let answer = self.ask().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            *answers.entry(from(&answer)).or_default() += 1;
        }
        answers
    }
}

fn ask_for(route: &str) -> Request {
    let body =
        format!(r#"{{"model":"dynamic/{route}","messages":[{{"role":"user","content":"u"}}]}}"#);
    Request::post(ROUTE, body)
}

fn from(answer: &Response) -> String {
    answer.json()["from"].as_str().unwrap().to_owned()
}

fn breaker(metrics: &Metrics, provider: &str) -> f64 {
    metrics.sum("tollgate_breaker_open", &[("provider", provider)])
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_and_tried_with_one_call_first() {
    let health = "health: { failures: 3, open_for: 1s }, ";
    let fleet = Fleet::start(&["", ""], "", health).await;
    let [a, b] = &fleet.upstreams[..] else {
        panic!()
    };
    a.always(Answer::new(500));
    for _ in 0..3 {
        assert_eq!(from(&fleet.ask().await), "b");
    }
    // Now it is not even asked.
    let answers = fleet.answers(5).await;
    assert_eq!(answers["b"], 5);
    a.received(3).await;
    let metrics = fleet.gateway.metrics().await;
    assert_eq!(
        (breaker(&metrics, "custom-a"), breaker(&metrics, "custom-b")),
        (1.0, 0.0)
    );
    assert_eq!(
        metrics.sum("tollgate_breaker_opened_total", &[("model", "ma")]),
        1.0
    );
    fleet
        .gateway
        .logged("custom-a ma of default/default is left alone")
        .await;
    // One call looks whether it is back; it is not, so the next one does not even ask.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(fleet.answers(5).await["b"], 5);
    a.received(4).await;
    // Twice as long this time. It is back.
    a.always(Answer::json(r#"{"from":"a"}"#));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(fleet.answers(3).await["a"], 3);
    assert_eq!(breaker(&fleet.gateway.metrics().await, "custom-a"), 0.0);
    b.received(13).await;
}

#[tokio::test]
async fn when_all_are_left_alone_the_least_bad_is_asked() {
    let health = "health: { failures: 1, open_for: 1m }, ";
    let fleet = Fleet::start(&["", ""], "", health).await;
    for upstream in &fleet.upstreams {
        upstream.always(Answer::new(503).text("down"));
    }
    // The first opens first, and so its time ends first: it is asked first from then on.
    for asked in 1..4 {
        let answer = fleet.ask().await;
        assert_eq!((answer.status, &*answer.text()), (503, "down"));
        for upstream in &fleet.upstreams {
            upstream.received(asked).await;
        }
    }
    fleet.upstreams[1].always(Answer::json(r#"{"from":"b"}"#));
    assert_eq!(from(&fleet.ask().await), "b");
    fleet.upstreams[0].received(4).await;
    fleet.upstreams[0].always(Answer::json(r#"{"from":"a"}"#));
    assert_eq!(from(&fleet.ask().await), "a");
}

#[tokio::test]
async fn what_the_request_or_the_client_is_to_blame_for_opens_nothing() {
    let health = "health: { failures: 1, open_for: 1m }, ";
    let fleet = Fleet::start(&["", ""], "", health).await;
    for status in [400, 404, 413, 422] {
        fleet.upstreams[0].script(Answer::new(status));
        fleet.ask().await;
    }
    let gate = Gate::new();
    fleet.upstreams[0].script(Answer::json("{}").after(&gate));
    let leaving = tokio::time::timeout(Duration::from_millis(300), fleet.ask()).await;
    assert!(leaving.is_err());
    assert_eq!(from(&fleet.ask().await), "a");
    assert_eq!(breaker(&fleet.gateway.metrics().await, "custom-a"), 0.0);
}

#[tokio::test]
async fn what_is_known_survives_a_reload() {
    let health = "health: { failures: 1, open_for: 1m }, ";
    let fleet = Fleet::start(&["", ""], "", health).await;
    fleet.upstreams[0].script(Reply::Reset);
    assert_eq!(from(&fleet.ask().await), "b");
    let path = fleet.gateway.conf();
    let yaml = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{yaml}# changed\n")).unwrap();
    fleet.gateway.signal(Signal::SIGHUP);
    let reloaded = |metrics: &Metrics| metrics.sum("tollgate_config_reloads_total", &[]) >= 1.0;
    fleet.gateway.metrics_when("a reload", reloaded).await;
    assert_eq!(fleet.answers(3).await["b"], 3);
    assert_eq!(breaker(&fleet.gateway.metrics().await, "custom-a"), 1.0);
}

#[tokio::test]
async fn weights_share_the_calls_and_zero_comes_last() {
    let route = "strategy: weighted, ";
    let fleet = Fleet::start(&[", weight: 3", "", ", weight: 0"], route, "").await;
    let answers = fleet.answers(400).await;
    let (a, b) = (answers["a"], answers["b"]);
    assert_eq!((a + b, answers.get("c")), (400, None));
    // 300 and 100 expected; five standard deviations are 43.
    assert!((250..=350).contains(&a), "{answers:?}");
    for upstream in &fleet.upstreams[..2] {
        upstream.always(Answer::new(501));
    }
    assert_eq!(from(&fleet.ask().await), "c");
}

#[tokio::test]
async fn the_one_with_the_fewest_calls_in_flight_is_asked() {
    let fleet = Fleet::start(&["", ""], "strategy: least_in_flight, ", "").await;
    let gates = [Gate::new(), Gate::new()];
    for (upstream, gate) in fleet.upstreams.iter().zip(&gates) {
        upstream.script(Answer::json(r#"{"from":"held"}"#).after(gate));
    }
    let address = fleet.gateway.public();
    let held = tokio::spawn(async move { ask_for("r").send(address).await });
    let busy = || {
        fleet
            .upstreams
            .iter()
            .position(|upstream| !upstream.requests().is_empty())
    };
    let busy = eventually("a call", busy).await;
    let free = 1 - busy;
    gates[free].open();
    fleet.ask().await;
    let letter = ["a", "b"][free];
    assert_eq!(fleet.answers(10).await[letter], 10);
    fleet.upstreams[busy].received(1).await;
    gates[busy].open();
    assert_eq!(from(&held.await.unwrap()), "held");
}

#[tokio::test]
async fn the_faster_one_gets_the_calls() {
    let fleet = Fleet::start(&["", ""], "strategy: latency, ", "").await;
    let slow = Answer::json(r#"{"from":"a"}"#).late(Duration::from_millis(150));
    fleet.upstreams[0].always(slow);
    let answers = fleet.answers(30).await;
    assert!(answers["b"] >= 25, "{answers:?}");
}

#[tokio::test]
async fn a_session_stays_with_its_target_and_moves_only_when_that_fails() {
    let route = "strategy: weighted, affinity: { header: x-session-id }, ";
    let fleet = Fleet::start(&["", "", ""], route, "").await;
    let ask = async |session: &str| {
        let request = ask_for("r").header("x-session-id", session);
        from(&request.send(&fleet.gateway).await)
    };
    let mut homes = BTreeMap::new();
    for number in 0..24 {
        let session = format!("s{number}");
        homes.insert(session.clone(), ask(&session).await);
    }
    for (session, home) in &homes {
        assert_eq!(ask(session).await, *home, "{session}");
    }
    let at_a: Vec<_> = homes.iter().filter(|(_, home)| *home == "a").collect();
    assert!((2..20).contains(&at_a.len()), "{homes:?}");
    fleet.upstreams[0].always(Answer::new(501));
    for (session, home) in &homes {
        let now = ask(session).await;
        assert!(
            if home == "a" {
                now != "a"
            } else {
                now == *home
            },
            "{session}: {now}"
        );
    }
}

#[tokio::test]
async fn a_conversation_stays_with_its_target() {
    let fleet = Fleet::start(&["", "", ""], "affinity: prompt, ", "").await;
    let mut seen = BTreeMap::<String, usize>::new();
    for conversation in 0..12 {
        let mut turns = format!(r#"{{"role":"user","content":"{conversation}"}}"#);
        let mut homes = Vec::new();
        for turn in 0..3 {
            let body = format!(r#"{{"model":"dynamic/r","messages":[{turns}]}}"#);
            let request = Request::post(ROUTE, body);
            homes.push(from(&request.send(&fleet.gateway).await));
            turns += &format!(r#",{{"role":"assistant","content":"{turn}"}}"#);
        }
        assert!(homes.iter().all(|home| *home == homes[0]), "{homes:?}");
        *seen.entry(homes.remove(0)).or_default() += 1;
    }
    assert!(seen.len() > 1, "{seen:?}");
}

/// One provider with a pool of two keys and one that is not in it.
async fn pool(upstream: &Upstream, gateway: &str) -> Gateway {
    let keys = "keys: [ { alias: a, value: sk-a, weight: 3 }, { alias: b, value: sk-b, weight: 1 }, \
         { alias: default, value: sk-default } ]";
    let spends = "authentication: { anyone_may_spend_stored_keys: true }";
    let yaml = format!(
        "providers:\n{}accounts: {{ default: {{ gateways: {{ default: {{ {spends}{gateway} }} }} }} }}\n",
        entry(upstream, "openai", "/v1", keys)
    );
    Gateway::start(&yaml).await
}

fn chat() -> Request {
    let body = r#"{"model":"gpt-5-mini","messages":[]}"#;
    Request::post(crate::support::conf::CHAT, body)
}

fn keys(upstream: &Upstream) -> Vec<String> {
    let requests = upstream.requests();
    let sent = requests
        .iter()
        .filter_map(|request| request.header("authorization"));
    sent.map(|key| key.trim_start_matches("Bearer sk-").to_owned())
        .collect()
}

#[tokio::test]
async fn a_pool_of_keys_shares_the_calls_by_weight() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = pool(&upstream, "").await;
    for _ in 0..200 {
        assert_eq!(chat().send(&gateway).await.status, 200);
    }
    let spent = keys(&upstream);
    let of_a = spent.iter().filter(|key| *key == "a").count();
    assert!(spent.iter().all(|key| key == "a" || key == "b"));
    // 150 expected; five standard deviations are 31.
    assert!((119..=181).contains(&of_a), "{of_a}");
    // One that is named pays alone; one that the client brings goes before.
    let named = chat().header("cf-aig-byok-alias", "default");
    assert_eq!(named.send(&gateway).await.status, 200);
    let own = chat().header("authorization", "Bearer sk-own");
    assert_eq!(own.send(&gateway).await.status, 200);
    assert_eq!(keys(&upstream)[200..], ["default", "own"]);
    gateway.logged("key=a").await;
}

#[tokio::test]
async fn a_key_that_is_refused_or_limited_is_left_alone_and_another_pays_at_once() {
    for (status, cause) in [
        (401, "key"),
        (402, "key"),
        (403, "key"),
        (429, "rate_limited"),
    ] {
        let upstream = Upstream::h1().await;
        upstream.always(Answer::json("{}"));
        let gateway = pool(&upstream, "").await;
        upstream.script(Answer::new(status).header("retry-after", "30"));
        assert_eq!(chat().send(&gateway).await.status, 200, "{status}");
        let spent = keys(&upstream);
        assert_ne!(spent[0], spent[1], "{status}");
        for _ in 0..20 {
            assert_eq!(chat().send(&gateway).await.status, 200);
        }
        assert!(
            keys(&upstream)[1..].iter().all(|key| *key == spent[1]),
            "{status}"
        );
        let metrics = gateway.metrics().await;
        let cooled = [
            ("provider", "openai"),
            ("key", &*spent[0]),
            ("cause", cause),
        ];
        assert_eq!(
            metrics.sum("tollgate_key_cooled_total", &cooled),
            1.0,
            "{status}"
        );
        // The other one too: nobody is left, and the least bad is tried rather than nobody.
        upstream.script(Answer::new(status).text("both"));
        let answer = chat().send(&gateway).await;
        assert_eq!((answer.status, &*answer.text()), (status, "both"));
        assert_eq!(chat().send(&gateway).await.status, 200);
    }
}

#[tokio::test]
async fn a_limit_of_one_model_is_no_limit_of_the_others() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let gateway = pool(&upstream, "").await;
    upstream.script(Answer::new(429).header("retry-after", "30"));
    assert_eq!(chat().send(&gateway).await.status, 200);
    let limited = keys(&upstream)[0].clone();
    for _ in 0..40 {
        let other = Request::post(crate::support::conf::CHAT, r#"{"model":"other"}"#);
        let other = other;
        assert_eq!(other.send(&gateway).await.status, 200);
    }
    assert!(keys(&upstream)[2..].contains(&limited));
}

#[tokio::test]
async fn answers_are_shared_over_a_pool_but_not_beyond() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(r#"{"object":"chat.completion","choices":[]}"#));
    let gateway = pool(&upstream, ", cache: { ttl: 5m }").await;
    assert_eq!(
        chat().send(&gateway).await.header("cf-aig-cache-status"),
        Some("MISS")
    );
    crate::cache::stored(&gateway).await;
    for _ in 0..8 {
        assert_eq!(
            chat().send(&gateway).await.header("cf-aig-cache-status"),
            Some("HIT")
        );
    }
    let named = chat().header("cf-aig-byok-alias", "default");
    assert_eq!(
        named.send(&gateway).await.header("cf-aig-cache-status"),
        Some("MISS")
    );
    upstream.received(2).await;
}

#[tokio::test]
async fn a_cache_hit_does_not_take_the_turn_of_the_call_that_looks() {
    let gateway = "health: { failures: 1, open_for: 500ms }, cache: { ttl: 5m }, ";
    let fleet = Fleet::start(&["", ""], "", gateway).await;
    let [a, b] = &fleet.upstreams[..] else {
        panic!()
    };
    let other = |text: &str| {
        let body = format!(r#"{{"model":"dynamic/r","messages":[],"n":"{text}"}}"#);
        Request::post(ROUTE, body)
    };
    let answer = |from: &str| Answer::json(&format!(r#"{{"from":"{from}","choices":[]}}"#));
    a.always(answer("a"));
    b.always(answer("b"));
    assert_eq!(from(&other("kept").send(&fleet.gateway).await), "a");
    crate::cache::stored(&fleet.gateway).await;
    a.script(Answer::new(500));
    assert_eq!(from(&other("1").send(&fleet.gateway).await), "b");
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Due now. What is answered from the cache does not look.
    let hit = other("kept").send(&fleet.gateway).await;
    assert_eq!(hit.header("cf-aig-cache-status"), Some("HIT"));
    assert_eq!(from(&other("2").send(&fleet.gateway).await), "a");
}

/// The route over openai and groq, with stored keys for both.
async fn two_providers(says: &str) -> (Upstream, Upstream, Gateway) {
    let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
    openai.always(Answer::json(r#"{"from":"openai"}"#));
    groq.always(Answer::json(r#"{"from":"groq"}"#));
    let key = |key: &str| format!("keys: [ {{ alias: default, value: {key} }} ]");
    let yaml = format!(
        "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ {says} \
         authentication: {{ anyone_may_spend_stored_keys: true }}, routes: {{ r: {{ \
         match: {{ provider: openai, model: gpt-5-mini }}, targets: [ \
         {{ provider: openai, model: gpt-5-mini }}, {{ provider: groq, model: llama }} ] }} }} }} }} }} }}\n",
        entry(&openai, "openai", "/v1", &key("sk-openai")),
        entry(&groq, "groq", "/v1", &key("sk-groq")),
    );
    let gateway = Gateway::start(&yaml).await;
    (openai, groq, gateway)
}

#[tokio::test]
async fn a_clients_own_haste_is_nobodys_fault() {
    let (openai, _groq, gateway) = two_providers("health: { failures: 2, open_for: 1m }, ").await;
    openai.always(Answer::json(r#"{"from":"openai"}"#).late(Duration::from_millis(100)));
    for _ in 0..4 {
        let hasty = chat().header("cf-aig-request-timeout", "1");
        assert_eq!(from(&hasty.send(&gateway).await), "groq");
    }
    assert_eq!(from(&chat().send(&gateway).await), "openai");
}

#[tokio::test]
async fn a_limit_of_the_stored_key_is_none_of_a_clients_own() {
    let (openai, groq, gateway) = two_providers("").await;
    openai.script(Answer::new(429).header("retry-after", "60"));
    assert_eq!(from(&chat().send(&gateway).await), "groq");
    let own = chat().header("authorization", "Bearer own");
    assert_eq!(from(&own.send(&gateway).await), "openai");
    assert_eq!(from(&chat().send(&gateway).await), "groq");
    assert_eq!(keys(&groq), ["groq", "groq"]);
}
