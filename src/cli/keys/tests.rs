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
