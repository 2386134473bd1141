//! A name server that gives every name the same addresses, or none.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NAME_ERROR: u8 = 3;

/// A name server on a free port of 127.0.0.1.
pub struct NameServer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl NameServer {
    /// Answers every question with those of `addresses` that are of its type; without
    /// any address no name exists.
    pub async fn start(addresses: &[&str]) -> Self {
        let parse = |text: &&str| text.parse().expect("an address");
        let addresses: Vec<IpAddr> = addresses.iter().map(parse).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut query).await {
                if let Some(reply) = reply(&query[..count], &addresses) {
                    let _ = socket.send_to(&reply, peer).await;
                }
            }
        });
        Self { address, serving }
    }

    /// The `dns:` section that uses it.
    pub fn yaml(&self) -> String {
        format!("dns: {{ servers: [\"{}\"] }}\n", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The answer to a query with one question (RFC 1035, section 4.1).
fn reply(query: &[u8], addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let name_length = query.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(12..12 + name_length + 4)?;
    let kind = u16::from_be_bytes([question[name_length], question[name_length + 1]]);
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| record(*address, kind))
        .collect();
    let code = if addresses.is_empty() { NAME_ERROR } else { 0 };
    let mut reply = query[..2].to_vec();
    reply.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(records.len()).ok()?,
        0,
        0,
        0,
        0,
    ]);
    reply.extend_from_slice(question);
    reply.extend(records.concat());
    Some(reply)
}

/// A resource record that points back at the question's name.
fn record(address: IpAddr, wanted: u16) -> Option<Vec<u8>> {
    let (kind, bytes) = match address {
        IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
        IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
    };
    let length = u8::try_from(bytes.len()).ok()?;
    let head = [
        0xC0,
        12,
        0,
        u8::try_from(kind).ok()?,
        0,
        1,
        0,
        0,
        0,
        60,
        0,
        length,
    ];
    (kind == wanted).then(|| [head.to_vec(), bytes].concat())
}
