//! The command line.

mod asking;
mod keys;
mod logs;
mod operator;
mod provider_keys;
mod reprice;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::admin::client::Place;
use crate::config::{Problem, schema};
use crate::lifecycle::own_mock::NOWHERE;
use crate::lifecycle::{reload, start};
use operator::Operator;

/// The configuration of a checkout: `cargo run` serves the demo.
const LOCAL: &str = "conf/tollgate.yaml";

/// The configuration of an installation.
const SYSTEM: &str = "/etc/tollgate/tollgate.yaml";

const EXAMPLES: &str = "\
Examples:
  tollgate                                   serve conf/tollgate.yaml or /etc/tollgate/tollgate.yaml
  tollgate --conf my.yaml                    serve my.yaml (short for: tollgate serve --conf my.yaml)
  tollgate check --conf my.yaml              list every mistake in my.yaml
  tollgate reload --conf my.yaml             let the running process read my.yaml again
  tollgate upgrade --conf my.yaml            replace the running process by the binary now on disk
  tollgate logs -f --filter success=false    show failed requests as they end
  tollgate reprice --dry-run                 what stored requests would cost by the prices of now
  tollgate keys create --name app            make an API key that passes the gateways of `default`
  tollgate provider-keys set openai          store a key for openai, asked for at a prompt";

/// A self-hosted AI gateway: one well-instrumented door in front of all of a company's model traffic.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = EXAMPLES)]
struct Cli {
    /// Configuration file [default: conf/tollgate.yaml if there is one, else /etc/tollgate/tollgate.yaml]
    #[arg(long, short, global = true, value_name = "FILE", env = "TOLLGATE_CONF")]
    conf: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop (what `tollgate` alone does)
    ///
    /// SIGHUP reloads the configuration, as do changes of the file. SIGTERM finishes open
    /// requests within server.grace_period and exits; SIGINT exits at once.
    #[command(after_help = "Example:\n  tollgate serve --conf /etc/tollgate/tollgate.yaml")]
    Serve {
        /// Take the listeners over from the process that started this one, over this socket
        #[arg(long, hide = true, value_name = "SOCKET")]
        takeover: Option<PathBuf>,
    },
    /// Check a configuration and list every mistake as `path: message`
    ///
    /// Exits with 0 if there is none, else with 1. Nothing is started or connected to.
    #[command(
        after_help = "Example:\n  tollgate check --conf my.yaml && tollgate reload --conf my.yaml"
    )]
    Check,
    /// Let the running process read its configuration again
    ///
    /// It is found at admin.listen of the configuration. Requests in flight are not disturbed.
    /// Exits with 1, and lists the mistakes, if the last good configuration keeps serving.
    #[command(after_help = "Example:\n  tollgate reload --conf /etc/tollgate/tollgate.yaml")]
    Reload {
        #[command(flatten)]
        admin: Operator,
    },
    /// Replace the running process by the binary that is on disk now
    ///
    /// The running process starts the new binary, hands its listeners over, finishes its open
    /// requests and exits. Exits with 1, and says why, if the old process keeps serving.
    #[command(
        after_help = "Example:\n  install tollgate-new /usr/bin/tollgate && tollgate upgrade"
    )]
    Upgrade {
        #[command(flatten)]
        admin: Operator,
    },
    /// Show finished requests of the running process: the newest, those of a filter, or one
    ///
    /// They come out of its log store, over the listener for operators.
    #[command(after_help = logs::EXAMPLES)]
    Logs {
        #[command(flatten)]
        wanted: logs::Wanted,
        #[command(flatten)]
        admin: Operator,
    },
    /// Price stored requests again, by the prices of the running process's configuration
    ///
    /// After a change of prices: reload, look with --dry-run, then do it. It may be interrupted at
    /// any time, and doing it again changes nothing twice. Costs that requests brought along
    /// (cf-aig-custom-cost) stay. Metrics are counters and are not changed.
    #[command(after_help = reprice::EXAMPLES)]
    Reprice {
        #[command(flatten)]
        wanted: reprice::Wanted,
        #[command(flatten)]
        admin: Operator,
    },
    /// Make, list, change and revoke API keys of the running process
    ///
    /// A key lets requests pass gateways, and spend stored keys of providers, as a token of the
    /// configuration does. The running process wants a token for this: one of admin.tokens, or, where
    /// there are none, the one in data_dir/setup-token, which is found by itself.
    #[command(after_help = keys::EXAMPLES)]
    Keys {
        #[command(subcommand)]
        wanted: keys::Wanted,
        #[command(flatten)]
        admin: Operator,
    },
    /// Store provider keys in the running process, encrypted; list and remove them
    ///
    /// It needs a master key: secrets.master_key of the configuration, or the credential
    /// tollgate-master-key of systemd. A change is in force at once. The running process wants a
    /// token for this, as for `tollgate keys`.
    #[command(after_help = provider_keys::EXAMPLES)]
    ProviderKeys {
        #[command(subcommand)]
        wanted: provider_keys::Wanted,
        #[command(flatten)]
        admin: Operator,
    },
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let conf = cli.conf.unwrap_or_else(default_conf);
    match cli.command.unwrap_or(Command::Serve { takeover: None }) {
        Command::Serve { takeover } => start::serve(&conf, takeover.as_deref()),
        Command::Check => check(&conf),
        Command::Reload { admin } => ask(&conf, &admin, "/-/reload"),
        Command::Upgrade { admin } => ask(&conf, &admin, "/-/upgrade"),
        Command::Logs { wanted, admin } => asking(&conf, &admin, |at| logs::show(at, &wanted)),
        Command::Reprice { wanted, admin } => asking(&conf, &admin, |at| reprice::run(at, &wanted)),
        Command::Keys { wanted, admin } => asking(&conf, &admin, |at| keys::run(at, &wanted)),
        Command::ProviderKeys { wanted, admin } => {
            asking(&conf, &admin, |at| provider_keys::run(at, &wanted))
        }
    }
}

fn asking(conf: &Path, admin: &Operator, ask: impl FnOnce(&Place) -> ExitCode) -> ExitCode {
    let place = admin.place(conf);
    place.map_or(ExitCode::FAILURE, |place| ask(&place))
}

fn default_conf() -> PathBuf {
    if Path::new(LOCAL).exists() {
        LOCAL.into()
    } else {
        SYSTEM.into()
    }
}

fn check(conf: &Path) -> ExitCode {
    match reload::load(conf, &|| Ok(NOWHERE), None) {
        Ok(loaded) => {
            for warning in loaded.keys.kept.warnings() {
                println!("warning: {warning}");
            }
            println!("{}: {}", conf.display(), summary(&loaded.config));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            problems.iter().for_each(|problem| println!("{problem}"));
            ExitCode::FAILURE
        }
    }
}

fn summary(config: &schema::Config) -> String {
    let count =
        |count: usize, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
    let gateways = config
        .accounts
        .values()
        .map(|account| account.gateways.len())
        .sum();
    format!(
        "ok: {}, {}, {}",
        count(config.accounts.len(), "account"),
        count(gateways, "gateway"),
        count(config.providers.len(), "configured provider"),
    )
}

/// Asks the running process and prints its answer.
fn ask(conf: &Path, admin: &Operator, path: &str) -> ExitCode {
    asking(conf, admin, |place| match place.post(path) {
        Ok(answer) if answer.done => {
            print!("{}", describe(&answer.body));
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            eprint!("tollgate: {}", describe(&answer.body));
            ExitCode::FAILURE
        }
        Err(error) => nobody_answers(place, &error),
    })
}

/// Why the running process did not do it, in its words.
fn refusal(body: &Value) -> String {
    let errors = body["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let told: Vec<_> = errors
        .iter()
        .filter_map(|e| e["message"].as_str())
        .collect();
    match (told.is_empty(), body["error"].as_str()) {
        (false, _) => told.join("\n  "),
        (true, Some(error)) => error.to_owned(),
        (true, None) => "the running process refused".to_owned(),
    }
}

fn nobody_answers(place: &Place, error: &std::io::Error) -> ExitCode {
    let address = place.address;
    eprintln!(
        "tollgate: no running process answers at {address} (admin.listen, or --admin): {error}"
    );
    ExitCode::FAILURE
}

/// The running process's answer, for people.
fn describe(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if answer["result"].is_null() {
        return refusal(answer) + "\n";
    }
    let mut lines = vec![text(&answer["result"])];
    if let Some(pid) = answer["pid"].as_u64() {
        lines[0] += &format!(": process {pid} serves now");
    }
    if let Some(reason) = answer["reason"].as_str() {
        lines[0] += &format!(": {reason}");
    }
    let each = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    for problem in each("problems") {
        lines.push(format!(
            "  {}",
            Problem::new(text(&problem["path"]), text(&problem["message"]))
        ));
    }
    let restart: Vec<_> = each("restart_required").iter().map(text).collect();
    if !restart.is_empty() {
        lines.push(format!(
            "  `tollgate upgrade` or a restart is needed to apply: {}",
            restart.join(", ")
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_stand_before_or_after_the_command() {
        for line in [
            "tollgate --conf a.yaml",
            "tollgate serve --conf a.yaml",
            "tollgate --conf a.yaml check",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.conf.as_deref(), Some(Path::new("a.yaml")), "{line}");
        }
    }

    #[test]
    fn answers_are_told_in_words() {
        let upgraded = json!({ "result": "upgraded", "pid": 7 });
        assert_eq!(describe(&upgraded), "upgraded: process 7 serves now\n");
        let reloaded = json!({ "result": "reloaded", "restart_required": ["server.listen"] });
        assert!(describe(&reloaded).ends_with("apply: server.listen\n"));
        let refused = json!({
            "result": "not reloaded", "reason": "mistakes",
            "problems": [{ "path": "a.b", "message": "wrong" }],
        });
        assert_eq!(describe(&refused), "not reloaded: mistakes\n  a.b: wrong\n");
    }

    #[test]
    fn a_configuration_is_counted() {
        let config: schema::Config =
            serde_yaml::from_str("accounts: {a: {gateways: {x: {}, y: {}}}}").unwrap();
        assert_eq!(
            summary(&config),
            "ok: 1 account, 2 gateways, 0 configured providers"
        );
    }
}
