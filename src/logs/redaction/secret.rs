//! Names of headers that carry credentials.

use std::cell::RefCell;
use std::sync::LazyLock;

use ahash::AHashMap;
use regex::bytes::Regex;

/// Some whole, some by a part or their end. Not `-tokens`: those are counted.
static NAMES: LazyLock<Regex> = LazyLock::new(|| {
    const NAMES: &str = concat!(
        "^(?:cookie|set-cookie|x-amz-security-token|sec-websocket-protocol)$",
        "|authorization|api-?key|auth-key|subscription-key|jwt|password",
        "|-(?:token|secret|signature)$",
    );
    Regex::new(NAMES).expect("every test of redaction uses this expression")
});

/// Most names that a thread remembers: clients make them up.
const MOST_KNOWN: usize = 1_024;

thread_local! {
    static KNOWN: RefCell<AHashMap<Box<[u8]>, bool>> = RefCell::default();
}

/// Whether the value of such a header is never written. `name` is in lower case.
pub fn is_secret(name: &[u8]) -> bool {
    KNOWN.with_borrow_mut(|known| {
        if let Some(is_secret) = known.get(name) {
            return *is_secret;
        }
        let is_secret = NAMES.is_match(name);
        if known.len() < MOST_KNOWN {
            known.insert(name.into(), is_secret);
        }
        is_secret
    })
}
