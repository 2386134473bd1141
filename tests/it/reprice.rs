//! Stored requests by other prices: the API and `tollgate reprice`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cache::stored;
use crate::support::conf::{CHAT, entry, path};
use crate::support::upstream::End;
use crate::support::{Answer, Gateway, Request, Upstream, run};

const ALL: &str = "/-/logs/reprice";
const OF_GATEWAY: &str = "/client/v4/accounts/default/ai-gateway/gateways/default/logs/reprice";

const QUESTION: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Because."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;
/// The beginning of an answer that says nothing of tokens.
const CUT: &str = "data: {\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Be\"}}]}\n\n";

/// Of both providers, in dollars for a million tokens.
const DEAR: &str =
    "prices: { overrides: [ { model: \"gpt-4o-*\", rates: { input: 1, output: 2.5 } } ] }";
/// The list's own prices of OpenAI's model, as an override.
const SAME: &str = "prices: { overrides: [ { provider: openai, model: \"gpt-4o-mini*\", rates: { input: 0.15, output: 0.6 } } ] }";

/// A gateway with a cache in front of a provider that has prices and one that has none.
async fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "prices: {{}}\n\
         accounts: {{ default: {{ gateways: {{ default: {{}}, other: {{}} }} }} }}\n\
         providers:\n{}{}",
        entry(upstream, "openai", "/v1", ""),
        entry(upstream, "custom-acme", "/v1", "format: openai-chat"),
    ))
    .await
}

async fn answering() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(ANSWER));
    upstream
}

/// Writes `new` where the prices are, and reloads.
async fn with_prices(gateway: &Gateway, new: &str) {
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("prices:") {
        true => new,
        false => line,
    });
    let text: Vec<_> = lines.collect();
    assert!(text.contains(&new));
    std::fs::write(gateway.conf(), text.join("\n")).unwrap();
    let reloaded = gateway.ask(Request::new("POST", "/-/reload")).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
}

fn chat() -> Request {
    Request::post(CHAT, QUESTION).header("authorization", "Bearer k")
}

/// Everything that there is: by the list, without a price, by the client's, kept and given again,
/// estimated, and refused.
async fn traffic(upstream: &Upstream, gateway: &Gateway) {
    let cached = || chat().header("cf-aig-cache-ttl", "300");
    let unpriced = Request::post(&path("custom-acme", "chat/completions"), QUESTION);
    let custom = chat().header("cf-aig-custom-cost", r#"{"total_cost":0.5}"#);
    let other = CHAT.replace("default/default", "default/other");
    let refused = Request::get(&path("nobody", "x"));
    for request in [
        chat(),
        unpriced,
        custom,
        cached(),
        cached(),
        Request::post(&other, QUESTION),
        refused,
    ] {
        let is_miss = request.send(gateway).await.header("cf-aig-cache-status") == Some("MISS");
        if is_miss {
            stored(gateway).await;
        }
    }
    // Those of the same millisecond have no order.
    ended(gateway, 7).await;
    upstream.script(Answer::sse().text(CUT).end(End::Close));
    chat().send(gateway).await;
    ended(gateway, 8).await;
}

/// What the API says to the end, steps added up by whoever needs it.
async fn reprice(gateway: &Gateway, target: &str) -> Value {
    let answer = gateway.ask(Request::new("POST", target)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["success"], true);
    assert_eq!(json["result"]["cursor"], json!(null), "one step is enough");
    json["result"].clone()
}

/// All entries, the oldest first.
async fn entries(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway
        .ask(Request::get("/-/logs/export?order_by_direction=asc"))
        .await;
    let whole = |line: &str| serde_json::from_str(line).unwrap();
    lines.text().lines().map(whole).collect()
}

/// Waits for so many entries: a client may have its answer a moment before.
async fn ended(gateway: &Gateway, count: usize) {
    for _ in 0..600 {
        if entries(gateway).await.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there never were {count} entries");
}

/// What of an entry a re-pricing may change, and its provider.
async fn money(gateway: &Gateway) -> Vec<Value> {
    let shown = |entry: &Value| {
        json!([
            entry["provider"],
            entry["cost_source"],
            entry["cost"],
            entry["saved"]
        ])
    };
    entries(gateway).await.iter().map(shown).collect()
}

#[tokio::test]
async fn other_prices_change_exactly_what_they_are_about() {
    let upstream = answering().await;
    let gateway = start(&upstream).await;
    traffic(&upstream, &gateway).await;
    let before = money(&gateway).await;
    let estimate = before[7][2].clone();
    assert_eq!(
        before[..7],
        [
            // 1,000 at 0.15 and 100 at 0.60 dollars for a million.
            json!(["openai", "catalogue", 0.00021, null]),
            json!(["custom-acme", "unpriced", null, null]),
            json!(["openai", "custom", 0.5, null]),
            json!(["openai", "catalogue", 0.00021, null]),
            json!(["openai", "cached", 0.0, 0.00021]),
            json!(["openai", "catalogue", 0.00021, null]),
            json!([null, null, null, null]),
        ]
    );
    // By the same prices nothing changes, from whatever list they were.
    let same = reprice(&gateway, ALL).await;
    assert_eq!(
        (&same["looked_at"], &same["changed"]),
        (&json!(8), &json!(0))
    );
    assert_eq!(same["cost"]["before"], same["cost"]["after"]);
    let metrics = gateway.metrics().await.sum("tollgate_cost_usd_total", &[]);
    with_prices(&gateway, DEAR).await;
    assert_eq!(money(&gateway).await, before, "a reload reprices nothing");
    let dry = reprice(&gateway, &format!("{ALL}?dry_run=true")).await;
    assert_eq!(money(&gateway).await, before, "nor does a dry run");
    let done = reprice(&gateway, ALL).await;
    assert_eq!(
        (&dry["dry_run"], &done["dry_run"]),
        (&json!(true), &json!(false))
    );
    for fact in ["looked_at", "changed", "cost", "saved", "left_alone"] {
        assert_eq!(dry[fact], done[fact], "{fact}");
    }
    assert_eq!(
        (
            &done["changed"],
            &done["newly_priced"],
            &done["now_unpriced"]
        ),
        (&json!(6), &json!(1), &json!(0))
    );
    assert_eq!(
        done["left_alone"],
        json!({ "custom_cost": 1, "no_usage": 1, "unknown_provider": 0 })
    );
    assert_eq!(
        done["saved"],
        json!({ "before": "0.00021", "after": "0.00125" })
    );
    let after = money(&gateway).await;
    assert_ne!(after[7][2], estimate);
    assert_eq!(
        after[..7],
        [
            // 1,000 at 1 and 100 at 2.5 dollars for a million.
            json!(["openai", "override", 0.00125, null]),
            json!(["custom-acme", "override", 0.00125, null]),
            json!(["openai", "custom", 0.5, null]),
            json!(["openai", "override", 0.00125, null]),
            json!(["openai", "cached", 0.0, 0.00125]),
            json!(["openai", "override", 0.00125, null]),
            json!([null, null, null, null]),
        ]
    );
    // Once is enough, what ends now costs the same, and metrics stay what they were.
    assert_eq!(reprice(&gateway, ALL).await["changed"], 0);
    assert_eq!(
        gateway.metrics().await.sum("tollgate_cost_usd_total", &[]),
        metrics
    );
    chat().send(&gateway).await;
    ended(&gateway, 9).await;
    let last = money(&gateway).await.pop().unwrap();
    assert_eq!(last, after[0]);
    assert_eq!(reprice(&gateway, ALL).await["changed"], 0);
    // Back to the list.
    with_prices(&gateway, "prices: {}").await;
    let back = reprice(&gateway, ALL).await;
    assert_eq!(
        (&back["changed"], &back["now_unpriced"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(money(&gateway).await[..8], before);
    // A price that is the same but comes from elsewhere changes the source.
    with_prices(&gateway, SAME).await;
    let same = reprice(&gateway, ALL).await;
    assert_eq!(same["cost"]["before"], same["cost"]["after"]);
    assert_eq!(
        money(&gateway).await[0],
        json!(["openai", "override", 0.00021, null])
    );
}

fn filtered(key: &str, value: &str) -> String {
    let filters = json!([{ "key": key, "operator": "eq", "value": [value] }]).to_string();
    let encoded: String = form_urlencoded::byte_serialize(filters.as_bytes()).collect();
    format!("filters={encoded}")
}

#[tokio::test]
async fn filters_times_and_gateways_restrict_it() {
    let upstream = answering().await;
    let gateway = start(&upstream).await;
    traffic(&upstream, &gateway).await;
    with_prices(&gateway, DEAR).await;
    let began: Vec<_> = entries(&gateway)
        .await
        .iter()
        .map(|entry| entry["created_at"].as_str().unwrap().to_owned())
        .collect();
    let since = &began[2];
    let at_least = began.iter().filter(|other| *other >= since).count();
    for (target, looked_at) in [
        (format!("{OF_GATEWAY}?dry_run=true"), 7),
        (
            format!(
                "{ALL}?dry_run=true&{}",
                filtered("gateway", "default/other")
            ),
            1,
        ),
        (format!("{ALL}?dry_run=true&cached=true"), 1),
        (format!("{ALL}?dry_run=true&start_date={since}"), at_least),
        (format!("{ALL}?dry_run=true&start_date=2100-01-01"), 0),
        (format!("{ALL}?dry_run=true&end_date=2020-01-01"), 0),
    ] {
        assert_eq!(
            reprice(&gateway, &target).await["looked_at"],
            looked_at,
            "{target}"
        );
    }
    let unpriced = format!("{ALL}?{}", filtered("cost_source", "unpriced"));
    let done = reprice(&gateway, &unpriced).await;
    assert_eq!(
        (&done["looked_at"], &done["newly_priced"]),
        (&json!(1), &json!(1))
    );
    let now = money(&gateway).await;
    assert_eq!(now[1], json!(["custom-acme", "override", 0.00125, null]));
    assert_eq!(
        now[0],
        json!(["openai", "catalogue", 0.00021, null]),
        "no other has changed"
    );
}

#[tokio::test]
async fn a_provider_that_is_gone_takes_no_price_with_it() {
    let upstream = answering().await;
    let gateway = start(&upstream).await;
    with_prices(&gateway, DEAR).await;
    Request::post(&path("custom-acme", "chat/completions"), QUESTION)
        .send(&gateway)
        .await;
    chat().send(&gateway).await;
    ended(&gateway, 2).await;
    // Without the override and without both entries: openai is in the catalogue all the same.
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    let kept: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("  custom-acme") && !line.starts_with("  openai"))
        .map(|line| {
            if line == "providers:" {
                "providers: {}"
            } else {
                line
            }
        })
        .collect();
    std::fs::write(gateway.conf(), kept.join("\n")).unwrap();
    with_prices(&gateway, "prices: {}").await;
    let done = reprice(&gateway, ALL).await;
    assert_eq!(
        (&done["changed"], &done["left_alone"]["unknown_provider"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        money(&gateway).await,
        [
            json!(["custom-acme", "override", 0.00125, null]),
            json!(["openai", "catalogue", 0.00021, null]),
        ]
    );
}

#[tokio::test]
async fn mistakes_name_the_parameter() {
    let gateway = Gateway::start("providers: { mock: {} }\n").await;
    for (method, target, status, code, expected) in [
        (
            "POST",
            format!("{ALL}?dry_run=perhaps"),
            400,
            7400,
            "dry_run",
        ),
        ("POST", format!("{ALL}?cursor=x"), 400, 7400, "cursor"),
        (
            "POST",
            format!("{ALL}?start_date=x"),
            400,
            7400,
            "start_date",
        ),
        ("POST", format!("{OF_GATEWAY}?page=2"), 400, 7400, "page"),
        (
            "POST",
            format!("{ALL}?{}", filtered("colour", "red")),
            400,
            7001,
            "filters[0].key",
        ),
        ("GET", ALL.to_owned(), 405, 7405, ""),
        ("DELETE", OF_GATEWAY.to_owned(), 405, 7405, ""),
        ("POST", format!("{ALL}/x"), 404, 7404, ""),
    ] {
        let answer = gateway.ask(Request::new(method, &target)).await;
        let json = answer.json();
        let error = &json["errors"][0];
        assert_eq!(
            (answer.status, &error["code"]),
            (status, &json!(code)),
            "{target}: {json}"
        );
        assert_eq!(error["path"][0].as_str().unwrap_or(""), expected, "{json}");
    }
    let none = Gateway::start("logs: { max_size: 0 }\nproviders: { mock: {} }\n").await;
    let answer = none.ask(Request::new("POST", ALL)).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("logs.max_size is 0"));
}

/// What the command writes, and whether it did it.
async fn command(gateway: &Gateway, arguments: &[&str]) -> (String, String, bool) {
    let admin = gateway.admin().to_string();
    let output = run(&[&["reprice", "--admin", &admin], arguments].concat()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.success(),
    )
}

#[tokio::test]
async fn the_command_tells_what_it_did() {
    let upstream = answering().await;
    let gateway = start(&upstream).await;
    traffic(&upstream, &gateway).await;
    with_prices(&gateway, DEAR).await;
    let (told, errors, done) =
        command(&gateway, &["--dry-run", "--filter", "usage_estimated=x"]).await;
    assert!(
        !done && told.is_empty() && errors.contains("`usage_estimated` is not one of"),
        "{errors}"
    );
    let ours = ["--filter", "tokens_in=1000", "--since", "2020-01-01"];
    let (told, errors, done) = command(&gateway, &[&ours[..], &["--dry-run"]].concat()).await;
    assert!(done && errors.is_empty(), "{errors}");
    assert_eq!(
        told,
        "6 entries looked at\n\
         5 would change: 1 newly priced, 0 without a price any more\n\
         1 left alone: 1 with a custom cost, 0 without tokens, 0 of providers that are configured no more\n\
         cost was $0.50063, would be $0.505\n\
         saved was $0.00021, would be $0.00125\n\
         dry run: nothing was changed\n"
    );
    let (told, _, done) = command(&gateway, &[&ours[..], &["--json"]].concat()).await;
    assert!(done);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told,
        json!({
            "looked_at": 6, "changed": 5, "newly_priced": 1, "now_unpriced": 0,
            "left_alone": { "custom_cost": 1, "no_usage": 0, "unknown_provider": 0 },
            "cost": { "before": "0.50063", "after": "0.505" },
            "saved": { "before": "0.00021", "after": "0.00125" },
            "dry_run": false,
        })
    );
    let (told, _, _) = command(&gateway, &ours).await;
    assert!(told.contains("\n0 changed: 0 newly priced"), "{told}");
    // The filter of the command is that of the logs.
    let (told, _, _) = command(&gateway, &["--until", "2020-01-01"]).await;
    assert!(told.starts_with("0 entries looked at\n"), "{told}");
}

/// A step as the API answers it, after which the next one begins at `cursor`.
fn step(changed: u64, cost: [&str; 2], cursor: Option<&str>) -> Answer {
    let [before, after] = cost;
    let result = json!({
        "looked_at": 10, "changed": changed, "newly_priced": 1, "now_unpriced": 0,
        "left_alone": { "custom_cost": 1, "no_usage": 2, "unknown_provider": 3 },
        "cost": { "before": before, "after": after }, "saved": { "before": "0", "after": "0" },
        "dry_run": false, "reached": "2026-11-28T06:30:00.123Z", "cursor": cursor,
    });
    Answer::json(&json!({ "success": true, "result": result }).to_string()).until_close()
}

#[tokio::test]
async fn the_command_goes_on_where_a_step_ended_and_says_where_it_was_stopped() {
    // Stands in for a process with very many entries.
    let process = Upstream::h1().await;
    let admin = process.address().to_string();
    let arguments = ["reprice", "--admin", &admin, "--filter", "model=a"];
    process.script(step(2, ["0.1", "0.2"], Some("00ab")));
    process.script(step(3, ["0.000000000001", "9007.199254740993"], None));
    let output = run(&arguments).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        told.starts_with(
            "20 entries looked at\n5 changed: 2 newly priced, 0 without a price any more\n12 left alone"
        ),
        "{told}"
    );
    assert!(
        told.contains("cost was $0.100000000001, is now $9007.399254740993"),
        "{told}"
    );
    let targets: Vec<_> = process
        .received(2)
        .await
        .iter()
        .map(|sent| sent.target.clone())
        .collect();
    assert_eq!(targets[1], format!("{}&cursor=00ab", targets[0]));
    // Broken off in the middle.
    let refusal = json!({ "success": false, "errors": [{ "message": "the disk is full" }] });
    process.script(step(2, ["0", "0"], Some("00ab")));
    process.script(Answer::new(503).text(&refusal.to_string()).until_close());
    let output = run(&arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(
        errors.contains("tollgate: the disk is full\n")
            && errors.contains("stopped at 2026-11-28T06:30:00.123Z, 2 entries changed"),
        "{errors}"
    );
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_told() {
    for (arguments, expected) in [
        (
            vec!["--since", "yesterday"],
            "must be a time such as 2026-11-28",
        ),
        (vec!["--until", ""], "must be a time such as 2026-11-28"),
        (vec!["--filter", "model"], "must be such as provider=openai"),
        (vec!["--dry"], "--dry-run"),
    ] {
        let output = run(&[vec!["reprice"], arguments].concat()).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
    let output = run(&["reprice", "--admin", "127.0.0.1:1"]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("no running process answers at 127.0.0.1:1"),
        "{errors}"
    );
    let help = run(&["reprice", "--help"]).await;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(
        help.contains("tollgate reprice --dry-run") && help.contains("interrupted"),
        "{help}"
    );
}

#[tokio::test]
async fn thousands_of_entries_are_priced_while_others_come() {
    let upstream = answering().await;
    let gateway = start(&upstream).await;
    let address = gateway.public();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..400 {
                    let live = chat().try_open(address).await.unwrap();
                    assert_eq!(live.finish().await.status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    ended(&gateway, 3_200).await;
    with_prices(&gateway, DEAR).await;
    let late = tokio::spawn(async move {
        for _ in 0..50 {
            chat().try_open(address).await.unwrap().finish().await;
        }
    });
    let (told, errors, done) = command(&gateway, &["--json"]).await;
    assert!(done, "{errors}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["changed"], 3_200, "{told}");
    late.await.unwrap();
    ended(&gateway, 3_250).await;
    // 3,250 at 0.00125 dollars.
    let again = reprice(&gateway, &format!("{ALL}?dry_run=true")).await;
    assert_eq!(
        (&again["looked_at"], &again["changed"]),
        (&json!(3_250), &json!(0))
    );
    assert_eq!(again["cost"]["after"], "4.0625");
}
