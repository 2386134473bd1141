//! What rules of rates and budgets know of a request.

use std::net::IpAddr;

use crate::auth::Consumer;
use crate::metadata::Metadata;

/// What is known of a request, or of one try of it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// `account/gateway`.
    pub gateway: &'a str,
    /// What tells apart whose token or key it brought.
    pub key: Option<&'a str>,
    /// What that is called.
    pub key_name: Option<&'a str>,
    /// Who answers for it.
    pub owner: Option<&'a str>,
    /// Slug of the provider that is asked.
    pub provider: Option<&'a str>,
    /// The model, by the name that goes to the provider, if it names one.
    pub model: Option<&'a str>,
    /// Where the client is.
    pub address: Option<IpAddr>,
    /// What it says of the request.
    pub metadata: &'a Metadata,
}

impl<'a> Facts<'a> {
    /// Of nobody's request that says this.
    pub fn of(metadata: &'a Metadata) -> Self {
        Self {
            gateway: "",
            key: None,
            key_name: None,
            owner: None,
            provider: None,
            model: None,
            address: None,
            metadata,
        }
    }

    /// The same from somebody who brought a token or a key.
    pub fn from(self, consumer: Option<&'a Consumer>) -> Self {
        Self {
            key: consumer.map(Consumer::identity),
            key_name: consumer.map(|consumer| &*consumer.name),
            owner: consumer.and_then(|consumer| consumer.owner.as_deref()),
            ..self
        }
    }
}
