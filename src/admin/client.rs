//! Asking a running process: what `tollgate reload`, `upgrade`, `logs`, `reprice` and
//! `provider-keys` do.

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
    let (status, body) = ask(address, "POST", path, b"")?;
    answer(status, &body)
}

/// Sends `GET path`. The errors are those of [`post`].
///
/// # Errors
/// Nothing listens there, or what does is not tollgate.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let (status, body) = ask(address, "GET", path, b"")?;
    answer(status, &body)
}

/// Sends `method path` with a body of JSON. The errors are those of [`post`].
///
/// # Errors
/// Nothing listens there, or what does is not tollgate.
pub fn send(address: SocketAddr, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
    let (status, body) = ask(address, method, path, body.to_string().as_bytes())?;
    answer(status, &body)
}

/// Sends `GET path` for something that need not be JSON: `None` when there is none.
///
/// # Errors
/// Nothing listens there, or what does is not tollgate.
pub fn get_bytes(address: SocketAddr, path: &str) -> io::Result<Option<Vec<u8>>> {
    let (status, body) = ask(address, "GET", path, b"")?;
    Ok((status == 200).then_some(body))
}

fn answer(status: u16, body: &[u8]) -> io::Result<Answer> {
    Ok(Answer {
        done: status == 200,
        body: serde_json::from_slice(body).map_err(|_| foreign())?,
    })
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "that is no answer of tollgate")
}

/// Status and body of an answer.
fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(foreign)
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let refused = b"HTTP/1.1 400 Bad Request\r\nA: b\r\n\r\n{\"reason\":\"x\"}\n";
        let (status, body) = parse(refused).unwrap();
        let refused = answer(status, &body).unwrap();
        assert!(!refused.done);
        assert_eq!(refused.body["reason"], "x");
        let (status, body) = parse(b"HTTP/1.1 200 OK\r\n\r\n\xff\r\n\r\n").unwrap();
        assert_eq!((status, &body[..]), (200, &b"\xff\r\n\r\n"[..]));
        assert!(answer(200, &body).is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_none());
        assert!(parse(b"").is_none());
    }
}
