//! The mock behind a real socket. Here: a mock on a free port and clients for it.

#![allow(clippy::unwrap_used)]

mod behaviour;
mod echo;
mod protocol;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::serve;

/// A mock on a free port. Its accept loop ends with it.
struct Mock {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Mock {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener));
        Self { address, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_h2(&self) -> SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (client, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn chat(model: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn post_chat(model: &str, stream: bool) -> String {
    post("/v1/chat/completions", &chat(model, stream))
}

fn h2_post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://mock{path}"))
        .body(Full::new(body.into()))
        .unwrap()
}

fn h2_chat(model: &str, stream: bool) -> Request<Full<Bytes>> {
    h2_post("/v1/chat/completions", chat(model, stream))
}

/// Reads until `needle` has come, or the connection ends.
async fn read_until(client: &mut TcpStream, needle: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(needle) {
        if client.read_buf(&mut read).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(read).unwrap()
}

async fn read_to_end(client: &mut TcpStream) -> String {
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    String::from_utf8(read).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
