//! Spend limits are hard: what is spent and set aside never exceeds a budget, whatever comes at once.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::conf::{CHAT, entry, path};
use crate::support::{Answer, Connection, Gate, Gateway, Request, Response, Upstream, within};

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
}

/// What was set aside and is not used can be spent by others.
#[tokio::test]
async fn a_call_is_settled_with_what_it_really_cost() {
    let budgeted = Budgeted::start(
        "{ id: small, limit: 0.001035, window: 24h, technique: fixed }",
        "",
    )
    .await;
    for count in 1..=2 {
        let answer = budgeted.ask(&[]).await;
        assert_eq!(answer.status, 200);
        let told = answer.header("tollgate-budget").unwrap();
        assert!(
            told.starts_with("small;limit=0.001035;remaining=0.0000"),
            "{told}"
        );
        budgeted.gateway.settled(count).await;
    }
    // 0.000018 are spent: it does not fit any more.
    for _ in 2..5 {
        let answer = budgeted.ask(&[]).await;
        let said = exceeded(&answer);
        assert!(said.contains("for openai gpt-4o-mini"), "{said}");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&seconds));
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
    let metrics = budgeted.gateway.metrics().await;
    let spent = metrics.sum("tollgate_budget_spent_usd", &[("rule", "small")]);
    assert!((spent - 0.000_018).abs() < 1e-12, "{spent}");
    assert_eq!(budgeted.openai.requests().len(), 2);
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
    within("what it did not use", async {
        while budgeted.ask(&[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    gate.open();
}

/// The provider may have read what it was asked, and bills it: a quarter of a token for each byte.
const READING: f64 = (QUESTION.len() / 4) as f64 * 0.25e-6;
const ANSWERED: f64 = 0.000_009;

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
                let said = answer.json()["message"].as_str().unwrap().to_owned();
                assert!(
                    said.contains("spend rule 'team' refuses") && said.contains(why),
                    "{said}"
                );
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
