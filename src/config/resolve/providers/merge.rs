//! What a deployment says of a provider, over what the catalogue says.

use crate::config::schema;

/// `change` over `entry`: every field that is given replaces the catalogue's.
pub fn merge(entry: schema::Provider, change: schema::Provider) -> schema::Provider {
    let schema::Provider {
        base_url,
        format,
        allow_insecure,
        connect_to,
        token_connect_to,
        headers,
        auth,
        keys,
        timeouts,
        in_flight,
        tls,
        http,
        version,
        paths,
        aliases,
        realtime,
        target_header,
        answer_headers,
        prices,
        probe,
    } = change;
    let own_paths = !paths.is_empty();
    let moved = base_url.is_some();
    let mut rules = if own_paths { paths } else { entry.paths };
    if base_url.is_some() && !own_paths {
        // A deployment's base URL stands for all of the provider's.
        rules.iter_mut().for_each(|rule| rule.base_url = None);
    }
    schema::Provider {
        base_url: base_url.or(entry.base_url),
        format: format.or(entry.format),
        allow_insecure: allow_insecure.or(entry.allow_insecure),
        connect_to: connect_to.or(entry.connect_to),
        token_connect_to: token_connect_to.or(entry.token_connect_to),
        headers: entry.headers.into_iter().chain(headers).collect(),
        auth: auth.or(entry.auth),
        keys,
        timeouts: schema::Timeouts {
            connect: timeouts.connect.or(entry.timeouts.connect),
            first_byte: timeouts.first_byte.or(entry.timeouts.first_byte),
            idle: timeouts.idle.or(entry.timeouts.idle),
            total: timeouts.total.or(entry.timeouts.total),
        },
        in_flight: in_flight.or(entry.in_flight),
        tls: schema::ProviderTls {
            ca: tls.ca.or(entry.tls.ca),
        },
        http: http.or(entry.http),
        version: version.or(entry.version),
        paths: rules,
        aliases: if aliases.is_empty() {
            entry.aliases
        } else {
            aliases
        },
        realtime: realtime.or(entry.realtime),
        // Another URL of the provider's own would go past a deployment's base URL.
        target_header: target_header.or(entry.target_header.filter(|_| !moved)),
        answer_headers: if answer_headers.is_empty() {
            entry.answer_headers
        } else {
            answer_headers
        },
        prices: prices.or(entry.prices),
        probe: probe.or(entry.probe),
    }
}
