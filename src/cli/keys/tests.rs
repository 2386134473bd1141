use clap::Parser;

use super::*;
use crate::keys::definition;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    create: Create,
}

fn said(options: &[&str]) -> Value {
    let line = Line::try_parse_from([&["create"], options].concat()).unwrap();
    let definition = super::definition(&line.create);
    definition.unwrap_or_else(|_| panic!("{options:?}"))
}

#[test]
fn options_say_what_the_api_wants() {
    let said = said(&[
        "--name=app",
        "--owner=search",
        "--gateway=a",
        "--gateway=b-*",
        "--expires=30d",
        "--model=gpt-4o*",
        "--provider=openai",
        "--address=10.0.0.0/8",
        "--max-tokens=100",
        "--budget=10usd/day",
        "--rate=100/1m",
        "--rate=5 concurrent",
        "--metadata=team=a=b",
    ]);
    assert_eq!(
        said,
        json!({
            "name": "app", "owner": "search", "account": "default", "gateways": ["a", "b-*"],
            "expires_in": "30d", "metadata": { "team": "a=b" },
            "access": {
                "models": { "allow": ["gpt-4o*"] }, "providers": { "allow": ["openai"] },
                "addresses": { "allow": ["10.0.0.0/8"] }, "max_tokens": 100,
            },
            "spend_limits": [{ "id": "budget-day", "limit": "10", "window": "day" }],
            "rate_limits": [
                { "limit": 100, "window": "1m", "count": "requests" },
                { "limit": 5, "count": "concurrent" },
            ],
        })
    );
    assert!(definition::read(&said, 0).is_ok());
}

#[test]
fn options_go_before_the_file_and_leave_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.yaml");
    let yaml = "name: app\naccount: other\naccess: { models: { allow: [m], deny: [n] } }\n";
    std::fs::write(&file, yaml).unwrap();
    let from = format!("--from={}", file.display());
    let both = said(&[&from, "--model=o", "--expires=2027-01-31"]);
    assert_eq!(
        both,
        json!({
            "name": "app", "account": "other", "expires_at": "2027-01-31",
            "access": { "models": { "allow": ["o"], "deny": ["n"] } },
        })
    );
    let everywhere = said(&[&from, "--all-accounts"]);
    assert!(everywhere.get("account").is_none());
}

/// A file that says nothing of accounts is no more than options that do not.
#[test]
fn a_key_is_for_all_accounts_only_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.yaml");
    let from = format!("--from={}", file.display());
    for (text, option, expected) in [
        ("name: app", None, Some(json!("default"))),
        (r#"{ "name": "app" }"#, None, Some(json!("default"))),
        ("name: app", Some("--account=other"), Some(json!("other"))),
        ("name: app", Some("--all-accounts"), None),
        ("{ name: app, account: null }", None, Some(Value::Null)),
        ("name: app\naccount:", None, Some(Value::Null)),
        (
            r#"{ "name": "app", "account": null }"#,
            None,
            Some(Value::Null),
        ),
        (
            "{ name: app, account: null }",
            Some("--account=other"),
            Some(json!("other")),
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let options: Vec<_> = std::iter::once(&*from).chain(option).collect();
        let said = said(&options);
        assert_eq!(said.get("account"), expected.as_ref(), "{text} {option:?}");
        let account = definition::read(&said, 0).unwrap().account;
        let expected = expected.as_ref().and_then(Value::as_str);
        assert_eq!(account.as_deref(), expected, "{text} {option:?}");
    }
}

#[test]
fn a_line_steers_no_terminal() {
    let key = json!({
        "id": "0123456789ab", "status": "active", "name": "a\u{1b}[2J", "gateways": ["*"],
        "created_at": "2026-11-28T06:30:00.123Z",
    });
    let line = line(&key);
    assert!(line.starts_with("0123456789ab  active  a") && !line.contains('\u{1b}'));
    assert!(line.contains("owner -  */*"), "{line}");
}

/// A place that takes nothing: at once, or once what it has taken is to leave its buffer.
struct Full {
    when_flushed: bool,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.when_flushed {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn a_key_that_could_not_be_written_is_told() {
    let key = json!({ "id": "0123456789ab", "key": "tg-0123456789ab-secret" });
    let text = key["key"].as_str().unwrap();
    for when_flushed in [false, true] {
        let lost = written_once(&mut Full { when_flushed }, &key, "is made", text);
        let Err(Problem::Lost(why)) = lost else {
            panic!("taken for written")
        };
        assert!(why.starts_with("the key 0123456789ab is made, but it could not be written: "));
        assert!(why.ends_with("tollgate keys rotate 0123456789ab"), "{why}");
        assert!(!why.contains(text), "{why}");
    }
    let mut written = Vec::new();
    let done = written_once(&mut written, &key, "is made", text);
    assert!(done.is_ok() && written == format!("{text}\n").into_bytes());
}
