//! HTTPS: with whom, and with whom not.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::collector::receive;
use super::*;

/// A server for `127.0.0.1` that takes one request, and the authority to trust it by.
fn server() -> (String, Arc<CaType>, JoinHandle<Option<Received>>) {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let received = receive(&mut stream)?;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
        Some(received)
    });
    let trusted = WrappedX509::new(ca.der().to_vec(), parse_x509);
    (url, Arc::from([trusted]), server)
}

fn told(trusting: bool) -> (Report, Option<Received>) {
    let (url, ca, server) = server();
    let pace = Pace {
        give_up: Duration::ZERO,
        ..pace()
    };
    let exporter = Exporter {
        headers: vec![header("authorization", "Bearer sk-very-secret")],
        ca: trusting.then_some(ca),
        ..Exporter::new(url)
    };
    let exports = start_with(vec![exporter], vec![], pace);
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    let report = exports.reports()[0].clone();
    drop(exports);
    (report, server.join().unwrap())
}

#[test]
fn a_collector_with_a_private_authority_is_told() {
    let (report, received) = told(true);
    assert_eq!((report.sent, report.failures), (1, 0));
    assert_eq!(requests(&received.unwrap()), [1]);
}

#[test]
fn a_collector_that_is_not_trusted_learns_nothing() {
    let (report, received) = told(false);
    assert_eq!((report.sent, report.dropped, report.failures), (0, 1, 1));
    assert!(received.is_none());
}
