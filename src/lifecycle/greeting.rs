//! What a process that is up says to the person who started it.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::resolve::Settings;
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
    if config.providers.contains_key("mock") {
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
