//! HTTP/2 frames by hand, for requests that no honest client library sends.

use std::net::SocketAddr;

use super::Connection;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 0x5;

/// How a server took a hand-made request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// RST_STREAM.
    Reset,
    /// GOAWAY, or the connection just ended.
    GoAway,
    /// A response; its status when it is one of HPACK's indexed ones.
    Answered(Option<u16>),
}

/// Sends one bodyless request with exactly these fields and waits for the verdict.
pub async fn send(to: impl Into<SocketAddr>, fields: &[(&str, &str)]) -> Verdict {
    let mut connection = Connection::open(to).await;
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 1, &block));
    connection.write(bytes).await;
    read_verdict(&mut connection).await
}

async fn read_verdict(connection: &mut Connection) -> Verdict {
    loop {
        let head = connection.exactly(9).await;
        let [a, b, c, kind, ..] = head[..] else {
            return Verdict::GoAway;
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let payload = connection.exactly(length).await;
        match kind {
            RST_STREAM => return Verdict::Reset,
            GOAWAY => return Verdict::GoAway,
            HEADERS => return Verdict::Answered(payload.first().and_then(|byte| indexed(*byte))),
            _ => {}
        }
    }
}

/// The status of an indexed `:status` field (RFC 7541, appendix A).
fn indexed(byte: u8) -> Option<u16> {
    let statuses = [200, 204, 206, 304, 400, 404, 500];
    let index = usize::from(byte.checked_sub(0x88)?);
    statuses.get(index).copied()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small frame")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that is not indexed, without Huffman coding.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(
            u8::try_from(text.len())
                .ok()
                .filter(|size| *size < 127)
                .expect("a short text"),
        );
        field.extend_from_slice(text.as_bytes());
    }
    field
}
