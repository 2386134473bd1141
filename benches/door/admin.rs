//! The admin listener of a gateway under test: what its metrics and budgets say, and the API key
//! that a governed load brings.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What is of the one gateway.
const MANAGED: &str = "/client/v4/accounts/default/ai-gateway/gateways/default";
/// Needs only a name: what is not said of it is not limited.
const DEFINITION: &str = r#"{"name":"bench"}"#;

/// The text of its metrics now.
pub fn metrics(address: SocketAddr) -> std::io::Result<String> {
    ask(address, "GET /metrics", "", "")
}

/// Adds up a metric over all its labels; 0 when there is none of that name.
pub fn sum(metrics: &str, name: &str) -> f64 {
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then_some(())?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    metrics.lines().filter_map(of_name).sum()
}

/// US dollars spent by now in all budgets of the one gateway. Its metrics do not show the budgets
/// of users.
pub fn spent(address: SocketAddr) -> std::io::Result<f64> {
    let answer = ask(address, &format!("GET {MANAGED}/budgets"), "", "")?;
    Ok(spent_in(&answer))
}

fn spent_in(answer: &str) -> f64 {
    let budgets = answer.split(r#""spent":"#).skip(1);
    let number = |budget: &str| budget.split([',', '}']).next()?.trim().parse::<f64>().ok();
    budgets.filter_map(number).sum()
}

/// Makes an API key at a gateway that has none, with the set-up token of its `data_dir`.
pub fn make_key(address: SocketAddr, data_dir: &Path) -> Outcome<String> {
    let file = data_dir.join("setup-token");
    let token = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let headers = format!(
        "Authorization: Bearer {}\r\nContent-Type: application/json\r\n",
        token.trim()
    );
    let answer = ask(
        address,
        &format!("POST {MANAGED}/keys"),
        &headers,
        DEFINITION,
    );
    let answer = answer.map_err(|e| format!("making an API key: {e}"))?;
    let key = key_in(&answer).ok_or_else(|| format!("no API key was made: {answer}"))?;
    Ok(key.to_owned())
}

fn key_in(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once(r#""key":""#)?;
    Some(rest.split_once('"')?.0)
}

fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_added_up_over_its_labels() {
        let metrics = "# TYPE spent_usd gauge\n\
            spent_usd{rule=\"a\",partition=\"user=ann\"} 1.5\n\
            spent_usd{rule=\"b\",partition=\"\"} 2\n\
            spent_usd_total 8\n\
            reserved_usd 16\n";
        assert_eq!(sum(metrics, "spent_usd"), 3.5);
        assert_eq!(sum(metrics, "reserved_usd"), 16.0);
        assert_eq!(sum(metrics, "limit_usd"), 0.0);
    }

    #[test]
    fn what_is_spent_is_added_up_over_budgets() {
        let answer = r#"{"result":[{"remaining":1.5,"spent":1.2e-5,"window":"1d"},{"spent":2.0}]}"#;
        assert_eq!(spent_in(answer), 2.000012);
        assert_eq!(spent_in(r#"{"result":[]}"#), 0.0);
    }

    #[test]
    fn the_key_is_found_in_the_answer() {
        let made = "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"id\":\"1\",\"key\":\"tg-1-x\"}}";
        assert_eq!(key_in(made), Some("tg-1-x"));
        assert_eq!(key_in("HTTP/1.1 401 Unauthorized\r\n\r\n{}"), None);
    }
}
