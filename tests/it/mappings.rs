//! Providers whose URL is built from parts of the client's: where their requests go, and
//! what never becomes part of a host name.

use crate::support::conf::path;
use crate::support::{Answer, Authority, Gateway, Request, Upstream};

/// Every provider of this file connects to the fake upstream and keeps its own host name.
const SLUGS: &[&str] = &[
    "azure-openai",
    "aws-bedrock",
    "google-vertex-ai",
    "workers-ai",
    "fal",
    "baseten",
    "huggingface",
];

const NAMES: &[&str] = &[
    "*.openai.azure.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "bedrock-runtime.us-gov-west-1.amazonaws.com",
    "*.googleapis.com",
    "api.cloudflare.com",
    "fal.run",
    "*.fal.run",
    "*.api.baseten.co",
    "*.huggingface.co",
];

/// Path after the gateway, extra header, host and target that the provider must see.
type Mapping = (
    &'static str,
    Option<(&'static str, &'static str)>,
    &'static str,
    &'static str,
);

const MAPPINGS: &[Mapping] = &[
    (
        "azure-openai/my-res/my-dep/chat/completions?api-version=2024-10-21",
        None,
        "my-res.openai.azure.com",
        "/openai/deployments/my-dep/chat/completions?api-version=2024-10-21",
    ),
    (
        "azure-openai/my-res/gpt-4.1_x/embeddings?api-version=1&a=%2F",
        None,
        "my-res.openai.azure.com",
        "/openai/deployments/gpt-4.1_x/embeddings?api-version=1&a=%2F",
    ),
    (
        "aws-bedrock/bedrock-runtime/us-east-1/model/anthropic.claude-v2%3A1/invoke",
        None,
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/anthropic.claude-v2%3A1/invoke",
    ),
    (
        "aws-bedrock/bedrock-runtime/us-gov-west-1/model/amazon.nova-lite-v1:0/converse-stream",
        None,
        "bedrock-runtime.us-gov-west-1.amazonaws.com",
        "/model/amazon.nova-lite-v1:0/converse-stream",
    ),
    (
        "google-vertex-ai/v1/projects/p-1/locations/us-central1/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        None,
        "us-central1-aiplatform.googleapis.com",
        "/v1/projects/p-1/locations/us-central1/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
    ),
    (
        "google-vertex-ai/v1/projects/p-1/locations/global/publishers/google/models/g:generateContent",
        None,
        "aiplatform.googleapis.com",
        "/v1/projects/p-1/locations/global/publishers/google/models/g:generateContent",
    ),
    (
        "workers-ai/@cf/meta/llama-3.1-8b-instruct",
        None,
        "api.cloudflare.com",
        "/client/v4/accounts/default/ai/run/@cf/meta/llama-3.1-8b-instruct",
    ),
    (
        "workers-ai/run/@cf/meta/llama-3.1-8b-instruct",
        None,
        "api.cloudflare.com",
        "/client/v4/accounts/default/ai/run/@cf/meta/llama-3.1-8b-instruct",
    ),
    (
        "workers-ai/v1/chat/completions",
        None,
        "api.cloudflare.com",
        "/client/v4/accounts/default/ai/v1/chat/completions",
    ),
    ("fal/fal-ai/flux/dev", None, "fal.run", "/fal-ai/flux/dev"),
    (
        "fal/ignored",
        Some((
            "x-fal-target-url",
            "https://queue.fal.run/fal-ai/flux?x=%2F&y",
        )),
        "queue.fal.run",
        "/fal-ai/flux?x=%2F&y",
    ),
    (
        "baseten/model/abcd1234",
        None,
        "model-abcd1234.api.baseten.co",
        "/production/predict",
    ),
];

/// A gateway that reaches a TLS upstream under every name of [`NAMES`].
async fn everything_at_one_upstream() -> (Gateway, Upstream, Authority) {
    let authority = Authority::new();
    let upstream = Upstream::tls(authority.issue(NAMES).server(&["http/1.1"])).await;
    let ca = authority.path();
    let mut yaml = String::from("providers:\n");
    for slug in SLUGS {
        yaml.push_str(&format!(
            "  {slug}: {{ connect_to: \"{}\", tls: {{ ca: {} }} }}\n",
            upstream.address(),
            ca.display(),
        ));
    }
    (Gateway::start(&yaml).await, upstream, authority)
}

fn request(target: &str, header: Option<(&str, &str)>) -> Request {
    let request = Request::post(&path("", target).replacen("//", "/", 1), "{}")
        .header("authorization", "Bearer own");
    match header {
        Some((name, value)) => request.header(name, value),
        None => request,
    }
}

#[tokio::test]
async fn parts_of_the_path_choose_host_and_path() {
    let (gateway, upstream, _authority) = everything_at_one_upstream().await;
    for (target, header, host, wanted) in MAPPINGS {
        upstream.script(Answer::json("{}"));
        let answer = request(target, *header).send(&gateway).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            (seen.all("host"), seen.target.as_str()),
            (vec![*host], *wanted),
            "{target}"
        );
        assert_eq!(seen.header("x-fal-target-url"), None);
        assert_eq!(seen.text(), "{}");
    }
}

#[tokio::test]
async fn hostile_host_parts_are_refused_and_nothing_is_sent() {
    let (gateway, upstream, _authority) = everything_at_one_upstream().await;
    let long = "a".repeat(64);
    let resources = [
        "evil.com",
        "evil.com%2F",
        "evil.com%23",
        "x@y",
        "user:pw@evil",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "%C3%BC",
        "%00",
        "a%0d%0ab",
        "..",
        "%2e%2e",
        "a b",
        "a:443",
        "[::1]",
        &long,
    ];
    let templates = [
        "azure-openai/{}/dep/chat/completions",
        "aws-bedrock/bedrock-runtime/{}/model/m/invoke",
        "google-vertex-ai/v1/projects/p/locations/{}/publishers/google/models/m:generateContent",
        "baseten/model/{}",
    ];
    for template in templates {
        for part in resources.iter().filter(|part| !part.contains(' ')) {
            let target = template.replace("{}", part);
            let answer = request(&target, None).send(&gateway).await;
            assert_eq!(answer.status, 400, "{target}: {}", answer.text());
            assert_eq!(answer.json()["name"], "AiGatewayError", "{target}");
        }
    }
    upstream.untouched();
}

#[tokio::test]
async fn regions_must_look_like_regions() {
    let (gateway, upstream, _authority) = everything_at_one_upstream().await;
    for part in [
        "useast1",
        "us-east-1.evil",
        "localhost",
        "US-EAST-1",
        "us-east-1-",
        "x",
    ] {
        let target = format!("aws-bedrock/bedrock-runtime/{part}/model/m/invoke");
        assert_eq!(
            request(&target, None).send(&gateway).await.status,
            400,
            "{target}"
        );
    }
    for target in [
        "aws-bedrock/evil/us-east-1/model/m/invoke",
        "aws-bedrock/model/m/invoke",
        "azure-openai/only-resource",
        "google-vertex-ai/v1/projects/p",
    ] {
        let status = request(target, None).send(&gateway).await.status;
        assert!((400..=404).contains(&status), "{target}: {status}");
    }
    upstream.untouched();
}

#[tokio::test]
async fn target_headers_stay_within_their_domain() {
    let (gateway, upstream, _authority) = everything_at_one_upstream().await;
    let targets = [
        "https://evil.com/",
        "https://evilfal.run/",
        "https://fal.run.evil.com/",
        "https://queue.fal.run@evil.com/",
        "https://evil.com/fal.run",
        "https://evil.com#.fal.run/",
        "https://evil.com\\.fal.run/",
        "https://evil.com?.fal.run/",
        "https://user:pw@queue.fal.run/",
        "http://queue.fal.run/",
        "ftp://queue.fal.run/",
        "//queue.fal.run/",
        "https:///x",
        "https://.fal.run/",
        "https://169.254.169.254/",
        "not a url",
        "",
    ];
    for target in targets {
        let answer = request("fal/x", Some(("x-fal-target-url", target)))
            .send(&gateway)
            .await;
        assert_eq!(answer.status, 400, "{target:?}: {}", answer.text());
    }
    upstream.untouched();
}

#[tokio::test]
async fn raw_bytes_beyond_ascii_are_refused() {
    let (gateway, upstream, _authority) = everything_at_one_upstream().await;
    let mut connection = crate::support::Connection::open(&gateway).await;
    let head = "POST /v1/default/default/azure-openai/ünïcode/dep/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    connection.write(head).await;
    let answer = connection.read().await;
    assert_eq!(answer.map(|answer| answer.status), Some(400));
    upstream.untouched();
}
