//! Where answers are kept: purges, restarts, upgrades, crashes, faults of the disk, and bounds.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cache::{BODY, cached, chat, status, store, stored};
use crate::support::{Answer, Gate, Gateway, Request, Response, Upstream, body};

const ROOT: &str = "/client/v4/accounts/default/ai-gateway/gateways/default/cache";

fn answer(text: &str) -> Answer {
    Answer::json(&format!("{{\"text\":\"{text}\"}}"))
}

fn asked(text: &str) -> Request {
    chat(&format!("{{\"model\":\"m-{text}\",\"q\":\"{text}\"}}"))
}

async fn purge(gateway: &Gateway, query: &str) -> Response {
    gateway
        .ask(Request::new("DELETE", &format!("{ROOT}{query}")))
        .await
}

/// Waits until this process has the disk, and everything stored so far is on it.
async fn on_disk(gateway: &Gateway, answers: usize) {
    gateway
        .metrics_when("answers on disk", |metrics| {
            metrics.sum("tollgate_cache_disk_owned", &[]) == 1.0
                && metrics.sum("tollgate_cache_stored_total", &[("tier", "disk")]) >= answers as f64
        })
        .await;
}

#[tokio::test]
async fn answers_are_purged_by_what_names_them() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(answer("x"));
    let requests = [
        asked("a").header("cf-aig-cache-tag", "red, round"),
        asked("b").header("cf-aig-cache-tag", "red"),
        asked("c"),
        asked("d").header("cf-aig-cache-key", "custom"),
    ];
    let send_all = async || {
        let mut states = Vec::new();
        for request in &requests {
            states.push(status(&request.send(&gateway).await) == "HIT");
        }
        stored(&gateway).await;
        states
    };
    assert_eq!(send_all().await, [false; 4]);
    assert_eq!(send_all().await, [true; 4]);
    for (query, left) in [
        ("?tag=round", [false, true, true, true]),
        ("?tag=red", [false, false, true, true]),
        ("?tag=nobody", [true; 4]),
        ("?model=m-c", [true, true, false, true]),
        ("?key=custom", [true, true, true, false]),
        ("?provider=openai", [false; 4]),
        ("?provider=groq", [true; 4]),
        ("?model=m-a&model=m-b", [false, false, true, true]),
        ("", [false; 4]),
    ] {
        let answer = purge(&gateway, query).await;
        assert_eq!(
            (answer.status, &answer.json()["success"]),
            (200, &true.into())
        );
        assert_eq!(send_all().await, left, "{query}");
    }
    let log = gateway.logged("model=m-d").await;
    let line = log.lines().find(|line| line.contains("model=m-d"));
    let key = line.and_then(|line| line.split_once("cache_key="));
    let key = key.unwrap().1.split_whitespace().next().unwrap();
    purge(&gateway, &format!("?key={key}")).await;
    assert_eq!(send_all().await, [true, true, true, false], "{key}");
}

#[tokio::test]
async fn a_purge_with_a_mistake_purges_nothing() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    store(&gateway, &upstream, &chat(BODY), answer("x")).await;
    for (request, code) in [
        (Request::new("DELETE", &format!("{ROOT}?tags=a")), 400),
        (Request::new("DELETE", &format!("{ROOT}?tag=")), 400),
        (Request::get(ROOT), 405),
        (
            Request::new("DELETE", &ROOT.replace("gateways/default", "gateways/none")),
            404,
        ),
        (Request::new("DELETE", &format!("{ROOT}/x")), 404),
    ] {
        let answer = gateway.ask(request).await;
        assert_eq!(answer.status, code);
        let body = answer.json();
        assert_eq!(body["success"], false);
        assert!(body["errors"][0]["message"].is_string(), "{body}");
    }
    assert_eq!(status(&chat(BODY).send(&gateway).await), "HIT");
}

#[tokio::test]
async fn a_purge_reaches_answers_on_their_way() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    let gate = Gate::new();
    upstream.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: [DONE]\n\n"),
    );
    let mut live = chat(r#"{"stream":true}"#).open(&gateway).await;
    live.read_past("1\n\n").await;
    purge(&gateway, "").await;
    // Who asks after the purge does not get what was asked before it.
    upstream.script(answer("new"));
    let next = chat(r#"{"stream":true}"#).send(&gateway).await;
    assert_eq!(status(&next), "MISS");
    stored(&gateway).await;
    gate.open();
    assert!(live.finish().await.text().ends_with("[DONE]\n\n"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let last = chat(r#"{"stream":true}"#).send(&gateway).await;
    assert_eq!((status(&last), last.text()), ("HIT", next.text()));
}

#[tokio::test]
async fn answers_and_purges_survive_a_restart() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(answer("x"));
    for name in ["kept", "purged"] {
        asked(name)
            .header("cf-aig-cache-tag", name)
            .send(&gateway)
            .await;
    }
    stored(&gateway).await;
    on_disk(&gateway, 2).await;
    purge(&gateway, "?tag=purged").await;
    let gateway = gateway.restarted(Signal::SIGTERM).await;
    on_disk(&gateway, 0).await;
    let kept = asked("kept").send(&gateway).await;
    assert_eq!(status(&kept), "HIT");
    assert_eq!(kept.text(), "{\"text\":\"x\"}");
    assert_eq!(status(&asked("purged").send(&gateway).await), "MISS");
    gateway.logged("cache_tier=disk").await;
    gateway
        .metrics_when("one given from disk", |metrics| {
            metrics.sum("tollgate_cache_serve_seconds_count", &[("tier", "disk")]) == 1.0
        })
        .await;
    // It is in memory now.
    asked("kept").send(&gateway).await;
    gateway.logged("cache_tier=memory").await;
}

#[tokio::test]
async fn nothing_corrupt_is_given_after_a_crash_under_load() {
    let upstream = Upstream::h1().await;
    let mut gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(crate::support::Reply::Digest);
    let payload = "p".repeat(20_000);
    let question = |number: usize| chat(&format!("{{\"n\":{number},\"p\":\"{payload}\"}}"));
    let mut sent = 0;
    for round in 0..3 {
        let address = gateway.public();
        let tasks: Vec<_> = (sent..sent + 200)
            .map(|number| {
                let request = question(number);
                tokio::spawn(async move { request.try_open(address).await.is_some() })
            })
            .collect();
        sent += 200;
        if round == 0 {
            on_disk(&gateway, 20).await;
        }
        tokio::time::sleep(Duration::from_millis(50 * (round + 1))).await;
        gateway = gateway.restarted(Signal::SIGKILL).await;
        tasks.iter().for_each(|task| task.abort());
        on_disk(&gateway, 0).await;
    }
    let mut hits = 0;
    for number in 0..sent {
        let request = question(number);
        let answer = request.send(&gateway).await;
        assert_eq!(answer.status, 200);
        let sent = format!("{{\"n\":{number},\"p\":\"{payload}\"}}");
        assert_eq!(
            answer.text(),
            crate::support::Digest::of(sent.as_bytes()).json()
        );
        hits += usize::from(status(&answer) == "HIT");
    }
    assert!(hits >= 20, "what had reached the disk is found: {hits}");
}

#[tokio::test]
async fn the_disk_goes_to_the_new_process_of_an_upgrade() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    store(&gateway, &upstream, &asked("one"), answer("one")).await;
    on_disk(&gateway, 1).await;
    let upgraded = gateway.ask(Request::new("POST", "/-/upgrade")).await;
    assert_eq!(upgraded.status, 200, "{}", upgraded.text());
    // The old process had stored one; the new one counts anew.
    gateway
        .metrics_when("the new process with the disk", |metrics| {
            metrics.sum("tollgate_cache_disk_owned", &[]) == 1.0
                && metrics.sum("tollgate_cache_stored_total", &[("tier", "disk")]) == 0.0
        })
        .await;
    let one = asked("one").send(&gateway).await;
    assert_eq!(
        (status(&one), one.text().as_str()),
        ("HIT", "{\"text\":\"one\"}")
    );
    gateway.logged("cache_tier=disk").await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_used_makes_misses_and_never_errors() {
    let upstream = Upstream::h1().await;
    upstream.always(answer("x"));
    // A file where the directory should be.
    let gateway = Gateway::with(&cached(&upstream))
        .file("data", "a file")
        .start()
        .await;
    for number in 0..5 {
        let answer = asked(&number.to_string()).send(&gateway).await;
        assert_eq!((answer.status, status(&answer)), (200, "MISS"));
    }
    stored(&gateway).await;
    assert_eq!(
        status(&asked("1").send(&gateway).await),
        "HIT",
        "memory goes on"
    );
    gateway
        .metrics_when("a fault of the disk", |metrics| {
            metrics.sum("tollgate_cache_errors_total", &[("kind", "disk_open")]) >= 1.0
        })
        .await;
}

#[tokio::test]
async fn damaged_files_are_misses() {
    let upstream = Upstream::h1().await;
    let gateway = Gateway::start(&cached(&upstream)).await;
    upstream.always(answer("x"));
    for number in 0..20 {
        asked(&number.to_string()).send(&gateway).await;
    }
    stored(&gateway).await;
    on_disk(&gateway, 20).await;
    let gateway = gateway
        .restarted_after(Signal::SIGTERM, |directory| {
            damage(&directory.join("data/cache"))
        })
        .await;
    for number in 0..20 {
        let answer = asked(&number.to_string()).send(&gateway).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "{\"text\":\"x\"}")
        );
    }
}

/// Flips a bit in every 512 bytes of every file.
fn damage(directory: &Path) {
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            damage(&path);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(512) {
            bytes[at] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test]
async fn memory_stays_within_its_bound_under_ten_times_as_much() {
    let upstream = Upstream::h1().await;
    let conf = format!("cache: {{ memory: 16MiB, disk: 0 }}\n{}", cached(&upstream));
    let gateway = Gateway::start(&conf).await;
    let bytes = body::octets(1 << 20);
    upstream.always(
        Answer::new(200)
            .header("content-type", "audio/mpeg")
            .bytes(&bytes),
    );
    let speech = |number: usize| {
        Request::post(
            "/v1/default/default/openai/audio/speech",
            format!("{{\"n\":{number}}}"),
        )
    };
    for number in 0..160 {
        assert_eq!(speech(number).send(&gateway).await.body.len(), bytes.len());
    }
    stored(&gateway).await;
    let metrics = gateway.metrics().await;
    let held = metrics.sum("tollgate_cache_bytes", &[("tier", "memory")]);
    let bound = f64::from(16 << 20);
    assert!(held <= bound * 1.1 && held >= bound * 0.5, "{held}");
    assert!(metrics.sum("tollgate_cache_evictions_total", &[("tier", "memory")]) > 100.0);
    assert_eq!(
        status(&speech(159).send(&gateway).await),
        "HIT",
        "the latest is there"
    );
}
