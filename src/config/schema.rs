//! The configuration exactly as users write it in YAML.
//!
//! Every field is documented here and nowhere else: this module is the reference
//! manual. Nothing is checked beyond shape; [`super::resolve`] turns it into
//! what the code needs and reports every mistake by its path.

mod authentication;
mod exports;
mod keys;
mod limits;
mod logs;
mod prices;
mod provider_keys;
mod routes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

pub use self::authentication::{AdminToken, Authentication, GatewayToken};
pub use self::exports::{Collector, Sink};
pub use self::keys::VirtualKey;
pub use self::limits::{
    Access, Calendar, Counted, List, RateLimit, Selection, SelectionMode, SpendAction, SpendLimit,
    SpendWindow, Technique, Unpriced,
};
pub use self::logs::{GatewayLogs, Logs, Redact};
pub use self::prices::{Above, PriceOverride, Prices, Rates};
pub use self::provider_keys::{GatewayProvider, Key, Secrets};
pub use self::routes::{Affinity, Health, Hedge, Route, RouteMatch, RouteTarget};
use super::secret::Secret;
use super::units::{ByteSize, Duration};
use crate::cache::policy::Replay;
use crate::routing::retry::Backoff;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The listener that applications talk to, and the limits on what they send.
    pub server: Server,
    /// The listener for operators: health, metrics, reload, upgrade.
    pub admin: Admin,
    /// Where tollgate keeps what must survive a restart. Default `/var/lib/tollgate`.
    pub data_dir: Option<PathBuf>,
    /// What the provider keys are encrypted under that tollgate keeps itself.
    pub secrets: Secrets,
    /// Where answers are kept that gateways cache.
    pub cache: CacheStore,
    /// Where finished requests are kept, and what of them is never written down.
    pub logs: Logs,
    /// OpenTelemetry collectors that are told of finished requests. Restart required.
    pub otel: Vec<Collector>,
    /// Files and webhooks that are told of finished requests. Restart required.
    pub sinks: Vec<Sink>,
    /// What tokens cost.
    pub prices: Prices,
    /// What is written to standard error.
    pub log: Log,
    /// How provider host names are resolved.
    pub dns: Dns,
    /// Providers by slug: overrides of the built-in catalogue, `custom-<slug>`
    /// providers of your own, and `mock: {}` for the built-in mock.
    pub providers: BTreeMap<String, Provider>,
    /// Accounts by id. Requests name one: `/v1/{account}/{gateway}/…`.
    pub accounts: BTreeMap<String, Account>,
}

/// The listener that applications talk to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses to listen on. Default `["127.0.0.1:8787"]`. Restart required.
    pub listen: Option<Vec<String>>,
    /// Serve HTTPS (HTTP/1.1 and h2) on all of `listen`; without it HTTP/1.1 and h2c.
    /// The files are read again when they change.
    pub tls: Option<ServerTls>,
    /// Worker threads; 0 (the default) is one per core. Restart required.
    pub threads: usize,
    /// Largest JSON body, and largest body that must be held in memory. Default `32MiB`; 413 above.
    pub max_body: Option<ByteSize>,
    /// Largest body that streams through (multipart, audio, files). Default `1GiB`; 413 above.
    pub max_upload: Option<ByteSize>,
    /// Memory for all held bodies together. Default `1GiB`; 503 with `Retry-After` beyond.
    pub max_buffered: Option<ByteSize>,
    /// Largest request head (request line and headers). Default `64KiB`; 431 above.
    pub max_header: Option<ByteSize>,
    /// How long a client may take to send a request head. Default `30s`.
    pub header_timeout: Option<Duration>,
    /// How long a client may pause while sending a body. Default `60s`; 408 beyond.
    pub body_timeout: Option<Duration>,
    /// How long one write to a client that does not read may take. Default `60s`.
    pub write_timeout: Option<Duration>,
    /// How long an idle client connection is kept. Default `75s`.
    pub keepalive_timeout: Option<Duration>,
    /// After SIGTERM: how long streams may finish. Default `30s`.
    pub grace_period: Option<Duration>,
    /// After an upgrade: how long the old process may finish its streams. Default `15m`;
    /// it exits as soon as nothing is in flight.
    pub drain_timeout: Option<Duration>,
    /// Unix socket over which an upgrade hands the listeners over.
    /// Default `/run/tollgate/upgrade.sock`. Its directory must not be writable by others.
    pub upgrade_socket: Option<PathBuf>,
    /// Calls at providers at once, all gateways together. Without it no cap.
    pub in_flight: Option<InFlight>,
}

/// How many calls may be at providers at once, and how others wait for a place. What the cache
/// answers does not count; streams and WebSockets do until their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InFlight {
    /// Calls at once: 1 to 1000000. Required.
    pub max: Option<i64>,
    /// How long a call may wait for a place. Default `1s`; `0s` to `60s`. 503 with `Retry-After`
    /// beyond.
    pub wait: Option<Duration>,
    /// Calls that may wait at once: 0 to 1000000. Default: as many as `max`. 503 at once beyond.
    pub queue: Option<i64>,
}

/// Certificate and key of the listener, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// The listener for operators.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address to listen on. Default `127.0.0.1:8788`. Without `tokens` loopback only. Restart
    /// required.
    pub listen: Option<String>,
    /// Who may use it: all but `/healthz` and `/readyz` then wants `Authorization: Bearer <token>`.
    /// Without any, who reaches it may use it, but for the APIs of API keys and of provider keys,
    /// which want the set-up token in `data_dir/setup-token`.
    pub tokens: Vec<AdminToken>,
}

/// Where answers are kept that gateways cache: one store for all of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheStore {
    /// Memory for them. Default `256MiB`, at least `1MiB`. Restart required.
    pub memory: Option<ByteSize>,
    /// Disk for them, under `data_dir`. Default `10GiB`; `0` for none, else at least `64MiB`.
    /// Restart required.
    pub disk: Option<ByteSize>,
}

/// What is written to standard error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// One line per request: `logfmt` (default), `json` or `off`.
    pub access: AccessLog,
    /// Least severe level written: `error`, `warn`, `info` (default), `debug`, `trace`.
    /// `RUST_LOG` overrides it.
    pub level: Option<String>,
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
    /// No access log.
    Off,
}

/// How provider host names are resolved.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Name servers (`address:port`); the system's (`/etc/resolv.conf`) when empty. Restart required.
    pub servers: Vec<String>,
}

/// One provider: an entry of the catalogue, an override of one, or a `custom-<slug>`.
///
/// In an override every field is optional and replaces the catalogue's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provider {
    /// Where requests go: scheme, host, and the path that the client's path is appended to.
    /// HTTPS unless `allow_insecure` says otherwise. May contain `{name}` captures of `paths`.
    pub base_url: Option<String>,
    /// The wire format (API family) it speaks, where the path does not tell.
    pub format: Option<Format>,
    /// Allow an `http://` base URL. Needed for local model servers.
    pub allow_insecure: Option<bool>,
    /// Connect here (`host:port`) instead of to the host of the URL; `Host`, TLS name and
    /// signatures keep naming the URL's host. For private endpoints and egress proxies.
    pub connect_to: Option<String>,
    /// As `connect_to`, for the server that exchanges service accounts for tokens.
    pub token_connect_to: Option<String>,
    /// Headers set on every request to this provider. Values may be secrets.
    pub headers: BTreeMap<String, Secret>,
    /// How a key is put on a request.
    pub auth: Option<Auth>,
    /// Stored keys. Spent only for gateways that say so.
    pub keys: Vec<Key>,
    /// How long this provider may take. Goes before what a gateway says.
    pub timeouts: Timeouts,
    /// Calls at this provider at once, from all gateways together. Without it no cap.
    pub in_flight: Option<InFlight>,
    /// TLS towards this provider.
    pub tls: ProviderTls,
    /// HTTP version towards this provider: `h1` (default), `h2` or `auto`.
    pub http: Option<HttpVersion>,
    /// Version prefix put in front of a path that brings none (`v1`), for providers whose
    /// base URL does not end in it. Empty: a leading `v1/` is dropped, for providers whose paths
    /// have no such version.
    pub version: Option<String>,
    /// Path mappings, first match wins; none means the path is appended to `base_url`.
    pub paths: Vec<PathRule>,
    /// Other slugs that name this provider in URLs.
    pub aliases: Vec<String>,
    /// Where WebSocket upgrades go that name no path.
    pub realtime: Option<Realtime>,
    /// Request header whose value (a full URL) chooses another URL of this provider.
    pub target_header: Option<TargetHeader>,
    /// Request headers that change the answer: versions, beta flags, organisations. Cached
    /// answers are told apart by them.
    pub answer_headers: Vec<String>,
    /// In whose name the price list has its models: a provider's id there, such as `openai`. Without it
    /// only `prices.overrides` have prices for it.
    pub prices: Option<String>,
    /// Look whether the provider is there, while it is a target of some route, without waiting for
    /// a call to find out. Without it nobody does.
    pub probe: Option<Probe>,
}

/// A request that looks whether a provider is there. It costs nothing: a GET, with the provider's
/// `headers` and its `default` key, or else the first of its pool.
///
/// Any answer says that it is there, but for 5xx, and for 408 and 429, which say nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// What is asked for, a path after the slug as in a client's call, such as `models`. Not for a
    /// place whose base URL has captures, such as a region.
    pub path: String,
    /// How often; each time up to a tenth later, by chance. Default `30s`; `1s` to `1h`.
    pub every: Option<Duration>,
    /// How long the answer's head may take, the connection included. Default `5s`, or `every` where
    /// that is less; `100ms` to `every`.
    pub timeout: Option<Duration>,
}

/// A wire format: a family of APIs, never a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// OpenAI Chat Completions and its neighbours (completions, embeddings, images, audio).
    OpenaiChat,
    /// OpenAI Responses.
    OpenaiResponses,
    /// Anthropic Messages.
    AnthropicMessages,
    /// Gemini generateContent.
    GeminiGenerate,
    /// Bedrock Converse and Invoke; streams are AWS event streams.
    Bedrock,
    /// Cohere v2 chat.
    CohereChat,
    /// Anything else: bytes pass, nothing is read from them.
    Opaque,
}

impl Format {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiResponses => "openai-responses",
            Self::AnthropicMessages => "anthropic-messages",
            Self::GeminiGenerate => "gemini-generate",
            Self::Bedrock => "bedrock",
            Self::CohereChat => "cohere-chat",
            Self::Opaque => "opaque",
        }
    }
}

/// How a key is put on a request, and where a client's own key may stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Auth {
    /// `Authorization: Bearer <key>`.
    Bearer,
    /// A header: `name: <prefix><key>`.
    Header {
        /// Header name.
        name: String,
        /// Text before the key, such as `Key `.
        #[serde(default)]
        prefix: String,
        /// Other headers in which a client may bring its own key.
        #[serde(default)]
        also: Vec<String>,
        /// Query parameter in which a client may bring its own key.
        #[serde(default)]
        query: Option<String>,
    },
    /// AWS Signature Version 4; the key is JSON
    /// `{accessKeyId, secretAccessKey, region, sessionToken?}`.
    AwsSigv4 {
        /// The service name that is signed, such as `bedrock`.
        service: String,
    },
    /// Google OAuth; the key is a service account's JSON, exchanged for short-lived tokens.
    GoogleServiceAccount,
    /// The provider takes no key.
    None,
}

/// How long a provider may take; 504 beyond. Each more than `0s` and at most `24h`.
///
/// What a provider says of itself goes before what the gateway says of all of them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To establish a connection, TLS included. Default `10s`.
    pub connect: Option<Duration>,
    /// From the request's last byte to the first one of the answer. Default: as `idle`. A
    /// request may ask for less by `cf-aig-request-timeout`.
    pub first_byte: Option<Duration>,
    /// Longest silence of the provider: between two bytes of its answer and, where `first_byte`
    /// is not said, before the first (the time of an upload included). Default `10m`.
    pub idle: Option<Duration>,
    /// From the request's head to the answer's last byte, all tries together. Default: no limit.
    pub total: Option<Duration>,
}

/// TLS towards a provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderTls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// HTTP version towards a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersion {
    /// HTTP/1.1, as the providers' own SDKs use.
    #[default]
    H1,
    /// HTTP/2: by ALPN over TLS, with prior knowledge without.
    H2,
    /// HTTP/2 where the provider offers it by ALPN, else HTTP/1.1; held bodies that fit no window of
    /// HTTP/2 go over HTTP/1.1.
    Auto,
}

/// One path mapping.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathRule {
    /// Segments to match against the path after the slug: literals, `{name}` (one segment) and,
    /// last, `{name*}` (the rest). A literal may stand beside a capture: `{model}:predict`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Base URL of this rule, with `{name}` captures; the provider's `base_url` when absent or
    /// when a deployment overrides it.
    pub base_url: Option<String>,
    /// The upstream path, with `{name}` captures, appended to the base URL.
    pub path: String,
    /// What a captured part must look like. Required for every capture that enters a host name.
    #[serde(rename = "where")]
    pub wheres: BTreeMap<String, Shape>,
    /// How a key is put on requests of this rule, where that differs from the provider's `auth`.
    pub auth: Option<Auth>,
}

/// What a client-supplied part of a URL must look like. Matched whole, ASCII only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One DNS label: letters, digits and inner hyphens, at most 63.
    DnsLabel,
    /// A cloud region such as `us-east-1`, `europe-west4` or `us-gov-west-1`.
    Region,
    /// Lower-case letters and digits, at most 63.
    Alphanumeric,
}

/// Where WebSocket upgrades go that name no path.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Realtime {
    /// The path they are sent to, joined to the base URL like a client's.
    pub path: String,
    /// Query parameters to rename, old name to new.
    pub rename_query: BTreeMap<String, String>,
    /// Subprotocol prefix that carries a key a browser cannot send as a header (`xi-api-key`).
    pub subprotocol_key: Option<String>,
}

/// A request header that chooses another URL of the provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetHeader {
    /// Header name; removed before the request goes out.
    pub name: String,
    /// Domains; the URL's host must be one of them or under one.
    pub domains: Vec<String>,
}

/// One account.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    /// Gateways by id.
    pub gateways: BTreeMap<String, Gateway>,
}

/// One gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Who may use it.
    pub authentication: Authentication,
    /// Refuse requests (400) for which there is no key: they bring none for their provider, and no
    /// stored one pays. Default false: then they go without a key, and the provider refuses them.
    pub byok_only: bool,
    /// Keys of its own for providers, by slug: they stand in place of the deployment's.
    pub providers: BTreeMap<String, GatewayProvider>,
    /// Keep answers and give them again. Without it only what a request asks for by
    /// `cf-aig-cache-ttl` or `cf-aig-cache-key` is cached.
    pub cache: Option<Cache>,
    /// What happens to a call whose answer the cache records when nobody waits for it any
    /// more: `cancel` (default), or `{ drain: 30s }` to let it finish for so long.
    pub on_client_disconnect: OnClientDisconnect,
    /// How often a provider that fails is tried. Without it once.
    pub retry: Retry,
    /// How long providers may take that do not say it themselves.
    pub timeouts: Timeouts,
    /// When the targets of routes, and their providers, are left alone.
    pub health: Health,
    /// Calls of this gateway at providers at once. Without it no cap.
    pub in_flight: Option<InFlight>,
    /// What its requests may ask for; 403 beyond.
    pub access: Access,
    /// At most so many requests, tokens or calls at once; 429 with `Retry-After` beyond. At most 20
    /// rules.
    pub rate_limits: Vec<RateLimit>,
    /// What of its requests is kept in the log store.
    pub logs: GatewayLogs,
    /// How `cf-aig-metadata` is read.
    pub metadata: Metadata,
    /// Routes by name: several targets for the same calls, the next one where one fails. A call
    /// takes a route by its `match`, or by asking for the model `dynamic/<name>`.
    pub routes: BTreeMap<String, Route>,
    /// What its calls may cost in a time, at most 20 rules: all that are about a call must have room
    /// for it.
    pub spend_limits: Vec<SpendLimit>,
}

/// How `cf-aig-metadata` is read: what clients say of their calls.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Most entries, the first ones staying. Default 5, as Cloudflare has it; 1 to 64.
    pub max_entries: Option<i64>,
    /// Most bytes of the header. Default `8KiB`; `64B` to `64KiB`.
    pub max_size: Option<ByteSize>,
    /// Refuse what would be lost (400) instead of losing it: entries beyond the most, values that
    /// are no text, number or boolean, keys that begin with `cf.`.
    pub strict: bool,
}

/// How often a provider that fails is tried. A request may say each of them by header.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries, the first included: 1 to 5. Default 1. `cf-aig-max-attempts` goes before it.
    pub max_attempts: Option<i64>,
    /// Before the second try. Default `200ms`; at most `60s`. `cf-aig-retry-delay` goes before it.
    pub delay: Option<Duration>,
    /// How the wait grows from try to try: `constant`, `linear` (by `delay`) or `exponential`
    /// (doubles; the default), never beyond `60s`. `cf-aig-backoff` goes before it.
    pub backoff: Option<Backoff>,
}

/// How a gateway keeps answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// How long an answer is kept. Default `5m`; `60s` to `30d`, or `0s` to cache only what a
    /// request asks for.
    pub ttl: Option<Duration>,
    /// One entry for all who send the same, whoever pays for it. Default false: nobody sees an
    /// answer that somebody else paid for.
    pub shared: bool,
    /// JSON pointers (RFC 6901) to parts of the body that are left out of the key: `/user`,
    /// `/messages/*/name` (`*` is every element of a list).
    pub ignore: Vec<String>,
    /// Largest answer that is kept. Default `4MiB`.
    pub max_body: Option<ByteSize>,
    /// How a kept stream is given again: `instant` (default) or `paced`, as it came.
    pub replay: Replay,
    /// How long after `ttl` an answer is still given while a new one is fetched. Default `0s`.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after `ttl` an answer is still given when the provider fails. Default `0s`.
    pub stale_if_error: Option<Duration>,
    /// Keep a fallback's answer under the first target's key too. Default false.
    pub store_fallback: bool,
}

/// What happens to a call when nobody waits for its answer any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnClientDisconnect {
    /// It ends.
    #[default]
    Cancel,
    /// It may finish for so long.
    Drain(Duration),
}
