//! Answers to HTTP/1.0 clients go without chunks, which that version does not know.
//!
//! Between the gateway's own filters and the client, Pingora adds chunks to whatever came from
//! an HTTP/2 provider without a length. Only a module of its comes later.

use std::any::Any;

use async_trait::async_trait;
use http::Version;
use http::header::TRANSFER_ENCODING;
use pingora_core::Result;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora_http::{RequestHeader, ResponseHeader};

/// Makes one for each request.
pub struct ForHttp10;

impl HttpModuleBuilder for ForHttp10 {
    fn init(&self) -> Module {
        Box::new(Unchunked { asked: false })
    }
}

struct Unchunked {
    /// The client speaks HTTP/1.0.
    asked: bool,
}

#[async_trait]
impl HttpModule for Unchunked {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> Result<()> {
        self.asked = request.version == Version::HTTP_10;
        Ok(())
    }

    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end_of_stream: bool,
    ) -> Result<()> {
        if self.asked {
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
