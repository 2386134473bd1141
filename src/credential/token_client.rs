//! The HTTPS client that reaches token servers, on Pingora's own upstream connector.
//!
//! One POST per connection: a token is bought about once an hour, so there is no pool
//! whose idle connections could be dead. Redirects are not followed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Uri;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

/// How long one exchange may take, name resolution and TLS included.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read. Real ones have about 1 KiB.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Where forms are posted to: the network, or a fake in tests.
#[async_trait]
pub trait TokenEndpoint: Send + Sync {
    /// Posts `body` (`application/x-www-form-urlencoded`) and returns status and body.
    ///
    /// # Errors
    /// When no whole answer of acceptable size came; any status is an answer.
    async fn post_form(&self, url: &Uri, body: String) -> Result<(u16, Vec<u8>), PostError>;
}

/// Why there is no answer. For the operator's log: it names hosts, and never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostError {
    /// No connection, no answer in time, or a broken one; why, in words.
    Unreachable(String),
    /// The answer exceeds [`MAX_ANSWER`].
    TooLarge,
}

/// Resolves host names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, with `port`. `host` may be an IP address.
    ///
    /// # Errors
    /// When there is none, or none that may be connected to.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// How token servers are reached.
#[derive(Clone, Default)]
pub struct Options {
    /// Allow `http` URLs.
    pub allow_insecure: bool,
    /// Authorities to trust instead of the system's.
    pub ca: Option<Arc<CaType>>,
    /// Connect here whatever the URL's host; `Host` and the TLS name keep naming that.
    pub connect_to: Option<(Box<str>, u16)>,
}

/// A minimal HTTPS client.
pub struct TokenClient {
    connector: Arc<Connector>,
    resolver: Arc<dyn Resolve>,
    options: Options,
    timeout: Duration,
}

impl TokenClient {
    /// A client over `connector`, which may be shared: its connections are not kept.
    pub fn new(connector: Arc<Connector>, resolver: Arc<dyn Resolve>, options: Options) -> Self {
        Self {
            connector,
            resolver,
            options,
            timeout: TIMEOUT,
        }
    }

    async fn exchange(&self, url: &Uri, body: String) -> Result<(u16, Vec<u8>), PostError> {
        let server = Server::of(url, self.options.allow_insecure)?;
        let mut session = self.connect(&server).await?;
        send(&mut session, head(url, body.len())?, body).await?;
        let status = read_status(&mut session).await?;
        Ok((status, read_body(&mut session).await?))
    }

    /// Connects to the first address of the server that takes the connection.
    async fn connect(&self, server: &Server<'_>) -> Result<HttpSession, PostError> {
        let mut failure = unreachable("the name has no address");
        for address in self.addresses(server).await? {
            // Pingora skips verification where the name is empty; `Server` has seen to that.
            let mut peer = HttpPeer::new(address, server.tls, server.host.to_owned());
            peer.options.ca = self.options.ca.clone();
            match self.connector.get_http_session(&peer).await {
                Ok((session, _)) => return Ok(session),
                Err(error) => failure = unreachable(error),
            }
        }
        Err(failure)
    }

    async fn addresses(&self, server: &Server<'_>) -> Result<Vec<SocketAddr>, PostError> {
        let (host, port) = match &self.options.connect_to {
            Some((host, port)) => (&**host, *port),
            None => (server.host, server.port),
        };
        let found = self.resolver.resolve(host, port).await;
        found.map_err(unreachable)
    }
}

#[async_trait]
impl TokenEndpoint for TokenClient {
    async fn post_form(&self, url: &Uri, body: String) -> Result<(u16, Vec<u8>), PostError> {
        match tokio::time::timeout(self.timeout, self.exchange(url, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// What of a URL says where to connect.
struct Server<'a> {
    /// Never empty; an IPv6 address without its brackets.
    host: &'a str,
    port: u16,
    tls: bool,
}

impl<'a> Server<'a> {
    fn of(url: &'a Uri, allow_insecure: bool) -> Result<Self, PostError> {
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") if allow_insecure => false,
            _ => return Err(unreachable("the URL is not https")),
        };
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(unreachable("the URL has no host"));
        }
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host, port, tls })
    }
}

fn head(url: &Uri, length: usize) -> Result<Box<RequestHeader>, PostError> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let mut head = RequestHeader::build("POST", path.as_bytes(), None).map_err(unreachable)?;
    let length = length.to_string();
    for (name, value) in [
        (HOST, authority),
        (CONTENT_TYPE, "application/x-www-form-urlencoded"),
        (CONTENT_LENGTH, &length),
        (ACCEPT, "application/json"),
        (ACCEPT_ENCODING, "identity"),
        (CONNECTION, "close"),
    ] {
        head.insert_header(name, value).map_err(unreachable)?;
    }
    Ok(Box::new(head))
}

async fn send(
    session: &mut HttpSession,
    head: Box<RequestHeader>,
    body: String,
) -> Result<(), PostError> {
    session
        .write_request_header(head)
        .await
        .map_err(unreachable)?;
    session
        .write_request_body(Bytes::from(body), true)
        .await
        .map_err(unreachable)?;
    session.finish_request_body().await.map_err(unreachable)
}

/// The status of the final response; informational ones are passed over.
async fn read_status(session: &mut HttpSession) -> Result<u16, PostError> {
    loop {
        session.read_response_header().await.map_err(unreachable)?;
        match session.response_header().map(|head| head.status) {
            Some(status) if status.is_informational() => {}
            Some(status) => return Ok(status.as_u16()),
            None => return Err(unreachable("no response head")),
        }
    }
}

async fn read_body(session: &mut HttpSession) -> Result<Vec<u8>, PostError> {
    let mut body = Vec::new();
    while let Some(chunk) = session.read_response_body().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(PostError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(why: impl ToString) -> PostError {
    PostError::Unreachable(why.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pingora_core::utils::tls::{WrappedX509, parse_x509};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::crypto::ring::default_provider;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Resolves the name to a dead address and a live one.
    const RELAY: &str = "relay.example";

    struct Fixed(SocketAddr);

    #[async_trait]
    impl Resolve for Fixed {
        async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            assert!(matches!(host, "token.example" | RELAY), "{host}");
            assert_eq!(port, self.0.port());
            // Nothing listens at the first address.
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            Ok(vec![nowhere, self.0])
        }
    }

    struct NoNames;

    #[async_trait]
    impl Resolve for NoNames {
        async fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
            Err(io::Error::other(format!("no address for {host}")))
        }
    }

    const FORM: &str = "grant_type=x&assertion=y";

    /// Accepts one connection, reads one request, answers `answer`, closes. Yields the request.
    async fn answer_once<S: AsyncRead + AsyncWrite + Unpin>(
        mut stream: S,
        answer: &[u8],
    ) -> String {
        let mut request = Vec::new();
        while !request.ends_with(FORM.as_bytes()) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "cut short");
        }
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    }

    async fn plain_server(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            tokio::spawn(
                async move { answer_once(listener.accept().await.unwrap().0, &answer).await },
            );
        (address, server)
    }

    fn client(resolver: impl Resolve + 'static, options: Options) -> TokenClient {
        TokenClient::new(Arc::new(Connector::new(None)), Arc::new(resolver), options)
    }

    fn insecure() -> Options {
        Options {
            allow_insecure: true,
            ..Options::default()
        }
    }

    /// Posts to a plain server that answers `answer`.
    async fn posted(answer: &str) -> Result<(u16, String), PostError> {
        let (address, server) = plain_server(answer.as_bytes().to_vec()).await;
        let url = format!("http://token.example:{}/token", address.port());
        let client = client(Fixed(address), insecure());
        let answer = client.post_form(&url.parse().unwrap(), FORM.into()).await;
        server.await.unwrap();
        answer.map(|(status, body)| (status, String::from_utf8(body).unwrap()))
    }

    fn why(outcome: Result<(u16, impl Sized), PostError>) -> String {
        match outcome.map(|_| ()) {
            Err(PostError::Unreachable(why)) => why,
            other => panic!("not unreachable: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_form_is_posted_whole() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let (address, server) = plain_server(answer.into()).await;
        let url = format!("http://token.example:{}/a/token?b=c", address.port());
        let client = client(Fixed(address), insecure());
        let answer = client.post_form(&url.parse().unwrap(), FORM.into()).await;
        assert_eq!(answer, Ok((200, b"{}".to_vec())));
        let request = server.await.unwrap().to_ascii_lowercase();
        assert!(
            request.starts_with("post /a/token?b=c http/1.1\r\n"),
            "{request}"
        );
        for line in [
            format!("host: token.example:{}", address.port()),
            "content-type: application/x-www-form-urlencoded".into(),
            format!("content-length: {}", FORM.len()),
            "connection: close".into(),
        ] {
            assert!(
                request.contains(&format!("\r\n{line}\r\n")),
                "{line}: {request}"
            );
        }
        assert!(request.ends_with(&format!("\r\n\r\n{FORM}")), "{request}");
    }

    #[tokio::test]
    async fn answers_in_every_framing_are_read_whole() {
        let ok = |body: &str| Ok((200, body.to_owned()));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{\"\r\n2\r\n\"}\r\n0\r\n\r\n";
        assert_eq!(posted(chunked).await, ok("{\"\"}"));
        assert_eq!(
            posted("HTTP/1.1 200 OK\r\n\r\nuntil close").await,
            ok("until close")
        );
        let informed =
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(posted(informed).await, ok("{}"));
        let limit = "x".repeat(MAX_ANSWER);
        assert_eq!(
            posted(&format!("HTTP/1.1 200 OK\r\n\r\n{limit}")).await,
            ok(&limit)
        );
    }

    #[tokio::test]
    async fn redirects_and_refusals_are_answers() {
        let redirect =
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(posted(redirect).await, Ok((302, String::new())));
        let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(posted(refusal).await, Ok((400, "{}".to_owned())));
    }

    #[tokio::test]
    async fn answers_too_large_or_cut_short_are_errors() {
        let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_ANSWER + 1));
        assert_eq!(posted(&large).await, Err(PostError::TooLarge));
        why(posted("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await);
        why(posted("").await);
        why(posted("220 mail.example ESMTP\r\n").await);
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_why() {
        let post = async |client: TokenClient, url: &str| {
            why(client.post_form(&url.parse().unwrap(), FORM.into()).await)
        };
        let safe = client(NoNames, Options::default());
        assert_eq!(
            post(safe, "http://token.example/").await,
            "the URL is not https"
        );
        let nameless = client(NoNames, insecure());
        let no_address = "no address for token.example";
        assert_eq!(post(nameless, "https://token.example/").await, no_address);
        let bare = client(NoNames, insecure());
        assert_eq!(post(bare, "/token").await, "the URL is not https");
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://token.example:{}/",
            listener.local_addr().unwrap().port()
        );
        let mut client = client(Fixed(listener.local_addr().unwrap()), insecure());
        client.timeout = Duration::from_millis(20);
        let outcome = client.post_form(&url.parse().unwrap(), FORM.into()).await;
        assert_eq!(why(outcome), "no answer within 20ms");
    }

    /// A TLS server for `token.example` and `127.0.0.1`, and the authority to trust it by.
    async fn tls_server() -> (SocketAddr, Arc<CaType>, JoinHandle<Option<String>>) {
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["token.example".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            let stream = acceptor.accept(stream).await.ok()?;
            Some(answer_once(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await)
        });
        let trusted = WrappedX509::new(ca.der().to_vec(), parse_x509);
        (address, Arc::from([trusted]), server)
    }

    /// Posts to a TLS server under the name `host`, trusting its authority or the system's.
    async fn posted_over_tls(host: &str, trusting: bool) -> Result<(u16, Vec<u8>), PostError> {
        let (address, ca, server) = tls_server().await;
        let options = Options {
            ca: trusting.then_some(ca),
            connect_to: Some((RELAY.into(), address.port())),
            ..Options::default()
        };
        let url = format!("https://{host}/token");
        let client = client(Fixed(address), options);
        let outcome = client.post_form(&url.parse().unwrap(), FORM.into()).await;
        assert_eq!(server.await.unwrap().is_some(), outcome.is_ok());
        outcome
    }

    #[tokio::test]
    async fn a_private_authority_is_trusted_for_the_urls_host_only() {
        let ok = Ok((200, b"{}".to_vec()));
        assert_eq!(posted_over_tls("token.example", true).await, ok);
        assert_eq!(posted_over_tls("127.0.0.1", true).await, ok);
        why(posted_over_tls("other.example", true).await);
        why(posted_over_tls("token.example", false).await);
    }
}
