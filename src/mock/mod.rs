//! The mock: a provider inside the binary, for trying the gateway without a key, for
//! load tests and for users' own CI.
//!
//! It is a real upstream on a socket, HTTP/1.1 and h2c, that speaks OpenAI's chat
//! completions, responses and embeddings, Anthropic's messages and Gemini's
//! generateContent, streamed and not. Answers depend on the request alone: the same
//! request gets the same bytes, and no key is asked for. How an answer behaves
//! (latency, size, errors, slow drips, cuts) is chosen by the model's name:
//! [`Behaviour`] has the words, `docs/mock.md` the manual.
//!
//! In the order in which a request meets them:
//!
//! - `connection`: a socket as Pingora's server wants it.
//! - `server`: reads requests, sends answers at their pace, stops when the client goes.
//! - `echo`: sends a body back, or its digest, without holding it.
//! - `answer`: routes a request to a dialect; everything from here on is pure.
//! - `behaviour`: the grammar of model names.
//! - `call`, `reply`: what was asked and what is said, whatever the dialect.
//! - `openai_chat`, `openai_responses`, `anthropic_messages`, `gemini_generate`
//!   (each a `dialect`), `embeddings`, `models`: the shapes on the wire.
//!
//! It leaves out what needs a model or a memory: sampling parameters, token limits,
//! structured output and stored responses are accepted and ignored.

mod answer;
mod anthropic_messages;
mod behaviour;
mod call;
mod connection;
mod dialect;
mod echo;
mod embeddings;
mod gemini_generate;
mod models;
mod openai_chat;
mod openai_responses;
mod reply;
mod server;

pub use answer::{Answer, Body, Request, answer};
pub use behaviour::{Behaviour, NotUnderstood};
pub use models::Caller;
pub use server::serve;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod socket_tests;
