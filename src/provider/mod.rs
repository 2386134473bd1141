//! Providers as data: where a request to one goes, and how.
//!
//! Vendors are entries of `conf/providers.yaml`; nothing here knows one by name.
//! Credentials are put on requests by [`crate::credential`], connections are made in
//! [`crate::proxy`].

pub mod join;
pub mod template;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CaType;

use crate::config::schema::{Auth, Format, HttpVersion, Shape};
use crate::credential::{Credential, KeyPlaces};
use crate::error::{Failure, Kind};
use crate::limits::concurrency::{Scope, Settings};
use crate::routing::known::OfKey;
use crate::routing::timeouts::Timeouts;

use join::Version;
use template::{Captures, Pattern, Template};

/// One provider, resolved and immutable.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its slug in the configuration, which labels metrics and records.
    pub slug: Box<str>,
    /// The slug as a header value.
    pub name: HeaderValue,
    /// The wire format it speaks where a path does not tell.
    pub format: Format,
    /// Where keys stand, and the stored ones.
    pub keyring: Arc<Keyring>,
    /// Headers set on every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How to connect.
    pub connection: Connection,
    /// Where requests go.
    pub address: Address,
    /// How many calls may be there at once.
    pub in_flight: Option<Settings>,
    /// Where upgrades go that name no path.
    pub realtime: Option<Realtime>,
    /// A request header that chooses another URL.
    pub target_header: Option<TargetHeader>,
    /// Request headers that change its answers.
    pub answer_headers: Vec<HeaderName>,
    /// Its id in the price list.
    pub prices: Option<Box<str>>,
    /// A digest of the headers that are set, and of the address that is connected to.
    pub fingerprint: Box<str>,
    /// What looks whether it is there.
    pub probe: Option<Probe>,
}

/// What looks whether a provider is there.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What is asked for.
    pub target: Target,
    /// How often; 1 second to 1 hour.
    pub every: Duration,
    /// How long the answer's head may take, the connection included; at most `every`.
    pub timeout: Duration,
}

/// Where keys stand on a request, and the stored ones.
#[derive(Debug)]
pub struct Keyring {
    /// How a key is put on a request.
    pub auth: Auth,
    /// Where a client may bring its own.
    pub places: KeyPlaces,
    /// Stored keys by alias.
    pub keys: Vec<StoredKey>,
    /// Which accounts pay when any key of the pool may; `None` when no key has a weight.
    pub pool: Option<Box<str>>,
}

/// A stored key.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// `account/gateway` whose own it is; empty when it is the deployment's.
    pub owner: Box<str>,
    /// `default`, or what `cf-aig-byok-alias` names.
    pub alias: Box<str>,
    /// Owner, alias, and a digest of the key: which account pays, also when an alias gets another
    /// key.
    pub identity: Box<str>,
    /// How it goes onto a request; or why it cannot, for the log.
    pub credential: Result<Credential, Box<str>>,
    /// Its share of the pool's requests; 0 when it is not in the pool.
    pub weight: u32,
    /// Whether the provider takes it, looked up with the first call.
    pub known: OnceLock<Arc<OfKey>>,
}

/// How to connect to a provider.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Connect here instead of to the URL's host.
    pub connect_to: Option<(Box<str>, u16)>,
    /// Connect here instead of to the host of a service account's token server.
    pub token_connect_to: Option<(Box<str>, u16)>,
    /// How long it may take, as far as the provider says it: what it leaves open its gateway says.
    pub timeouts: Timeouts,
    /// Authorities to trust instead of the system's.
    pub ca: Option<Arc<CaType>>,
    /// HTTP version.
    pub http: HttpVersion,
    /// Connections are shared only between requests with the same group: connections made
    /// under other trust anchors or another `connect_to` are not.
    pub group: u64,
}

/// Where a provider's requests go.
#[derive(Debug, Clone)]
pub struct Address {
    /// The base URL that paths are appended to, when no rule matches.
    pub base: Option<Base>,
    /// Path mappings, first match wins.
    pub rules: Vec<Rule>,
    /// Version prefix of paths.
    pub version: Version,
}

/// A base URL, possibly with captures.
#[derive(Debug, Clone)]
pub struct Base {
    tls: bool,
    authority: Template,
    path: Template,
    /// Built once when the authority has no captures.
    fixed: Option<Arc<Origin>>,
}

/// One path mapping.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What the client's path must look like.
    pub pattern: Pattern,
    /// Base URL of this rule; the provider's when `None`.
    pub base: Option<Base>,
    /// The upstream path.
    pub path: Template,
    /// What captured parts must look like.
    pub shapes: Vec<(Box<str>, Shape)>,
    /// Keys of this rule's API, where it takes them in another way than the provider.
    pub keyring: Option<Arc<Keyring>>,
}

/// Scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// HTTPS.
    pub tls: bool,
    /// Host name or address literal, without brackets.
    pub host: Box<str>,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// Value of the `Host` header: as in the URL.
    pub authority: HeaderValue,
}

/// Where one request goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// Scheme, host and port.
    pub origin: Arc<Origin>,
    /// Path and query, raw.
    pub path_and_query: String,
    /// The cloud region in the URL, which a signature must name.
    pub region: Option<Box<str>>,
    /// Keys of the API at this place, where they are not the provider's.
    pub keyring: Option<Arc<Keyring>>,
}

/// Where upgrades go that name no path.
#[derive(Debug, Clone, Default)]
pub struct Realtime {
    /// Joined to the base URL like a client's path.
    pub path: Box<str>,
    /// Query parameters to rename.
    pub rename_query: Vec<(Box<str>, Box<str>)>,
    /// Subprotocol prefix that carries a key.
    pub subprotocol_key: Option<Box<str>>,
}

/// A request header that chooses another URL of the provider.
#[derive(Debug, Clone)]
pub struct TargetHeader {
    /// Header name.
    pub name: HeaderName,
    /// The URL's host must be one of these domains or under one.
    pub domains: Vec<Box<str>>,
}

impl Keyring {
    /// A keyring of `keys`.
    pub fn new(auth: Auth, places: KeyPlaces, keys: Vec<StoredKey>) -> Self {
        let pooled = keys.iter().filter(|key| key.weight > 0);
        let identities: Vec<_> = pooled.map(|key| &*key.identity).collect();
        Self {
            pool: (!identities.is_empty()).then(|| identities.join(" ").into()),
            auth,
            places,
            keys,
        }
    }

    /// The key that pays for what nobody asked for: `default`, or else the first of the pool.
    pub fn own(&self) -> Option<&StoredKey> {
        let named = self.keys.iter().find(|key| &*key.alias == "default");
        named.or_else(|| self.keys.iter().find(|key| key.weight > 0))
    }
}

impl Connection {
    /// Host and port that are connected to for `origin`.
    pub fn place<'a>(&'a self, origin: &'a Origin) -> (&'a str, u16) {
        match &self.connect_to {
            Some((host, port)) => (host, *port),
            None => (&origin.host, origin.port),
        }
    }

    /// The HTTP versions that are offered.
    pub fn alpn(&self) -> ALPN {
        match self.http {
            HttpVersion::H1 => ALPN::H1,
            HttpVersion::H2 => ALPN::H2,
            HttpVersion::Auto => ALPN::H2H1,
        }
    }
}

impl Base {
    /// Parses a URL with captures. Errors say what is wrong with it.
    pub fn parse(url: &str, allow_insecure: bool) -> Result<Self, String> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| format!("`{url}` is not a URL such as https://api.example.com/v1"))?;
        let tls = match scheme {
            "https" => true,
            "http" if allow_insecure => false,
            "http" => {
                return Err(
                    "plain HTTP needs `allow_insecure: true` beside it; use https:// otherwise"
                        .into(),
                );
            }
            _ => return Err(format!("the scheme of `{url}` must be https")),
        };
        if url.contains(['?', '#', '@']) || url.bytes().any(|b| b <= b' ' || b >= 0x7f) {
            return Err(format!("`{url}` must be scheme, host, port and path only"));
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (authority, path) = (Template::parse(authority)?, Template::parse(path)?);
        let fixed = match authority.literal() {
            Some(text) => Some(Arc::new(Origin::parse(tls, text)?)),
            None => None,
        };
        Ok(Self {
            tls,
            authority,
            path,
            fixed,
        })
    }

    /// The captures in its authority, which need a shape.
    pub fn host_captures(&self) -> impl Iterator<Item = &str> {
        self.authority.captures()
    }

    /// All captures.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.authority.captures().chain(self.path.captures())
    }

    /// The origin, when it has no captures.
    pub fn origin(&self) -> Option<&Arc<Origin>> {
        self.fixed.as_ref()
    }

    fn fill(&self, captures: &Captures<'_>) -> Result<(Arc<Origin>, Cow<'_, str>), Failure> {
        let origin = match &self.fixed {
            Some(origin) => Arc::clone(origin),
            None => {
                let authority = self.authority.fill(captures);
                let origin = Origin::parse(self.tls, &authority);
                Arc::new(
                    origin.map_err(|detail| Failure::new(Kind::BadHostPart).with_detail(detail))?,
                )
            }
        };
        let path = match self.path.literal() {
            Some(path) => Cow::Borrowed(path),
            None => Cow::Owned(self.path.fill(captures)),
        };
        Ok((origin, path))
    }
}

impl Origin {
    /// Parses `host`, `host:port`, `[::1]:port`.
    pub fn parse(tls: bool, authority: &str) -> Result<Self, String> {
        let wrong = || format!("`{authority}` is not a host, or host:port");
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        let host = parsed.host();
        let port = match authority
            .strip_prefix(host)
            .ok_or_else(wrong)?
            .strip_prefix(':')
        {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if tls => 443,
            None => 80,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong());
        }
        let authority = HeaderValue::from_str(authority).map_err(|_| wrong())?;
        Ok(Self {
            tls,
            host: host.into(),
            port,
            authority,
        })
    }
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The account in the URL, which a base URL may name as `{account}`.
    pub account: &'a str,
    /// The path after the slug.
    pub path: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// A protocol upgrade.
    pub upgrade: bool,
    /// The value of the provider's target header.
    pub target_header: Option<&'a str>,
}

impl Provider {
    /// Its calls, among those in flight.
    pub fn scope(&self) -> Scope {
        Scope::Provider(self.slug.clone())
    }

    /// Where `ask` goes. A failure names what does not fit.
    pub fn target(&self, ask: &Ask<'_>) -> Result<Target, Failure> {
        refuse_dot_segments(ask.path)?;
        if let (Some(header), Some(url)) = (&self.target_header, ask.target_header) {
            return header.target(url);
        }
        let realtime = self
            .realtime
            .as_ref()
            .filter(|_| ask.upgrade && ask.path.is_empty());
        let path = realtime.map_or(ask.path, |realtime| &realtime.path);
        let mut target = self.address.target(path, ask.account)?;
        let renamed = realtime.and_then(|realtime| realtime.rename(ask.query?));
        if let Some(query) = renamed.as_deref().or(ask.query) {
            target.path_and_query.push('?');
            target.path_and_query.push_str(query);
        }
        Ok(target)
    }

    /// The same provider with other stored keys: `keys` makes a keyring of each that it has.
    pub fn with_keys(&self, mut keys: impl FnMut(&Keyring) -> Keyring) -> Self {
        let mut other = self.clone();
        other.keyring = Arc::new(keys(&self.keyring));
        let mut probed = other.probe.as_mut().map(|probe| &mut probe.target);
        for rule in &mut other.address.rules {
            let Some(old) = &rule.keyring else { continue };
            let new = Arc::new(keys(old));
            let of_probe = probed.as_mut().and_then(|target| target.keyring.as_mut());
            if let Some(of_probe) = of_probe.filter(|of_probe| Arc::ptr_eq(of_probe, old)) {
                *of_probe = Arc::clone(&new);
            }
            rule.keyring = Some(new);
        }
        other
    }

    /// The keys that requests to `target` go with.
    pub fn keyring<'a>(&'a self, target: &'a Target) -> &'a Keyring {
        target.keyring.as_ref().unwrap_or(&self.keyring)
    }
}

impl Address {
    /// The first capture of the base URL that `path` leads to, or might if it leads nowhere: what
    /// a call must fill in.
    pub fn capture_of(&self, path: &str) -> Option<&str> {
        let mut rules = self.rules.iter();
        let rule = rules.find(|rule| rule.pattern.matches(path).is_some());
        let base = rule.and_then(|rule| rule.base.as_ref());
        let any = || self.rules.iter().find_map(|rule| rule.base.as_ref());
        let base = base.or(self.base.as_ref()).or_else(any)?;
        base.captures().next()
    }

    /// Where a call of `account` for `path` goes that needs nothing else of a request.
    pub fn checked_target(&self, path: &str, account: &str) -> Result<Target, Failure> {
        refuse_dot_segments(path)?;
        self.target(path, account)
    }

    fn target(&self, path: &str, account: &str) -> Result<Target, Failure> {
        for rule in &self.rules {
            if let Some(mut captures) = rule.pattern.matches(path) {
                rule.check(&captures)?;
                captures.push(("account", account));
                return self.mapped(rule, &captures);
            }
        }
        match &self.base {
            Some(base) if base.host_captures().next().is_none() => {
                let (origin, base_path) = base.fill(&vec![("account", account)])?;
                let path_and_query = join::join(&base_path, &self.version, path);
                Ok(Target {
                    origin,
                    path_and_query,
                    region: None,
                    keyring: None,
                })
            }
            _ => Err(self.no_rule()),
        }
    }

    fn mapped(&self, rule: &Rule, captures: &Captures<'_>) -> Result<Target, Failure> {
        let base = rule
            .base
            .as_ref()
            .or(self.base.as_ref())
            .ok_or_else(|| self.no_rule())?;
        let (origin, base_path) = base.fill(captures)?;
        let path_and_query = format!(
            "{}/{}",
            base_path.trim_end_matches('/'),
            rule.path.fill(captures)
        );
        let region = template::get(captures, "region").map(Into::into);
        Ok(Target {
            origin,
            path_and_query,
            region,
            keyring: rule.keyring.clone(),
        })
    }

    fn no_rule(&self) -> Failure {
        let known: Vec<_> = self
            .rules
            .iter()
            .map(|rule| format!("`{}`", rule.pattern.text()))
            .collect();
        let message = format!(
            "The path after the provider must look like {}",
            known.join(" or ")
        );
        Failure::because(Kind::BadHostPart, message)
    }
}

impl Rule {
    fn check(&self, captures: &Captures<'_>) -> Result<(), Failure> {
        for (name, shape) in &self.shapes {
            let value = template::get(captures, name).unwrap_or("");
            if !shape.accepts(value) {
                let message = format!("`{name}` in the path must be {}", shape.description());
                return Err(Failure::because(Kind::BadHostPart, message));
            }
        }
        Ok(())
    }
}

impl Realtime {
    /// The query with its parameters renamed; `None` when nothing is to be renamed.
    fn rename(&self, query: &str) -> Option<String> {
        let mut changed = false;
        let parts: Vec<String> = query
            .split('&')
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                match self.rename_query.iter().find(|(old, _)| **old == *name) {
                    Some((_, new)) => {
                        changed = true;
                        format!("{new}={value}")
                    }
                    None => pair.to_owned(),
                }
            })
            .collect();
        changed.then(|| parts.join("&"))
    }
}

impl TargetHeader {
    /// The URL in the header, if it is HTTPS on the provider's own domain and default port.
    fn target(&self, url: &str) -> Result<Target, Failure> {
        let refuse = || {
            let message = format!(
                "`{}` must be an https:// URL on {}",
                self.name,
                self.domains.join(" or ")
            );
            Failure::because(Kind::BadHostPart, message)
        };
        let rest = url.strip_prefix("https://").ok_or_else(refuse)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let under = |domain: &str| {
            host.strip_suffix(domain)
                .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        };
        if !self.domains.iter().any(|domain| under(domain))
            || !host.split('.').all(|label| Shape::DnsLabel.accepts(label))
        {
            return Err(refuse());
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains('#') {
            return Err(refuse());
        }
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        refuse_dot_segments(path)?;
        let origin = Arc::new(Origin::parse(true, host).map_err(|_| refuse())?);
        let mut path_and_query = if path.is_empty() {
            "/".to_owned()
        } else {
            path.to_owned()
        };
        if let Some(query) = query {
            path_and_query.push('?');
            path_and_query.push_str(query);
        }
        Ok(Target {
            origin,
            path_and_query,
            region: None,
            keyring: None,
        })
    }
}

/// `..` would let a client climb out of the provider's base path; no SDK sends it.
fn refuse_dot_segments(path: &str) -> Result<(), Failure> {
    let dots = |segment: &str| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    let suspicious = memchr::memchr2(b'.', b'%', path.as_bytes()).is_some();
    if suspicious && path.split('/').any(dots) {
        return Err(Failure::because(
            Kind::BadRequest,
            "The path must not contain `.` or `..` segments",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `match`, `base_url`, `path`, `where`.
    type Written<'a> = (&'a str, Option<&'a str>, &'a str, &'a [(&'a str, Shape)]);

    fn address(base: Option<&str>, rules: &[Written<'_>]) -> Address {
        let rules = rules.iter().map(|(pattern, base, path, shapes)| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            base: base.map(|url| Base::parse(url, false).unwrap()),
            path: Template::parse(path).unwrap(),
            shapes: shapes
                .iter()
                .map(|(name, shape)| ((*name).into(), *shape))
                .collect(),
            keyring: None,
        });
        Address {
            base: base.map(|url| Base::parse(url, false).unwrap()),
            rules: rules.collect(),
            version: Version::AsSent,
        }
    }

    fn bedrock() -> Address {
        address(
            None,
            &[(
                "bedrock-runtime/{region}/{rest*}",
                Some("https://bedrock-runtime.{region}.amazonaws.com"),
                "{rest}",
                &[("region", Shape::Region)],
            )],
        )
    }

    #[test]
    fn a_rule_maps_the_path_and_names_the_region() {
        let target = bedrock()
            .target("bedrock-runtime/us-east-1/model/a%3Ab/invoke", "acc")
            .unwrap();
        assert_eq!(
            &*target.origin.host,
            "bedrock-runtime.us-east-1.amazonaws.com"
        );
        assert_eq!(target.path_and_query, "/model/a%3Ab/invoke");
        assert_eq!(target.region.as_deref(), Some("us-east-1"));
    }

    #[test]
    fn hostile_host_parts_are_refused() {
        for region in [
            "evil.com",
            "us-east-1.evil.com",
            "x@y",
            "us-east-1%2f",
            "",
            "us-east-1:8080",
        ] {
            let failure = bedrock()
                .target(&format!("bedrock-runtime/{region}/x"), "a")
                .unwrap_err();
            assert_eq!(failure.kind, Kind::BadHostPart, "{region}");
        }
    }

    #[test]
    fn a_path_that_fits_no_rule_is_told_the_shape() {
        let failure = bedrock().target("model/x/invoke", "a").unwrap_err();
        assert!(
            failure.public.contains("bedrock-runtime/{region}/{rest*}"),
            "{failure}"
        );
    }

    #[test]
    fn the_account_may_stand_in_a_base_url() {
        let address = address(Some("https://api.example.com/accounts/{account}/ai"), &[]);
        let target = address.target("v1/x", "0ab").unwrap();
        assert_eq!(target.path_and_query, "/accounts/0ab/ai/v1/x");
    }

    #[test]
    fn base_urls_are_https_and_nothing_but_scheme_host_port_path() {
        assert!(
            Base::parse("http://a.example/v1", false)
                .unwrap_err()
                .contains("allow_insecure")
        );
        assert!(Base::parse("http://127.0.0.1:11434/v1", true).is_ok());
        for url in [
            "a.example",
            "ftp://a.example",
            "https://u:p@a.example",
            "https://a.example?x=1",
            "https://",
            "https://a.example:99999",
            "https://a.example:",
            "https://a b",
        ] {
            assert!(Base::parse(url, true).is_err(), "{url}");
        }
        let base = Base::parse("https://[::1]:8443/v1", false).unwrap();
        let origin = base.origin().unwrap();
        assert_eq!((&*origin.host, origin.port), ("::1", 8443));
        assert_eq!(origin.authority, "[::1]:8443");
    }

    #[test]
    fn a_target_header_stays_within_its_domain() {
        let header = TargetHeader {
            name: HeaderName::from_static("x-target"),
            domains: vec!["fal.run".into(), "fal.ai".into()],
        };
        let target = header.target("https://queue.fal.run/a/b?x=1").unwrap();
        assert_eq!(&*target.origin.host, "queue.fal.run");
        assert_eq!(target.path_and_query, "/a/b?x=1");
        for url in [
            "http://fal.run/",
            "https://evilfal.run/",
            "https://fal.run.evil.com/",
            "https://fal.run:22/",
            "https://a@fal.run/",
            "https://evil.com/.fal.run",
            "https://fal.run/../x",
            "https://fal.run\\@evil.com/",
        ] {
            assert!(header.target(url).is_err(), "{url}");
        }
        assert!(header.target("https://fal.run").is_ok());
    }

    #[test]
    fn realtime_paths_and_queries_are_filled_in() {
        let realtime = Realtime {
            path: "v1/realtime".into(),
            rename_query: vec![("api_key".into(), "key".into())],
            subprotocol_key: None,
        };
        assert_eq!(
            realtime.rename("a=1&api_key=x%3D&b").as_deref(),
            Some("a=1&key=x%3D&b")
        );
        assert_eq!(realtime.rename("a=1"), None);
    }

    #[test]
    fn dot_segments_are_refused() {
        for path in ["..", "a/../b", "a/%2e%2E/b", "./a", "a/."] {
            assert!(refuse_dot_segments(path).is_err(), "{path}");
        }
        for path in ["a...b/c", "v1.5/x", "a/..b", "...", "a%2eb"] {
            assert!(refuse_dot_segments(path).is_ok(), "{path}");
        }
    }
}
