//! Limits in a few words: `10usd/day`, `100/1m`. Whether times and numbers can be kept is for the
//! running process to say.

use serde_json::{Value, json};

/// `10usd/day`: a spend limit, without its id.
pub fn budget(text: &str) -> Result<Value, String> {
    const RIGHT: &str = "must be such as 10usd/day, 2.50usd/24h or 500usd/month";
    let (money, window) = text.split_once('/').ok_or(RIGHT)?;
    let money = money.trim().to_ascii_lowercase();
    let limit = money.strip_suffix("usd").ok_or(RIGHT)?.trim();
    let is_number = limit.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match is_number && !limit.is_empty() && !window.trim().is_empty() {
        true => Ok(json!({ "limit": limit, "window": window.trim() })),
        false => Err(RIGHT.to_owned()),
    }
}

/// The same limits with ids: by their windows, and by their places where two have the same.
pub fn with_ids(budgets: &[Value]) -> Vec<Value> {
    let window = |budget: &Value| budget["window"].as_str().unwrap_or_default().to_owned();
    let mut seen = Vec::new();
    let with_id = |budget: &Value| {
        let window = window(budget);
        let before = seen.iter().filter(|other| **other == window).count();
        let place = if before > 0 {
            format!("-{}", before + 1)
        } else {
            String::new()
        };
        let id = format!("budget-{}{place}", window.replace(' ', ""));
        seen.push(window);
        let mut budget = budget.clone();
        budget["id"] = id.into();
        budget
    };
    budgets.iter().map(with_id).collect()
}

/// `100/1m`, `200000 tokens/1h`, `5 concurrent`: a rate limit.
pub fn rate(text: &str) -> Result<Value, String> {
    const RIGHT: &str =
        "must be such as 100/1m, '200000 tokens/1h', '50000 output_tokens/1h' or '5 concurrent'";
    let (counted, window) = match text.split_once('/') {
        Some((counted, window)) => (counted, Some(window.trim())),
        None => (text, None),
    };
    let mut words = counted.split_whitespace();
    let limit: i64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(RIGHT)?;
    let count = match words.next() {
        None | Some("requests") => "requests",
        Some("tokens") => "total_tokens",
        Some(known @ ("input_tokens" | "output_tokens" | "total_tokens" | "concurrent")) => known,
        Some(_) => return Err(RIGHT.to_owned()),
    };
    let has_window = window.is_some_and(|window| !window.is_empty());
    if words.next().is_some() || has_window == (count == "concurrent") {
        return Err(RIGHT.to_owned());
    }
    let mut rule = json!({ "limit": limit, "count": count });
    if let Some(window) = window {
        rule["window"] = window.into();
    }
    Ok(rule)
}

/// `team=search`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_money_in_a_time() {
        let day = json!({ "limit": "2.50", "window": "day" });
        for text in ["2.50usd/day", "2.50 USD / day"] {
            assert_eq!(budget(text).unwrap(), day, "{text}");
        }
        for text in [
            "",
            "10",
            "10usd",
            "10/day",
            "usd/day",
            "10usd/",
            "-1usd/day",
            "10eur/day",
        ] {
            assert!(budget(text).is_err(), "{text}");
        }
        let ids: Vec<_> = ["1usd/day", "2usd/24h", "3usd/day"]
            .map(|text| budget(text).unwrap())
            .into();
        let ids: Vec<_> = with_ids(&ids).iter().map(|b| b["id"].to_string()).collect();
        assert_eq!(
            ids,
            [r#""budget-day""#, r#""budget-24h""#, r#""budget-day-2""#]
        );
    }

    #[test]
    fn rates_are_numbers_of_something_in_a_time() {
        for (text, expected) in [
            (
                "100/1m",
                json!({ "limit": 100, "count": "requests", "window": "1m" }),
            ),
            (
                "9 tokens / 1h",
                json!({ "limit": 9, "count": "total_tokens", "window": "1h" }),
            ),
            ("5 concurrent", json!({ "limit": 5, "count": "concurrent" })),
        ] {
            assert_eq!(rate(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "100",
            "/1m",
            "x/1m",
            "5 concurrent/1m",
            "5 cats/1m",
            "5 tokens more/1m",
            "5/",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
