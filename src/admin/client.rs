//! Asking a running process: what `tollgate reload` and `tollgate upgrade` do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An upgrade may take this long, and a reload surely does not.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the running process answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether it did what it was asked.
    pub done: bool,
    /// The details.
    pub body: Value,
}

/// Sends `POST path` to the process that listens for operators on `address`.
///
/// # Errors
/// Nothing listens there, or what does is not tollgate.
pub fn post(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no answer of tollgate"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer {
        done: status == 200,
        body: serde_json::from_str(body).ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_json() {
        let answer =
            parse(b"HTTP/1.1 400 Bad Request\r\nA: b\r\n\r\n{\"reason\":\"x\"}\n").unwrap();
        assert!(!answer.done);
        assert_eq!(answer.body["reason"], "x");
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n{}").unwrap().done);
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_none());
        assert!(parse(b"").is_none());
    }
}
