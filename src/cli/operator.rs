//! Where the running process is asked, and by what token: said on the command line or in the
//! environment, else what the configuration says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::admin::client::Place;
use crate::admin::setup;
use crate::auth::SHORTEST;
use crate::config::load::parse;
use crate::config::schema::{AdminToken, Config};
use crate::config::secret::Secret;
use crate::config::{Problem, resolve};

/// Where operators connect unless the configuration says otherwise.
const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:8788";

/// Stands for what the environment of who asks does not have.
const UNKNOWN: &str = "unknown";

/// Its options may stand before or behind what a command is asked to do (`keys list`).
#[derive(Debug, clap::Args)]
pub struct Operator {
    /// Where the running process listens for operators [default: admin.listen of the configuration]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// One of admin.tokens of the running process; rather say it in the environment, which other
    /// users do not see [default: the first of the configuration that can be read here, or, where it
    /// has none, that in data_dir/setup-token]
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TOLLGATE_ADMIN_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl Operator {
    /// Where the running process is asked; a mistake is told.
    pub fn place(&self, conf: &Path) -> Option<Place> {
        let said = self.token.as_deref().map(Secret::new);
        // Who says all needs no configuration, and who says where may have none.
        let (address, token) = match (self.admin, said, configured(conf)) {
            (Some(address), Some(token), _) => (address, Some(token)),
            (Some(address), None, config) => (address, config.ok().and_then(|c| token_of(&c))),
            (None, said, Ok(config)) => {
                let address = listen(&config)
                    .map_err(|problem| tell(conf, &[problem]))
                    .ok()?;
                (address, said.or_else(|| token_of(&config)))
            }
            (None, _, Err(problems)) => {
                tell(conf, &problems);
                return None;
            }
        };
        Some(Place { address, token })
    }
}

fn tell(conf: &Path, problems: &[Problem]) {
    let conf = conf.display();
    eprintln!("tollgate: nothing was done: {conf} has mistakes");
    problems.iter().for_each(|problem| eprintln!("  {problem}"));
}

/// The file as written. Secrets are not needed for it: who asks need not have the environment of the
/// process that is asked.
fn configured(conf: &Path) -> Result<Config, Vec<Problem>> {
    let text = std::fs::read_to_string(conf).map_err(|error| {
        let message = format!("cannot read `{}`: {error}", conf.display());
        vec![Problem::new("", message)]
    })?;
    let environment = |name: &str| {
        std::env::var(name)
            .ok()
            .or_else(|| Some(UNKNOWN.to_owned()))
    };
    parse(&text, &environment)
}

fn listen(config: &Config) -> Result<SocketAddr, Problem> {
    let listen = config.admin.listen.as_deref();
    let listen = listen.unwrap_or(DEFAULT_ADMIN_LISTEN);
    let parsed = listen.parse();
    parsed.map_err(|error| Problem::new("admin.listen", format!("`{listen}`: {error}")))
}

fn token_of(config: &Config) -> Option<Secret> {
    if config.admin.tokens.is_empty() {
        let dir = config.data_dir.clone();
        let dir = dir.unwrap_or_else(|| PathBuf::from(resolve::DATA_DIR));
        return setup::read(&dir).ok();
    }
    config.admin.tokens.iter().find_map(readable)
}

fn readable(token: &AdminToken) -> Option<Secret> {
    let value = token.value.as_ref().and_then(|value| value.read().ok());
    let file = || Secret::from_file(token.file.as_deref()?).ok();
    value
        .or_else(file)
        .filter(|token| token.expose().len() >= SHORTEST)
}
