//! Upgrade: the new process takes over, or the old one keeps serving and says why.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::conf::{CHAT, openai};
use crate::support::ports::Port;
use crate::support::{
    Answer, Ending, Gate, Gateway, NotifySocket, Request, Response, Upstream, run,
};

/// A place on disk where the binary that an upgrade starts can be replaced.
struct Installed(TempDir);

impl Installed {
    fn new() -> Self {
        let installed = Self(tempfile::tempdir().unwrap());
        installed.restore();
        installed
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tollgate")
    }

    /// Puts the real binary there.
    fn restore(&self) {
        let aside = self.0.path().join("aside");
        symlink(env!("CARGO_BIN_EXE_tollgate"), &aside).unwrap();
        std::fs::rename(aside, self.path()).unwrap();
    }

    /// Puts a shell script there.
    fn replace_by(&self, script: &str) {
        let aside = self.0.path().join("aside");
        std::fs::write(&aside, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(aside, self.path()).unwrap();
    }
}

/// A gateway in front of an upstream that always answers, and its binary on disk.
async fn serving() -> (Upstream, Installed, Gateway) {
    let (upstream, installed) = (Upstream::h1().await, Installed::new());
    upstream.always(Answer::json("\"hello\""));
    let gateway = Gateway::with(&openai(&upstream))
        .program(installed.path())
        .start()
        .await;
    (upstream, installed, gateway)
}

async fn upgrade(gateway: &Gateway) -> Response {
    gateway.ask(Request::new("POST", "/-/upgrade")).await
}

/// Asserts that the first process still serves, and returns why it was not replaced.
async fn kept(gateway: &Gateway, answer: &Response) -> Value {
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["result"]),
        (500, &json!("not upgraded")),
        "{body}"
    );
    let ready = gateway.ask(Request::get("/readyz")).await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        Request::post(CHAT, "{}").send(gateway).await.text(),
        "\"hello\""
    );
    assert!(Path::new(&format!("/proc/{}", gateway.pid())).exists());
    gateway
        .logged("not upgraded, this process keeps serving")
        .await;
    body
}

#[tokio::test]
async fn the_new_process_takes_over_and_the_manager_knows() {
    let (manager, installed) = (NotifySocket::new(), Installed::new());
    let upstream = Upstream::answering(Answer::json("1")).await;
    upstream.always(Answer::json("2"));
    let socket = manager.path();
    let builder = Gateway::with(&openai(&upstream)).program(installed.path());
    let mut gateway = builder
        .env("NOTIFY_SOCKET", socket.to_str().unwrap())
        .start()
        .await;
    manager.told("READY=1", 1).await;
    let answer = upgrade(&gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pid = answer.json()["pid"].as_u64().unwrap();
    assert_ne!(pid, u64::from(gateway.pid()));
    manager.told(&format!("MAINPID={pid}"), 1).await;
    manager.told("READY=1", 2).await;
    assert!(gateway.exited().await.success());
    assert!(
        !manager.lines().contains(&"STOPPING=1".to_owned()),
        "the unit goes on"
    );
    assert_eq!(gateway.ask(Request::get("/readyz")).await.status, 200);
    assert_eq!(Request::post(CHAT, "{}").send(&gateway).await.text(), "1");
    // And again, by the command, from the new process.
    let conf = gateway.conf();
    let output = run(&["upgrade", "--conf", conf.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("upgraded: process "),
        "{output:?}"
    );
    assert_eq!(Request::post(CHAT, "{}").send(&gateway).await.text(), "2");
}

#[tokio::test]
async fn a_stream_outlives_the_upgrade_in_the_old_process() {
    let (upstream, _installed, mut gateway) = serving().await;
    let gate = Gate::new();
    upstream.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: 2\n\n"),
    );
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    assert_eq!(upgrade(&gateway).await.status, 200);
    gateway.logged("handing over: ").await;
    assert_eq!(
        Request::post(CHAT, "{}").send(&gateway).await.text(),
        "\"hello\""
    );
    gate.open();
    let rest = stream.finish().await;
    assert_eq!(
        (rest.text().trim(), rest.ending),
        ("data: 2", Ending::Whole)
    );
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn an_upgrade_applies_what_a_reload_cannot() {
    let (_upstream, _installed, mut gateway) = serving().await;
    let (more, conf) = (Port::reserve(), gateway.conf());
    let public = gateway.public().to_string();
    let text = std::fs::read_to_string(&conf).unwrap();
    let new = format!("\"{public}\", \"127.0.0.1:{}\"", more.number());
    std::fs::write(&conf, text.replacen(&format!("\"{public}\""), &new, 1)).unwrap();
    let reload = gateway.ask(Request::new("POST", "/-/reload")).await;
    assert_eq!(reload.json()["restart_required"], json!(["server.listen"]));
    assert_eq!(upgrade(&gateway).await.status, 200);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], more.number()));
    for address in [gateway.public(), address] {
        assert_eq!(
            Request::post(CHAT, "{}").send(address).await.text(),
            "\"hello\""
        );
    }
    assert!(gateway.exited().await.success());
    // Away with it again: nobody listens there any more.
    std::fs::write(&conf, text).unwrap();
    assert_eq!(upgrade(&gateway).await.status, 200);
    gateway.logged("not claimed by any service").await;
    assert_eq!(
        Request::post(CHAT, "{}").send(&gateway).await.text(),
        "\"hello\""
    );
}

#[tokio::test]
async fn a_binary_that_crashes_costs_nothing() {
    let (_upstream, installed, gateway) = serving().await;
    installed.replace_by("exit 3");
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"].as_str().unwrap().contains("exit status: 3"),
        "{body}"
    );
    installed.replace_by("kill -SEGV $$");
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"].as_str().unwrap().contains("signal: 11"),
        "{body}"
    );
    installed.replace_by("echo validated >&0; exit 4");
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"].as_str().unwrap().contains("exit status: 4"),
        "{body}"
    );
    installed.restore();
    assert_eq!(upgrade(&gateway).await.status, 200);
}

#[tokio::test]
async fn a_binary_that_is_none_costs_nothing() {
    let (_upstream, installed, gateway) = serving().await;
    std::fs::remove_file(installed.path()).unwrap();
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"].as_str().unwrap().contains("cannot start"),
        "{body}"
    );
    installed.replace_by("echo 'SSH-2.0' >&0; exec sleep 1000");
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"]
            .as_str()
            .unwrap()
            .contains("does not understand"),
        "{body}"
    );
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_every_mistake() {
    let (_upstream, _installed, gateway) = serving().await;
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    std::fs::write(gateway.conf(), text.replace("admin:", "adnim:")).unwrap();
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(body["problems"].to_string().contains("adnim"), "{body}");
    let admin = gateway.admin().to_string();
    let output = run(&["upgrade", "--admin", &admin]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("adnim"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_is_refused_after_the_hand_over_began() {
    let (_upstream, _installed, gateway) = serving().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
    let text = std::fs::read_to_string(gateway.conf()).unwrap();
    let public = format!("\"{}\"", gateway.public());
    let both = format!("{public}, \"{}\"", taken.0);
    std::fs::write(gateway.conf(), text.replacen(&public, &both, 1)).unwrap();
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    let expected = format!("cannot listen on {}", taken.0);
    assert!(
        body["reason"].as_str().unwrap().contains(&expected),
        "{body}"
    );
    std::fs::write(gateway.conf(), text).unwrap();
    assert_eq!(upgrade(&gateway).await.status, 200);
}

#[tokio::test]
async fn only_one_upgrade_happens_at_a_time() {
    let (_upstream, installed, gateway) = serving().await;
    installed.replace_by("sleep 1; exit 0");
    let (one, other) = tokio::join!(upgrade(&gateway), upgrade(&gateway));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [409, 500], "{} {}", one.text(), other.text());
}

#[tokio::test]
async fn an_upgrade_socket_that_others_can_reach_is_refused() {
    let (_upstream, _installed, gateway) = serving().await;
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(gateway.directory(), open).unwrap();
    let body = kept(&gateway, &upgrade(&gateway).await).await;
    assert!(
        body["reason"]
            .as_str()
            .unwrap()
            .contains("server.upgrade_socket"),
        "{body}"
    );
}
