//! Reload: everything at once or nothing, and never a request lost.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::conf::{CHAT, openai};
use crate::support::{Answer, Gate, Gateway, NotifySocket, Request, Upstream, eventually, run};

const RELOAD: &str = "/-/reload";
const LAST: &str = "tollgate_config_last_reload_successful";

/// An upstream that always answers `word`.
async fn saying(word: &str) -> Upstream {
    let upstream = Upstream::h1().await;
    upstream.always(Answer::json(&json!(word).to_string()));
    upstream
}

/// What the gateway's provider says.
async fn says(gateway: &Gateway) -> String {
    Request::post(CHAT, "{}").send(gateway).await.text()
}

/// Replaces `old` in the configuration at `path`.
fn edit(path: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "{old} in {text}");
    std::fs::write(path, text.replace(old, new)).unwrap();
}

/// Points the gateway from one upstream to another.
fn repoint(gateway: &Gateway, old: &Upstream, new: &Upstream) {
    edit(&gateway.conf(), &old.url(""), &new.url(""));
}

async fn eventually_says(gateway: &Gateway, word: &str) {
    let expected = json!(word).to_string();
    for _ in 0..600 {
        if says(gateway).await == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the provider never said {word}");
}

#[tokio::test]
async fn new_requests_see_the_new_configuration_and_old_streams_the_old_one() {
    let (gate, old) = (Gate::new(), saying("old").await);
    let new = saying("new").await;
    let gateway = Gateway::start(&openai(&old)).await;
    old.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: 2\n\n"),
    );
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    repoint(&gateway, &old, &new);
    let answer = gateway.ask(Request::new("POST", RELOAD)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "result": "reloaded", "restart_required": [] }))
    );
    assert_eq!(says(&gateway).await, "\"new\"");
    gate.open();
    assert_eq!(stream.finish().await.text().trim(), "data: 2");
}

#[tokio::test]
async fn sighup_reloads() {
    let (old, new, manager) = (
        saying("old").await,
        saying("new").await,
        NotifySocket::new(),
    );
    let socket = manager.path();
    let gateway = Gateway::with(&openai(&old))
        .env("NOTIFY_SOCKET", socket.to_str().unwrap())
        .start()
        .await;
    manager.told("READY=1", 1).await;
    repoint(&gateway, &old, &new);
    gateway.signal(Signal::SIGHUP);
    gateway.logged("because of SIGHUP").await;
    assert_eq!(says(&gateway).await, "\"new\"");
    manager.told("RELOADING=1", 1).await;
    manager.told("READY=1", 2).await;
}

#[tokio::test]
async fn a_changed_file_is_noticed() {
    let (old, new) = (saying("old").await, saying("new").await);
    let gateway = Gateway::start(&openai(&old)).await;
    repoint(&gateway, &old, &new);
    eventually_says(&gateway, "new").await;
    // As editors do: write beside it, then rename.
    let beside = gateway.directory().join("tollgate.yaml~");
    std::fs::copy(gateway.conf(), &beside).unwrap();
    edit(&beside, &new.url(""), &old.url(""));
    std::fs::rename(&beside, gateway.conf()).unwrap();
    eventually_says(&gateway, "old").await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_believed() {
    let (old, new) = (saying("old").await, saying("new").await);
    let gateway = Gateway::start(&openai(&old)).await;
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    // Emptied, and filled much later than any writer does.
    std::fs::write(gateway.conf(), "").unwrap();
    gateway.logged("is empty").await;
    assert_eq!(says(&gateway).await, "\"old\"");
    std::fs::write(gateway.conf(), text.replace(&old.url(""), &new.url(""))).unwrap();
    eventually_says(&gateway, "new").await;
}

#[tokio::test]
async fn a_swapped_link_is_noticed_as_kubernetes_makes_it() {
    let (old, new) = (saying("old").await, saying("new").await);
    let gateway = Gateway::start(&openai(&old)).await;
    let (directory, conf) = (gateway.directory(), gateway.conf());
    for (version, upstream) in [("..1", &old), ("..2", &new)] {
        std::fs::create_dir(directory.join(version)).unwrap();
        let file = directory.join(version).join("tollgate.yaml");
        std::fs::copy(&conf, &file).unwrap();
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace(&old.url(""), &upstream.url(""));
        std::fs::write(&file, text).unwrap();
    }
    let link = |target: &str, name: &str| {
        let aside = directory.join("..aside");
        std::os::unix::fs::symlink(target, &aside).unwrap();
        std::fs::rename(&aside, directory.join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/tollgate.yaml", "tollgate.yaml");
    assert_eq!(says(&gateway).await, "\"old\"");
    link("..2", "..data");
    eventually_says(&gateway, "new").await;
    std::fs::remove_dir_all(directory.join("..1")).unwrap();
    edit(
        &directory.join("..2/tollgate.yaml"),
        &new.url(""),
        &old.url(""),
    );
    eventually_says(&gateway, "old").await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported_everywhere() {
    let (old, new) = (saying("old").await, saying("new").await);
    let gateway = Gateway::start(&openai(&old)).await;
    assert_eq!(gateway.metrics().await.sum(LAST, &[]), 1.0);
    edit(&gateway.conf(), "admin:", "adnim:");
    repoint(&gateway, &old, &new);
    let answer = gateway.ask(Request::new("POST", RELOAD)).await;
    assert_eq!(
        (answer.status, answer.json()["result"].as_str()),
        (400, Some("not reloaded"))
    );
    let problems = answer.json()["problems"].to_string();
    assert!(problems.contains("adnim"), "{problems}");
    gateway.logged("not reloaded").await;
    assert!(
        gateway
            .logged("adnim")
            .await
            .contains("the last good configuration keeps serving")
    );
    assert_eq!(gateway.metrics().await.sum(LAST, &[]), 0.0);
    assert_eq!(says(&gateway).await, "\"old\"");
    edit(&gateway.conf(), "adnim:", "admin:");
    assert_eq!(gateway.ask(Request::new("POST", RELOAD)).await.status, 200);
    assert_eq!(gateway.metrics().await.sum(LAST, &[]), 1.0);
    assert_eq!(says(&gateway).await, "\"new\"");
}

#[tokio::test]
async fn what_needs_a_restart_is_listed_and_the_rest_applied() {
    let (old, new) = (saying("old").await, saying("new").await);
    let gateway = Gateway::start(&openai(&old)).await;
    edit(&gateway.conf(), "threads: 2", "threads: 3");
    repoint(&gateway, &old, &new);
    for _ in 0..2 {
        let answer = gateway.ask(Request::new("POST", RELOAD)).await;
        assert_eq!(answer.json()["restart_required"], json!(["server.threads"]));
    }
    assert_eq!(says(&gateway).await, "\"new\"");
    let metrics = gateway.metrics().await;
    assert!(
        metrics.text().contains("restart_required"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn the_command_tells_what_happened() {
    let upstream = saying("old").await;
    let gateway = Gateway::start(&openai(&upstream)).await;
    let conf = gateway.conf();
    let admin = gateway.admin().to_string();
    let output = run(&["reload", "--conf", conf.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("reloaded"),
        "{output:?}"
    );
    edit(&conf, "admin:", "adnim:");
    for arguments in [
        vec!["--conf", conf.to_str().unwrap()],
        vec!["--admin", &admin],
    ] {
        let output = run(&[vec!["reload"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("adnim"),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_read_again_when_it_changes() {
    let (first, second) = (
        crate::support::Authority::new(),
        crate::support::Authority::new(),
    );
    let upstream = saying("hello").await;
    let (old, new) = (first.issue(&["localhost"]), second.issue(&["localhost"]));
    let gateway = Gateway::with(&openai(&upstream))
        .file("cert.pem", old.pem().0)
        .file("key.pem", old.pem().1)
        .server("tls: { cert: \"{dir}/cert.pem\", key: \"{dir}/key.pem\" }")
        .start()
        .await;
    let request = Request::post(CHAT, "{}");
    let answer = request
        .clone()
        .tls(first.client(&["http/1.1"]))
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
    // Half a change is no certificate: the old one stays.
    std::fs::write(gateway.directory().join("cert.pem"), new.pem().0).unwrap();
    gateway.logged("cannot be used").await;
    let answer = request
        .clone()
        .tls(first.client(&["http/1.1"]))
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
    std::fs::write(gateway.directory().join("key.pem"), new.pem().1).unwrap();
    eventually("a reload", || {
        gateway
            .log()
            .contains("because a file changed")
            .then_some(())
    })
    .await;
    let answer = request
        .tls(second.client(&["h2"]))
        .over(crate::support::Protocol::H2)
        .send(&gateway)
        .await;
    assert_eq!(answer.status, 200);
}
