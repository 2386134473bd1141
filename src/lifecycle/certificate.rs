//! The listener's certificate: read from PEM files, replaced while connections are open.
//!
//! New handshakes see a new certificate; open connections keep theirs. Files that cannot be
//! used change nothing.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::listeners::tls::TlsSettings;
use pingora_rustls::sign::CertifiedKey;
use pingora_rustls::{
    ClientHello, CryptoProvider, ResolvesServerCert, install_default_crypto_provider,
    load_certs_and_key_files,
};

use crate::config::Problem;
use crate::config::schema::ServerTls;

/// The certificate that new TLS handshakes present.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// Reads the files of `tls`.
    ///
    /// # Errors
    /// Names the file that cannot be used, by its configuration path.
    pub fn read(tls: &ServerTls) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self(ArcSwap::new(read(tls)?))))
    }

    /// Presents `key` to new handshakes.
    pub fn replace(&self, key: Arc<CertifiedKey>) {
        self.0.store(key);
    }

    /// The listener's TLS: this certificate, HTTP/2 or HTTP/1.1 as the client prefers.
    ///
    /// # Errors
    /// None with rustls; Pingora's other TLS back ends can fail here.
    pub fn settings(self: &Arc<Self>) -> pingora_core::Result<TlsSettings> {
        let mut settings = TlsSettings::intermediate("", "")?;
        settings.set_cert_resolver(self.clone());
        settings.enable_h2();
        Ok(settings)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Reads a certificate chain and its key, and checks that they belong together.
///
/// # Errors
/// Names the file that cannot be used, by its configuration path.
pub fn read(tls: &ServerTls) -> Result<Arc<CertifiedKey>, Problem> {
    let (cert, key) = (
        text(&tls.cert, "server.tls.cert")?,
        text(&tls.key, "server.tls.key")?,
    );
    let pair = load_certs_and_key_files(cert, key);
    let Some((chain, private)) =
        pair.map_err(|error| Problem::new("server.tls", error.to_string()))?
    else {
        let message =
            format!("`{cert}` must hold a certificate and `{key}` a private key, both in PEM form");
        return Err(Problem::new("server.tls", message));
    };
    install_default_crypto_provider();
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| Problem::new("server.tls", "no TLS implementation is installed"))?;
    CertifiedKey::from_der(chain, private, provider)
        .map(Arc::new)
        .map_err(|error| {
            Problem::new(
                "server.tls",
                format!("`{cert}` and `{key}` cannot be used: {error}"),
            )
        })
}

/// `path` as text, if it is readable: the error of an unreadable file should name it.
fn text<'a>(path: &'a Path, field: &str) -> Result<&'a str, Problem> {
    std::fs::metadata(path).map_err(|error| {
        Problem::new(field, format!("cannot read `{}`: {error}", path.display()))
    })?;
    path.to_str()
        .ok_or_else(|| Problem::new(field, "the path must be UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A certificate for `name` and its key, written into `dir`.
    fn write(dir: &Path, name: &str) -> ServerTls {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let tls = ServerTls {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        };
        std::fs::write(&tls.cert, made.cert.pem()).unwrap();
        std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
        tls
    }

    #[test]
    fn a_new_certificate_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let served = Certificate::read(&write(dir.path(), "old.example")).unwrap();
        let old = served.0.load().cert[0].clone();
        served.replace(read(&write(dir.path(), "new.example")).unwrap());
        assert_ne!(served.0.load().cert[0], old);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut tls = write(one.path(), "one.example");
        tls.key = write(other.path(), "other.example").key;
        let problem = read(&tls).unwrap_err();
        assert_eq!(problem.path, "server.tls");
        assert!(problem.message.contains("cannot be used"), "{problem}");
    }

    #[test]
    fn missing_and_empty_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut tls = write(dir.path(), "a.example");
        std::fs::write(&tls.key, "").unwrap();
        assert!(read(&tls).unwrap_err().message.contains("must hold"));
        tls.cert = dir.path().join("nowhere.pem");
        let problem = read(&tls).unwrap_err();
        assert_eq!(problem.path, "server.tls.cert");
        assert!(problem.message.contains("nowhere.pem"), "{problem}");
    }
}
