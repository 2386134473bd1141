//! Start, stop and the command line.

use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::conf::{CHAT, openai};
use crate::support::ports::Port;
use crate::support::{Answer, Ending, Gate, Gateway, NotifySocket, Request, Upstream, run};

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

#[tokio::test]
async fn it_says_when_it_is_up_and_when_it_stops() {
    let manager = NotifySocket::new();
    let socket = manager.path();
    let gateway = Gateway::with("")
        .env("NOTIFY_SOCKET", socket.to_str().unwrap())
        .start();
    let mut gateway = gateway.await;
    manager.told("READY=1", 1).await;
    assert!(
        manager
            .lines()
            .contains(&format!("MAINPID={}", gateway.pid()))
    );
    gateway
        .logged(&format!("listens on http://{}", gateway.public()))
        .await;
    assert!(!manager.lines().contains(&"STOPPING=1".to_owned()));
    assert!(gateway.stop().await.success());
    manager.told("STOPPING=1", 1).await;
}

#[tokio::test]
async fn a_stream_may_finish_after_sigterm() {
    let (upstream, gate) = (Upstream::h1().await, Gate::new());
    upstream.script(
        Answer::sse()
            .text("data: 1\n\n")
            .wait(&gate)
            .text("data: 2\n\n"),
    );
    let mut gateway = Gateway::start(&openai(&upstream)).await;
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    gateway.signal(Signal::SIGTERM);
    gateway.logged("draining: ").await;
    assert!(
        tokio::net::TcpStream::connect(gateway.public())
            .await
            .is_err(),
        "it still accepts"
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
async fn an_endless_stream_is_cut_when_the_grace_period_ends() {
    let (upstream, gate) = (Upstream::h1().await, Gate::new());
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&gate));
    let mut gateway = Gateway::with(&openai(&upstream))
        .server("grace_period: 300ms")
        .start()
        .await;
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    assert!(gateway.stop().await.success());
    assert_eq!(stream.finish().await.ending, Ending::Cut);
    gateway
        .logged("time is up: exiting, what is in flight is cut (requests: 1)")
        .await;
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let (upstream, gate) = (Upstream::h1().await, Gate::new());
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&gate));
    let mut gateway = Gateway::with(&openai(&upstream))
        .server("grace_period: 1h")
        .start()
        .await;
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    gateway.signal(Signal::SIGTERM);
    gateway.logged("draining").await;
    assert!(gateway.stop().await.success());
    gateway.logged("told to stop again").await;
}

#[tokio::test]
async fn sigint_ends_it_at_once() {
    let (upstream, gate) = (Upstream::h1().await, Gate::new());
    upstream.script(Answer::sse().text("data: 1\n\n").wait(&gate));
    let mut gateway = Gateway::with(&openai(&upstream))
        .server("grace_period: 1h")
        .start()
        .await;
    let mut stream = Request::post(CHAT, "{}").open(&gateway).await;
    stream.read_past("data: 1").await;
    gateway.signal(Signal::SIGINT);
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (taken, admin) = (listener.local_addr().unwrap(), Port::reserve());
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("tollgate.yaml");
    let yaml = format!(
        "server: {{ listen: [\"{taken}\"] }}\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         data_dir: {}\naccounts: {{ default: {{ gateways: {{ default: {{}} }} }} }}\n",
        admin.number(),
        directory.path().display(),
    );
    std::fs::write(&conf, yaml).unwrap();
    let output = run(&["--conf", conf.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let expected = format!("tollgate: cannot listen on {taken}: Address already in use");
    assert!(text(&output).contains(&expected), "{}", text(&output));
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
}

#[tokio::test]
async fn a_missing_configuration_is_named() {
    let output = run(&["--conf", "/nowhere/tollgate.yaml"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("cannot read `/nowhere/tollgate.yaml`"),
        "{}",
        text(&output)
    );
}

#[tokio::test]
async fn help_and_version_are_told() {
    let help = text(&run(&["--help"]).await);
    for word in ["serve", "check", "reload", "upgrade", "--conf", "Examples:"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert!(!text(&run(&["serve", "--help"]).await).contains("takeover"));
    assert_eq!(
        text(&run(&["--version"]).await).trim(),
        concat!("tollgate ", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn asking_a_process_that_is_not_there_fails() {
    let port = Port::reserve();
    let admin = format!("127.0.0.1:{}", port.number());
    for command in ["reload", "upgrade"] {
        let output = run(&[command, "--admin", &admin]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output).contains(&format!("no running process answers at {admin}")),
            "{}",
            text(&output)
        );
    }
}

#[tokio::test]
async fn the_demo_request_is_printed_and_works() {
    let gateway = Gateway::start("providers: { mock: {} }\n").await;
    let log = gateway.logged("\"stream\":true").await;
    let lines: Vec<_> = log
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    for line in lines {
        let curl = tokio::process::Command::new("sh")
            .args(["-c", line])
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), curl)
            .await
            .unwrap()
            .unwrap();
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{line}: {output:?}"
        );
    }
}
