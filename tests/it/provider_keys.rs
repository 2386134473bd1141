//! Stored provider keys: which one pays, how they are kept, and that nobody is ever shown one. The
//! upstream records which key reached it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::logs::settled;
use crate::support::conf::entry;
use crate::support::emitted::{assert_nowhere, assert_searched, told, written};
use crate::support::gateway::{Builder, check_file};
use crate::support::{Answer, Gateway, Request, Response, Upstream, eventually, run};

const MASTER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";
const OTHER: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0ffeeddccbbaa998877665544332211000";
const ALL: &str = "/-/provider_configs";
const QUESTION: &str = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// Gateways `own`, whose configuration has keys of its own, and `plain`.
const ACCOUNTS: &str = "accounts: { a: { gateways: {
  own: { authentication: { anyone_may_spend_stored_keys: true }, byok_only: true,
         providers: { openai: { keys: [ { value: yaml-of-own } ] } } },
  plain: { authentication: { anyone_may_spend_stored_keys: true }, byok_only: true } } } }\n";

async fn upstream() -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(r#"{"ok":true}"#));
    upstream
}

fn providers(upstream: &Upstream, keys: &str) -> String {
    format!("providers:\n{}", entry(upstream, "openai", "/v1", keys))
}

fn configured(upstream: &Upstream, keys: &str) -> Builder {
    let secrets = "secrets: { master_key: \"file:{dir}/master\" }\n";
    Gateway::with(&(secrets.to_owned() + ACCOUNTS + &providers(upstream, keys)))
        .file("master", MASTER)
}

fn of_gateway(gateway: &str) -> String {
    format!("/client/v4/accounts/a/ai-gateway/gateways/{gateway}/provider_configs")
}

fn question(gateway: &str, headers: &[(&str, &str)]) -> Request {
    let target = format!("/v1/a/{gateway}/openai/chat/completions");
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(Request::post(&target, QUESTION), with)
}

/// The key that reaches the upstream, or the refusal.
async fn pays(
    process: &Gateway,
    upstream: &Upstream,
    gateway: &str,
    headers: &[(&str, &str)],
) -> Result<String, String> {
    let before = upstream.requests().len();
    let answer = question(gateway, headers).send(process).await;
    let requests = upstream.requests();
    if answer.status != 200 {
        assert_eq!(requests.len(), before, "a refused request goes nowhere");
        return Err(format!("{} {}", answer.status, answer.json()["message"]));
    }
    assert_eq!(requests.len(), before + 1);
    let sent = requests[before].header("authorization").unwrap_or("");
    Ok(sent.trim_start_matches("Bearer ").to_owned())
}

/// The token that is wanted where none is configured.
fn set_up_token(process: &Gateway) -> String {
    let file = process.directory().join("data/setup-token");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// Asks as who has the set-up token.
async fn api(process: &Gateway, method: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {}", set_up_token(process));
    let request = Request::new(method, path)
        .header("authorization", &bearer)
        .body(body.to_string());
    process.ask(request).await
}

async fn get(process: &Gateway, path: &str) -> Response {
    api(process, "GET", path, &Value::Null).await
}

/// Runs `tollgate provider-keys …` against the process; whether it went well, and what it said.
async fn command(process: &Gateway, arguments: &[&str]) -> (bool, String) {
    let conf = process.conf();
    let all = [
        &["provider-keys"],
        arguments,
        &["--conf", conf.to_str().unwrap()],
    ]
    .concat();
    let output = run(&all).await;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// Stores a key of openai and returns its id.
async fn store(process: &Gateway, path: &str, alias: &str, secret: &str) -> String {
    let body = json!({ "provider_slug": "openai", "alias": alias, "secret": secret });
    let answer = api(process, "POST", path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains(secret));
    answer.json()["result"]["id"].as_str().unwrap().to_owned()
}

async fn remove(process: &Gateway, id: &str) {
    let answer = api(process, "DELETE", &format!("{ALL}/{id}"), &Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The whole order, from the nearest on: each takes the place of the next, and leaves it again.
#[tokio::test]
async fn who_pays_is_the_key_on_the_request_then_the_nearest_stored_one_then_nobody() {
    let upstream = upstream().await;
    let keys = "keys: [ { value: yaml-of-all }, { alias: team, value: team-of-all } ]";
    let process = configured(&upstream, keys).start().await;
    let pays = async |gateway: &str, headers: &[(&str, &str)]| {
        pays(&process, &upstream, gateway, headers).await
    };
    let is = |key: &str| Ok(key.to_owned());

    let of_all = store(&process, ALL, "default", "kept-of-all").await;
    let of_own = store(&process, &of_gateway("own"), "default", "kept-of-own").await;
    let of_plain = store(&process, &of_gateway("plain"), "default", "kept-of-plain").await;
    let brought = [
        ("authorization", "Bearer brought"),
        ("cf-aig-byok-alias", "team"),
    ];
    for gateway in ["own", "plain"] {
        assert_eq!(pays(gateway, &brought).await, is("brought"));
    }
    assert_eq!(pays("own", &[]).await, is("kept-of-own"));
    assert_eq!(pays("plain", &[]).await, is("kept-of-plain"));
    remove(&process, &of_own).await;
    remove(&process, &of_plain).await;
    assert_eq!(pays("own", &[]).await, is("yaml-of-own"));
    assert_eq!(pays("plain", &[]).await, is("kept-of-all"));
    remove(&process, &of_all).await;
    assert_eq!(pays("plain", &[]).await, is("yaml-of-all"));

    // By its alias; a configured list of a gateway stands alone.
    let alias = [("cf-aig-byok-alias", "team")];
    assert_eq!(pays("plain", &alias).await, is("team-of-all"));
    let refused = pays("own", &alias).await.unwrap_err();
    assert!(
        refused.starts_with("400 \"No key of this alias"),
        "{refused}"
    );
    store(&process, &of_gateway("own"), "team", "team-of-own").await;
    assert_eq!(pays("own", &alias).await, is("team-of-own"));
}

#[tokio::test]
async fn a_key_of_the_environment_pays_for_the_gateway_that_names_it() {
    let upstream = upstream().await;
    let accounts = ACCOUNTS.replace("yaml-of-own", "\"${TEAM_OPENAI_KEY}\"");
    let keys = "keys: [ { value: \"${OPENAI_API_KEY}\" } ]";
    let process = Gateway::with(&(accounts + &providers(&upstream, keys)))
        .env("TEAM_OPENAI_KEY", "sk-of-the-team")
        .env("OPENAI_API_KEY", "sk-of-all");
    let process = process.start().await;
    let brought = [("authorization", "Bearer brought")];
    for (gateway, headers, key) in [
        ("own", &[] as &[_], "sk-of-the-team"),
        ("plain", &[], "sk-of-all"),
        ("own", &brought, "brought"),
    ] {
        let paid = pays(&process, &upstream, gateway, headers).await;
        assert_eq!(paid, Ok(key.to_owned()), "{gateway}");
    }
}

#[tokio::test]
async fn where_nothing_pays_byok_only_refuses_until_a_key_is_stored() {
    let upstream = upstream().await;
    let process = configured(&upstream, "").start().await;
    let refused = pays(&process, &upstream, "plain", &[]).await.unwrap_err();
    assert!(refused.starts_with("400 \"No key for openai"), "{refused}");
    store(&process, ALL, "default", "kept").await;
    assert_eq!(
        pays(&process, &upstream, "plain", &[]).await,
        Ok("kept".to_owned())
    );
}

#[tokio::test]
async fn a_key_is_changed_while_requests_run_and_none_is_lost() {
    let upstream = upstream().await;
    let process = Arc::new(configured(&upstream, "").start().await);
    let id = store(&process, ALL, "default", "key-0").await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (process, done) = (process.clone(), done.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    let answer = question("plain", &[]).send(&*process).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    count += 1;
                }
                count
            })
        })
        .collect();
    const CHANGES: usize = 10;
    for n in 1..=CHANGES {
        let before = upstream.requests().len();
        let body = json!({ "secret": format!("key-{n}") });
        let answer = api(&process, "PUT", &format!("{ALL}/{id}"), &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The next request that begins has the new one.
        eventually("requests under this key", || {
            (upstream.requests().len() > before + 8).then_some(())
        })
        .await;
        let key = pays_beside_others(&process, n).await;
        assert_eq!(key, 200);
    }
    done.store(true, Ordering::SeqCst);
    let mut sent = CHANGES;
    for client in clients {
        sent += client.await.unwrap();
    }
    let requests = upstream.received(sent).await;
    for request in &requests {
        let key = request.header("authorization").unwrap();
        let number = key.strip_prefix("Bearer key-").map(str::parse::<usize>);
        assert!(matches!(number, Some(Ok(0..=CHANGES))), "{key}");
        // Those that say after which change they began.
        if let Some(after) = request.header("x-after") {
            assert_eq!(key, format!("Bearer key-{after}"));
        }
    }
}

/// A request that begins after the change `n` was answered.
async fn pays_beside_others(process: &Gateway, n: usize) -> u16 {
    let request = question("plain", &[("x-after", &n.to_string())]);
    request.send(process).await.status
}

#[tokio::test]
async fn what_another_process_changes_is_followed_and_other_keys_keep_their_health() {
    let upstream = upstream().await;
    upstream.script(Answer::new(401));
    let keys = "keys: [ { alias: pooled, value: refused, weight: 1 } ]";
    let process = configured(&upstream, keys).start().await;
    let id = store(&process, ALL, "team", "kept").await;
    assert_eq!(question("plain", &[]).send(&process).await.status, 401);
    let cooling = [("provider", "openai"), ("key", "pooled"), ("gateway", "")];
    let metrics = process.metrics().await;
    assert_eq!(metrics.sum("tollgate_key_cooling", &cooling), 1.0);
    // As another process does it that shares the file, during an upgrade.
    let file = process
        .directory()
        .join("data/provider-keys/provider-keys.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    let deleted = connection
        .execute("DELETE FROM keys WHERE id = ?1", [&id])
        .unwrap();
    assert_eq!(deleted, 1);
    // Its own change may have been told in the same words: what counts is that the key is gone.
    let alias = [("cf-aig-byok-alias", "team")];
    let mut statuses = Vec::new();
    while !statuses.contains(&400) && statuses.len() < 100 {
        statuses.push(question("plain", &alias).send(&process).await.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(statuses.pop(), Some(400));
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    process
        .logged("the stored provider keys changed and are in force")
        .await;
    let metrics = process.metrics().await;
    assert_eq!(metrics.sum("tollgate_key_cooling", &cooling), 1.0);
}

#[tokio::test]
async fn kept_keys_survive_and_without_their_master_key_they_pay_for_nothing() {
    let upstream = upstream().await;
    let keys = "keys: [ { value: yaml }, { alias: free, value: free } ]";
    let process = configured(&upstream, keys).start().await;
    store(&process, ALL, "default", "kept").await;

    let process = process.restarted(Signal::SIGKILL).await;
    assert_eq!(
        pays(&process, &upstream, "plain", &[]).await,
        Ok("kept".to_owned())
    );

    let master = |content: &'static str| {
        move |directory: &Path| std::fs::write(directory.join("master"), content).unwrap()
    };
    let process = process
        .restarted_after(Signal::SIGTERM, master(OTHER))
        .await;
    let log = process.logged("stored provider keys are unavailable").await;
    assert!(
        log.contains("openai `default`): they are encrypted under another master key"),
        "{log}"
    );
    let refused = pays(&process, &upstream, "plain", &[]).await.unwrap_err();
    assert!(refused.starts_with("502 \"The configured BYOK credentials are unavailable"));
    // Neither the configured key of that alias pays, nor is traffic with others touched.
    let free = [("cf-aig-byok-alias", "free")];
    assert_eq!(
        pays(&process, &upstream, "plain", &free).await,
        Ok("free".to_owned())
    );
    let body = json!({ "provider_slug": "openai", "alias": "team", "secret": "s" });
    let answer = api(&process, "POST", ALL, &body).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("encrypted under another master key"));
    let listed = get(&process, ALL).await.json();
    assert_eq!(listed["result"][0]["available"], false);
    let checked = check_file(&process.conf(), &[]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && said.contains("warning: stored provider keys"),
        "{said}"
    );

    // Put right by a reload.
    master(MASTER)(process.directory());
    assert_eq!(
        process.ask(Request::post("/-/reload", "")).await.status,
        200
    );
    assert_eq!(
        pays(&process, &upstream, "plain", &[]).await,
        Ok("kept".to_owned())
    );
}

#[tokio::test]
async fn a_pool_is_paid_from_by_the_keys_that_open_and_by_nothing_else() {
    let upstream = upstream().await;
    let keys = "keys: [ { value: yaml }, { alias: there, value: pooled, weight: 1 } ]";
    let process = configured(&upstream, keys).start().await;
    for path in [ALL, &of_gateway("own")] {
        let body = json!({
            "provider_slug": "openai", "alias": "gone", "secret": "kept", "weight": 1_000_000,
        });
        assert_eq!(api(&process, "POST", path, &body).await.status, 200);
    }
    for gateway in ["plain", "own"] {
        assert_eq!(
            pays(&process, &upstream, gateway, &[]).await,
            Ok("kept".to_owned())
        );
    }
    let lose = |directory: &Path| std::fs::write(directory.join("master"), OTHER).unwrap();
    let process = process.restarted_after(Signal::SIGTERM, lose).await;
    for _ in 0..8 {
        assert_eq!(
            pays(&process, &upstream, "plain", &[]).await,
            Ok("pooled".to_owned())
        );
    }
    // Its `default` does not pay for a pool that is gone.
    let refused = pays(&process, &upstream, "own", &[]).await.unwrap_err();
    assert!(refused.starts_with("502"), "{refused}");
}

#[tokio::test]
async fn without_a_master_key_nothing_can_be_stored_and_it_is_said_what_to_do() {
    let upstream = upstream().await;
    let process = Gateway::start(&(ACCOUNTS.to_owned() + &providers(&upstream, ""))).await;
    let body = json!({ "provider_slug": "openai", "secret": "hunter2" });
    let answer = api(&process, "POST", ALL, &body).await;
    assert_eq!(answer.status, 409);
    let said = answer.json()["errors"][0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        said.contains("set secrets.master_key") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(get(&process, ALL).await.json()["result"], json!([]));
}

#[tokio::test]
async fn a_master_key_is_exchanged_without_a_request_refused() {
    let upstream = upstream().await;
    let process = configured(&upstream, "").start().await;
    store(&process, ALL, "default", "kept").await;
    let rewrite = |secrets: &str| {
        let text = std::fs::read_to_string(process.conf()).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("secrets:"))
            .unwrap();
        std::fs::write(process.conf(), text.replace(line, secrets)).unwrap();
    };
    let reload = async || process.ask(Request::post("/-/reload", "")).await.status;
    rewrite(&format!(
        "secrets: {{ master_key: '{OTHER}', previous_master_key: '{MASTER}' }}"
    ));
    assert_eq!(reload().await, 200);
    let kept = Ok("kept".to_owned());
    assert_eq!(pays(&process, &upstream, "plain", &[]).await, kept);
    let (done, said) = command(&process, &["reencrypt"]).await;
    assert!(done && said.starts_with("encrypted anew: 1;"), "{said}");
    rewrite(&format!("secrets: {{ master_key: '{OTHER}' }}"));
    assert_eq!(reload().await, 200);
    assert_eq!(pays(&process, &upstream, "plain", &[]).await, kept);
}

#[tokio::test]
async fn the_master_key_may_be_a_credential_of_systemd() {
    let upstream = upstream().await;
    let yaml = ACCOUNTS.to_owned() + &providers(&upstream, "");
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("tollgate-master-key"), MASTER).unwrap();
    let process = Gateway::with(&yaml)
        .env(
            "CREDENTIALS_DIRECTORY",
            credentials.path().to_str().unwrap(),
        )
        .start()
        .await;
    store(&process, ALL, "default", "kept").await;
    assert_eq!(
        pays(&process, &upstream, "plain", &[]).await,
        Ok("kept".to_owned())
    );
}

#[tokio::test]
async fn the_api_is_cloudflares() {
    let upstream = upstream().await;
    let process = configured(&upstream, "").start().await;
    let path = of_gateway("plain");
    let body = json!({
        "provider_slug": "openai", "alias": "default", "default_config": true,
        "secret": "sk-0123456789abcdef-wxyz", "weight": 2,
    });
    let created = api(&process, "POST", &path, &body).await.json();
    assert_eq!(created["success"], true, "{created}");
    let result = &created["result"];
    assert_eq!(result["secret_preview"], "wxyz");
    assert_eq!(
        (&result["gateway_id"], &result["weight"]),
        (&json!("plain"), &json!(2))
    );
    assert!(result["modified_at"].as_str().unwrap().ends_with('Z'));
    let one = format!("{path}/{}", result["id"].as_str().unwrap());
    assert_eq!(get(&process, &one).await.json()["result"], *result);
    let listed = get(&process, &path).await.json();
    assert_eq!(listed["result"], json!([result]));
    assert_eq!(listed["result_info"]["total_count"], 1);
    // Not of another gateway, but of all together.
    let foreign = one.replace("/plain/", "/own/");
    assert_eq!(get(&process, &foreign).await.status, 404);
    assert_eq!(
        get(&process, &of_gateway("own")).await.json()["result"],
        json!([])
    );
    assert_eq!(get(&process, ALL).await.json()["result"], json!([result]));

    for (method, path, body, status, said) in [
        ("POST", &*path, &body, 409, "is stored already"),
        (
            "POST",
            &path,
            &json!({ "secret": "s" }),
            400,
            "provider_slug is missing",
        ),
        (
            "POST",
            &path,
            &json!({ "provider_slug": "openai" }),
            400,
            "secret is missing",
        ),
        (
            "POST",
            &path,
            &json!({ "provider_slug": "x", "secret": "s" }),
            400,
            "names no provider",
        ),
        (
            "POST",
            &path,
            &json!({ "provider_slug": "openai", "secret": "Bearer hunter2" }),
            400,
            "secret cannot be used: give the key alone",
        ),
        (
            "PUT",
            &one,
            &json!({ "alias": "other" }),
            400,
            "alias of a stored key",
        ),
        (
            "PATCH",
            &one,
            &json!({}),
            405,
            "answers GET and PUT and DELETE only",
        ),
        (
            "GET",
            &of_gateway("nobody"),
            &json!({}),
            404,
            "has no gateway",
        ),
    ] {
        let answer = api(&process, method, path, body).await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{method} {path} {body}: {text}");
        assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(
        api(&process, "DELETE", &one, &Value::Null).await.status,
        200
    );
    assert_eq!(get(&process, &one).await.status, 404);
}

#[tokio::test]
async fn the_command_line_stores_lists_and_removes() {
    let upstream = upstream().await;
    let process = configured(&upstream, "")
        .file("key", "sk-of-the-file-0123\n")
        .start()
        .await;
    let tollgate = async |arguments: &[&str]| command(&process, arguments).await;
    let file = process.directory().join("key").display().to_string();
    let set = ["set", "openai", "--gateway", "a/plain", "--from", &*file];
    let (done, said) = tollgate(&set).await;
    assert!(
        done && said.starts_with("stored: openai default  of a/plain  …0123"),
        "{said}"
    );
    assert!(!said.contains("of-the-file"));
    let key = pays(&process, &upstream, "plain", &[]).await;
    assert_eq!(key, Ok("sk-of-the-file-0123".to_owned()));

    // Again, out of a pipe, in place of the first.
    let admin = process.admin().to_string();
    let arguments = [
        "provider-keys",
        "set",
        "openai",
        "--gateway",
        "a/plain",
        "--admin",
        &admin,
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .env("TOLLGATE_ADMIN_TOKEN", set_up_token(&process))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"piped\n").unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap();
    assert!(ended.unwrap().success());
    assert_eq!(
        pays(&process, &upstream, "plain", &[]).await,
        Ok("piped".to_owned())
    );

    let (done, said) = tollgate(&["list"]).await;
    assert!(
        done && said.lines().count() == 1 && !said.contains("piped"),
        "{said}"
    );
    // Of all gateways there is none.
    let (done, said) = tollgate(&["remove", "openai"]).await;
    assert!(!done && said.contains("no such key is stored"), "{said}");
    let (done, said) = tollgate(&["remove", "openai", "--gateway", "a/plain"]).await;
    assert!(
        done && said.starts_with("removed: openai default"),
        "{said}"
    );
    // By an alias of the provider, as it may be stored by.
    for argument in ["set", "remove"] {
        let from = ["--from", &*file];
        let from = if argument == "set" { &from[..] } else { &[] };
        let (done, said) = tollgate(&[&[argument, "xai"], from].concat()).await;
        assert!(done && said.contains(": grok default  "), "{said}");
    }
    let (_, said) = tollgate(&["list"]).await;
    assert_eq!(said, "no provider keys are stored\n");
    let (done, said) = tollgate(&["set", "openai", "--from", "-"]).await;
    assert!(!done && said.contains("the key is empty"), "{said}");
}

/// Also where no token is configured: then it is the set-up token.
#[tokio::test]
async fn who_brings_no_token_neither_sees_nor_changes_a_key() {
    const OPERATOR: &str = "ops-0123456789abcdef";
    let upstream = upstream().await;
    let open = configured(&upstream, "").start().await;
    let tokens = format!("tokens: [{{ name: ops, value: {OPERATOR} }}]");
    let closed = configured(&upstream, "").admin(&tokens).start().await;
    for (process, token) in [(&open, set_up_token(&open)), (&closed, OPERATOR.to_owned())] {
        let bearer = format!("Bearer {token}");
        let body = json!({ "provider_slug": "openai", "secret": "kept" }).to_string();
        let stored = Request::post(ALL, &body).header("authorization", &bearer);
        let stored = process.ask(stored).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        let one = format!("{ALL}/{}", stored.json()["result"]["id"].as_str().unwrap());
        let of_gateway = of_gateway("plain");
        for (method, path) in [
            ("GET", ALL),
            ("POST", ALL),
            ("PUT", ALL),
            ("GET", &one),
            ("PUT", &one),
            ("DELETE", &one),
            ("POST", &format!("{ALL}/reencrypt")),
            ("GET", &of_gateway),
            ("POST", &of_gateway),
        ] {
            for wrong in ["", "Bearer x", &bearer[..bearer.len() - 1]] {
                let request = Request::new(method, path).header("authorization", wrong);
                let answer = process.ask(request.body(&*body)).await;
                assert_eq!(answer.status, 401, "{method} {path} {wrong}");
                assert!(!answer.text().contains("kept"), "{}", answer.text());
            }
        }
        let list = Request::get(ALL).header("authorization", &bearer);
        let list = process.ask(list).await.json();
        assert_eq!(list["result"], json!([stored.json()["result"]]));
    }
    // The command brings what the configuration says unless it is told another.
    let (done, said) = command(&closed, &["remove", "openai", "--token", "wrong"]).await;
    assert!(!done && said.contains("admin.tokens"), "{said}");
    let (done, said) = command(&closed, &["remove", "openai"]).await;
    assert!(done, "{said}");
    closed
        .logged("ops removed the provider key openai `default`")
        .await;
}

/// Of what is stored or configured, and of what it is encrypted under.
#[tokio::test]
async fn secrets_are_nowhere_in_what_the_process_emits_or_writes() {
    const SECRET: &str = "sk-hunter2-hunter2-hunter2";
    const CONFIGURED: &str = "sk-tulip-tulip-tulip";
    let upstream = upstream().await;
    let yaml = format!(
        "log: {{ access: json, level: trace }}\nsecrets: {{ master_key: \"${{MASTER}}\" }}\n{ACCOUNTS}{}",
        providers(&upstream, "keys: [ { alias: team, value: \"${TEAM}\" } ]")
    );
    let process = Gateway::with(&yaml)
        .env("MASTER", MASTER)
        .env("TEAM", CONFIGURED);
    let process = process.start().await;
    let mut emitted = String::new();
    let id = store(&process, ALL, "default", SECRET).await;
    store(&process, &of_gateway("plain"), "pooled", SECRET).await;
    for (headers, key) in [
        (&[] as &[_], SECRET),
        (&[("cf-aig-byok-alias", "team")], CONFIGURED),
    ] {
        let paid = pays(&process, &upstream, "plain", headers).await;
        assert_eq!(paid, Ok(key.to_owned()));
    }
    let one = format!("{ALL}/{id}");
    for (method, path, body) in [
        ("GET", ALL, Value::Null),
        ("GET", &one, Value::Null),
        ("PUT", &one, json!({ "secret": SECRET })),
        ("PUT", &one, json!({ "secret": format!("Bearer {SECRET}") })),
        ("PUT", &one, json!({ "weight": SECRET })),
        (
            "POST",
            ALL,
            json!({ "provider_slug": "openai", "secret": SECRET }),
        ),
        (
            "POST",
            ALL,
            json!({ "provider_slug": SECRET, "secret": SECRET }),
        ),
    ] {
        emitted += &api(&process, method, path, &body).await.everything();
    }
    let refused = question("plain", &[("cf-aig-byok-alias", "nobody")]);
    emitted += &refused.send(&process).await.everything();
    settled(&process).await;
    emitted += &told(&process, "", &[]).await;
    // While the process lives the newest rows are in the WAL.
    let mut files = written(&process.directory().join("data"));
    emitted += &process.log();
    let process = process.restarted(Signal::SIGTERM).await;
    files.extend(written(&process.directory().join("data")));
    emitted += &process.log();
    emitted += &process.printed();
    assert!(
        files
            .iter()
            .any(|(path, _)| path.ends_with("provider-keys.db-wal"))
    );
    for secret in ["hunter2", "tulip", &MASTER[..16]] {
        assert_nowhere(secret, &emitted, &files);
    }
    assert_searched(r#""content":"hi""#, &emitted, &files);
}
