//! `tollgate provider-keys`: the provider keys that the running process keeps.
//!
//! A secret is read from a prompt, a file or standard input, never from an argument, which every
//! process on the machine could read.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::asking::{Problem, ask, ended, print};
use crate::admin::client::Place;
use crate::config::secret::Secret;

pub const EXAMPLES: &str = "\
Examples:
  tollgate provider-keys set openai                            asks for the key, for all gateways
  tollgate provider-keys set openai --gateway acme/support --alias batch --from key.txt
  vault read -field=key secret/openai | tollgate provider-keys set openai --from -
  tollgate provider-keys list
  tollgate provider-keys remove openai --alias batch --gateway acme/support
  tollgate provider-keys reencrypt                             after a new master key was configured";

/// Where the keys of all gateways are.
const ALL: &str = "/-/provider_configs";
/// Longest secret that is read, in bytes; the listener for operators takes no longer body.
const LONGEST: u64 = 48 * 1024;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Wanted {
    /// Store a key, in place of the one of that name if there is one
    Set {
        #[command(flatten)]
        key: Named,
        /// Its share of the requests that name no key, which are spread over all keys with a weight;
        /// 0: it has none
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        weight: Option<u32>,
        /// A file that holds the key, or - for standard input [default: a prompt]
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// List the keys, without their secrets
    List {
        /// One JSON object a line instead of words
        #[arg(long)]
        json: bool,
    },
    /// Remove a key; requests that want it are refused from now on
    Remove {
        #[command(flatten)]
        key: Named,
    },
    /// Encrypt all keys under secrets.master_key that are encrypted under secrets.previous_master_key
    Reencrypt,
}

/// The name of a key.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// The provider's slug, such as openai, or an alias of it
    provider: String,
    /// What cf-aig-byok-alias names it by; `default` pays for requests that name none
    #[arg(long, default_value = "default")]
    alias: String,
    /// For requests of this gateway only, not for all
    #[arg(long, value_name = "ACCOUNT/GATEWAY", value_parser = gateway)]
    gateway: Option<Gateway>,
}

/// Account and gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    account: String,
    id: String,
}

fn gateway(text: &str) -> Result<Gateway, String> {
    let of_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = |id: &str| !id.is_empty() && id.bytes().all(of_id);
    match text.split_once('/') {
        Some((account, id)) if good(account) && good(id) => Ok(Gateway {
            account: account.to_owned(),
            id: id.to_owned(),
        }),
        _ => Err("must be account/gateway, as in the configuration".to_owned()),
    }
}

impl Named {
    /// Where the keys are among which it is.
    fn collection(&self) -> String {
        match &self.gateway {
            None => ALL.to_owned(),
            Some(Gateway { account, id }) => {
                format!("/client/v4/accounts/{account}/ai-gateway/gateways/{id}/provider_configs")
            }
        }
    }

    /// The one that is meant among those of its provider.
    fn find<'a>(&self, entries: &'a [Value]) -> Option<&'a Value> {
        let named = entries.iter().filter(|entry| self.is(entry));
        // Only the process knows aliases. A key that was stored under this very name comes first.
        named.max_by_key(|entry| entry["provider_slug"] == *self.provider)
    }

    fn is(&self, entry: &Value) -> bool {
        let gateway = self.gateway.as_ref();
        entry["alias"] == *self.alias
            && entry["account_id"].as_str() == gateway.map(|gateway| &*gateway.account)
            && entry["gateway_id"].as_str() == gateway.map(|gateway| &*gateway.id)
    }
}

/// Does it.
pub fn run(place: &Place, wanted: &Wanted) -> ExitCode {
    let done = match wanted {
        Wanted::Set { key, weight, from } => set(place, key, *weight, from.as_deref()),
        Wanted::List { json } => list(place, *json),
        Wanted::Remove { key } => remove(place, key),
        Wanted::Reencrypt => reencrypt(place),
    };
    ended(place, done.and_then(|said| print(&said)))
}

fn set(
    place: &Place,
    key: &Named,
    weight: Option<u32>,
    from: Option<&Path>,
) -> Result<String, Problem> {
    let secret = secret(from).map_err(Problem::Refused)?;
    let body = json!({
        "provider_slug": key.provider,
        "alias": key.alias,
        "weight": weight,
        "secret": secret.expose(),
    });
    let answer = ask(place, "PUT", &key.collection(), Some(&body))?;
    Ok(format!("stored: {}", line(&answer["result"])))
}

fn remove(place: &Place, key: &Named) -> Result<String, Problem> {
    let provider: String = form_urlencoded::byte_serialize(key.provider.as_bytes()).collect();
    let entries = entries(place, &format!("&provider_slug={provider}"))?;
    let found = key
        .find(&entries)
        .and_then(|entry| entry["id"].as_str())
        .ok_or_else(|| {
            let message =
                "no such key is stored; `tollgate provider-keys list` shows those that are";
            Problem::Refused(message.to_owned())
        })?;
    let path = format!("{ALL}/{found}");
    let answer = ask(place, "DELETE", &path, None)?;
    Ok(format!("removed: {}", line(&answer["result"])))
}

fn list(place: &Place, json: bool) -> Result<String, Problem> {
    let entries = entries(place, "")?;
    let lines: Vec<_> = entries
        .iter()
        .map(|entry| match json {
            true => entry.to_string(),
            false => line(entry),
        })
        .collect();
    match lines.is_empty() && !json {
        true => Ok("no provider keys are stored".to_owned()),
        false => Ok(lines.join("\n")),
    }
}

fn reencrypt(place: &Place) -> Result<String, Problem> {
    let path = format!("{ALL}/reencrypt");
    let answer = ask(place, "POST", &path, None)?;
    let count = &answer["result"]["reencrypted"];
    Ok(format!(
        "encrypted anew: {count}; secrets.previous_master_key is needed no more"
    ))
}

/// All that are stored, or those that the end of a query wants, page by page.
fn entries(place: &Place, wanted: &str) -> Result<Vec<Value>, Problem> {
    let mut entries = Vec::new();
    for page in 1.. {
        let answer = ask(place, "GET", &format!("{ALL}?page={page}{wanted}"), None)?;
        let found = answer["result"].as_array().cloned().unwrap_or_default();
        if found.is_empty() {
            break;
        }
        entries.extend(found);
    }
    Ok(entries)
}

/// A key in words.
fn line(entry: &Value) -> String {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let mut line = format!("{} {}", text("provider_slug"), text("alias"));
    if let (Some(account), Some(id)) = (entry["account_id"].as_str(), entry["gateway_id"].as_str())
    {
        line += &format!("  of {account}/{id}");
    }
    match text("secret_preview") {
        "" => {}
        preview => line += &format!("  …{preview}"),
    }
    if let Some(weight) = entry["weight"].as_u64().filter(|weight| *weight > 0) {
        line += &format!("  weight {weight}");
    }
    line += &format!("  {}", text("modified_at"));
    if entry["available"] == false {
        line += "  UNAVAILABLE: encrypted under another master key, or there is none";
    }
    line
}

/// The secret, from where it was said or asked for.
fn secret(from: Option<&Path>) -> Result<Secret, String> {
    match from {
        Some(file) if file != Path::new("-") => Secret::from_file(file),
        None if io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password("key (not shown): ");
            trimmed(&typed.map_err(|error| format!("the prompt: {error}"))?)
        }
        _ => {
            let mut text = String::new();
            let read = io::stdin().take(LONGEST + 1).read_to_string(&mut text);
            read.map_err(|error| format!("standard input: {error}"))?;
            match text.len() as u64 > LONGEST {
                true => Err(format!("standard input: more than {LONGEST} bytes")),
                false => trimmed(&text),
            }
        }
    }
}

fn trimmed(text: &str) -> Result<Secret, String> {
    match text.trim() {
        "" => Err("the key is empty; nothing was stored".to_owned()),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_an_account_and_an_id() {
        let named = Named {
            provider: "openai".to_owned(),
            alias: "team".to_owned(),
            gateway: Some(gateway("a/g").unwrap()),
        };
        let path = "/client/v4/accounts/a/ai-gateway/gateways/g/provider_configs";
        assert_eq!(named.collection(), path);
        let entry = |gateway: Option<&str>| {
            json!({
                "provider_slug": "openai", "alias": "team",
                "account_id": gateway.map(|_| "a"), "gateway_id": gateway,
            })
        };
        assert!(named.is(&entry(Some("g"))));
        assert!(!named.is(&entry(Some("h"))) && !named.is(&entry(None)));
        for wrong in ["", "a", "a/", "/g", "a/g/h", "a/../b", "a/g?x"] {
            assert!(gateway(wrong).is_err(), "{wrong}");
        }
    }

    /// The process answers with what it has under the slug that an alias stands for.
    #[test]
    fn a_key_of_the_very_name_is_meant_before_one_of_its_providers_slug() {
        let named = Named {
            provider: "xai".to_owned(),
            alias: "default".to_owned(),
            gateway: None,
        };
        let of = |provider: &str, alias: &str| json!({ "provider_slug": provider, "alias": alias });
        let all = [of("grok", "team"), of("grok", "default")];
        assert_eq!(named.find(&all), Some(&all[1]));
        let all = [of("xai", "default"), of("grok", "default")];
        assert_eq!(named.find(&all), Some(&all[0]));
        assert_eq!(named.find(&[of("grok", "team")]), None);
    }

    #[test]
    fn a_key_is_told_in_a_line() {
        let entry = json!({
            "provider_slug": "openai", "alias": "team", "account_id": "a", "gateway_id": "g",
            "secret_preview": "wxyz", "weight": 3, "modified_at": "2026-11-28T06:30:00.123Z",
            "available": false,
        });
        let told = line(&entry);
        assert!(told.starts_with(
            "openai team  of a/g  …wxyz  weight 3  2026-11-28T06:30:00.123Z  UNAVAILABLE"
        ));
    }
}
