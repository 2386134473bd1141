//! `…/gateways/{gateway}/logs…`: finished requests, found, shown, rated and removed (contract, logs
//! REST API), and priced again. What is read is read on threads that may block, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::{Admin, Answer, Asked, Refusal, done, enveloped, export, id, only};
use crate::admin::response;
use crate::gateway::Snapshot;
use crate::logs::query::{Deletion, Patch, Query, Repricing};
use crate::logs::reader::{ReadError, Reader, Scope};
use crate::logs::reprice::Book;
use crate::logs::segments::Body;
use crate::logs::store::Store;

/// What is meant in messages.
pub(super) const STORE: &str = "the log store";
/// How long a page is looked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one step of a re-pricing works.
const REPRICING: Duration = Duration::from_millis(1_500);
/// How long who looks waits for what has only just ended to be written.
pub(super) const CATCHING_UP: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Resource {
    /// A page of them.
    List,
    /// All of them.
    Export,
    /// All of them, by other prices.
    Reprice,
    /// One of them.
    One(Uuid),
    /// The body of its request.
    Request(Uuid),
    /// The body of its answer.
    Response(Uuid),
}

impl Resource {
    /// What stands behind `/logs/`.
    pub fn parse(rest: &str) -> Option<Self> {
        match rest.split_once('/') {
            None if rest == "export" => Some(Self::Export),
            None if rest == "reprice" => Some(Self::Reprice),
            None => id(rest).map(Self::One),
            Some((one, "request")) => id(one).map(Self::Request),
            Some((one, "response")) => id(one).map(Self::Response),
            Some(_) => None,
        }
    }
}

/// Answers for a resource of `scope`.
pub async fn answer(
    admin: &Admin,
    asked: &Asked<'_>,
    scope: Scope,
    resource: Resource,
) -> Result<Answer, Refusal> {
    let store = admin.logs.clone().ok_or_else(|| {
        let message = "there is no log store: logs.max_size is 0";
        Refusal::of(StatusCode::NOT_FOUND, message)
    })?;
    // Who has an answer finds its entry.
    admin.ledger.caught_up().await;
    let (method, query) = (asked.method, parameters(asked.query));
    match resource {
        Resource::List => {
            only(method, &[Method::GET, Method::DELETE])?;
            if method == Method::DELETE {
                return delete(store, scope, &query).await;
            }
            list(store, scope, &query).await
        }
        Resource::Export => {
            only(method, &[Method::GET])?;
            export::answer(store, scope, &query)
        }
        Resource::Reprice => {
            only(method, &[Method::POST])?;
            let snapshot = admin.live.snapshot().load_full();
            reprice(store, scope, snapshot, &query).await
        }
        Resource::One(id) => {
            only(method, &[Method::GET, Method::PATCH])?;
            if method == Method::PATCH {
                return patch(store, scope, id, asked.body).await;
            }
            let found = read(store, move |reader| reader.get(&scope, id)).await?;
            let entry = found.ok_or_else(|| no_entry(id))?;
            Ok(enveloped(&json!({ "result": entry })))
        }
        Resource::Request(id) => {
            only(method, &[Method::GET])?;
            let body = read(store, move |reader| reader.request(&scope, id)).await?;
            body.map(body_of).ok_or_else(|| no_body(id))
        }
        Resource::Response(id) => {
            only(method, &[Method::GET])?;
            let body = read(store, move |reader| reader.response(&scope, id)).await?;
            body.map(body_of).ok_or_else(|| no_body(id))
        }
    }
}

/// The parameters of a query, decoded.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

fn borrowed(query: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

async fn list(store: Store, scope: Scope, query: &[(String, String)]) -> Result<Answer, Refusal> {
    let query = Query::parse(borrowed(query))?;
    let page = read(store, move |reader| reader.list(&scope, &query)).await?;
    Ok(enveloped(&page))
}

async fn delete(store: Store, scope: Scope, query: &[(String, String)]) -> Result<Answer, Refusal> {
    let deletion = Deletion::parse(borrowed(query))?;
    let deleted = blocking(move || {
        store
            .delete(&scope, &deletion)
            .map_err(|why| unavailable(STORE, &why))
    });
    Ok(done(&json!({ "deleted": deleted.await? })))
}

async fn patch(store: Store, scope: Scope, id: Uuid, body: &[u8]) -> Result<Answer, Refusal> {
    let patch = Patch::parse(body)?;
    let patched = blocking(move || {
        store
            .patch(&scope, id, patch)
            .map_err(|why| unavailable(STORE, &why))
    });
    match patched.await? {
        true => Ok(done(&json!({}))),
        false => Err(no_entry(id)),
    }
}

/// One step: who asks goes on until there is no cursor.
async fn reprice(
    store: Store,
    scope: Scope,
    snapshot: Arc<Snapshot>,
    query: &[(String, String)],
) -> Result<Answer, Refusal> {
    let repricing = Repricing::parse(borrowed(query))?;
    let step = blocking(move || {
        catch_up(&store);
        let book = Book::of(&snapshot);
        let step = store.reprice(&scope, &repricing, &book, REPRICING);
        step.map_err(|why| unavailable(STORE, &why))
    });
    Ok(enveloped(&json!({ "result": step.await? })))
}

/// Waits until all that has ended before is written. What is not written in time will be found
/// later: older entries are there all the same.
fn catch_up(store: &Store) {
    if let Err(late) = store.flush(CATCHING_UP) {
        log::debug!("the log store is used without its newest entries: {late}");
    }
}

/// Reads the store, with all in it that has ended before.
async fn read<T: Send + 'static>(
    store: Store,
    with: impl FnOnce(&mut Reader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Refusal> {
    blocking(move || {
        catch_up(&store);
        let mut reader =
            Reader::open(store.dir(), PATIENCE).map_err(|error| unreadable(STORE, &error))?;
        with(&mut reader).map_err(|error| unreadable(STORE, &error))
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(job).await;
    done.unwrap_or_else(|error| Err(Refusal::broken(&error.to_string())))
}

pub(super) fn unreadable(what: &str, error: &ReadError) -> Refusal {
    match error {
        ReadError::TooSlow(_) => Refusal::of(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        ReadError::Store(problem) => unavailable(what, &problem.to_string()),
    }
}

pub(super) fn unavailable(what: &str, why: &str) -> Refusal {
    let message = format!("{what} cannot be used right now: {why}");
    Refusal::of(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn no_entry(id: Uuid) -> Refusal {
    let message =
        format!("no request {id} is logged here; it may have expired, or not be collected");
    Refusal::of(StatusCode::NOT_FOUND, message)
}

fn no_body(id: Uuid) -> Refusal {
    let message = format!(
        "no such body is kept of request {id}: see logs.payload, logs.max_body and cf-aig-collect-log-payload"
    );
    Refusal::of(StatusCode::NOT_FOUND, message)
}

/// A body as it was, but so that no browser takes it for a page: it is what strangers wrote.
fn body_of(body: Body) -> Answer {
    let Body {
        bytes,
        complete,
        encoded,
    } = body;
    let is_json = !encoded && serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    let kind = match (is_json, std::str::from_utf8(&bytes)) {
        (true, _) => "application/json",
        (false, Ok(_)) if !encoded => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let mut answer: Response<Vec<u8>> = response(StatusCode::OK, kind, bytes.into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(CONTENT_SECURITY_POLICY, sandbox);
    let complete = HeaderValue::from_static(if complete { "true" } else { "false" });
    headers.insert("tollgate-body-complete", complete);
    Answer::Whole(answer)
}
