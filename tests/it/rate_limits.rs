//! Rate limits: as many pass as may, whatever comes at once, and who is refused learns which rule it
//! was and when to come back.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::cache::{status, stored};
use crate::keys::made;
use crate::support::conf::{CHAT, entry};
use crate::support::metrics::Metrics;
use crate::support::{
    Answer, Connection, Gate, Gateway, Request, Response, Upstream, eventually, within,
};

const QUESTION: &str = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str =
    r#"{"model":"gpt-5-mini","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12}}"#;
const GROQ: &str = "/v1/default/default/groq/chat/completions";

/// Two providers, the second of which says this besides, and these gateways.
fn conf(openai: &Upstream, groq: &Upstream, groq_says: &str, gateways: &str) -> String {
    format!(
        "log: {{ access: json }}\nproviders:\n{}{}accounts: {{ default: {{ gateways: {{ {gateways} }} }} }}\n",
        entry(openai, "openai", "/v1", "keys: [ { value: sk-stored } ]"),
        entry(
            groq,
            "groq",
            "/openai/v1",
            &format!("keys: [ {{ value: gsk-stored }} ], {groq_says}")
        ),
    )
}

struct Limited {
    openai: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

impl Limited {
    /// In front of both, a gateway that says this.
    async fn start(says: &str) -> Self {
        Self::with(&format!("default: {{ {says} }}")).await
    }

    async fn with(gateways: &str) -> Self {
        Self::with_groq("", gateways).await
    }

    /// Where the second provider says this besides.
    async fn with_groq(says: &str, gateways: &str) -> Self {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        for upstream in [&openai, &groq] {
            upstream.always(Answer::json(ANSWER));
        }
        let gateway = Gateway::start(&conf(&openai, &groq, says, gateways)).await;
        Self {
            openai,
            groq,
            gateway,
        }
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Response {
        ask(headers).send(&self.gateway).await
    }

    /// How many of so many, one after the other, pass.
    async fn pass(&self, times: usize, headers: &[(&str, &str)]) -> usize {
        let mut passed = 0;
        for _ in 0..times {
            passed += usize::from(self.ask(headers).await.status == 200);
        }
        passed
    }
}

fn ask(headers: &[(&str, &str)]) -> Request {
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(Request::post(CHAT, QUESTION), with)
}

/// What a refusal says, which must be one by a rate.
fn refused(answer: &Response) -> String {
    let said = answer.json();
    assert_eq!((answer.status, &said["internalCode"]), (429, &2003.into()));
    assert_eq!(said["error"][0]["code"], 2003);
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1);
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    assert_eq!(
        answer.header("ratelimit-reset").unwrap(),
        seconds.to_string()
    );
    let message = said["message"].as_str().unwrap();
    assert!(message.starts_with("Rate limited: rule `"), "{message}");
    let (_, allowed) = message.split_once("` allows ").unwrap();
    let limit = answer.header("ratelimit-limit").unwrap();
    assert_eq!(allowed.split(' ').next(), Some(limit), "{message}");
    message.to_owned()
}

/// 64 clients at the same time, with 5 requests each, against a limit of 100.
#[tokio::test(flavor = "multi_thread")]
async fn of_any_number_at_once_exactly_as_many_pass_as_may() {
    for technique in ["sliding", "fixed"] {
        let limited = Limited::start(&format!(
            "rate_limits: [ {{ limit: 100, window: 31d, technique: {technique} }} ], authentication: {{ anyone_may_spend_stored_keys: true }}"
        ))
        .await;
        let mut clients = JoinSet::new();
        for _ in 0..64 {
            let address = limited.gateway.public();
            clients.spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut passed = 0;
                for _ in 0..5 {
                    let answer = match connection.exchange(&ask(&[])).await {
                        Some(answer) => answer,
                        None => {
                            connection = Connection::open(address).await;
                            connection.exchange(&ask(&[])).await.unwrap()
                        }
                    };
                    match answer.status {
                        200 => passed += 1,
                        _ => assert!(refused(&answer).contains("`rate-1` allows 100 requests")),
                    }
                }
                passed
            });
        }
        let passed: usize = clients.join_all().await.into_iter().sum();
        assert_eq!(passed, 100, "{technique}");
        assert_eq!(limited.openai.requests().len(), 100);
    }
}

#[tokio::test]
async fn a_client_learns_where_it_stands_and_the_log_which_rule_refused() {
    let limited =
        Limited::start("rate_limits: [ { id: few, limit: 2, window: 1h, technique: fixed } ]")
            .await;
    for left in ["1", "0"] {
        let answer = limited.ask(&[]).await;
        assert_eq!(answer.status, 200);
        let told = ["limit", "remaining"].map(|name| answer.header(&format!("ratelimit-{name}")));
        assert_eq!(told, [Some("2"), Some(left)]);
        let reset: u64 = answer.header("ratelimit-reset").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&reset));
    }
    let said = refused(&limited.ask(&[]).await);
    assert!(
        said.contains("rule `few` allows 2 requests in 1h; try again in"),
        "{said}"
    );
    limited.gateway.logged("\"denied_by\":\"few\"").await;
    let metrics = limited.gateway.metrics().await;
    let denied = metrics.sum("tollgate_errors_total", &[("kind", "rate_limited")]);
    assert_eq!(denied, 1.0);
    let denied = metrics.sum(
        "tollgate_denials_total",
        &[("rule", "few"), ("gateway", "default/default")],
    );
    assert_eq!(denied, 1.0);
}

/// An answer takes 42. The rule for calls has more left of its limit than the one for tokens, and
/// what the cache answers asks no rule for tokens.
#[tokio::test]
async fn a_client_learns_what_a_rule_for_tokens_leaves_it() {
    let limited = Limited::start(
        "cache: { ttl: 60s }, rate_limits: [ { limit: 9, window: 31d }, { limit: 100, window: 31d, count: total_tokens } ]",
    )
    .await;
    let fresh = [("cf-aig-skip-cache", "true")];
    for (call, (headers, told)) in [
        (&[][..], ["9", "8"]),
        (&fresh[..], ["100", "58"]),
        (&fresh[..], ["100", "16"]),
        (&[][..], ["9", "5"]),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = limited.ask(headers).await;
        assert_eq!(answer.status, 200, "{call}");
        let names = ["ratelimit-limit", "ratelimit-remaining"];
        let said = names.map(|name| answer.header(name).unwrap());
        assert_eq!(said, told, "{call}");
        limited.gateway.settled(call + 1).await;
    }
    let said = refused(&limited.ask(&fresh).await);
    assert!(said.contains("rule `rate-2`"), "{said}");
}

#[tokio::test]
async fn gateways_with_the_same_rule_do_not_share_what_it_allows() {
    let other = CHAT.replacen("default/default", "default/other", 1);
    for (by, words) in [
        ("", "in 1h;"),
        (", by: [gateway]", "in 1h for each gateway;"),
    ] {
        let says = format!("{{ rate_limits: [ {{ limit: 1, window: 1h{by} }} ] }}");
        let limited = Limited::with(&format!("default: {says}, other: {says}")).await;
        for target in [CHAT, &other] {
            let call = Request::post(target, QUESTION);
            assert_eq!(
                call.send(&limited.gateway).await.status,
                200,
                "{target}{by}"
            );
            let said = refused(&call.send(&limited.gateway).await);
            assert!(said.contains(words), "{said}");
        }
    }
}

/// Two of one owner, a token and a key of our own, and one of another's.
#[tokio::test]
async fn a_rule_by_owner_counts_together_what_one_by_key_counts_apart() {
    const CI: &str = "tg-ci-0123456789abcdef";
    const WEB: &str = "tg-web-0123456789abcdef";
    for (by, passes) in [("owner", [1, 0, 1]), ("key", [1, 1, 1])] {
        let limited = Limited::start(&format!(
            "authentication: {{ tokens: [ {{ name: ci, owner: team-a, value: {CI} }}, {{ name: web, owner: team-b, value: {WEB} }} ] }}, \
             rate_limits: [ {{ limit: 1, window: 1h, by: [{by}] }} ]"
        ))
        .await;
        let key = made(&limited.gateway, &["--owner", "team-a"]).await;
        for (token, passes) in [CI, &key, WEB].into_iter().zip(passes) {
            let brings = [("cf-aig-authorization", token)];
            assert_eq!(limited.pass(1, &brings).await, passes, "{by}: {token}");
            let said = refused(&limited.ask(&brings).await);
            assert!(said.contains(&format!("for each {by}")), "{said}");
        }
        assert_eq!(limited.pass(2, &[]).await, 2, "nobody is not meant");
    }
}

/// What a provider says of its own limits passes as it is.
#[tokio::test]
async fn a_provider_s_own_words_stay() {
    let limited = Limited::start("rate_limits: [ { limit: 5, window: 1h } ]").await;
    limited
        .openai
        .script(Answer::json(ANSWER).header("RateLimit-Limit", "77"));
    let answer = limited.ask(&[]).await;
    assert_eq!(answer.header("ratelimit-limit"), Some("77"));
    assert_eq!(answer.header("ratelimit-remaining"), None);
}

/// Nobody waits for a body that is not wanted.
#[tokio::test]
async fn who_is_over_a_rate_that_needs_no_body_is_refused_before_it_is_read() {
    let limited =
        Limited::start("cache: { ttl: 60s }, rate_limits: [ { limit: 1, window: 1h, by: [client_address, metadata.user] } ]").await;
    let user = [("cf-aig-metadata", r#"{"user":"ann"}"#)];
    assert_eq!(limited.pass(1, &user).await, 1);
    let mut connection = Connection::open(&limited.gateway).await;
    connection
        .write(format!(
            "POST {CHAT} HTTP/1.1\r\nHost: x\r\ncf-aig-metadata: {{\"user\":\"ann\"}}\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{"
        ))
        .await;
    let answer = connection.read().await.unwrap();
    assert!(refused(&answer).contains("for each client address and metadata.user"));
    // Somebody else is not over it, and who says nothing is not meant.
    assert_eq!(
        limited
            .pass(3, &[("cf-aig-metadata", r#"{"user":"bob"}"#)])
            .await,
        1
    );
    assert_eq!(limited.pass(3, &[]).await, 3);
}

#[tokio::test]
async fn a_rule_by_model_waits_for_the_body_and_takes_nothing_of_others_when_it_refuses() {
    let limited = Limited::start(
        "rate_limits: [ { id: all, limit: 3, window: 1h }, { id: each, limit: 1, window: 1h, by: [model] } ]",
    )
    .await;
    assert_eq!(limited.pass(1, &[]).await, 1);
    for _ in 0..5 {
        let said = refused(&limited.ask(&[]).await);
        assert!(
            said.contains("rule `each` allows 1 requests in 1h for each model"),
            "{said}"
        );
    }
    let mut passed = 0;
    for model in ["one", "two", "three"] {
        let question = QUESTION.replace("gpt-5-mini", model);
        let answer = Request::post(CHAT, question).send(&limited.gateway).await;
        passed += usize::from(answer.status == 200);
    }
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn tokens_are_counted_when_they_are_known_and_answers_from_the_cache_cost_none() {
    let limited = Limited::start(
        "cache: { ttl: 60s }, rate_limits: [ { id: tokens, limit: 80, window: 1h, technique: fixed, count: total_tokens, by: [provider] }, { id: calls, limit: 7, window: 1h } ]",
    )
    .await;
    assert_eq!(limited.pass(1, &[]).await, 1);
    limited.gateway.settled(1).await;
    // 42 of 80 are used. What the cache gives is a request, and nothing else.
    assert_eq!(limited.pass(3, &[]).await, 3);
    assert_eq!(limited.openai.requests().len(), 1);
    limited.gateway.settled(4).await;
    let fresh = [("cf-aig-skip-cache", "true")];
    assert_eq!(limited.pass(1, &fresh).await, 1);
    limited.gateway.settled(5).await;
    let said = refused(&limited.ask(&fresh).await);
    assert!(
        said.contains("rule `tokens` allows 80 tokens in 1h for each provider"),
        "{said}"
    );
    assert_eq!(limited.pass(1, &[]).await, 1, "out of the cache");
    let said = refused(&limited.ask(&[]).await);
    assert!(said.contains("rule `calls`"), "{said}");
    assert_eq!(limited.openai.requests().len(), 2);
}

/// An answer takes 30 in and 12 out: a call may go past what is left, the next is refused.
#[tokio::test]
async fn what_goes_in_and_what_comes_out_are_counted_apart() {
    for (count, limit, passes) in [
        ("input", 30, 1),
        ("input", 31, 2),
        ("output", 12, 1),
        ("output", 13, 2),
    ] {
        let limited = Limited::start(&format!(
            "rate_limits: [ {{ limit: {limit}, window: 31d, count: {count}_tokens }} ]"
        ))
        .await;
        for call in 1..=passes {
            assert_eq!(limited.pass(1, &[]).await, 1, "{count} {limit}: {call}");
            limited.gateway.settled(call).await;
        }
        let said = refused(&limited.ask(&[]).await);
        let words = format!("rule `rate-1` allows {limit} {count} tokens in");
        assert!(said.contains(&words), "{said}");
        assert_eq!(limited.openai.requests().len(), passes);
    }
}

#[tokio::test]
async fn calls_at_the_same_time_count_until_their_stream_ends() {
    let limited = Limited::start(
        "rate_limits: [ { id: streams, limit: 2, count: concurrent, by: [metadata.user] } ]",
    )
    .await;
    let user = [("cf-aig-metadata", r#"{"user":"ann"}"#)];
    let gates = [Gate::new(), Gate::new()];
    let mut streams = Vec::new();
    for gate in &gates {
        let reply = Answer::sse()
            .text("data: {}\n\n")
            .wait(gate)
            .text("data: [DONE]\n\n");
        limited.openai.script(reply);
        let mut stream = ask(&user).open(limited.gateway.public()).await;
        stream.read_past("data: {}").await;
        streams.push(stream);
    }
    let said = refused(&limited.ask(&user).await);
    assert!(
        said.contains("allows 2 calls at the same time for each metadata.user"),
        "{said}"
    );
    assert_eq!(limited.pass(1, &[]).await, 1);
    gates[0].open();
    assert!(
        streams
            .remove(0)
            .finish()
            .await
            .text()
            .ends_with("data: [DONE]\n\n")
    );
    within("a call that may be made", async {
        while limited.ask(&user).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // A client that leaves makes room too.
    drop(streams);
    let gate = Gate::new();
    let mut held = Vec::new();
    within("room for two", async {
        while held.len() < 2 {
            limited
                .openai
                .script(Answer::sse().text("data: {}\n\n").wait(&gate));
            let stream = ask(&user).open(limited.gateway.public()).await;
            if stream.status == 200 {
                held.push(stream);
            }
        }
    })
    .await;
    gate.open();
}

#[tokio::test]
async fn what_the_cache_answers_is_no_call_at_the_same_time() {
    let limited = Limited::start(
        "cache: { ttl: 60s }, rate_limits: [ { id: calls, limit: 1, count: concurrent } ]",
    )
    .await;
    assert_eq!(status(&limited.ask(&[]).await), "MISS");
    stored(&limited.gateway).await;
    limited.gateway.settled(1).await;
    let gate = Gate::new();
    limited
        .openai
        .script(Answer::sse().text("data: {}\n\n").wait(&gate));
    let fresh = [("cf-aig-skip-cache", "true")];
    let mut stream = ask(&fresh).open(limited.gateway.public()).await;
    stream.read_past("data: {}").await;
    for _ in 0..3 {
        let answer = limited.ask(&[]).await;
        assert_eq!((answer.status, status(&answer)), (200, "HIT"));
    }
    let other = Request::post(CHAT, QUESTION.replace("hi", "ho"));
    let said = refused(&other.send(&limited.gateway).await);
    assert!(said.contains("rule `calls` allows 1 calls"), "{said}");
    assert_eq!(limited.openai.requests().len(), 2);
    gate.open();
    stream.finish().await;
    limited.gateway.settled(6).await;
    assert_eq!(other.send(&limited.gateway).await.status, 200);
}

/// Where one provider is beyond a rule, the next target of a route may be within it.
#[tokio::test]
async fn a_route_goes_on_to_a_target_that_is_within_the_rule() {
    let limited = Limited::start(
        "authentication: { anyone_may_spend_stored_keys: true }, rate_limits: [ { id: tokens, limit: 40, window: 1h, count: total_tokens, by: [provider] } ], \
         routes: { chat: { match: { provider: openai, model: gpt-5-mini }, targets: [ { provider: openai, model: gpt-5-mini }, { provider: groq, model: llama-3 } ] } }",
    )
    .await;
    for (count, asked) in [(1, (1, 0)), (2, (1, 1))] {
        assert_eq!(limited.pass(1, &[]).await, 1);
        limited.gateway.settled(count).await;
        let received = (
            limited.openai.requests().len(),
            limited.groq.requests().len(),
        );
        assert_eq!(received, asked);
    }
    let said = refused(&limited.ask(&[]).await);
    assert!(said.contains("rule `tokens`"), "{said}");
    limited.gateway.logged("limited:").await;
    let direct = Request::post(GROQ, QUESTION).send(&limited.gateway).await;
    refused(&direct);
}

#[tokio::test]
async fn a_call_that_waits_for_the_next_target_counts_no_more_at_the_one_that_failed() {
    let limited = Limited::with_groq(
        "in_flight: { max: 1, queue: 1, wait: 60s }",
        "default: { authentication: { anyone_may_spend_stored_keys: true }, \
         rate_limits: [ { id: calls, limit: 1, count: concurrent, by: [model] } ], \
         routes: { chat: { match: { provider: openai, model: gpt-5-mini }, targets: [ { provider: openai, model: gpt-5-mini }, { provider: groq, model: llama-3 } ] } } }",
    )
    .await;
    let gate = Gate::new();
    limited.groq.script(Answer::json(ANSWER).after(&gate));
    let address = limited.gateway.public();
    let other = Request::post(GROQ, QUESTION.replace("gpt-5-mini", "other"));
    let has_place = tokio::spawn(async move { other.send(address).await });
    limited.groq.reached(1).await;
    limited.openai.script(Answer::new(500));
    let waits = tokio::spawn(async move { ask(&[]).send(address).await });
    let is_waiting = |metrics: &Metrics| metrics.sum("tollgate_in_flight_waiting", &[]) == 1.0;
    limited
        .gateway
        .metrics_when("a call that waits", is_waiting)
        .await;
    let answer = limited.ask(&[]).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("0"))
    );
    gate.open();
    for call in [has_place, waits] {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_reload_changes_how_many_and_forgets_nothing() {
    let limited = Limited::start("rate_limits: [ { id: a, limit: 2, window: 1h } ]").await;
    assert_eq!(limited.pass(3, &[]).await, 2);
    let yaml = std::fs::read_to_string(limited.gateway.conf()).unwrap();
    let yaml = yaml.replace("limit: 2,", "limit: 5,");
    std::fs::write(limited.gateway.conf(), yaml).unwrap();
    let answer = Request::post("/-/reload", "")
        .send(limited.gateway.admin())
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(limited.pass(9, &[]).await, 3);
}

/// Each step of a universal call is a request.
#[tokio::test]
async fn a_step_that_is_over_a_rate_gives_way_to_the_next() {
    let limited = Limited::start("rate_limits: [ { limit: 1, window: 1h, by: [provider] } ]").await;
    let step = |provider: &str| {
        format!(
            r#"{{"provider":"{provider}","endpoint":"chat/completions","headers":{{"authorization":"Bearer sk"}},"query":{QUESTION}}}"#
        )
    };
    let steps = format!("[{},{}]", step("openai"), step("groq"));
    let call = Request::post("/v1/default/default", &steps);
    for (status, place) in [(200, "0"), (200, "1"), (429, "1")] {
        let answer = call.send(&limited.gateway).await;
        assert_eq!(
            (answer.status, answer.header("cf-aig-step")),
            (status, Some(place))
        );
    }
    let logged: Value = eventually("a line of the last", || {
        let log = limited.gateway.log();
        let line = log.lines().find(|line| line.contains("\"status\":429"))?;
        serde_json::from_str(line).ok()
    })
    .await;
    assert_eq!(logged["denied_by"], "rate-1");
}
