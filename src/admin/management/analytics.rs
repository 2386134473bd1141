//! `…/gateways/{gateway}/analytics` and `/-/analytics`: finished requests added up over time. What
//! has only just ended is in it too.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::logs::{blocking, parameters, unreadable};
use super::{Admin, Answer, Gateway, Refusal, enveloped};
use crate::analytics::query::Query;
use crate::analytics::reader::Reader;
use crate::database::ReadError;
use crate::logs::filter::FieldError;

/// How long an answer is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who looks waits for what has only just ended to be written.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// Answers for one gateway, or for all together.
pub async fn answer(
    admin: &Admin,
    gateway: Option<Gateway<'_>>,
    query: &str,
) -> Result<Answer, Refusal> {
    let mut parameters = parameters(query);
    if let Some((account, gateway)) = gateway {
        if parameters.iter().any(|(name, _)| name == "gateway") {
            return Err(FieldError::new("gateway", "is in the path already").into());
        }
        parameters.push(("gateway".to_owned(), format!("{account}/{gateway}")));
    }
    let named = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let query = Query::parse(named, SystemTime::now())?;
    admin.ledger.caught_up().await;
    let store = admin.analytics.clone();
    let found = blocking(move || {
        if let Err(late) = store.flush_within(CATCHING_UP) {
            log::debug!("analytics are read without the newest requests: {late}");
        }
        let reader = Reader::open(store.dir(), PATIENCE).map_err(ReadError::Store);
        let found = reader.and_then(|mut reader| reader.answer(&query));
        found.map_err(|error| unreadable("the store of analytics", &error))
    });
    Ok(enveloped(&json!({ "result": found.await? })))
}
