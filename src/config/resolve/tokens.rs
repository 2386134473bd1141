//! Who may pass a gateway.

use ahash::AHashSet;

use super::Problems;
use crate::auth::{Authentication, Consumer, Digest, SHORTEST, digest_of};
use crate::config::schema::{self, AdminToken, GatewayToken};
use crate::config::secret::Secret;

pub(super) fn resolve(
    path: &str,
    authentication: &schema::Authentication,
    problems: &mut Problems,
) -> Authentication {
    let schema::Authentication {
        required,
        tokens,
        anyone_may_spend_stored_keys: _, // the gateway's own
    } = authentication;
    let resolved = all(&format!("{path}.tokens"), tokens, problems);
    Authentication::new(*required, resolved)
}

/// The tokens of operators; all of them are required where there is any.
pub(super) fn operators(tokens: &[AdminToken], problems: &mut Problems) -> Authentication {
    let tokens: Vec<_> = tokens.iter().cloned().map(as_a_gateways).collect();
    let resolved = all("admin.tokens", &tokens, problems);
    Authentication::new(!tokens.is_empty(), resolved)
}

fn as_a_gateways(token: AdminToken) -> GatewayToken {
    let AdminToken {
        name,
        value,
        file,
        sha256,
    } = token;
    GatewayToken {
        name,
        owner: None,
        value,
        file,
        sha256,
    }
}

fn all(path: &str, tokens: &[GatewayToken], problems: &mut Problems) -> Vec<(Digest, Consumer)> {
    let (mut names, mut digests) = (AHashSet::new(), AHashSet::new());
    let mut resolved = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if let Err(why) = good_name(&token.name) {
            problems.add(format!("{at}.name"), why);
        } else if !names.insert(&token.name) {
            problems.add(
                format!("{at}.name"),
                format!("the name `{}` stands twice", token.name),
            );
        }
        let owner = token.owner.as_deref();
        if let Some(Err(why)) = owner.map(good_name) {
            problems.add(format!("{at}.owner"), why);
        }
        match digest(token) {
            Err(why) => problems.add(at, why),
            Ok(digest) if !digests.insert(digest) => {
                problems.add(
                    at,
                    "another name has the same token: nobody could tell whose it is",
                );
            }
            Ok(digest) => resolved.push((digest, consumer(token))),
        }
    }
    resolved
}

fn consumer(token: &GatewayToken) -> Consumer {
    Consumer {
        owner: token.owner.as_deref().map(Into::into),
        ..Consumer::named(&token.name)
    }
}

/// Whether a name may stand in labels and logs.
pub(crate) fn good_name(name: &str) -> Result<(), &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match (1..=64).contains(&name.len()) && name.bytes().all(good) {
        true => Ok(()),
        false => Err("is 1 to 64 letters, digits, -, _ and ."),
    }
}

fn digest(token: &GatewayToken) -> Result<Digest, String> {
    let GatewayToken {
        name: _,
        owner: _,
        value,
        file,
        sha256,
    } = token;
    match (value, file, sha256) {
        (Some(value), None, None) => digest_of_secret(&value.read()?),
        (None, Some(file), None) => digest_of_secret(&Secret::from_file(file)?),
        (None, None, Some(digits)) => {
            from_digits(digits).ok_or_else(|| "sha256: must be 64 hexadecimal digits".to_owned())
        }
        _ => Err("write exactly one of `value`, `file` and `sha256`".to_owned()),
    }
}

fn digest_of_secret(secret: &Secret) -> Result<Digest, String> {
    let token = secret.expose();
    if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "a token is at least {SHORTEST} visible ASCII characters; `openssl rand -hex 32` makes one"
        ));
    }
    Ok(digest_of(token.as_bytes()))
}

fn from_digits(digits: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    let good = digits.len() == 2 * digest.len() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    for (index, byte) in digest.iter_mut().enumerate().filter(|_| good) {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    good.then_some(digest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn token(name: &str) -> GatewayToken {
        GatewayToken {
            name: name.into(),
            value: Some(Secret::new(TOKEN)),
            ..GatewayToken::default()
        }
    }

    /// What is wrong with these, and who may pass.
    fn resolved(required: bool, tokens: Vec<GatewayToken>) -> (String, Authentication) {
        let mut problems = Problems::default();
        let asked = schema::Authentication {
            required,
            tokens,
            anyone_may_spend_stored_keys: false,
        };
        let resolved = resolve("a", &asked, &mut problems);
        let said = problems.0.iter().map(ToString::to_string);
        (said.collect::<Vec<_>>().join("\n"), resolved)
    }

    #[test]
    fn a_token_is_known_by_its_text_and_by_its_digest() {
        let digits: String = digest_of(b"of-another-one-x")
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        let by_digest = GatewayToken {
            value: None,
            sha256: Some(digits),
            ..token("b.2")
        };
        let (said, all) = resolved(true, vec![token("a-1"), by_digest]);
        assert_eq!(said, "");
        assert_eq!(&*all.consumer(TOKEN.as_bytes()).unwrap().name, "a-1");
        assert_eq!(
            &*all.consumer(b"Bearer of-another-one-x").unwrap().name,
            "b.2"
        );
    }

    #[test]
    fn mistakes_are_named_and_never_the_token() {
        let with = |value: &str| GatewayToken {
            value: Some(Secret::new(value)),
            ..token("short")
        };
        let owned = |owner: &str| GatewayToken {
            owner: Some(owner.into()),
            ..token("owned")
        };
        let sha256 = |digits: &str| GatewayToken {
            value: None,
            sha256: Some(digits.into()),
            ..token("digest")
        };
        for (tokens, expected) in [
            (vec![token("")], "a.tokens[0].name: is 1 to 64"),
            (vec![token("a b")], "a.tokens[0].name: is 1 to 64"),
            (vec![owned("a b")], "a.tokens[0].owner: is 1 to 64"),
            (vec![owned("")], "a.tokens[0].owner: is 1 to 64"),
            (
                vec![token("a"), token("a")],
                "a.tokens[1].name: the name `a` stands twice",
            ),
            (
                vec![token("a"), token("b")],
                "a.tokens[1]: another name has the same token",
            ),
            (vec![with("hunter2")], "a.tokens[0]: a token is at least 16"),
            (
                vec![with("hunter2 hunter2 hunter2")],
                "a.tokens[0]: a token is at least 16",
            ),
            (vec![sha256("12")], "a.tokens[0]: sha256: must be 64"),
            (
                vec![sha256(&"é".repeat(32))],
                "a.tokens[0]: sha256: must be 64",
            ),
            (
                vec![GatewayToken {
                    sha256: Some("00".repeat(32)),
                    ..token("both")
                }],
                "a.tokens[0]: write exactly one of",
            ),
        ] {
            let (said, _) = resolved(true, tokens);
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
