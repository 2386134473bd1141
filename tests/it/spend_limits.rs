//! Spend limits are hard: what is spent and set aside never exceeds a budget, whatever comes at once.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::conf::{CHAT, entry, path};
use crate::support::{
    Answer, Connection, Gate, Gateway, Protocol, Request, Response, Upstream, within,
};
use crate::{keys, logs, websocket};

/// gpt-4o-mini: 0.15 dollars for a million input tokens, 0.60 for a million output tokens; 0.25 and
/// 1.00 where it is answered with priority, which nobody knows beforehand. This is 85 bytes long: it
/// can cost 0.00102125 dollars, and costs 0.000009 as it is answered here.
const QUESTION: &str =
    r#"{"model":"gpt-4o-mini","max_tokens":1000,"messages":[{"role":"user","content":"hi"}]}"#;

fn usage(input: u64, output: u64) -> String {
    format!(
        r#"{{"model":"gpt-4o-mini","choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#
    )
}

struct Budgeted {
    openai: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

impl Budgeted {
    /// A gateway with these rules, and more.
    async fn start(rules: &str, more: &str) -> Self {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        for upstream in [&openai, &groq] {
            upstream.always(Answer::json(&usage(20, 10)));
        }
        let gateway = Gateway::start(&conf(&openai, &groq, rules, more)).await;
        Self {
            openai,
            groq,
            gateway,
        }
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Response {
        ask(headers).send(&self.gateway).await
    }

    /// An answer refuses what cannot be known beforehand: it says which rule does and why, and is on
    /// record.
    async fn not_known(&self, answer: &Response, rule: &str, why: &str) {
        let said = answer.json();
        assert_eq!((answer.status, &said["internalCode"]), (403, &8014.into()));
        let message = said["message"].as_str().unwrap();
        let refuses = format!("spend rule '{rule}' refuses");
        assert!(
            message.contains(&refuses) && message.contains(why),
            "{message}"
        );
        logs::denied(&self.gateway, answer, rule).await;
    }

    /// Waits until this much is spent, in dollars, and nothing is set aside.
    async fn spent(&self, dollars: f64) {
        self.gateway
            .metrics_when(&format!("{dollars} spent"), |metrics| {
                let spent = metrics.sum("tollgate_budget_spent_usd", &[]);
                let reserved = metrics.sum("tollgate_budget_reserved_usd", &[]);
                (spent - dollars).abs() < 1e-12 && reserved == 0.0
            })
            .await;
    }
}

fn conf(openai: &Upstream, groq: &Upstream, rules: &str, more: &str) -> String {
    format!(
        "log: {{ access: json }}\nproviders:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ \
         authentication: {{ anyone_may_spend_stored_keys: true }}, spend_limits: [ {rules} ]{more} }} }} }} }}\n",
        entry(openai, "openai", "/v1", "keys: [ { value: sk-stored } ]"),
        entry(
            groq,
            "groq",
            "/openai/v1",
            "keys: [ { value: gsk-stored } ]"
        ),
    )
}

fn ask(headers: &[(&str, &str)]) -> Request {
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(Request::post(CHAT, QUESTION), with)
}

/// What a refusal says, which must be one by a budget.
fn exceeded(answer: &Response) -> String {
    let said = answer.json();
    assert_eq!((answer.status, &said["internalCode"]), (429, &2045.into()));
    let message = said["message"].as_str().unwrap();
    assert!(
        message.starts_with("Spend limit exceeded: rule '"),
        "{message}"
    );
    message.to_owned()
}

/// The most that an answer can cost, in pico-dollars.
fn most(input: u64, output: u64) -> u64 {
    input * 250_000 + output * 1_000_000
}

const OUTPUT: u64 = 50_000;

/// A question that costs much, and how many of them a dollar pays.
fn dear() -> (String, usize) {
    let question = QUESTION.replace("1000", &OUTPUT.to_string());
    let fit = 1_000_000_000_000 / most(question.len() as u64, OUTPUT);
    (question, fit as usize)
}

/// A stream that ends when the gate is opened, and costs all that it may.
fn held(question: &str, gate: &Gate) -> Answer {
    let usage = usage(question.len() as u64, OUTPUT);
    let usage = usage.replace("\"choices\"", "\"service_tier\":\"priority\",\"choices\"");
    Answer::sse()
        .text("data: {\"model\":\"gpt-4o-mini\",\"choices\":[]}\n\n")
        .wait(gate)
        .text(&format!("data: {usage}\n\ndata: [DONE]\n\n"))
}

/// 200 streams at once against a budget of one dollar: each may cost far more than its share, and
/// costs all that it may.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once_overrun_a_budget_by_nothing() {
    let (question, fit) = dear();
    let budgeted = Budgeted::start(
        "{ id: dollar, limit: 1.00, window: month, model: { mode: filter, values: [ gpt-4o-mini ] } }",
        "",
    )
    .await;
    let gate = Gate::new();
    budgeted.openai.always(held(&question, &gate));
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let (address, question) = (budgeted.gateway.public(), question.clone());
        clients.spawn(async move {
            let stream = Request::post(CHAT, question).open(address).await;
            let status = stream.status;
            (status, stream.finish().await)
        });
    }
    // As many as fit run; the others are refused while those run.
    budgeted.openai.reached(fit).await;
    let what = "the others refused";
    let refused = |metrics: &crate::support::metrics::Metrics| {
        metrics.sum("tollgate_denials_total", &[("rule", "dollar")]) >= (200 - fit) as f64
    };
    budgeted.gateway.metrics_when(what, refused).await;
    (0..fit).for_each(|_| gate.open());
    let answers = clients.join_all().await;
    let passed = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(passed, fit);
    for (_, answer) in answers.iter().filter(|(status, _)| *status == 429) {
        let said = exceeded(answer);
        assert!(said.contains("rule 'dollar' (cost limit 1 per "), "{said}");
    }
    budgeted.gateway.settled(200).await;
    let metrics = budgeted.gateway.metrics().await;
    let spent = metrics.sum("tollgate_cost_usd_total", &[]);
    assert!(spent <= 1.0 && spent > 0.95, "{spent}");
    let overruns = "\ntollgate_budget_overruns_total 0\n";
    assert!(metrics.text().contains(overruns), "{}", metrics.values());
}

/// What was set aside and is not used can be spent by others.
#[tokio::test]
async fn a_call_is_settled_with_what_it_really_cost() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.001035, window: 24h, technique: fixed }",
        "",
    )
    .await;
    // With 0.00102125 set aside, which the second finds free again but for what the first has cost.
    for (count, remaining) in [(1, "0.00001375"), (2, "0.00000475")] {
        let answer = budgeted.ask(&[]).await;
        assert_eq!(answer.status, 200);
        let told = format!("small;limit=0.001035;remaining={remaining}");
        assert_eq!(answer.header("tollgate-budget"), Some(told.as_str()));
        budgeted.gateway.settled(count).await;
    }
    // 0.000018 are spent: it does not fit any more.
    for _ in 2..5 {
        let answer = budgeted.ask(&[]).await;
        let said = exceeded(&answer);
        assert!(said.contains("for openai gpt-4o-mini"), "{said}");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&seconds));
        logs::denied(&budgeted.gateway, &answer, "small").await;
    }
    budgeted.gateway.logged("\"denied_by\":\"small\"").await;
    let path = "/client/v4/accounts/default/ai-gateway/gateways/default/budgets";
    let left = Request::get(path).send(budgeted.gateway.admin()).await;
    let left = &left.json()["result"][0];
    assert_eq!(
        (&left["id"], &left["spent"]),
        (&"small".into(), &0.000_018.into())
    );
    assert_eq!(
        (&left["reserved"], &left["gateway"]),
        (&0.0.into(), &"default/default".into())
    );
    assert_eq!(left["remaining"], 0.001_017);
    let metrics = budgeted.gateway.metrics().await;
    let spent = metrics.sum("tollgate_budget_spent_usd", &[("rule", "small")]);
    assert!((spent - 0.000_018).abs() < 1e-12, "{spent}");
    assert_eq!(budgeted.openai.requests().len(), 2);
}

/// Those who operate see all budgets: also those of API keys, by the ids of the keys.
#[tokio::test]
async fn operators_see_what_is_left_of_the_budgets_of_keys_too() {
    let budgeted = Budgeted::start("{ id: big, limit: 1, window: 24h }", "").await;
    let said =
        json!({ "name": "app", "spend_limits": [{ "id": "day", "limit": 0.5, "window": "day" }] });
    let made = keys::asks(&budgeted.gateway, "POST", keys::KEYS, said).await;
    let key = &made.json()["result"];
    let brought = [("cf-aig-authorization", key["key"].as_str().unwrap())];
    assert_eq!(budgeted.ask(&brought).await.status, 200);
    budgeted.gateway.settled(1).await;
    let listed = budgeted.gateway.ask(Request::get("/-/budgets")).await;
    let listed = listed.json();
    let listed: Vec<_> = listed["result"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 2, "{listed:#?}");
    for (budget, (whose, name), id, left) in [
        (
            listed[0],
            ("gateway", &json!("default/default")),
            "big",
            0.999_991,
        ),
        (listed[1], ("key", &key["id"]), "day", 0.499_991),
    ] {
        assert_eq!((&budget[whose], &budget["id"]), (name, &json!(id)));
        assert_eq!(
            (&budget["spent"], &budget["remaining"]),
            (&json!(ANSWERED), &json!(left))
        );
    }
}

/// gpt-4o-mini writes a dollar's worth with a million tokens at most, and may write 128,000 of them.
/// These 67 bytes (0.00001675 dollars) set no maximum, so they may cost 0.00002675 with 10 tokens,
/// 0.00411275 with 4,096 and 0.12801675 with all.
#[tokio::test]
async fn where_a_request_sets_no_maximum_a_rule_assumes_one() {
    let question = QUESTION.replace(r#""max_tokens":1000,"#, "");
    let cases = [
        ("", "0.001", Some("0.00411275")),
        (", assume_output: 10", "0.001", None),
        (", assume_output: 10", "0.00002674", Some("0.00002675")),
        ("", "0.01", None),
        (", strict: true", "0.01", Some("0.12801675")),
        (", strict: true", "0.12801675", None),
        // What is said of the rule is what it assumes.
        (", strict: true, assume_output: 10", "0.001", None),
    ];
    let rules = cases.iter().enumerate().map(|(case, (says, limit, _))| {
        let only = format!("metadata: {{ case: {{ mode: filter, values: [ '{case}' ] }} }}");
        format!("{{ id: rule-{case}, limit: {limit}, window: 24h, {only}{says} }}")
    });
    let budgeted = Budgeted::start(&rules.collect::<Vec<_>>().join(", "), "").await;
    for (case, (says, limit, cost)) in cases.into_iter().enumerate() {
        let call = Request::post(CHAT, &question);
        let call = call.header("cf-aig-metadata", &format!(r#"{{"case":"{case}"}}"#));
        let answer = call.send(&budgeted.gateway).await;
        match cost {
            None => assert_eq!(answer.status, 200, "{limit}{says}: {}", answer.text()),
            Some(cost) => {
                let said = exceeded(&answer);
                let ends = format!("this request could cost {cost} USD");
                assert!(said.ends_with(&ends), "{limit}{says}: {said}");
            }
        }
    }
}

/// llama-3.3-70b-versatile has a price, but no limit that anybody lists.
#[tokio::test]
async fn a_strict_rule_does_not_guess_how_much_a_model_can_write() {
    let question = r#"{"model":"llama-3.3-70b-versatile","messages":[]}"#;
    let bounded = question.replace("\"messages\"", "\"max_tokens\":9,\"messages\"");
    let chat = path("groq", "chat/completions");
    let why = "nobody knows how much its model can write";
    let strict = "{ id: team, limit: 5, window: week, strict: true";
    for (says, status) in [
        ("unpriced: refuse }", 403),
        ("unpriced: allow }", 200),
        ("unpriced: refuse, assume_output: 100 }", 200),
    ] {
        let budgeted = Budgeted::start(&format!("{strict}, {says}"), "").await;
        let ask = async |body: &str| Request::post(&chat, body).send(&budgeted.gateway).await;
        assert_eq!(ask(&bounded).await.status, 200, "{says}");
        let answer = ask(question).await;
        assert_eq!(answer.status, status, "{says}: {}", answer.text());
        if status == 403 {
            budgeted.not_known(&answer, "team", why).await;
        }
        if says.contains("allow") {
            let noted = format!("\"budget_unbounded\":\"it sets no maximum, and {why}");
            budgeted.gateway.logged(&noted).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_pays_what_it_really_used_and_no_more() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.0011, window: 24h, technique: fixed }",
        "",
    )
    .await;
    let gate = Gate::new();
    let stream = Answer::sse()
        .text("data: {\"model\":\"gpt-4o-mini\",\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n")
        .wait(&gate);
    budgeted.openai.script(stream);
    let mut stream = ask(&[]).open(budgeted.gateway.public()).await;
    stream.read_past("hello").await;
    assert_eq!(budgeted.ask(&[]).await.status, 429, "all is set aside");
    drop(stream);
    // Counted where nobody reports it: "hi" in a message takes 8 tokens, "hello" is one.
    let used = 8.0 * 0.15e-6 + 0.60e-6;
    budgeted.spent(used).await;
    assert_eq!(budgeted.ask(&[]).await.status, 200, "the rest is free");
    budgeted.spent(used + ANSWERED).await;
}

/// The provider may have read what it was asked, and bills it: a quarter of a token for each byte.
const READING: f64 = (QUESTION.len() / 4) as f64 * 0.25e-6;
const ANSWERED: f64 = 0.000_009;

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_pays_its_reading() {
    let budgeted =
        Budgeted::start("{ id: big, limit: 1, window: 24h, technique: fixed }", "").await;
    let never = Gate::new();
    for (protocol, count) in [(Protocol::H1, 1), (Protocol::H2, 2)] {
        let late = Answer::json(&usage(20, 10)).after(&never);
        budgeted.openai.script(late);
        let (address, call) = (budgeted.gateway.public(), ask(&[]).over(protocol));
        let waiting = tokio::spawn(async move { call.try_open(address).await.is_some() });
        budgeted.openai.received(count).await;
        waiting.abort();
        budgeted.spent(count as f64 * READING).await;
    }
}

#[tokio::test]
async fn a_try_whose_time_runs_out_costs_its_reading() {
    let budgeted = Budgeted::start(
        "{ id: big, limit: 1, window: 24h, technique: fixed }",
        ", timeouts: { first_byte: 700ms }, retry: { max_attempts: 2, delay: 1ms }",
    )
    .await;
    let never = Gate::new();
    let late = || Answer::json(&usage(20, 10)).after(&never);
    budgeted.openai.script(late());
    assert_eq!(budgeted.ask(&[]).await.status, 200);
    budgeted.spent(READING + ANSWERED).await;
    budgeted.openai.script(late());
    budgeted.openai.script(late());
    assert_eq!(budgeted.ask(&[]).await.status, 504);
    budgeted.spent(3.0 * READING + ANSWERED).await;
    assert_eq!(budgeted.openai.requests().len(), 4);
}

#[tokio::test]
async fn the_loser_of_a_hedge_costs_its_reading() {
    let budgeted = Budgeted::start(
        "{ id: big, limit: 1, window: 24h, technique: fixed }",
        ", retry: { max_attempts: 2, delay: 60s }, routes: { chat: { \
         match: { provider: openai, model: gpt-4o-mini }, hedge: { after: 200ms, budget: 100% }, targets: [ \
         { provider: openai, model: gpt-4o-mini }, { provider: openai, model: gpt-4o-mini-2024-07-18 } ] } }",
    )
    .await;
    let never = Gate::new();
    budgeted
        .openai
        .script(Answer::json(&usage(20, 10)).after(&never));
    let answer = budgeted.ask(&[]).await;
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    budgeted.spent(READING + ANSWERED).await;
    // One that had failed, and waits for its next try, has nothing to pay.
    budgeted.openai.script(Answer::new(500).text("no"));
    assert_eq!(budgeted.ask(&[]).await.status, 200);
    budgeted.spent(READING + 2.0 * ANSWERED).await;
    assert_eq!(budgeted.openai.requests().len(), 4);
}

#[tokio::test]
async fn answers_from_the_cache_cost_nothing_and_failures_neither() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.00104, window: 24h, technique: fixed }",
        ", cache: { ttl: 60s }",
    )
    .await;
    budgeted.openai.script(Answer::new(500).text("no"));
    assert_eq!(budgeted.ask(&[]).await.status, 500);
    budgeted.gateway.settled(1).await;
    assert_eq!(budgeted.ask(&[]).await.status, 200);
    budgeted.gateway.settled(2).await;
    for _ in 0..3 {
        let answer = budgeted.ask(&[]).await;
        assert_eq!(answer.header("cf-aig-cache-status"), Some("HIT"));
    }
    budgeted.gateway.settled(5).await;
    let fresh = budgeted.ask(&[("cf-aig-skip-cache", "true")]).await;
    assert_eq!(
        fresh.status,
        200,
        "only one answer was paid for: {}",
        fresh.text()
    );
}

#[tokio::test]
async fn each_value_has_a_budget_of_its_own_and_who_has_none_is_not_limited() {
    let budgeted = Budgeted::start(
        "{ id: per-user, limit: 0.0001, window: 24h, metadata: { user: { mode: partition } } }",
        "",
    )
    .await;
    let user = |user: &str| format!(r#"{{"user":"{user}"}}"#);
    for (metadata, status) in [
        (user("ann"), 429),
        (user("bob"), 429),
        ("{}".to_owned(), 200),
    ] {
        let answer = budgeted.ask(&[("cf-aig-metadata", &metadata)]).await;
        assert_eq!(answer.status, status, "{metadata}");
    }
}

/// What cannot be known beforehand is refused where a rule says so, and noted where it does not.
#[tokio::test]
async fn what_cannot_be_known_beforehand_is_refused_or_noted() {
    let image = r#"{"model":"gpt-4o-mini","max_tokens":10,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}"#;
    let unpriced = r#"{"model":"nobody-knows","max_tokens":10,"messages":[]}"#;
    for (says, status) in [("refuse", 403), ("allow", 200)] {
        let rules = format!("{{ id: team, limit: 5, window: week, unpriced: {says} }}");
        let budgeted = Budgeted::start(&rules, "").await;
        for (body, why) in [(image, "image"), (unpriced, "no price is known for it")] {
            let answer = Request::post(CHAT, body).send(&budgeted.gateway).await;
            assert_eq!(answer.status, status, "{says}: {body}");
            if status == 403 {
                budgeted.not_known(&answer, "team", why).await;
            }
        }
        if status == 200 {
            budgeted.gateway.logged("\"budget_unbounded\":").await;
        }
        let listed = Request::get(&path("openai", "models"))
            .send(&budgeted.gateway)
            .await;
        assert_eq!(listed.status, 200, "what is only looked at costs nothing");
    }
}

#[tokio::test]
async fn what_the_cache_compares_byte_by_byte_has_a_price_all_the_same() {
    // A number that 64 bits cannot hold.
    let large = r#"{"model":"gpt-4o-mini","max_tokens":10,"seed":98765432109876543210}"#;
    let rules = "{ id: team, limit: 5, window: week, unpriced: refuse }";
    for more in ["", ", cache: {}"] {
        let budgeted = Budgeted::start(rules, more).await;
        let answer = Request::post(CHAT, large).send(&budgeted.gateway).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        budgeted.spent(0.000009).await;
    }
}

/// So is what a body that is not read may cost, or a connection that has no end.
#[tokio::test]
async fn compressed_bodies_uploads_and_websockets_are_refused_or_noted() {
    let compressed = Request::post(CHAT, logs::gzip(QUESTION)).header("content-encoding", "gzip");
    let upload = Request::new("POST", &path("openai", "files"))
        .header("content-type", "application/octet-stream")
        .body(QUESTION);
    let bodies = [
        (compressed, "its body is compressed"),
        (upload, "its body is not JSON"),
    ];
    let tunnel = "a WebSocket goes on for as long as its ends like";
    let realtime = path("openai", "realtime?model=gpt-4o-mini");
    let rules = "{ id: team, limit: 5, window: week, unpriced: refuse }";
    let budgeted = Budgeted::start(rules, "").await;
    for (request, why) in &bodies {
        let answer = request.send(&budgeted.gateway).await;
        budgeted.not_known(&answer, "team", why).await;
    }
    let mut connection = Connection::open(&budgeted.gateway).await;
    connection.write(websocket::handshake(&realtime, "")).await;
    let answer = connection.read().await.unwrap();
    budgeted.not_known(&answer, "team", tunnel).await;
    budgeted.openai.untouched();

    let budgeted = Budgeted::start(&rules.replace("refuse", "allow"), "").await;
    let noted = async |why| {
        let noted = format!("\"budget_unbounded\":\"{why}");
        budgeted.gateway.logged(&noted).await;
    };
    for (request, why) in &bodies {
        let answer = request.send(&budgeted.gateway).await;
        assert_eq!(answer.status, 200, "{why}: {}", answer.text());
        noted(*why).await;
    }
    budgeted.openai.script(websocket::accepting(&[]));
    let (mut connection, _) = websocket::upgraded(&budgeted.gateway, &realtime, "").await;
    connection.write("first").await;
    assert_eq!(connection.exactly(5).await, b"first");
    drop(connection);
    noted(tunnel).await;
}

/// What an answer took that does not tell is not known, so all that it may have cost is spent.
#[tokio::test]
async fn what_cannot_be_counted_costs_what_was_set_aside() {
    let rules = "{ id: team, limit: 5, window: week, technique: fixed }";
    let budgeted = Budgeted::start(rules, "").await;
    let mut spent = 0.0;

    // gpt-4o-mini-tts: 0.60 dollars for a million tokens read, 12 for a million tokens of sound.
    let said = r#"{"model":"gpt-4o-mini-tts","voice":"alloy","input":"hi"}"#;
    let sound = Answer::new(200).header("content-type", "audio/mpeg");
    budgeted.openai.script(sound.text("sound"));
    let speech = Request::post(&path("openai", "audio/speech"), said);
    let answer = speech.send(&budgeted.gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    spent += said.len() as f64 * 0.6e-6 + 4096.0 * 12e-6;
    budgeted.spent(spent).await;

    let asked =
        r#"{"model":"gpt-4o-mini","max_output_tokens":1000,"input":"hi","background":true}"#;
    let queued =
        r#"{"id":"resp_1","model":"gpt-4o-mini","status":"queued","output":[],"usage":null}"#;
    budgeted.openai.script(Answer::json(queued));
    let response = Request::post(&path("openai", "responses"), asked);
    let answer = response.send(&budgeted.gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    spent += most(asked.len() as u64, 1000) as f64 * 1e-12;
    budgeted.spent(spent).await;
    let noted = "\"budget_unbounded\":\"its answer comes later and is not seen";
    budgeted.gateway.logged(noted).await;

    // Its address names no model that would have a price: what is known is what its client says.
    let realtime = path("openai", "realtime?model=gpt-4o-mini");
    budgeted.openai.script(websocket::accepting(&[]));
    let own = "cf-aig-custom-cost: {\"total_cost\":0.5}\r\n";
    let (connection, _) = websocket::upgraded(&budgeted.gateway, &realtime, own).await;
    drop(connection);
    budgeted.spent(spent + 0.5).await;
}

/// Providers count tokens for nothing, and so does a budget that is nearly used up.
#[tokio::test]
async fn the_counting_of_tokens_is_free() {
    let budgeted = Budgeted::start(
        "{ id: tiny, limit: 0.000000000001, window: 24h, unpriced: refuse, technique: fixed }",
        ", access: { max_tokens: 10 }",
    )
    .await;
    let question = r#"{"model":"gpt-4o-mini","input":"hi"}"#;
    budgeted.openai.always(Answer::json(
        r#"{"object":"response.input_tokens","input_tokens":11}"#,
    ));
    let counting = Request::post(&path("openai", "responses/input_tokens"), question);
    let answer = counting.send(&budgeted.gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    budgeted.gateway.settled(1).await;
    let metrics = budgeted.gateway.metrics().await;
    assert_eq!(metrics.sum("tollgate_tokens_total", &[]), 0.0);
    budgeted.spent(0.0).await;
    let bounded = question.replace("\"input\"", "\"max_output_tokens\":1,\"input\"");
    let asked = Request::post(&path("openai", "responses"), &bounded);
    exceeded(&asked.send(&budgeted.gateway).await);
}

/// A client cannot make its calls cheaper for a budget than they are.
#[tokio::test]
async fn a_price_that_a_client_brings_along_counts_only_where_it_is_dearer() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.0011, window: 24h, technique: fixed }",
        "",
    )
    .await;
    let cheap = [("cf-aig-custom-cost", r#"{"total_cost":0}"#)];
    let dear = [("cf-aig-custom-cost", r#"{"total_cost":0.5}"#)];
    let full = usage(85, 1000);
    budgeted.openai.always(Answer::json(&full));
    assert_eq!(budgeted.ask(&dear).await.status, 429);
    assert_eq!(budgeted.ask(&cheap).await.status, 200);
    budgeted.gateway.settled(2).await;
    assert_eq!(budgeted.ask(&cheap).await.status, 429);
}

#[tokio::test]
async fn a_route_goes_on_to_a_cheaper_target_where_the_rule_says_so() {
    let routes = ", routes: { chat: { match: { provider: openai, model: gpt-4o }, targets: [ \
        { provider: openai, model: gpt-4o }, { provider: openai, model: gpt-4o-mini } ] } }";
    for (action, status) in [("fallback", 200), ("block", 429)] {
        let rules = format!("{{ id: small, limit: 0.002, window: 24h, action: {action} }}");
        let budgeted = Budgeted::start(&rules, routes).await;
        let question = QUESTION.replace("gpt-4o-mini", "gpt-4o");
        let answer = Request::post(CHAT, question).send(&budgeted.gateway).await;
        assert_eq!(answer.status, status, "{action}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.header("cf-aig-model"), Some("gpt-4o-mini"));
            let asked = budgeted.openai.only().await;
            assert!(asked.text().contains("gpt-4o-mini"));
        }
    }
}

/// What a step that failed had set aside is there for the next one.
#[tokio::test]
async fn steps_of_a_universal_call_pay_one_after_the_other() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.0011, window: 24h, technique: fixed }",
        "",
    )
    .await;
    budgeted.openai.script(Answer::new(500).text("no"));
    let step = |provider: &str, model: &str| {
        let query = QUESTION.replace("gpt-4o-mini", model);
        format!(
            r#"{{"provider":"{provider}","endpoint":"chat/completions","headers":{{}},"query":{query}}}"#
        )
    };
    let steps = format!(
        "[{},{}]",
        step("openai", "gpt-4o-mini"),
        step("openai", "gpt-4o-mini")
    );
    let mut connection = Connection::open(&budgeted.gateway).await;
    let answer = connection
        .exchange(&Request::post("/v1/default/default", &steps))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("cf-aig-step")),
        (200, Some("1"))
    );
    budgeted.groq.untouched();
}

/// Two processes share what is left while one takes over from the other: together they spend no more
/// than one would, and in the end all of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_in_the_middle_changes_nothing() {
    let (question, fit) = dear();
    let budgeted = Budgeted::start("{ id: dollar, limit: 1.00, window: month }", "").await;
    let gate = Gate::new();
    budgeted.openai.always(held(&question, &gate));
    let (ask, address) = (Request::post(CHAT, &question), budgeted.gateway.public());
    let half = fit / 2;
    let mut before = Vec::new();
    for _ in 0..half {
        let mut stream = ask.open(address).await;
        stream.read_past("choices").await;
        before.push(stream);
    }
    let upgraded = Request::post("/-/upgrade", "");
    let upgraded = upgraded.send(budgeted.gateway.admin()).await;
    assert_eq!(upgraded.status, 200, "{}", upgraded.text());
    let mut after = JoinSet::new();
    for _ in 0..100 {
        let ask = ask.clone();
        after.spawn(async move { ask.open(address).await });
    }
    let after = after.join_all().await;
    let passed = after.iter().filter(|stream| stream.status == 200).count();
    assert!(half + passed <= fit, "{half} and {passed} of {fit}");
    assert_eq!(budgeted.openai.requests().len(), half + passed);
    (0..fit).for_each(|_| gate.open());
    for stream in before.into_iter().chain(after) {
        let status = stream.status;
        let whole = stream.finish().await.text().ends_with("data: [DONE]\n\n");
        assert_eq!(whole, status == 200);
    }
    // What the old process kept for itself comes back when it has ended its streams.
    let mut passed = half + passed;
    within("the rest of the budget", async {
        while passed < fit {
            let answer = ask.send(address).await;
            passed += usize::from(answer.status == 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for _ in 0..20 {
        exceeded(&ask.send(address).await);
    }
    assert_eq!(budgeted.openai.requests().len(), fit);
}

/// Kill -9: what was spent more than a second ago is remembered.
#[tokio::test]
async fn a_kill_forgets_no_window() {
    let budgeted = Budgeted::start("{ id: small, limit: 0.00104, window: month }", "").await;
    budgeted.openai.always(Answer::json(&usage(85, 1000)));
    assert_eq!(budgeted.ask(&[]).await.status, 200);
    budgeted.gateway.settled(1).await;
    exceeded(&budgeted.ask(&[]).await);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let gateway = budgeted
        .gateway
        .restarted(nix::sys::signal::Signal::SIGKILL)
        .await;
    exceeded(&ask(&[]).send(&gateway).await);
}
