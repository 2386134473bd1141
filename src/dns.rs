//! Provider host names to addresses: asynchronous, cached, and never one that a gateway
//! must not connect to.
//!
//! A name is resolved on its first use; after that requests read the cache and never wait:
//! an expired entry keeps serving while it is renewed in the background.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Names kept at most. Providers are few; only templated hosts (regions, resources) vary.
const MAX_NAMES: usize = 1024;
/// An answer is used at least this long, whatever its TTL says.
const MIN_FRESH: Duration = Duration::from_secs(5);
/// An expired answer may still be served this long while the name servers are down.
const MAX_STALE: Duration = Duration::from_secs(3600);

/// Why there is no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// The name does not resolve; the reason is for the log.
    Unresolved(String),
    /// Every address of the name is one that is never connected to.
    Forbidden,
}

impl std::fmt::Display for LookupError {
    /// What follows the name in a sentence.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unresolved(reason) => write!(f, "does not resolve: {reason}"),
            Self::Forbidden => {
                f.write_str("resolves to link-local, metadata or unusable addresses only")
            }
        }
    }
}

/// Asks name servers. Replaced in tests.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, and until when they hold.
    async fn resolve(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), String>;
}

/// The resolver with its cache.
pub struct Dns {
    resolver: Box<dyn Resolve>,
    names: RwLock<AHashMap<Box<str>, Arc<Entry>>>,
}

struct Entry {
    addresses: Arc<[IpAddr]>,
    fresh_until: Instant,
    renewing: AtomicBool,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dns")
    }
}

impl Dns {
    /// Asks `servers`, or the system's when empty. An error is text for the operator.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        Ok(Self::with(Box::new(NameServers::new(servers)?)))
    }

    /// With a resolver of the caller's.
    pub fn with(resolver: Box<dyn Resolve>) -> Self {
        Self {
            resolver,
            names: RwLock::default(),
        }
    }

    /// The addresses of `host` that may be connected to, never empty.
    ///
    /// `host` is a name or an address literal without brackets.
    pub async fn lookup(self: &Arc<Self>, host: &str) -> Result<Arc<[IpAddr]>, LookupError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return permitted(vec![literal]);
        }
        let now = Instant::now();
        match self.cached(host) {
            Some(entry) if now < entry.fresh_until => Ok(Arc::clone(&entry.addresses)),
            Some(entry) if now < entry.fresh_until + MAX_STALE => {
                self.renew_in_background(host, &entry);
                Ok(Arc::clone(&entry.addresses))
            }
            _ => self.resolve(host).await,
        }
    }

    fn cached(&self, host: &str) -> Option<Arc<Entry>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(host).cloned()
    }

    fn renew_in_background(self: &Arc<Self>, host: &str, entry: &Arc<Entry>) {
        if entry.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (dns, host, entry) = (Arc::clone(self), host.to_owned(), Arc::clone(entry));
        tokio::spawn(async move {
            if let Err(error) = dns.resolve(&host).await {
                log::warn!(
                    "cannot renew the addresses of {host}: {error:?}; the old ones keep serving"
                );
                entry.renewing.store(false, Ordering::Release);
            }
        });
    }

    async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, LookupError> {
        let (addresses, until) = self
            .resolver
            .resolve(host)
            .await
            .map_err(LookupError::Unresolved)?;
        if addresses.is_empty() {
            return Err(LookupError::Unresolved("the name has no addresses".into()));
        }
        let addresses = permitted(addresses)?;
        let entry = Entry {
            addresses: Arc::clone(&addresses),
            fresh_until: until.max(Instant::now() + MIN_FRESH),
            renewing: AtomicBool::new(false),
        };
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MAX_NAMES && !names.contains_key(host) {
            let victim = names
                .iter()
                .min_by_key(|(_, entry)| entry.fresh_until)
                .map(|(name, _)| name.clone());
            victim.map(|name| names.remove(&name));
        }
        names.insert(host.into(), Arc::new(entry));
        Ok(addresses)
    }
}

fn permitted(mut addresses: Vec<IpAddr>) -> Result<Arc<[IpAddr]>, LookupError> {
    addresses.retain(|address| !is_forbidden(*address));
    if addresses.is_empty() {
        return Err(LookupError::Forbidden);
    }
    Ok(addresses.into())
}

/// Whether an address is never connected to: link-local (where cloud metadata services
/// live), the metadata addresses outside it, unspecified, multicast and broadcast.
///
/// IPv4 addresses embedded in IPv6 ones (mapped, compatible, NAT64, 6to4) are looked at as
/// what they reach.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_forbidden_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_forbidden_v4(v4),
            None => is_forbidden_v6(v6),
        },
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    // Metadata services outside 169.254/16: Alibaba Cloud, Oracle Cloud, Azure.
    const METADATA: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    address.is_link_local()
        || address.is_unspecified()
        || address.octets()[0] == 0
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA.contains(&address)
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    // The metadata service of Google Cloud.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    let segments = address.segments();
    address.is_unspecified()
        || address.is_multicast()
        || segments[0] & 0xffc0 == 0xfe80
        // The metadata and credential services of AWS.
        || (segments[0], segments[1]) == (0xfd00, 0xec2)
        || address == METADATA
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |s: [u16; 8]| Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match address.segments() {
        s @ [0, 0, 0, 0, 0, 0xffff, _, _] => Some(last(s)),
        // IPv4-translated, RFC 2765.
        s @ [0, 0, 0, 0, 0xffff, 0, _, _] => Some(last(s)),
        // NAT64 prefix for local use, RFC 8215.
        s @ [0x64, 0xff9b, 1, ..] => Some(last(s)),
        // NAT64 well-known prefix, RFC 6052.
        s @ [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(last(s)),
        // IPv4-compatible, deprecated; `::` and `::1` are not meant.
        s @ [0, 0, 0, 0, 0, 0, high, _] if high != 0 => Some(last(s)),
        // 6to4, RFC 3056.
        [0x2002, a, b, ..] => Some(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        _ => None,
    }
}

struct NameServers(TokioResolver);

impl NameServers {
    fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|error| {
                log::warn!("cannot read the system's name servers ({error}); only the hosts file resolves names");
                TokioResolver::builder_with_config(no_servers(), TokioRuntimeProvider::default())
            })
        } else {
            let servers = servers.iter().map(|server| {
                let connections =
                    [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut c| {
                        c.port = server.port();
                        c
                    });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_parts(None, vec![], servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        builder
            .build()
            .map(Self)
            .map_err(|error| format!("cannot set up name resolution: {error}"))
    }
}

fn no_servers() -> ResolverConfig {
    ResolverConfig::from_parts(None, vec![], vec![])
}

#[async_trait]
impl Resolve for NameServers {
    async fn resolve(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), String> {
        // A final dot: the name is whole, search domains of the machine do not apply.
        let name = if host.contains('.') && !host.ends_with('.') {
            format!("{host}.")
        } else {
            host.to_owned()
        };
        let found = self
            .0
            .lookup_ip(name)
            .await
            .map_err(|error| error.to_string())?;
        Ok((found.iter().collect(), found.valid_until()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn metadata_and_link_local_addresses_are_forbidden_in_every_disguise() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "168.63.129.16",
            "::ffff:0:169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "1.1.1.1",
            "::1",
            "fd00::1",
            "2606:4700::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }

    /// Answers each call from a script and counts.
    struct Script(
        Arc<AtomicUsize>,
        Vec<Result<(&'static str, Duration), &'static str>>,
    );

    #[async_trait]
    impl Resolve for Script {
        async fn resolve(&self, _host: &str) -> Result<(Vec<IpAddr>, Instant), String> {
            let call = self.0.fetch_add(1, Ordering::SeqCst).min(self.1.len() - 1);
            let (address, ttl) = self.1[call].map_err(str::to_owned)?;
            Ok((vec![address.parse().unwrap()], Instant::now() + ttl))
        }
    }

    fn dns(
        script: Vec<Result<(&'static str, Duration), &'static str>>,
    ) -> (Arc<Dns>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        (
            Arc::new(Dns::with(Box::new(Script(Arc::clone(&calls), script)))),
            calls,
        )
    }

    #[tokio::test]
    async fn answers_are_cached() {
        let (dns, calls) = dns(vec![Ok(("10.0.0.1", Duration::from_secs(60)))]);
        for _ in 0..3 {
            assert_eq!(
                dns.lookup("a.example").await.unwrap()[0].to_string(),
                "10.0.0.1"
            );
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_check_runs_on_what_a_name_resolves_to() {
        let (dns, _) = dns(vec![Ok(("::ffff:169.254.169.254", Duration::ZERO))]);
        assert_eq!(
            dns.lookup("rebinding.example").await,
            Err(LookupError::Forbidden)
        );
        assert_eq!(
            dns.lookup("169.254.169.254").await,
            Err(LookupError::Forbidden)
        );
    }

    #[tokio::test]
    async fn failures_are_not_cached() {
        let (dns, calls) = dns(vec![Err("down"), Ok(("10.0.0.2", Duration::ZERO))]);
        assert!(matches!(
            dns.lookup("a.example").await,
            Err(LookupError::Unresolved(_))
        ));
        assert!(dns.lookup("a.example").await.is_ok());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_expired_entry_serves_while_it_is_renewed() {
        let (dns, calls) = dns(vec![Err("down"), Ok(("10.0.0.9", Duration::from_secs(60)))]);
        let old = Entry {
            addresses: vec!["10.0.0.1".parse().unwrap()].into(),
            fresh_until: Instant::now(),
            renewing: AtomicBool::new(false),
        };
        dns.names
            .write()
            .unwrap()
            .insert("a.example".into(), Arc::new(old));
        for expected_calls in 1..=2 {
            assert_eq!(
                dns.lookup("a.example").await.unwrap()[0].to_string(),
                "10.0.0.1"
            );
            while calls.load(Ordering::SeqCst) < expected_calls {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(
            dns.lookup("a.example").await.unwrap()[0].to_string(),
            "10.0.0.9"
        );
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let (dns, _) = dns(vec![Ok(("10.0.0.1", Duration::from_secs(60)))]);
        for n in 0..MAX_NAMES + 10 {
            dns.lookup(&format!("n{n}.example")).await.unwrap();
        }
        assert_eq!(dns.names.read().unwrap().len(), MAX_NAMES);
    }
}
