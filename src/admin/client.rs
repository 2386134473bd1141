//! Asking a running process: what `tollgate reload`, `upgrade`, `logs`, `reprice`, `keys` and
//! `provider-keys` do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::config::secret::Secret;

/// An upgrade may take this long, and a reload surely does not.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the running process listens for operators, and the token that it may want.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is brought.
    pub token: Option<Secret>,
}

/// What the running process answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether it did what it was asked.
    pub done: bool,
    /// The details.
    pub body: Value,
}

impl Place {
    /// Sends `POST path`.
    ///
    /// # Errors
    /// Nothing listens there, or what does is not tollgate.
    pub fn post(&self, path: &str) -> io::Result<Answer> {
        self.send("POST", path, None)
    }

    /// Sends `GET path`. The errors are those of [`Self::post`].
    ///
    /// # Errors
    /// Nothing listens there, or what does is not tollgate.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, None)
    }

    /// Sends a request with a body of JSON, if there is one.
    ///
    /// # Errors
    /// Nothing listens there, or what does is not tollgate.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let (status, body) = self.ask(method, path, body)?;
        answer(status, &body)
    }

    /// Sends `GET path` for something that need not be JSON: `None` when there is none.
    ///
    /// # Errors
    /// Nothing listens there, or what does is not tollgate.
    pub fn get_bytes(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let (status, body) = self.ask("GET", path, None)?;
        Ok((status == 200).then_some(body))
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<(u16, Vec<u8>)> {
        let address = self.address;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let token = self.token.as_ref().map_or_else(String::new, |token| {
            format!("Authorization: Bearer {}\r\n", token.expose())
        });
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(foreign)
    }
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
