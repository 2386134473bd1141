//! `tollgate keys`: API keys of the running process, over the listener for operators, which has the
//! last word on all of it. What options say is brought into the JSON that it wants.

mod said;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::asking::{Problem, ask, ended, print};
use super::logs::harmless;
use crate::admin::client::Place;
use crate::config::load::parse_as;

pub const EXAMPLES: &str = "\
Examples:
  tollgate keys create --name app --owner search --expires 90d
  tollgate keys create --name ci --gateway 'stage-*' --model 'gpt-4o*' --provider openai \\
      --budget 10usd/day --rate 100/1m --rate '200000 tokens/1h' --metadata team=search
  tollgate keys create --from key.yaml       all that a key can have: docs/keys.md
  KEY=$(tollgate keys create --name app)     the key alone goes to standard output
  tollgate keys list
  tollgate keys show 3k9w0c5v8x2m --json
  tollgate keys rotate 3k9w0c5v8x2m --grace 10m
  tollgate keys revoke 3k9w0c5v8x2m";

/// Keys that the API gives at once.
const PAGE: usize = 50;
/// Most bytes of a definition that is read.
const LARGEST: u64 = 64 << 10;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Wanted {
    /// Make a key and show it, this once
    ///
    /// The key goes to standard output, what else there is to say to standard error.
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),
    /// List all keys, the newest first
    List {
        /// One JSON object a line instead of words
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of a key; its secret is not
    Show {
        /// The id of the key: its part between the first and the second dash
        id: String,
        /// On one line
        #[arg(long)]
        json: bool,
    },
    /// Give a key a new secret and show it, this once; what else is said of the key stays
    Rotate {
        /// The id of the key
        id: String,
        /// How long the old secret still works, such as 10m; at most 31d [default: not at all]
        #[arg(long, value_name = "TIME")]
        grace: Option<String>,
        /// One JSON object instead of words
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key, for good and everywhere within a second
    Revoke {
        /// The id of the key
        id: String,
        /// One JSON object instead of words
        #[arg(long)]
        json: bool,
    },
}

/// What is said of a new key. Options go before what a file says.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Whose it is, as the log calls it
    #[arg(long, required_unless_present = "from")]
    name: Option<String>,
    /// Who answers for it: costs are added up by owners
    #[arg(long)]
    owner: Option<String>,
    /// The account whose gateways it may pass [default: what the file says (null: all), or default]
    #[arg(long)]
    account: Option<String>,
    /// It may pass the gateways of all accounts
    #[arg(long, conflicts_with = "account")]
    all_accounts: bool,
    /// A gateway that it may pass, by id; `*` stands for anything; may be said several times
    /// [default: all]
    #[arg(long, value_name = "ID")]
    gateway: Vec<String>,
    /// When it expires: after a time (30d) or at one (2027-01-31, 2027-01-31T12:00:00Z) [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// A model that it may ask for; `*` stands for anything; may be said several times [default: all]
    #[arg(long)]
    model: Vec<String>,
    /// A provider that it may ask, by slug; may be said several times [default: all]
    #[arg(long)]
    provider: Vec<String>,
    /// From where it may come: an address or a range; may be said several times [default: anywhere]
    #[arg(long, value_name = "RANGE")]
    address: Vec<String>,
    /// Most output tokens that one request may ask for
    #[arg(long, value_name = "NUMBER")]
    max_tokens: Option<u64>,
    /// How much it may spend: 10usd/day, 500usd/month, 2.50usd/24h; may be said several times
    #[arg(long, value_name = "MONEY/TIME", value_parser = said::budget)]
    budget: Vec<Value>,
    /// How fast its requests may come: 100/1m, '200000 tokens/1h', '5 concurrent'; may be said several
    /// times
    #[arg(long, value_name = "NUMBER/TIME", value_parser = said::rate)]
    rate: Vec<Value>,
    /// What is noted of each of its requests: NAME=VALUE; may be said several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = said::pair)]
    metadata: Vec<(String, String)>,
    /// The whole definition, or the rest of it: a file of YAML or JSON, `-` for standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(place: &Place, wanted: &Wanted) -> ExitCode {
    let done = match wanted {
        Wanted::Create(create) => make(place, create),
        Wanted::List { json } => list(place, *json),
        Wanted::Show { id, json } => show(place, id, *json),
        Wanted::Rotate { id, grace, json } => rotate(place, id, grace.as_deref(), *json),
        Wanted::Revoke { id, json } => revoke(place, id, *json),
    };
    ended(place, done)
}

fn make(place: &Place, create: &Create) -> Result<(), Problem> {
    let definition = definition(create)?;
    let key = ask(place, "POST", "/-/keys", Some(&definition))?["result"].take();
    shown_once(&key, "is made", create.json)
}

fn rotate(place: &Place, id: &str, grace: Option<&str>, json: bool) -> Result<(), Problem> {
    let body = grace.map_or_else(|| json!({}), |grace| json!({ "grace": grace }));
    let path = format!("{}/rotate", path(id)?);
    let key = ask(place, "POST", &path, Some(&body))?["result"].take();
    shown_once(&key, "has a new secret", json)
}

fn revoke(place: &Place, id: &str, json: bool) -> Result<(), Problem> {
    let key = ask(place, "DELETE", &path(id)?, None)?["result"].take();
    match json {
        true => print(&key.to_string()),
        false => print(&format!("revoked: {}", line(&key))),
    }
}

fn show(place: &Place, id: &str, json: bool) -> Result<(), Problem> {
    let key = ask(place, "GET", &path(id)?, None)?["result"].take();
    match json {
        true => print(&key.to_string()),
        false => print(&serde_json::to_string_pretty(&key).unwrap_or_default()),
    }
}

fn list(place: &Place, json: bool) -> Result<(), Problem> {
    for page in 1.. {
        let path = format!("/-/keys?page={page}&per_page={PAGE}");
        let answer = ask(place, "GET", &path, None)?;
        let keys = answer["result"].as_array().map_or(&[][..], Vec::as_slice);
        for key in keys {
            print(&if json { key.to_string() } else { line(key) })?;
        }
        if keys.len() < PAGE {
            break;
        }
    }
    Ok(())
}

/// The whole key goes to standard output, alone, so that a script can take it from there.
fn shown_once(key: &Value, what: &str, json: bool) -> Result<(), Problem> {
    if json {
        return written_once(&mut io::stdout(), key, what, &key.to_string());
    }
    let text = key["key"].as_str().unwrap_or_default();
    // Where nobody hears this, the key is still to be written.
    let told = format!("{}\nThe key {what}. It is shown only now:", line(key));
    let _ = writeln!(io::stderr(), "{told}");
    written_once(&mut io::stdout(), key, what, text)
}

/// Unlike a list of which `head` has seen enough, a key that is not written is lost: nobody should
/// take that for a success.
fn written_once(out: &mut impl Write, key: &Value, what: &str, text: &str) -> Result<(), Problem> {
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| {
        let id = harmless(key["id"].as_str().unwrap_or("-"));
        Problem::Lost(format!(
            "the key {id} {what}, but it could not be written: {error}; it is shown only once, so \
             give it another secret: tollgate keys rotate {id}"
        ))
    })
}

/// Ids are of a few harmless characters; others would make another path.
fn path(id: &str) -> Result<String, Problem> {
    match id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !id.is_empty() {
        true => Ok(format!("/-/keys/{id}")),
        false => Err(Problem::Refused(
            "an id is the part of a key between its first and its second dash".to_owned(),
        )),
    }
}

/// One key in words.
fn line(key: &Value) -> String {
    let text = |name: &str| harmless(key[name].as_str().unwrap_or("-"));
    let gateways = key["gateways"].as_array().map_or(&[][..], Vec::as_slice);
    let gateways: Vec<_> = gateways.iter().filter_map(Value::as_str).collect();
    let account = key["account"].as_str().unwrap_or("*");
    let mut line = format!(
        "{}  {}  {}  owner {}  {}/{}  made {}",
        text("id"),
        text("status"),
        text("name"),
        text("owner"),
        harmless(account),
        harmless(&gateways.join(",")),
        text("created_at"),
    );
    for (name, word) in [("expires_at", "expires"), ("revoked_at", "revoked")] {
        if key[name].is_string() {
            line += &format!("  {word} {}", text(name));
        }
    }
    line
}

/// What the file says, with what options say in place of it.
fn definition(create: &Create) -> Result<Value, Problem> {
    let mut fields = create.from.as_deref().map_or(Ok(Map::new()), read)?;
    let mut put = |name: &str, value: Option<Value>| {
        value.map(|value| fields.insert(name.to_owned(), value));
    };
    put("name", create.name.as_deref().map(Into::into));
    put("owner", create.owner.as_deref().map(Into::into));
    put("account", create.account.as_deref().map(Into::into));
    put("gateways", some(&create.gateway));
    put("rate_limits", some(&create.rate));
    put("spend_limits", some(&said::with_ids(&create.budget)));
    if let Some(time) = &create.expires {
        let is_length = time.parse::<crate::config::units::Duration>().is_ok();
        let name = if is_length {
            "expires_in"
        } else {
            "expires_at"
        };
        put(name, Some(time.as_str().into()));
    }
    if create.all_accounts {
        fields.remove("account");
    } else {
        // A file that means all accounts says so, with a null.
        fields.entry("account").or_insert_with(|| "default".into());
    }
    for (name, value) in &create.metadata {
        within(&mut fields, "metadata")?.insert(name.clone(), value.as_str().into());
    }
    access(create, &mut fields)?;
    Ok(Value::Object(fields))
}

/// What its requests may ask for.
fn access(create: &Create, fields: &mut Map<String, Value>) -> Result<(), Problem> {
    for (name, patterns) in [
        ("models", &create.model),
        ("providers", &create.provider),
        ("addresses", &create.address),
    ] {
        if !patterns.is_empty() {
            let access = within(fields, "access")?;
            within(access, name)?.insert("allow".to_owned(), json!(patterns));
        }
    }
    if let Some(most) = create.max_tokens {
        within(fields, "access")?.insert("max_tokens".to_owned(), most.into());
    }
    Ok(())
}

fn some<T: serde::Serialize>(values: &[T]) -> Option<Value> {
    (!values.is_empty()).then(|| json!(values))
}

/// The object of this name, which is made where there is none.
fn within<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, Problem> {
    let there = fields.entry(name).or_insert_with(|| json!({}));
    there
        .as_object_mut()
        .ok_or_else(|| Problem::Refused(format!("{name} is no mapping in the file")))
}

fn read(from: &Path) -> Result<Map<String, Value>, Problem> {
    let refuse = |why: &dyn std::fmt::Display| {
        Problem::Refused(format!("nothing was done: {}: {why}", from.display()))
    };
    let mut text = String::new();
    let source: io::Result<Box<dyn Read>> = match from.as_os_str() == "-" {
        true => Ok(Box::new(io::stdin())),
        false => std::fs::File::open(from).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = source.and_then(|source| source.take(LARGEST).read_to_string(&mut text));
    read.map_err(|error| refuse(&error))?;
    let environment = |name: &str| std::env::var(name).ok();
    match parse_as::<Value>(&text, &environment) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(refuse(&"is no mapping")),
        Err(problems) => {
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(refuse(&told.join("\n  ")))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
