//! From the client's URL to the provider's: path tolerance, queries, methods, unknown names.

use serde_json::json;

use crate::support::conf::{at, entry, openai, path};
use crate::support::{Answer, Gateway, NameServer, Request, Response, Upstream};

/// Slug, base path, the client's path and query, and what the provider must see.
const PATHS: &[(&str, &str, &str, &str)] = &[
    ("openai", "/v1", "chat/completions", "/v1/chat/completions"),
    (
        "openai",
        "/v1",
        "v1/chat/completions",
        "/v1/chat/completions",
    ),
    (
        "openai",
        "/v1",
        "v1/v1/chat/completions",
        "/v1/chat/completions",
    ),
    ("openai", "/v1", "v1/responses", "/v1/responses"),
    ("openai", "/v1", "models/gpt-5", "/v1/models/gpt-5"),
    ("anthropic", "", "v1/messages", "/v1/messages"),
    ("anthropic", "", "messages", "/v1/messages"),
    ("anthropic", "", "v1/v1/messages", "/v1/messages"),
    (
        "anthropic",
        "",
        "v1/messages/count_tokens",
        "/v1/messages/count_tokens",
    ),
    (
        "google-ai-studio",
        "",
        "v1beta/models/g:generateContent",
        "/v1beta/models/g:generateContent",
    ),
    (
        "google-ai-studio",
        "",
        "v1/models/g:generateContent",
        "/v1/models/g:generateContent",
    ),
    (
        "google-ai-studio",
        "",
        "v1beta/openai/chat/completions",
        "/v1beta/openai/chat/completions",
    ),
    (
        "groq",
        "/openai/v1",
        "chat/completions",
        "/openai/v1/chat/completions",
    ),
    (
        "groq",
        "/openai/v1",
        "v1/chat/completions",
        "/openai/v1/chat/completions",
    ),
    ("mistral", "", "v1/chat/completions", "/v1/chat/completions"),
    ("mistral", "", "chat/completions", "/v1/chat/completions"),
    ("cohere", "", "v2/chat", "/v2/chat"),
    ("deepseek", "", "chat/completions", "/chat/completions"),
    (
        "ollama",
        "/v1",
        "v1/chat/completions",
        "/v1/chat/completions",
    ),
    ("vllm", "/v1", "v1/chat/completions", "/v1/chat/completions"),
    (
        "custom-acme",
        "/v1",
        "chat/completions",
        "/v1/chat/completions",
    ),
    (
        "custom-acme",
        "/v1",
        "v1/chat/completions",
        "/v1/chat/completions",
    ),
    ("custom-bare", "", "any/path/", "/any/path/"),
    ("custom-deep", "/a/b", "c", "/a/b/c"),
    // Bytes of the path are the provider's business.
    ("openai", "/v1", "models/a%2Fb%20c", "/v1/models/a%2Fb%20c"),
    ("openai", "/v1", "models/a+b;c=d,e", "/v1/models/a+b;c=d,e"),
    ("openai", "/v1", "files//twice", "/v1/files//twice"),
    ("openai", "/v1", "files/%zz", "/v1/files/%zz"),
    (
        "openai",
        "/v1",
        "models/ft:gpt-4o:acme::7p4lURel",
        "/v1/models/ft:gpt-4o:acme::7p4lURel",
    ),
    // And so are those of the query.
    ("openai", "/v1", "models?", "/v1/models?"),
    ("openai", "/v1", "models?a", "/v1/models?a"),
    ("openai", "/v1", "models?a=&b=&&c", "/v1/models?a=&b=&&c"),
    (
        "openai",
        "/v1",
        "models?a=%2F%2f+%20&b=%zz%",
        "/v1/models?a=%2F%2f+%20&b=%zz%",
    ),
    ("openai", "/v1", "models?a=1?b=2/3", "/v1/models?a=1?b=2/3"),
    (
        "openai",
        "/v1",
        "models?z=1&a=2&z=3",
        "/v1/models?z=1&a=2&z=3",
    ),
    (
        "openai",
        "/v1",
        "models?u=https://x/y?z=1",
        "/v1/models?u=https://x/y?z=1",
    ),
    (
        "openai",
        "/v1",
        "models?q='[]{}|^`~!$*()@:,",
        "/v1/models?q='[]{}|^`~!$*()@:,",
    ),
];

#[tokio::test]
async fn paths_and_queries_reach_the_provider_as_they_should() {
    let upstream = Upstream::h1().await;
    let mut yaml = String::from("providers:\n");
    for (index, (slug, base, ..)) in PATHS.iter().enumerate() {
        if !PATHS[..index].iter().any(|(earlier, ..)| earlier == slug) {
            yaml.push_str(&entry(&upstream, slug, base, ""));
        }
    }
    let gateway = Gateway::start(&yaml).await;
    for (slug, _, sent, wanted) in PATHS {
        upstream.script(Answer::json("{}"));
        let answer = Request::get(&path(slug, sent)).send(&gateway).await;
        let seen = upstream.requests().pop().map(|request| request.target);
        assert_eq!(
            (answer.status, seen.as_deref()),
            (200, Some(*wanted)),
            "{slug}/{sent}"
        );
    }
}

#[tokio::test]
async fn every_method_is_kept() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        upstream.script(Answer::new(200).declaring(0));
        let request = Request::new(method, &path("openai", "files/f-1"));
        assert_eq!(request.send(&gateway).await.status, 200, "{method}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method, "/v1/files/f-1")
        );
    }
}

#[tokio::test]
async fn several_gateways_of_several_accounts_are_served() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let accounts =
        "accounts: { a-1: { gateways: { one: {}, Two_2: {} } }, b: { gateways: { one: {} } } }\n";
    let gateway = Gateway::start(&(openai(&upstream) + accounts)).await;
    for (account, id, status) in [
        ("a-1", "one", 200),
        ("a-1", "Two_2", 200),
        ("b", "one", 200),
        ("b", "Two_2", 400),
    ] {
        let target = format!("/v1/{account}/{id}/openai/models");
        assert_eq!(
            Request::get(&target).send(&gateway).await.status,
            status,
            "{target}"
        );
    }
}

/// Asserts the whole envelope and returns its message.
fn envelope(answer: &Response, status: u16, code: u32) -> String {
    let body = answer.json();
    let message = body["message"].clone();
    let wanted = json!({
        "success": false, "result": [], "messages": [],
        "error": [{ "code": code, "message": message }],
        "name": "AiGatewayError", "httpCode": status, "internalCode": code,
        "message": message, "description": message,
    });
    assert_eq!((answer.status, &body), (status, &wanted));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    assert!(answer.header("cf-aig-log-id").is_some());
    message.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn unknown_names_are_refused_in_the_envelope() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for (account, id) in [
        ("nobody", "default"),
        ("default", "nothing"),
        ("Default", "default"),
        ("%64efault", "default"),
    ] {
        let target = format!("/v1/{account}/{id}/openai/chat/completions");
        envelope(
            &Request::post(&target, "{}").send(&gateway).await,
            400,
            2001,
        );
    }
    for slug in [
        "no-such-provider",
        "custom-nobody",
        "OpenAI%20",
        "constructor",
    ] {
        let answer = Request::post(&path(slug, "chat/completions"), "{}")
            .send(&gateway)
            .await;
        let message = envelope(&answer, 400, 2008);
        assert!(message.contains("rovider"), "{message}");
    }
    upstream.untouched();
}

#[tokio::test]
async fn paths_outside_the_contract_are_refused() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    for target in [
        "/",
        "/v1",
        "/v1/default",
        "/v1/default/default",
        "/v2/default/default/openai/models",
        "/favicon.ico",
        "/metrics",
        "/healthz",
    ] {
        let answer = Request::get(target).send(&gateway).await;
        assert!(
            (400..=404).contains(&answer.status),
            "{target}: {}",
            answer.status
        );
        assert_eq!(answer.json()["name"], "AiGatewayError", "{target}");
    }
    upstream.untouched();
}

#[tokio::test]
async fn the_host_header_names_the_provider() {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json("{}"));
    let yaml = at(&upstream, "custom-acme", "/v1", "");
    let elsewhere = format!(
        "  custom-private: {{ base_url: \"http://llm.acme.example/v1\", allow_insecure: true, connect_to: \"{}\" }}\n",
        upstream.address()
    );
    let gateway = Gateway::start(&(yaml + &elsewhere)).await;
    let hosts = [
        ("custom-acme", upstream.address().to_string()),
        ("custom-private", "llm.acme.example".to_owned()),
    ];
    for (slug, host) in hosts {
        let request = Request::get(&path(slug, "models")).header("host", "gateway.example");
        assert_eq!(request.send(&gateway).await.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.all("host"), [host.as_str()]);
        assert_eq!(seen.target, "/v1/models");
    }
}

#[tokio::test]
async fn the_catalogue_needs_no_configuration() {
    // No name exists, so that no test leaves the machine: an unreachable provider is known.
    let names = NameServer::start(&[]).await;
    let gateway = Gateway::start(&names.yaml()).await;
    let slugs = [
        "openai",
        "anthropic",
        "google-ai-studio",
        "google",
        "groq",
        "grok",
        "mistral",
        "deepseek",
        "cohere",
        "perplexity-ai",
        "cerebras",
        "openrouter",
        "replicate",
        "huggingface",
        "baseten",
        "fal",
        "ideogram",
        "cartesia",
        "elevenlabs",
        "deepgram",
        "parallel",
        "fireworks",
        "together",
        "deepinfra",
        "nebius",
        "novita",
        "sambanova",
        "nvidia",
        "moonshot",
        "zhipu",
        "dashscope",
        "minimax",
        "voyage",
        "jina",
        "github-models",
    ];
    for slug in slugs {
        let answer = Request::post(&path(slug, "v1/models"), "{}")
            .send(&gateway)
            .await;
        assert_eq!(
            (answer.status, &answer.json()["internalCode"]),
            (502, &json!(2005)),
            "{slug}: {}",
            answer.text()
        );
    }
}
