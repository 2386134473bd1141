//! What a process that is up says to the person who started it.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::resolve::{MOCK, Settings};
use crate::config::schema::Config;

/// Where it listens and, if the built-in mock provider is configured, a request to try.
pub fn greeting(config: &Config, settings: &Settings) -> String {
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let mut text = String::new();
    for address in &settings.listen {
        let _ = writeln!(text, "tollgate listens on {scheme}://{address}");
    }
    let _ = writeln!(
        text,
        "  for operators: http://{}/healthz, /readyz, /metrics",
        settings.admin_listen
    );
    let first = config
        .accounts
        .iter()
        .find_map(|(account, it)| Some((account, it.gateways.keys().next()?)));
    let (Some((account, gateway)), Some(address)) = (first, settings.listen.first()) else {
        return text;
    };
    if config.providers.contains_key(MOCK) {
        let host = reachable(*address);
        let url = format!("{scheme}://{host}/v1/{account}/{gateway}/mock/chat/completions");
        let insecure = if settings.tls.is_some() {
            " --insecure"
        } else {
            ""
        };
        let _ = writeln!(text, "\nTry it, whole and streamed:\n");
        for (flags, stream) in [("-s", ""), ("-sN", r#""stream":true,"#)] {
            let body = format!(
                r#"{{"model":"mock",{stream}"messages":[{{"role":"user","content":"Hello"}}]}}"#
            );
            let _ = writeln!(
                text,
                "  curl {flags}{insecure} {url} -H 'Content-Type: application/json' -d '{body}'"
            );
        }
        text.push('\n');
    }
    text
}

/// An address to connect to: a listener on all interfaces is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn greet(listen: &str, yaml: &str) -> String {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let mut settings = crate::config::resolve::resolve(&config, ([127, 0, 0, 1], 1).into())
            .unwrap()
            .settings;
        settings.listen = vec![listen.parse().unwrap()];
        greeting(&config, &settings)
    }

    #[test]
    fn a_mock_is_offered_at_the_first_gateway_there_is() {
        let yaml = "{providers: {mock: {}}, accounts: {acme: {gateways: {main: {}}}}}";
        let text = greet("0.0.0.0:8787", yaml);
        assert!(text.contains("listens on http://0.0.0.0:8787\n"), "{text}");
        assert!(
            text.contains("curl -s http://127.0.0.1:8787/v1/acme/main/mock/chat/completions "),
            "{text}"
        );
        assert!(text.contains("\"stream\":true"), "{text}");
    }

    #[test]
    fn without_a_mock_nothing_is_offered() {
        assert!(!greet("127.0.0.1:1", "accounts: {a: {gateways: {g: {}}}}").contains("curl"));
        assert!(
            !greet("127.0.0.1:1", "{providers: {mock: {}}, accounts: {a: {}}}").contains("curl")
        );
    }
}
