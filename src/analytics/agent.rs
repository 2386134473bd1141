//! User agents, shortened to what is worth a line in a table: the product, not the machine.

/// Browsers call themselves by each other's names; the first of these is the one that it is.
const BROWSERS: [&str; 5] = ["Edg/", "OPR/", "Firefox/", "Chrome/", "Safari/"];

/// Longest short form, in bytes.
const LONGEST: usize = 64;

/// The product of a user agent: its first word, with the next one where that is a version:
/// `OpenAI/Python 1.2.3`, `curl/8.5.0`. Of browsers, which have all the same first word, the name
/// and the major version: `Chrome/120`. Empty where there is none.
pub fn short(agent: &str) -> &str {
    if agent.starts_with("Mozilla/")
        && let Some(browser) = BROWSERS.iter().find_map(|browser| named(agent, browser))
    {
        return browser;
    }
    let agent = &agent[..printable(agent)];
    let product = word_end(agent, 0);
    let version = product + 1;
    let is_version = agent
        .as_bytes()
        .get(version)
        .is_some_and(u8::is_ascii_digit);
    match word_end(agent, version.min(agent.len())) {
        end if is_version && end <= LONGEST => &agent[..end],
        _ => &agent[..product.min(LONGEST)],
    }
}

/// `Chrome/120` out of `… Chrome/120.0.0.0 …`.
fn named<'a>(agent: &'a str, browser: &str) -> Option<&'a str> {
    let start = agent.find(browser)?;
    let version = start + browser.len();
    let digits = agent.as_bytes()[version..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    Some(&agent[start..version + digits.min(8)])
}

/// How far it is plain text.
fn printable(agent: &str) -> usize {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~');
    agent
        .as_bytes()
        .iter()
        .take_while(|byte| plain(byte))
        .count()
}

/// Where the word that begins at `start` ends.
fn word_end(agent: &str, start: usize) -> usize {
    memchr::memchr(b' ', &agent.as_bytes()[start..]).map_or(agent.len(), |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_named_by_their_product() {
        let long = "x".repeat(300);
        for (agent, shortened) in [
            ("OpenAI/Python 1.2.3", "OpenAI/Python 1.2.3"),
            (
                "AsyncOpenAI/Python 2.9.0 extra/1",
                "AsyncOpenAI/Python 2.9.0",
            ),
            ("python-requests/2.31.0", "python-requests/2.31.0"),
            (
                "ai-sdk/openai/2.0.1 runtime/node.js/22",
                "ai-sdk/openai/2.0.1",
            ),
            ("curl/8.5.0", "curl/8.5.0"),
            ("curl/8.5.0 (x86_64)", "curl/8.5.0"),
            ("Go-http-client/2.0", "Go-http-client/2.0"),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36",
                "Chrome/120",
            ),
            ("Mozilla/5.0 (compatible)", "Mozilla/5.0"),
            ("", ""),
            (" leading", ""),
            ("tool\u{7}bell", "tool"),
            ("wörk/1", "w"),
            (&long, &long[..64]),
            (&format!("a {}", "1".repeat(100)), "a"),
            ("a ", "a"),
        ] {
            assert_eq!(short(agent), shortened, "{agent}");
        }
    }
}
