//! The last that an answer passes on its way to the client, a module of Pingora's: between the
//! gateway's own filters and the client Pingora still changes what passes, and only a module learns
//! of every end.
//!
//! Answers to HTTP/1.0 clients go without chunks, which that version does not know: Pingora adds
//! them to whatever came from an HTTP/2 provider without a length. And a stream of events tells what
//! it took and cost, where its client has asked for that.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Version};
use pingora_core::Result;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::told::Teller;
use crate::wire::aside::Aside;

/// Makes one for each request.
pub struct Outlets;

impl HttpModuleBuilder for Outlets {
    fn init(&self) -> Module {
        Box::new(Outlet {
            is_http10: false,
            commented: None,
        })
    }
}

struct Outlet {
    /// The client speaks HTTP/1.0.
    is_http10: bool,
    commented: Option<Box<Commented>>,
}

/// A stream that is to tell what it cost.
struct Commented {
    aside: Aside,
    teller: Arc<Teller>,
}

/// The stream of events that begins is to tell what it took.
pub fn tell(session: &mut Session, teller: Arc<Teller>) {
    if let Some(outlet) = session.downstream_modules_ctx.get_mut::<Outlet>() {
        outlet.commented = Some(Box::new(Commented {
            aside: Aside::default(),
            teller,
        }));
    }
}

/// The answer has broken off: what of it has not gone out, and is to before anything else.
pub fn let_go(session: &mut Session) -> Option<Bytes> {
    let outlet = session.downstream_modules_ctx.get_mut::<Outlet>()?;
    let mut commented = outlet.commented.take()?;
    Some(commented.aside.let_go()).filter(|held| !held.is_empty())
}

impl Commented {
    fn pass(&mut self, body: &mut Option<Bytes>, ends: bool) {
        let Self { aside, teller } = self;
        let had_some = body.is_some();
        let passed = body
            .take()
            .map(|piece| aside.push(piece, || teller.comment()));
        let rest = ends.then(|| aside.finish(|| teller.comment()));
        *body = match (passed, rest.filter(|rest| !rest.is_empty())) {
            (Some(passed), Some(rest)) => Some([passed, rest].concat().into()),
            (None, Some(rest)) => Some(rest),
            // To Pingora what has no bytes may be the end.
            (passed, None) => passed.filter(|passed| !passed.is_empty() || (ends && had_some)),
        };
    }
}

#[async_trait]
impl HttpModule for Outlet {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> Result<()> {
        self.is_http10 = request.version == Version::HTTP_10;
        Ok(())
    }

    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end_of_stream: bool,
    ) -> Result<()> {
        if self.is_http10 {
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn response_body_filter(
        &mut self,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
    ) -> Result<()> {
        if let Some(commented) = &mut self.commented {
            commented.pass(body, end_of_stream);
        }
        Ok(())
    }

    /// Behind trailers nothing can come any more, and what comes here stands in their place.
    fn response_trailer_filter(
        &mut self,
        _trailers: &mut Option<Box<HeaderMap>>,
    ) -> Result<Option<Bytes>> {
        let commented = self.commented.take();
        let held = commented.map(|mut commented| commented.aside.let_go());
        Ok(held.filter(|held| !held.is_empty()))
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        let mut rest = None;
        if let Some(commented) = &mut self.commented {
            commented.pass(&mut rest, true);
        }
        Ok(rest)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
