//! In-flight caps: who is over one waits a bounded time, and a provider that stalls takes no other
//! down with it.

mod clients;
mod routes;

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::cache::{BODY, chat, status, stored};
use crate::support::conf::{CHAT, entry};
use crate::support::metrics::Metrics;
use crate::support::{
    Answer, Ending, Gate, Gateway, Protocol, Reply, Request, Response, Upstream, body, within,
};

const BOTH: [Protocol; 2] = [Protocol::H1, Protocol::H2];
const GROQ: &str = "/v1/default/default/groq/chat/completions";
/// A wait that no test outlasts.
const PATIENT: &str = "wait: 60s";

/// Two providers and the gateways `default` and `other`, each with caps of its own, or none.
struct Caps {
    openai: Upstream,
    groq: Upstream,
    gateway: Gateway,
}

/// What is said of `in_flight`: of the process, of openai, and what the gateway `default` says.
#[derive(Default)]
struct Says<'a> {
    process: &'a str,
    openai: &'a str,
    gateway: &'a str,
}

impl Caps {
    async fn start(says: Says<'_>) -> Self {
        let (openai, groq) = (Upstream::h1().await, Upstream::h1().await);
        let cap = match says.openai {
            "" => String::new(),
            cap => format!("in_flight: {{ {cap} }}"),
        };
        let yaml = format!(
            "providers:\n{}{}accounts: {{ default: {{ gateways: {{ default: {{ {} }}, other: {{}} }} }} }}\n",
            entry(&openai, "openai", "/v1", &cap),
            entry(&groq, "groq", "/openai/v1", ""),
            says.gateway,
        );
        let mut gateway = Gateway::with(&yaml);
        if !says.process.is_empty() {
            gateway = gateway.server(&format!("in_flight: {{ {} }}", says.process));
        }
        let gateway = gateway.start().await;
        Self {
            openai,
            groq,
            gateway,
        }
    }

    /// Only openai has a cap.
    async fn at_openai(cap: &str) -> Self {
        let openai = cap;
        Self::start(Says {
            openai,
            ..Says::default()
        })
        .await
    }

    fn ask(&self, request: &Request) -> JoinHandle<Response> {
        let (request, address) = (request.clone(), self.gateway.public());
        tokio::spawn(async move { request.send(address).await })
    }

    /// A call that holds its place at openai until the gate is opened.
    async fn hold(&self) -> (Gate, JoinHandle<Response>) {
        let gate = Gate::new();
        self.openai.script(Answer::json("{}").after(&gate));
        let before = self.openai.requests().len();
        let call = self.ask(&Request::post(CHAT, "{}"));
        self.openai.reached(before + 1).await;
        (gate, call)
    }

    /// Waits until so many calls are in flight, and so many wait.
    async fn counts(&self, scope: &str, expected: (u32, u32)) {
        let labels = [("scope", scope)];
        let what = format!("{scope}: {expected:?} in flight and waiting");
        let are = |metrics: &Metrics| {
            let sum = |name| metrics.sum(name, &labels);
            let now = (sum("tollgate_in_flight"), sum("tollgate_in_flight_waiting"));
            now == (expected.0.into(), expected.1.into())
        };
        self.gateway.metrics_when(&what, are).await;
    }

    /// Waits until so many calls were refused for `reason`.
    async fn refused(&self, scope: &str, reason: &str, expected: u32) {
        let labels = [("scope", scope), ("reason", reason)];
        let what = format!("{scope}: {expected} refused, {reason}");
        let are = |metrics: &Metrics| {
            let sum = metrics.sum("tollgate_in_flight_refused_total", &labels);
            sum == f64::from(expected)
        };
        self.gateway.metrics_when(&what, are).await;
    }

    async fn reload(&self, old: &str, new: &str) {
        let conf = self.gateway.conf();
        let text = std::fs::read_to_string(&conf).unwrap();
        assert!(text.contains(old), "{old} in {text}");
        std::fs::write(conf, text.replace(old, new)).unwrap();
        let answer = self.gateway.ask(Request::new("POST", "/-/reload")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["restart_required"], serde_json::json!([]));
    }
}

async fn answered(call: JoinHandle<Response>) -> Response {
    within("an answer", call).await.unwrap()
}

/// Asserts the answer of a gateway without a place: after how many seconds to come back, and
/// which key says so.
fn assert_busy(answer: &Response, retry_after: &str, key: &str) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.ending, Ending::Whole);
    assert_eq!(answer.header("tollgate-error-source"), Some("gateway"));
    assert_eq!(answer.header("retry-after"), Some(retry_after));
    let body = answer.json();
    assert_eq!(
        (&body["internalCode"], &body["httpCode"], &body["name"]),
        (&8013.into(), &503.into(), &"AiGatewayError".into())
    );
    let told = body["message"].as_str().unwrap();
    assert!(told.contains(key), "{key} in {told}");
    assert!(!told.contains("default"), "{told}");
}

const OF_PROVIDER: &str = "providers.<slug>.in_flight";
const OF_GATEWAY: &str = "accounts.<account>.gateways.<gateway>.in_flight";
const OF_PROCESS: &str = "server.in_flight";

#[tokio::test]
async fn the_one_above_the_cap_waits_and_gets_its_turn_when_another_ends() {
    for protocol in BOTH {
        let caps = Caps::at_openai(&format!("max: 2, {PATIENT}")).await;
        let gate = Gate::new();
        caps.openai
            .always(Reply::from(Answer::json("{}").after(&gate)));
        let request = Request::post(CHAT, body::json_of_size("m", 200_000)).over(protocol);
        let calls: Vec<_> = (0..4).map(|_| caps.ask(&request)).collect();
        caps.counts("provider", (2, 2)).await;
        caps.openai.reached(2).await;
        gate.open();
        caps.counts("provider", (2, 1)).await;
        caps.openai.reached(3).await;
        (0..3).for_each(|_| gate.open());
        for call in calls {
            assert_eq!(answered(call).await.status, 200, "{protocol:?}");
        }
        caps.counts("provider", (0, 0)).await;
        let bodies = caps.openai.received(4).await;
        let whole = Some(200_000);
        let whole = |length: Option<u64>| length == whole;
        assert!(
            bodies
                .iter()
                .all(|seen| whole(seen.digest.as_ref().map(|digest| digest.length)))
        );
        for reason in ["wait_over", "queue_full"] {
            caps.refused("provider", reason, 0).await;
        }
        let line = caps.gateway.logged("waited_ms=").await;
        assert!(line.contains("status=200"), "{line}");
    }
}

#[tokio::test]
async fn when_the_wait_is_over_the_client_is_told_when_to_come_back() {
    for protocol in BOTH {
        let caps = Caps::at_openai("max: 1, wait: 1500ms").await;
        let (gate, held) = caps.hold().await;
        let began = Instant::now();
        let answer = Request::post(CHAT, "{}")
            .over(protocol)
            .send(&caps.gateway)
            .await;
        assert!(began.elapsed() >= Duration::from_millis(1500));
        assert_busy(&answer, "2", OF_PROVIDER);
        gate.open();
        assert_eq!(answered(held).await.status, 200);
        caps.openai.received(1).await;
        caps.refused("provider", "wait_over", 1).await;
        let log = caps.gateway.logged("error=busy").await;
        let line = log
            .lines()
            .find(|line| line.contains("error=busy"))
            .unwrap();
        for fact in [
            "error_source=gateway",
            "attempts=0",
            "tried=full:",
            "waited_ms=",
            "provider openai is full",
        ] {
            assert!(line.contains(fact), "{fact}: {line}");
        }
        let metrics = caps.gateway.metrics().await;
        let busy = [
            ("kind", "busy"),
            ("source", "gateway"),
            ("provider", "openai"),
        ];
        assert_eq!(metrics.sum("tollgate_errors_total", &busy), 1.0);
        let overhead = metrics.sum("tollgate_gateway_overhead_seconds_sum", &[]);
        assert!(overhead < 1.5, "the wait is none: {overhead}");
        caps.counts("provider", (0, 0)).await;
    }
}

#[tokio::test]
async fn who_finds_the_line_full_is_told_at_once() {
    for protocol in BOTH {
        let caps = Caps::at_openai(&format!("max: 1, queue: 1, {PATIENT}")).await;
        let (gate, held) = caps.hold().await;
        let waiting = caps.ask(&Request::post(CHAT, "{}"));
        caps.counts("provider", (1, 1)).await;
        // At once: nobody here waits for a minute. Also where most of the body is still to come.
        for size in [100, 200_000, 5_000_000] {
            let request = Request::post(CHAT, body::json_of_size("m", size)).over(protocol);
            let answer = request.send(&caps.gateway).await;
            assert_busy(&answer, "60", OF_PROVIDER);
        }
        caps.refused("provider", "queue_full", 3).await;
        caps.openai.script(Answer::json("{}"));
        gate.open();
        for call in [held, waiting] {
            assert_eq!(answered(call).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_stalled_provider_does_not_take_the_others_down() {
    for process in ["", "max: 8, wait: 60s"] {
        let caps = Caps::start(Says {
            process,
            openai: "max: 4, queue: 30, wait: 60s",
            ..Says::default()
        })
        .await;
        caps.openai.always(Reply::Silence);
        caps.groq.always(Answer::json("{}"));
        let hanging: Vec<_> = (0..54)
            .map(|_| caps.ask(&Request::post(CHAT, "{}")))
            .collect();
        caps.counts("provider", (4, 30)).await;
        for _ in 0..25 {
            let calls: Vec<_> = (0..8)
                .map(|_| caps.ask(&Request::post(GROQ, "{}")))
                .collect();
            for call in calls {
                assert_eq!(answered(call).await.status, 200);
            }
        }
        caps.counts("provider", (4, 30)).await;
        caps.openai.reached(4).await;
        caps.refused("provider", "queue_full", 20).await;
        hanging.iter().for_each(JoinHandle::abort);
        caps.counts("provider", (0, 0)).await;
        caps.counts("process", (0, 0)).await;
        caps.groq.received(200).await;
    }
}

#[tokio::test]
async fn the_caps_of_gateway_provider_and_process_hold_for_what_they_say() {
    let other = CHAT.replace("/default/default/", "/default/other/");
    // Who is over the cap, and who is not.
    let provider = Says {
        openai: "max: 1, wait: 0s",
        ..Says::default()
    };
    let gateway = Says {
        gateway: "in_flight: { max: 1, wait: 0s }",
        ..Says::default()
    };
    let process = Says {
        process: "max: 1, wait: 0s",
        ..Says::default()
    };
    let other_groq = GROQ.replace("/default/default/", "/default/other/");
    let cases = [
        (
            provider,
            "provider",
            OF_PROVIDER,
            [CHAT, &other],
            vec![GROQ, &other_groq],
        ),
        (
            gateway,
            "gateway",
            OF_GATEWAY,
            [CHAT, GROQ],
            vec![&other, &other_groq],
        ),
        (process, "process", OF_PROCESS, [CHAT, &other_groq], vec![]),
    ];
    for (says, scope, key, over, passing) in cases {
        let caps = Caps::start(says).await;
        let (gate, held) = caps.hold().await;
        caps.counts(scope, (1, 0)).await;
        for path in over {
            let answer = Request::post(path, "{}").send(&caps.gateway).await;
            assert_busy(&answer, "1", key);
        }
        for path in passing {
            let upstream = if path.contains("groq") {
                &caps.groq
            } else {
                &caps.openai
            };
            upstream.script(Answer::json("{}"));
            assert_eq!(
                Request::post(path, "{}").send(&caps.gateway).await.status,
                200,
                "{path}"
            );
        }
        gate.open();
        assert_eq!(answered(held).await.status, 200);
        caps.refused(scope, "wait_over", 2).await;
    }
}

#[tokio::test]
async fn answers_of_the_cache_and_of_others_calls_need_no_place() {
    let caps = Caps::start(Says {
        process: "max: 1, queue: 0",
        openai: "max: 1, queue: 0",
        gateway: "cache: { ttl: 5m }",
    })
    .await;
    caps.openai.script(Answer::json(r#"{"a":1}"#));
    assert_eq!(status(&chat(BODY).send(&caps.gateway).await), "MISS");
    stored(&caps.gateway).await;
    let gate = Gate::new();
    caps.openai.script(Answer::json(r#"{"b":1}"#).after(&gate));
    let same = chat(r#"{"model":"other"}"#);
    let leader = caps.ask(&same);
    caps.openai.reached(2).await;
    let follower = caps.ask(&same);
    for protocol in BOTH {
        let hit = chat(BODY).over(protocol).send(&caps.gateway).await;
        assert_eq!((hit.status, status(&hit)), (200, "HIT"));
    }
    // What does need one is refused meanwhile.
    let third = chat(r#"{"model":"third"}"#).send(&caps.gateway).await;
    assert_busy(&third, "1", OF_PROVIDER);
    gate.open();
    for call in [leader, follower] {
        assert_eq!(answered(call).await.text(), r#"{"b":1}"#);
    }
    caps.openai.received(2).await;
}

#[tokio::test]
async fn those_who_wait_for_a_call_that_gets_no_place_are_told_so_too() {
    let caps = Caps::start(Says {
        openai: "max: 1, wait: 2s",
        gateway: "cache: { ttl: 5m }",
        ..Says::default()
    })
    .await;
    let (gate, held) = caps.hold().await;
    let calls: Vec<_> = (0..5).map(|_| caps.ask(&chat(BODY))).collect();
    caps.counts("provider", (1, 1)).await;
    for call in calls {
        assert_busy(&answered(call).await, "2", OF_PROVIDER);
    }
    gate.open();
    answered(held).await;
    caps.openai.received(1).await;
}

#[tokio::test]
async fn a_reload_raises_and_lowers_a_cap_while_calls_are_in_flight() {
    for (process, scope) in [("", "provider"), ("max: 1, wait: 60s", "process")] {
        let openai = if process.is_empty() {
            "max: 1, wait: 60s"
        } else {
            ""
        };
        let caps = Caps::start(Says {
            process,
            openai,
            ..Says::default()
        })
        .await;
        let gate = Gate::new();
        caps.openai.always(Answer::json("{}").after(&gate));
        let calls: Vec<_> = (0..2)
            .map(|_| caps.ask(&Request::post(CHAT, "{}")))
            .collect();
        caps.counts(scope, (1, 1)).await;
        // Nobody needs to come for who waits to be let in.
        caps.reload("max: 1,", "max: 3, queue: 9,").await;
        caps.counts(scope, (2, 0)).await;
        let more: Vec<_> = (0..3)
            .map(|_| caps.ask(&Request::post(CHAT, "{}")))
            .collect();
        caps.counts(scope, (3, 2)).await;
        caps.reload("max: 3,", "max: 1,").await;
        gate.open();
        caps.counts(scope, (2, 2)).await;
        gate.open();
        caps.counts(scope, (1, 2)).await;
        gate.open();
        caps.counts(scope, (1, 1)).await;
        // No cap any more.
        caps.reload("in_flight: { max: 1, queue: 9, wait: 60s }", "in_flight: ")
            .await;
        caps.openai.reached(5).await;
        (0..2).for_each(|_| gate.open());
        for call in calls.into_iter().chain(more) {
            assert_eq!(answered(call).await.status, 200);
        }
        let gone = |metrics: &Metrics| !metrics.text().contains("tollgate_in_flight{");
        caps.gateway.metrics_when("no gate", gone).await;
    }
}
