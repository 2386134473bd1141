//! A read timeout for the bodies of HTTP/2 requests: Pingora's own is for HTTP/1 only.
//!
//! Pingora lets a session be of a kind of one's own. This one is Pingora's HTTP/2 session with
//! a clock on the reads of its body; everything else it passes on. So the body takes the same
//! way through the engine as any other, with its back-pressure, retries and early answers.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::http::v2::server::HttpSession as Http2;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use pingora_timeout::timeout;

/// Gives the session a read timeout, to be set as on any other, if it is an HTTP/2 one whose
/// body is still to come.
pub fn give_read_timeout(session: &mut Session) {
    let session = session.as_downstream_mut();
    if !matches!(session, ServerSession::H2(http2) if !http2.is_body_done()) {
        return;
    }
    // The unit type is a session too, of which nothing is ever asked.
    let taken = std::mem::replace(session, ServerSession::new_custom(Box::new(())));
    *session = match taken {
        ServerSession::H2(http2) => ServerSession::new_custom(Box::new(Timed {
            http2,
            read_timeout: None,
        })),
        other => other,
    };
}

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

struct Timed {
    http2: Http2,
    read_timeout: Option<Duration>,
}

#[async_trait]
impl CustomSession for Timed {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let read = self.http2.read_body_bytes();
        let Some(limit) = self.read_timeout else {
            return read.await;
        };
        timeout(limit, read).await.unwrap_or_else(|_| {
            Error::e_explain(
                ErrorType::ReadTimedout,
                format!("reading body, timeout: {limit:?}"),
            )
        })
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.http2.is_body_done() {
            return self.http2.read_body_or_idle(no_body_expected).await;
        }
        self.read_body_bytes().await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    // What follows is Pingora's own way with an HTTP/2 session.

    fn req_header(&self) -> &RequestHeader {
        self.http2.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.http2.req_header_mut()
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.http2.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.http2.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.http2.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, piece: Bytes, end: bool) -> Result<()> {
        self.http2.write_body(piece, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.http2.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.http2.response_duplex_vec(tasks).await
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.http2.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.http2.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.http2.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.http2.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.http2.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.http2.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.http2.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.http2.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.http2.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.http2.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.http2.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.http2.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.http2.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.http2.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.http2.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.http2.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.http2.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.http2.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.http2.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.http2.get_retry_buffer()
    }

    // HTTP/2 has no messages beside its requests.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }
}
