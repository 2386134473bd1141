//! The table of the README, row by row, against providers that really do it: how often the
//! same target is tried, whether the next one is, and that all of the body goes out each time.

use crate::support::conf::entry;
use crate::support::tls::Authority;
use crate::support::{Answer, Digest, Gateway, Protocol, Reply, Request, Upstream, body, ports};

const PATH: &str = "/v1/default/default/compat/chat/completions";

/// What follows, as the manual says it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Follows {
    Pass,
    Retry,
    Next,
}

impl Follows {
    /// Attempts at the failing target, which may be tried twice, and at the next one.
    fn attempts(self) -> (usize, usize) {
        match self {
            Self::Pass => (1, 0),
            Self::Retry => (2, 1),
            Self::Next => (1, 1),
        }
    }
}

/// A row of the table.
struct Row {
    what: String,
    name: String,
    follows: Follows,
}

fn table() -> Vec<Row> {
    let lines = include_str!("../../README.md").lines();
    // No other table there has five columns.
    let rows = lines.filter(|line| line.split(" | ").count() == 5 && line.contains(" | `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        Row {
            what: cells[0].to_owned(),
            name: cells[1].trim_matches('`').to_owned(),
            follows: match cells[2] {
                "pass" => Follows::Pass,
                "retry" => Follows::Retry,
                "next" => Follows::Next,
                other => panic!("{other}"),
            },
        }
    })
    .collect()
}

/// The row that a status is in.
fn row_of(rows: &[Row], status: u16) -> &Row {
    let names = |row: &&Row| {
        row.what.split(", ").any(|part| {
            let (from, to) = part.split_once('–').unwrap_or((part, part));
            let range = from.parse().ok().zip(to.parse().ok());
            range.is_some_and(|(from, to): (u16, u16)| (from..=to).contains(&status))
        })
    };
    let class = format!("{}xx", status / 100);
    let others = |row: &&Row| row.what.split([' ', ',']).any(|word| word == class);
    rows.iter()
        .find(names)
        .or_else(|| rows.iter().find(others))
        .unwrap()
}

/// A gateway whose route tries `custom-a` twice and then `custom-b`.
async fn gateway(a: &str, b: &Upstream, version: &str) -> Gateway {
    let yaml = format!(
        "providers:\n{a}{}accounts: {{ default: {{ gateways: {{ default: {{ \
         health: {{ failures: 1000000 }}, routes: {{ r: {{ targets: [ \
         {{ provider: custom-a, model: ma, first_byte: 200ms, retry: {{ max_attempts: 2, delay: 0s }} }}, \
         {{ provider: custom-b, model: mb }} ] }} }} }} }} }} }}\n",
        entry(b, "custom-b", "", &format!("auth: none, {version}")),
    );
    Gateway::start(&yaml).await
}

fn ask(content: &[u8], number: usize) -> Request {
    Request::post(PATH, content)
        .header("tollgate-trace", "1")
        .over([Protocol::H1, Protocol::H2][number % 2])
}

/// What both targets are to be sent.
fn digests(content: &[u8]) -> (Digest, Digest) {
    let text = std::str::from_utf8(content).unwrap();
    let of = |model: &str| Digest::of(text.replacen("dynamic/r", model, 1).as_bytes());
    (of("ma"), of("mb"))
}

#[tokio::test]
async fn every_status_is_what_the_table_says_over_both_versions() {
    let rows = table();
    for h2 in [false, true] {
        let (a, b, version) = match h2 {
            true => (Upstream::h2c().await, Upstream::h2c().await, "http: h2"),
            false => (Upstream::h1().await, Upstream::h1().await, "http: h1"),
        };
        b.always(Answer::json(r#"{"from":"b"}"#));
        let at_a = entry(&a, "custom-a", "", &format!("auth: none, {version}"));
        let gateway = gateway(&at_a, &b, version).await;
        let statuses = [200, 204, 301, 304].into_iter().chain(400..600);
        for (number, status) in statuses.enumerate() {
            // Most of them small: it is the same for all.
            let size = match number % 40 {
                0 => 5 << 20,
                7 | 21 => (64 << 10) + 1,
                _ => 1 << 10,
            };
            let content = body::json_of_size("dynamic/r", size);
            a.always(Answer::new(status).header("x-own", "kept"));
            let (before_a, before_b) = (a.requests().len(), b.requests().len());
            let answer = ask(&content, number).send(&gateway).await;
            let (after_a, after_b) = (a.requests(), b.requests());
            let row = row_of(&rows, status);
            let attempts = (after_a.len() - before_a, after_b.len() - before_b);
            assert_eq!(attempts, row.follows.attempts(), "{status} {version}");
            match row.follows {
                Follows::Pass => {
                    assert_eq!(
                        (answer.status, answer.header("x-own")),
                        (status, Some("kept"))
                    );
                }
                _ => {
                    assert_eq!((answer.status, &*answer.text()), (200, r#"{"from":"b"}"#));
                    let trace = answer.header("tollgate-trace").unwrap();
                    let told = trace.matches(&format!("custom-a/ma:{}:", row.name)).count();
                    assert_eq!(told, attempts.0, "{status}: {trace}");
                }
            }
            let (to_a, to_b) = digests(&content);
            let whole = |request: &crate::support::upstream::Received, to: &Digest| {
                assert_eq!(request.digest.as_ref(), Some(to), "{status} {version}");
            };
            after_a[before_a..]
                .iter()
                .for_each(|request| whole(request, &to_a));
            after_b[before_b..]
                .iter()
                .for_each(|request| whole(request, &to_b));
        }
    }
}

#[tokio::test]
async fn every_failure_without_an_answer_is_what_the_table_says() {
    let rows = table();
    for h2 in [false, true] {
        let (a, b, version) = match h2 {
            true => (Upstream::h2c().await, Upstream::h2c().await, "http: h2"),
            false => (Upstream::h1().await, Upstream::h1().await, "http: h1"),
        };
        b.always(Answer::json(r#"{"from":"b"}"#));
        let refusing = ports::refusing();
        let authority = Authority::new();
        let untrusted = authority.issue(&["127.0.0.1"]).server(&["http/1.1", "h2"]);
        let untrusted = Upstream::tls(untrusted).await;
        let url = |port| {
            format!(
                "  custom-a: {{ base_url: \"http://127.0.0.1:{port}\", allow_insecure: true, auth: none, {version} }}\n"
            )
        };
        let tls = format!(
            "  custom-a: {{ base_url: \"https://127.0.0.1:{}\", auth: none, {version} }}\n",
            untrusted.address().port()
        );
        let plain = entry(&a, "custom-a", "", &format!("auth: none, {version}"));
        let mut faults = vec![
            ("connect", url(refusing.number()), None),
            ("tls", tls, None),
            ("reset", plain.clone(), Some(Reply::Reset)),
            ("reset", plain.clone(), Some(Reply::Close)),
            ("timeout", plain.clone(), Some(Reply::Silence)),
        ];
        if !h2 {
            let garbage = Reply::Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec());
            faults.push(("invalid", plain, Some(garbage)));
        }
        for (number, (name, at_a, reply)) in faults.into_iter().enumerate() {
            let gateway = gateway(&at_a, &b, version).await;
            let row = rows.iter().find(|row| row.name == name).unwrap();
            for (turn, size) in [1 << 10, (64 << 10) + 1, 5 << 20].into_iter().enumerate() {
                let content = body::json_of_size("dynamic/r", size);
                if let Some(reply) = &reply {
                    a.always(reply.clone());
                }
                let (before_a, before_b) = (a.requests().len(), b.requests().len());
                let answer = ask(&content, number + turn).send(&gateway).await;
                assert_eq!(answer.text(), r#"{"from":"b"}"#, "{name} {version}");
                let trace = answer.header("tollgate-trace").unwrap();
                let told = trace.matches(&format!("custom-a/ma:{name}:")).count();
                let (attempts, next) = row.follows.attempts();
                assert_eq!(told, attempts, "{name} {version}: {trace}");
                assert_eq!(b.requests().len() - before_b, next, "{name}");
                let (to_a, to_b) = digests(&content);
                assert_eq!(b.requests().pop().unwrap().digest, Some(to_b), "{name}");
                let seen = a.requests();
                if reply.is_some() {
                    assert_eq!(seen.len() - before_a, attempts, "{name}");
                }
                let whole = seen[before_a..]
                    .iter()
                    .filter_map(|request| request.digest.as_ref());
                whole.for_each(|digest| assert_eq!(*digest, to_a, "{name} {version}"));
            }
        }
    }
}
