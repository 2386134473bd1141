//! Bare Pingora: one upstream, nothing looked at. What the gateway is compared with.
//!
//! Everything stands at Pingora's defaults (one thread, its keep-alive pool, glibc's
//! allocator, Cargo's default release profile): tuning it would move the bar.
//!
//! Usage: `bare LISTEN UPSTREAM`, both `address:port`.

use async_trait::async_trait;
use pingora::prelude::*;

/// Sends every request to one address.
struct Bare {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            &self.upstream,
            false,
            String::new(),
        )))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: bare LISTEN UPSTREAM (both address:port)");
        std::process::exit(2);
    };
    let mut server = Server::new(None).expect("Pingora's default configuration is valid");
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { upstream });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.run_forever();
}
