//! Providers: the catalogue, a deployment's overrides, and what becomes of both.

mod merge;
mod probe;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use http::header::{HeaderName, HeaderValue};
use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::WrappedX509;
use pingora_rustls::CertificateDer;

use super::{Problems, keys, routing};
use crate::config::schema::{self, Auth, Format};
use crate::config::secret::Secret;
use crate::credential::KeyPlaces;
use crate::pricing::Catalogue;
use crate::provider::join::Version;
use crate::provider::template::{Pattern, Template};
use crate::provider::{Address, Base, Connection, Keyring, Provider, Realtime, Rule, TargetHeader};
use crate::provider_keys::{Kept, KeptKey};

/// The catalogue that is compiled in.
const CATALOGUE: &str = include_str!("../../../conf/providers.yaml");

/// Prefix of the slugs of providers that a deployment brings itself.
const CUSTOM: &str = "custom-";

/// The slug of the built-in mock provider.
pub const MOCK: &str = "mock";

/// Every provider by slug and alias.
pub(super) fn resolve(
    overrides: &BTreeMap<String, schema::Provider>,
    mock: SocketAddr,
    kept: &Kept,
    problems: &mut Problems,
) -> AHashMap<Box<str>, Arc<Provider>> {
    let mut catalogue = catalogue(problems);
    match overrides.contains_key(MOCK) {
        true => point_mock_at(&mut catalogue, mock),
        // Off unless configured.
        false => drop(catalogue.remove(MOCK)),
    }
    let mut merged = catalogue.clone();
    for (slug, change) in overrides {
        match catalogue.get(slug) {
            Some(entry) => {
                drop(merged.insert(slug.clone(), merge::merge(entry.clone(), change.clone())))
            }
            None if is_custom(slug) => drop(merged.insert(slug.clone(), change.clone())),
            None => unknown(slug, &catalogue, problems),
        }
    }
    let mut providers = AHashMap::new();
    for (slug, entry) in &merged {
        let aliases = entry.aliases.clone();
        let path = format!("providers.{slug}");
        let kept = keys::of_provider(kept.of(""), slug);
        let mut builder = Builder {
            path,
            kept,
            problems,
        };
        let provider = Arc::new(builder.provider(slug, entry.clone()));
        for alias in aliases {
            providers
                .entry(alias.as_str().into())
                .or_insert_with(|| Arc::clone(&provider));
        }
        providers.insert(slug.as_str().into(), provider);
    }
    providers
}

/// The catalogue, before a deployment changes it.
#[cfg(test)]
pub(crate) fn built_in() -> BTreeMap<String, schema::Provider> {
    catalogue(&mut Problems::default())
}

fn catalogue(problems: &mut Problems) -> BTreeMap<String, schema::Provider> {
    match crate::config::load::parse_as(CATALOGUE, &|_| None) {
        Ok(catalogue) => catalogue,
        Err(found) => {
            problems.0.extend(found);
            BTreeMap::new()
        }
    }
}

fn point_mock_at(catalogue: &mut BTreeMap<String, schema::Provider>, mock: SocketAddr) {
    if let Some(entry) = catalogue.get_mut(MOCK) {
        entry.base_url = Some(format!("http://{mock}"));
        entry.allow_insecure = Some(true);
    }
}

fn is_custom(slug: &str) -> bool {
    let name = slug.strip_prefix(CUSTOM).unwrap_or("");
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn unknown(slug: &str, catalogue: &BTreeMap<String, schema::Provider>, problems: &mut Problems) {
    let hint = hint(slug, catalogue.keys().map(String::as_str));
    problems.add(
        format!("providers.{slug}"),
        format!("no such provider; {hint}A provider of your own is called `custom-<slug>`"),
    );
}

/// Which of `known` was probably meant by `slug`: a sentence and a space, or nothing.
pub(super) fn hint<'a>(slug: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known
        .map(|known| (strsim::jaro_winkler(slug, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((closeness, known)) if closeness > 0.8 => format!("did you mean `{known}`? "),
        _ => String::new(),
    }
}

/// Resolves one provider, reporting problems under its path.
struct Builder<'a> {
    path: String,
    /// Its keys that the deployment keeps.
    kept: Vec<&'a KeptKey>,
    problems: &'a mut Problems,
}

impl Builder<'_> {
    fn provider(&mut self, slug: &str, entry: schema::Provider) -> Provider {
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
            aliases: _,
            realtime,
            target_header,
            answer_headers,
            prices,
            probe,
        } = entry;
        let insecure = allow_insecure.unwrap_or(false);
        let auth = auth.unwrap_or(Auth::Bearer);
        let address = self.address(
            base_url.as_deref(),
            insecure,
            version.as_deref(),
            &paths,
            &keys,
        );
        let probe = probe.and_then(|probe| self.probe(&probe, &address));
        let fingerprint = fingerprint(connect_to.as_deref(), &headers);
        Provider {
            fingerprint,
            slug: slug.into(),
            name: HeaderValue::from_str(slug).unwrap_or_else(|_| HeaderValue::from_static("")),
            format: format.unwrap_or(if slug.starts_with(CUSTOM) {
                Format::OpenaiChat
            } else {
                Format::Opaque
            }),
            keyring: Arc::new(self.keyring(auth, &keys)),
            headers: self.headers(&headers),
            connection: self.connection(
                connect_to.as_deref(),
                token_connect_to.as_deref(),
                &timeouts,
                &tls,
                http.unwrap_or_default(),
            ),
            address,
            in_flight: super::in_flight::cap(&self.at("in_flight"), in_flight, self.problems),
            realtime: realtime.map(|realtime| Realtime {
                path: realtime.path.as_str().into(),
                rename_query: realtime
                    .rename_query
                    .iter()
                    .map(|(old, new)| (old.as_str().into(), new.as_str().into()))
                    .collect(),
                subprotocol_key: realtime.subprotocol_key.as_deref().map(Into::into),
            }),
            target_header: target_header.and_then(|header| self.target_header(&header)),
            answer_headers: self.answer_headers(&answer_headers),
            prices: prices.and_then(|id| self.price_list(&id)),
            probe,
        }
    }

    fn price_list(&mut self, id: &str) -> Option<Box<str>> {
        let known = Catalogue::bundled().has_provider(id);
        let rule = format!(
            "the price list has no provider `{id}`; its ids are those of genai-prices, such as openai"
        );
        self.ok("prices", known.then(|| id.into()).ok_or(rule))
    }

    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }

    fn ok<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        let path = self.at(field);
        self.problems.ok(&path, result)
    }

    fn keyring(&mut self, auth: Auth, keys: &[schema::Key]) -> Keyring {
        let places = KeyPlaces::new(&auth);
        let places = self.ok("auth", places).unwrap_or_default();
        let mut keys = keys::read(&self.at("keys"), "", &auth, keys, self.problems);
        keys::overlay(&mut keys, &self.kept, &auth);
        Keyring::new(auth, places, keys)
    }

    fn headers(&mut self, headers: &BTreeMap<String, Secret>) -> Vec<(HeaderName, HeaderValue)> {
        let mut resolved = Vec::new();
        for (name, secret) in headers {
            let field = format!("headers.{name}");
            let header = secret.read().and_then(|value| {
                let name: HeaderName = name
                    .parse()
                    .map_err(|_| "is not a header name".to_owned())?;
                if matches!(
                    name.as_str(),
                    "host" | "content-length" | "transfer-encoding" | "connection" | "upgrade"
                ) {
                    return Err(
                        "this header belongs to the connection and cannot be set".to_owned()
                    );
                }
                let mut value = HeaderValue::from_str(value.expose())
                    .map_err(|_| "the value is not a header value".to_owned())?;
                value.set_sensitive(true);
                Ok((name, value))
            });
            resolved.extend(self.ok(&field, header));
        }
        resolved
    }

    fn answer_headers(&mut self, names: &[String]) -> Vec<HeaderName> {
        let mut resolved = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let parsed = name
                .parse()
                .map_err(|_| format!("`{name}` is not a header name"));
            resolved.extend(self.ok(&format!("answer_headers[{index}]"), parsed));
        }
        resolved
    }

    fn connection(
        &mut self,
        connect_to: Option<&str>,
        token_connect_to: Option<&str>,
        timeouts: &schema::Timeouts,
        tls: &schema::ProviderTls,
        http: schema::HttpVersion,
    ) -> Connection {
        let schema::ProviderTls { ca } = tls;
        let mut place =
            |field, text: Option<&str>| text.and_then(|text| self.ok(field, host_and_port(text)));
        let connect_to = place("connect_to", connect_to);
        let token_connect_to = place("token_connect_to", token_connect_to);
        let timeouts = routing::timeouts(&self.at("timeouts"), timeouts, self.problems);
        let authorities = ca.as_deref().and_then(|file| {
            let loaded = authorities(file);
            self.ok("tls.ca", loaded)
        });
        let group = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((
            &connect_to,
            ca_bytes(authorities.as_ref()),
            http as u8,
        ));
        Connection {
            connect_to,
            token_connect_to,
            timeouts,
            ca: authorities,
            http,
            group,
        }
    }

    fn address(
        &mut self,
        base_url: Option<&str>,
        insecure: bool,
        version: Option<&str>,
        paths: &[schema::PathRule],
        keys: &[schema::Key],
    ) -> Address {
        let base = base_url.and_then(|url| {
            let base = Base::parse(url, insecure);
            self.ok("base_url", base)
        });
        if base_url.is_none() && paths.iter().all(|rule| rule.base_url.is_none()) {
            let path = self.at("base_url");
            self.problems
                .add(path, "is missing: where do requests to this provider go?");
        }
        let version = match version {
            None => Version::AsSent,
            Some("") => Version::Drop,
            Some(version) => Version::Insert(version.into()),
        };
        let rules = paths
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| self.rule(index, rule, base.as_ref(), insecure, keys))
            .collect();
        Address {
            base,
            rules,
            version,
        }
    }

    fn rule(
        &mut self,
        index: usize,
        rule: &schema::PathRule,
        base: Option<&Base>,
        insecure: bool,
        keys: &[schema::Key],
    ) -> Option<Rule> {
        let schema::PathRule {
            pattern,
            base_url,
            path,
            wheres,
            auth,
        } = rule;
        let keyring = auth.clone().map(|auth| Arc::new(self.keyring(auth, keys)));
        let field = format!("paths[{index}]");
        let built = (|| {
            let pattern = Pattern::parse(pattern)?;
            let own = base_url
                .as_deref()
                .map(|url| Base::parse(url, insecure))
                .transpose()?;
            let path = Template::parse(path)?;
            let base = own.as_ref().or(base).ok_or("has no base URL")?;
            let given =
                |name: &str| name == "account" || pattern.captures().any(|known| known == name);
            if let Some(name) = base
                .captures()
                .chain(path.captures())
                .chain(wheres.keys().map(String::as_str))
                .find(|name| !given(name))
            {
                return Err(format!("`{{{name}}}` is not captured by `match`"));
            }
            if let Some(name) = base
                .host_captures()
                .find(|name| !wheres.contains_key(*name))
            {
                return Err(format!(
                    "`{{{name}}}` enters a host name and needs a shape under `where`"
                ));
            }
            let shapes = wheres
                .iter()
                .map(|(name, shape)| (name.as_str().into(), *shape))
                .collect();
            Ok(Rule {
                pattern,
                base: own,
                path,
                shapes,
                keyring,
            })
        })();
        self.ok(&field, built)
    }

    fn target_header(&mut self, header: &schema::TargetHeader) -> Option<TargetHeader> {
        let schema::TargetHeader { name, domains } = header;
        let parsed = name
            .parse()
            .map_err(|_| format!("`{name}` is not a header name"));
        let name = self.ok("target_header.name", parsed)?;
        Some(TargetHeader {
            name,
            domains: domains
                .iter()
                .map(|domain| domain.as_str().into())
                .collect(),
        })
    }
}

/// What a deployment changes on every request: another organisation, another deployment behind
/// the same name.
fn fingerprint(connect_to: Option<&str>, headers: &BTreeMap<String, Secret>) -> Box<str> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(connect_to.unwrap_or_default().as_bytes());
    for (name, value) in headers {
        // A value that cannot be read is reported where it is used.
        let value = value.read().ok();
        let value = value.as_ref().map_or("", |value| value.expose());
        for part in [name.as_str(), value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..16].into()
}

fn host_and_port(text: &str) -> Result<(Box<str>, u16), String> {
    let wrong = || format!("`{text}` is not host:port, such as 10.0.0.5:443");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.contains(['/', '@', ' ', '[', ']']) {
        return Err(wrong());
    }
    Ok((host.into(), port))
}

pub(super) fn authorities(file: &Path) -> Result<Arc<CaType>, String> {
    use pingora_rustls::CertificateDer as Der;
    let shown = PathBuf::from(file);
    let pem =
        std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", shown.display()))?;
    let mut certificates = Vec::new();
    for der in rustls_certificates(&pem) {
        let der: Der<'static> = der.map_err(|error| {
            format!(
                "{} is not a PEM file of certificates: {error}",
                shown.display()
            )
        })?;
        let raw = der.as_ref().to_vec();
        // The parser that Pingora hands to WrappedX509 panics on what is not a certificate.
        x509_check(&raw).map_err(|error| {
            format!(
                "{} holds something that is not a certificate: {error}",
                shown.display()
            )
        })?;
        certificates.push(WrappedX509::new(raw, pingora_core::utils::tls::parse_x509));
    }
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", shown.display()));
    }
    Ok(certificates.into())
}

fn rustls_certificates(
    pem: &[u8],
) -> impl Iterator<Item = Result<CertificateDer<'static>, String>> + '_ {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem).map(|result| result.map_err(|error| error.to_string()))
}

fn x509_check(der: &[u8]) -> Result<(), String> {
    let mut store = pingora_rustls::RootCertStore::empty();
    store
        .add(CertificateDer::from(der.to_vec()))
        .map_err(|error| error.to_string())
}

fn ca_bytes(authorities: Option<&Arc<CaType>>) -> Vec<u8> {
    authorities
        .iter()
        .flat_map(|list| list.iter())
        .flat_map(|ca| ca.borrow_raw_cert().iter().copied())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::Ask;

    fn catalogued() -> AHashMap<Box<str>, Arc<Provider>> {
        let mut problems = Problems::default();
        let overrides = BTreeMap::from([(MOCK.to_owned(), schema::Provider::default())]);
        let providers = resolve(
            &overrides,
            ([127, 0, 0, 1], 1).into(),
            &Kept::default(),
            &mut problems,
        );
        assert!(problems.0.is_empty(), "{:?}", problems.0);
        providers
    }

    fn url(provider: &Provider, path: &str) -> Option<String> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let ask = Ask {
            account: "acct1",
            path,
            query,
            upgrade: false,
            target_header: None,
        };
        let target = provider.target(&ask).ok()?;
        let scheme = if target.origin.tls { "https" } else { "http" };
        let authority = target.origin.authority.to_str().unwrap().to_owned();
        Some(format!("{scheme}://{authority}{}", target.path_and_query))
    }

    /// `slug <tab> path <tab> URL`, `-` for a path that is refused.
    #[test]
    fn every_catalogued_path_leads_where_the_provider_serves_it() {
        let providers = catalogued();
        let table = include_str!("../../../tests/golden/provider-urls.tsv");
        let rows = table
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for row in rows {
            let [slug, path, expected] = row.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not three columns: {row}")
            };
            let provider = providers
                .get(slug)
                .unwrap_or_else(|| panic!("no provider {slug}"));
            let found = url(provider, path);
            assert_eq!(found.as_deref().unwrap_or("-"), expected, "{slug} {path}");
        }
    }

    #[test]
    fn the_mock_is_off_unless_configured() {
        let mut problems = Problems::default();
        let providers = resolve(
            &BTreeMap::new(),
            ([127, 0, 0, 1], 1).into(),
            &Kept::default(),
            &mut problems,
        );
        assert!(!providers.contains_key(MOCK));
        assert!(catalogued().contains_key(MOCK));
    }

    #[test]
    fn a_deployments_timeouts_replace_the_catalogues_one_by_one() {
        let times = |text: &str| -> schema::Provider {
            let yaml = format!("p: {{ timeouts: {text} }}");
            let mut read: BTreeMap<String, _> =
                crate::config::load::parse_as(&yaml, &|_| None).unwrap();
            read.remove("p").unwrap()
        };
        let entry = times("{ connect: 1s, first_byte: 2s, idle: 3s, total: 4s }");
        let change = times("{ first_byte: 20s, total: 40s }");
        let merged = merge::merge(entry, change).timeouts;
        let seconds = [merged.connect, merged.first_byte, merged.idle, merged.total]
            .map(|time| time.unwrap().0.as_secs());
        assert_eq!(seconds, [1, 20, 3, 40]);
    }

    #[test]
    fn a_deployments_base_url_stands_for_all_of_the_providers() {
        let yaml = "providers: { fal: { base_url: 'https://proxy.example/x' }, aws-bedrock: { base_url: 'https://{region}.proxy.example' } }";
        let config = crate::config::load::parse(yaml, &|_| None).unwrap();
        let mut problems = Problems::default();
        let providers = resolve(
            &config.providers,
            ([127, 0, 0, 1], 1).into(),
            &Kept::default(),
            &mut problems,
        );
        assert!(problems.0.is_empty(), "{:?}", problems.0);
        assert!(providers["fal"].target_header.is_none());
        let bedrock = url(
            &providers["aws-bedrock"],
            "bedrock-runtime/us-east-1/model/m/invoke",
        );
        assert_eq!(
            bedrock.as_deref(),
            Some("https://us-east-1.proxy.example/model/m/invoke")
        );
    }
}
