//! Buys tokens for service accounts and keeps them while they are good.
//!
//! Whoever waits for a token of one account waits for the same call: the call runs in a
//! task of its own, so a client that goes away cancels nobody's token. A token that nears
//! its end is replaced in the background while it keeps serving. Errors are remembered
//! for a moment, so that a dead token server is not called once per request.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::google::{self, ServiceAccount};
use super::token_client::TokenEndpoint;
use super::token_exchange::{Token, TokenError, buy};

/// How many accounts are remembered; the least recently used makes room.
pub const CAPACITY: usize = 1024;

/// How long an error answers in place of another call.
const ERROR_MEMORY: Duration = Duration::from_secs(1);

type Outcome = Result<Arc<str>, TokenError>;

/// Tokens by account.
#[derive(Clone)]
pub struct TokenCache {
    endpoint: Arc<dyn TokenEndpoint>,
    accounts: Arc<Mutex<Accounts>>,
}

impl TokenCache {
    /// An empty cache of [`CAPACITY`] accounts that buys tokens through `endpoint`.
    pub fn new(endpoint: Arc<dyn TokenEndpoint>) -> Self {
        Self::with_capacity(endpoint, CAPACITY)
    }

    fn with_capacity(endpoint: Arc<dyn TokenEndpoint>, capacity: usize) -> Self {
        Self {
            endpoint,
            accounts: Arc::new(Mutex::new(Accounts::new(capacity))),
        }
    }

    /// The same tokens, bought through another endpoint from now on: how a reload keeps them.
    pub fn through(&self, endpoint: Arc<dyn TokenEndpoint>) -> Self {
        Self {
            endpoint,
            accounts: Arc::clone(&self.accounts),
        }
    }

    /// A token of `account` that is good for a while after `now`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// See [`TokenError`]; the detail goes to the log.
    pub async fn token(&self, account: &Arc<ServiceAccount>, now: SystemTime) -> Outcome {
        let slot = locked(&self.accounts).slot(account.digest());
        let landing = {
            let mut state = locked(&slot);
            match state.next_step(now) {
                Step::Serve(outcome) => return outcome,
                Step::ServeAndRefresh(token) => {
                    self.start_flight(&slot, &mut state, account, now);
                    return Ok(token);
                }
                Step::Join(landing) => landing,
                Step::Fetch => self.start_flight(&slot, &mut state, account, now),
            }
        };
        outcome(landing).await
    }

    fn start_flight(
        &self,
        slot: &Arc<Mutex<State>>,
        state: &mut State,
        account: &Arc<ServiceAccount>,
        now: SystemTime,
    ) -> Landing {
        let (sender, landing) = watch::channel(None);
        state.flight = Some(landing.clone());
        let flight = Flight {
            slot: Arc::clone(slot),
            sender,
            ended: now,
            result: Err(TokenError::Unreachable),
        };
        let endpoint = Arc::clone(&self.endpoint);
        tokio::spawn(flight.fly(endpoint, Arc::clone(account), now));
        landing
    }
}

/// Where the outcome of a call under way will stand.
type Landing = watch::Receiver<Option<Outcome>>;

async fn outcome(mut landing: Landing) -> Outcome {
    match landing.wait_for(Option::is_some).await {
        Ok(outcome) => (*outcome).clone().unwrap_or(Err(TokenError::Unreachable)),
        Err(_) => Err(TokenError::Unreachable),
    }
}

/// What is known of the accounts, bounded.
struct Accounts {
    capacity: usize,
    /// Counts uses: the clock of "least recently used".
    uses: u64,
    /// Digests are uniform, but a client chooses the JSON: the hasher stays seeded.
    slots: HashMap<google::Digest, (Arc<Mutex<State>>, u64), RandomState>,
}

impl Accounts {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            uses: 0,
            slots: HashMap::default(),
        }
    }

    fn slot(&mut self, digest: google::Digest) -> Arc<Mutex<State>> {
        self.uses += 1;
        if !self.slots.contains_key(&digest) && self.slots.len() >= self.capacity {
            self.forget_least_recently_used();
        }
        let (slot, used) = self.slots.entry(digest).or_default();
        *used = self.uses;
        Arc::clone(slot)
    }

    fn forget_least_recently_used(&mut self) {
        let oldest = self.slots.iter().min_by_key(|(_, (_, used))| *used);
        if let Some(digest) = oldest.map(|(digest, _)| *digest) {
            self.slots.remove(&digest);
        }
    }
}

/// What is known of one account.
#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(TokenError, SystemTime)>,
    flight: Option<Landing>,
}

/// What a request that wants a token does next.
enum Step {
    Serve(Outcome),
    ServeAndRefresh(Arc<str>),
    Join(Landing),
    Fetch,
}

impl State {
    fn next_step(&self, now: SystemTime) -> Step {
        let failure = self.failed.filter(|(_, at)| now < *at + ERROR_MEMORY);
        match (&self.token, &self.flight, failure) {
            (Some(token), None, None) if token.is_ageing(now) => {
                Step::ServeAndRefresh(Arc::clone(&token.text))
            }
            (Some(token), ..) if token.is_usable(now) => Step::Serve(Ok(Arc::clone(&token.text))),
            (_, Some(landing), _) => Step::Join(landing.clone()),
            (_, None, Some((error, _))) => Step::Serve(Err(error)),
            (_, None, None) => Step::Fetch,
        }
    }

    fn land(&mut self, result: &Result<Token, TokenError>, ended: SystemTime) {
        self.flight = None;
        match result {
            Ok(token) => {
                self.token = Some(token.clone());
                self.failed = None;
            }
            Err(error) => self.failed = Some((*error, ended)),
        }
    }
}

/// One call to the token server. Lands when dropped, so that a call that was cut short
/// (a runtime that shuts down) leaves nobody waiting.
struct Flight {
    slot: Arc<Mutex<State>>,
    sender: watch::Sender<Option<Outcome>>,
    ended: SystemTime,
    result: Result<Token, TokenError>,
}

impl Flight {
    async fn fly(
        mut self,
        endpoint: Arc<dyn TokenEndpoint>,
        account: Arc<ServiceAccount>,
        now: SystemTime,
    ) {
        let started = Instant::now();
        self.result = buy(&*endpoint, &account, now).await;
        self.ended = now + started.elapsed();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        locked(&self.slot).land(&self.result, self.ended);
        let outcome = self.result.as_ref().map(|token| Arc::clone(&token.text));
        self.sender
            .send_replace(Some(outcome.map_err(|error| *error)));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use http::Uri;
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::super::google::tests::account;
    use super::super::token_client::PostError;
    use super::*;

    type Answered = Result<(u16, Vec<u8>), PostError>;

    /// A token server that numbers its tokens and can be made to wait or to fail.
    struct FakeServer {
        calls: AtomicUsize,
        gate: Semaphore,
        answer: Mutex<Option<Answered>>,
        forms: Mutex<Vec<String>>,
    }

    /// More permits than any test uses: a gate that stands open.
    const OPEN: usize = 1000;

    impl FakeServer {
        fn new(permits: usize) -> Arc<Self> {
            Arc::new(Self {
                calls: AtomicUsize::new(0),
                gate: Semaphore::new(permits),
                answer: Mutex::new(None),
                forms: Mutex::new(vec![]),
            })
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }

        async fn called(&self, times: usize) {
            while self.calls() < times {
                yield_now().await;
            }
        }

        /// Answers this from now on; `None` is a new token each time.
        fn answers(&self, answer: Option<Answered>) {
            *locked(&self.answer) = answer;
        }
    }

    #[async_trait]
    impl TokenEndpoint for FakeServer {
        async fn post_form(&self, url: &Uri, body: String) -> Answered {
            assert_eq!(url, "https://oauth2.googleapis.com/token");
            locked(&self.forms).push(body);
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            self.gate.acquire().await.unwrap().forget();
            locked(&self.answer)
                .clone()
                .unwrap_or_else(|| ok(&token_json(call, 3600)))
        }
    }

    fn token_json(number: usize, lifetime: u64) -> String {
        format!(
            r#"{{"access_token":"token-{number}","expires_in":{lifetime},"token_type":"Bearer"}}"#
        )
    }

    fn ok(body: &str) -> Answered {
        Ok((200, body.as_bytes().to_vec()))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
    }

    async fn token_at(cache: &TokenCache, who: &Arc<ServiceAccount>, seconds: u64) -> String {
        match cache.token(who, at(seconds)).await {
            Ok(token) => token.to_string(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn keeper() -> Arc<ServiceAccount> {
        Arc::new(account("keeper@lighthouse.example"))
    }

    #[tokio::test]
    async fn a_token_is_bought_once_and_serves_until_a_minute_before_its_end() {
        let server = FakeServer::new(OPEN);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        for seconds in [0, 1, 3299] {
            assert_eq!(token_at(&cache, &keeper, seconds).await, "token-1");
        }
        assert_eq!(server.calls(), 1);
        assert_eq!(token_at(&cache, &keeper, 3540).await, "token-2");
        let form = locked(&server.forms)[0].clone();
        let (grant, assertion) = form.split_once('&').unwrap();
        assert_eq!(
            grant,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
        );
        let expected = keeper.assertion(at(0)).unwrap();
        assert_eq!(assertion, format!("assertion={expected}"));
    }

    #[tokio::test]
    async fn whoever_asks_at_once_shares_one_call() {
        let server = FakeServer::new(0);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        let askers: Vec<_> = (0..20)
            .map(|_| {
                let (cache, keeper) = (cache.clone(), keeper.clone());
                tokio::spawn(async move { token_at(&cache, &keeper, 0).await })
            })
            .collect();
        server.called(1).await;
        server.gate.add_permits(OPEN);
        for asker in askers {
            assert_eq!(asker.await.unwrap(), "token-1");
        }
        assert_eq!(server.calls(), 1);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_does_not_cancel_the_call_for_others() {
        let server = FakeServer::new(0);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        let leader = tokio::spawn({
            let (cache, keeper) = (cache.clone(), keeper.clone());
            async move { token_at(&cache, &keeper, 0).await }
        });
        server.called(1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        server.gate.add_permits(OPEN);
        assert_eq!(token_at(&cache, &keeper, 0).await, "token-1");
        assert_eq!(server.calls(), 1);
    }

    #[tokio::test]
    async fn an_ageing_token_serves_while_its_successor_is_bought() {
        let server = FakeServer::new(1);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        assert_eq!(token_at(&cache, &keeper, 0).await, "token-1");
        for _ in 0..3 {
            assert_eq!(token_at(&cache, &keeper, 3301).await, "token-1");
            server.called(2).await;
        }
        assert_eq!(server.calls(), 2, "one refresh at a time");
        server.gate.add_permits(OPEN);
        while token_at(&cache, &keeper, 3301).await == "token-1" {
            yield_now().await;
        }
        assert_eq!(token_at(&cache, &keeper, 6500).await, "token-2");
        assert_eq!(server.calls(), 2);
    }

    #[tokio::test]
    async fn a_failed_refresh_leaves_the_old_token_serving() {
        let server = FakeServer::new(OPEN);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        assert_eq!(token_at(&cache, &keeper, 0).await, "token-1");
        server.answers(Some(Ok((503, vec![]))));
        assert_eq!(token_at(&cache, &keeper, 3301).await, "token-1");
        server.called(2).await;
        assert_eq!(token_at(&cache, &keeper, 3500).await, "token-1");
        server.called(3).await;
        let refused = "Refused { status: 503 }";
        assert_eq!(token_at(&cache, &keeper, 3541).await, refused);
    }

    #[tokio::test]
    async fn an_error_answers_for_a_second_and_then_the_server_is_asked_again() {
        let server = FakeServer::new(OPEN);
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        server.answers(Some(Err(PostError::Unreachable("refused".into()))));
        for _ in 0..3 {
            assert_eq!(token_at(&cache, &keeper, 0).await, "Unreachable");
        }
        assert_eq!(server.calls(), 1);
        server.answers(None);
        assert_eq!(token_at(&cache, &keeper, 3600).await, "token-2");
    }

    #[tokio::test]
    async fn every_answer_that_is_no_token_is_an_error() {
        let invalid_grant = br#"{"error":"invalid_grant","error_description":"bad"}"#.to_vec();
        let cases = [
            (
                Ok((400, invalid_grant)),
                TokenError::Refused { status: 400 },
            ),
            (Ok((302, vec![])), TokenError::Refused { status: 302 }),
            (ok(""), TokenError::BadAnswer),
            (ok(r#"{"id_token":"x"}"#), TokenError::BadAnswer),
            (ok(r#"{"access_token":""}"#), TokenError::BadAnswer),
            (ok(r#"{"access_token":"a\r\nx: y"}"#), TokenError::BadAnswer),
            (Err(PostError::TooLarge), TokenError::BadAnswer),
        ];
        for (answer, error) in cases {
            let server = FakeServer::new(OPEN);
            server.answers(Some(answer.clone()));
            let outcome = TokenCache::new(server).token(&keeper(), at(0)).await;
            assert_eq!(outcome, Err(error), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn short_lived_tokens_are_not_bought_once_per_request() {
        let server = FakeServer::new(OPEN);
        server.answers(Some(ok(&token_json(7, 40))));
        let cache = TokenCache::new(server.clone());
        let keeper = keeper();
        for seconds in [0, 10, 19] {
            assert_eq!(token_at(&cache, &keeper, seconds).await, "token-7");
        }
        assert_eq!(server.calls(), 1);
        token_at(&cache, &keeper, 31).await;
        assert_eq!(server.calls(), 2);
    }

    #[tokio::test]
    async fn the_least_recently_used_account_makes_room() {
        let server = FakeServer::new(OPEN);
        let cache = TokenCache::with_capacity(server.clone(), 2);
        let [a, b, c] = ["a@x", "b@x", "c@x"].map(|who| Arc::new(account(who)));
        assert_eq!(token_at(&cache, &a, 0).await, "token-1");
        assert_eq!(token_at(&cache, &b, 0).await, "token-2");
        assert_eq!(token_at(&cache, &a, 0).await, "token-1");
        assert_eq!(token_at(&cache, &c, 0).await, "token-3");
        assert_eq!(token_at(&cache, &a, 0).await, "token-1", "kept");
        assert_eq!(token_at(&cache, &b, 0).await, "token-4", "forgotten");
        assert_eq!(locked(&cache.accounts).slots.len(), 2);
    }

    #[tokio::test]
    async fn tokens_survive_a_change_of_endpoint() {
        let cache = TokenCache::new(FakeServer::new(OPEN));
        let keeper = keeper();
        assert_eq!(token_at(&cache, &keeper, 0).await, "token-1");
        let other = FakeServer::new(OPEN);
        let cache = cache.through(other.clone());
        assert_eq!(token_at(&cache, &keeper, 1).await, "token-1");
        assert_eq!(other.calls(), 0);
        token_at(&cache, &keeper, 3600).await;
        assert_eq!(other.calls(), 1);
    }
}
