//! What is compared: the upstream itself, bare Pingora before it, the gateway before it.

use std::net::SocketAddr;
use std::path::Path;

use crate::process::{Cores, Process, Scratch, free_address};
use crate::{Binaries, Outcome};

/// The path the upstream serves, and what a client of the gateway puts before it.
const DIRECT_PATH: &str = "/v1/chat/completions";
const GATEWAY_PATH: &str = "/v1/default/default/openai/chat/completions";

/// One of the three ways to the upstream.
#[derive(Debug)]
pub struct Leg {
    /// For tables and errors.
    pub name: &'static str,
    /// Where the load connects.
    pub address: SocketAddr,
    /// The request path.
    pub path: &'static str,
    /// The process under test; none for the direct way.
    pub process: Option<Process>,
}

/// How a process under test is started: callgrind puts itself before the program.
pub type Wrapper<'a> = &'a dyn Fn(Vec<String>) -> Vec<String>;

/// The upstream, on the load's core.
pub fn start_upstream(cores: Cores, scratch: &Scratch) -> Outcome<(Process, SocketAddr)> {
    let address = free_address()?;
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = [
        this.display().to_string(),
        "upstream".into(),
        address.to_string(),
    ];
    let process = Process::start("upstream", cores.load, &program, address, scratch.path())?;
    Ok((process, address))
}

/// No proxy.
pub fn direct(upstream: SocketAddr) -> Leg {
    Leg {
        name: "direct",
        address: upstream,
        path: DIRECT_PATH,
        process: None,
    }
}

/// Bare Pingora, named `name` because it can stand in for the gateway.
pub fn bare(
    name: &'static str,
    upstream: SocketAddr,
    cores: Cores,
    scratch: &Scratch,
    wrap: Wrapper,
) -> Outcome<Leg> {
    let address = free_address()?;
    let binary = std::env::current_exe()
        .map_err(|e| e.to_string())?
        .with_file_name("bare");
    let program = wrap(vec![
        binary.display().to_string(),
        address.to_string(),
        upstream.to_string(),
    ]);
    Ok(Leg {
        name,
        address,
        path: DIRECT_PATH,
        process: Some(Process::start(
            name,
            cores.tested,
            &program,
            address,
            scratch.path(),
        )?),
    })
}

/// The gateway with one provider overridden to be the upstream and nothing switched on;
/// bare Pingora when asked for.
pub fn gateway(
    binaries: &Binaries,
    upstream: SocketAddr,
    cores: Cores,
    scratch: &Scratch,
    wrap: Wrapper,
) -> Outcome<Leg> {
    if binaries.same {
        return bare("gateway", upstream, cores, scratch, wrap);
    }
    if !binaries.gateway.is_file() {
        return Err(format!(
            "{} does not exist: run `cargo build --release`, or name the binary with --gateway",
            binaries.gateway.display()
        ));
    }
    let address = free_address()?;
    let conf = scratch.path().join("tollgate.yaml");
    let yaml = configuration(address, free_address()?, upstream, scratch.path());
    std::fs::write(&conf, yaml).map_err(|e| format!("{}: {e}", conf.display()))?;
    let program = wrap(vec![
        binaries.gateway.display().to_string(),
        "--conf".into(),
        conf.display().to_string(),
    ]);
    Ok(Leg {
        name: "gateway",
        address,
        path: GATEWAY_PATH,
        process: Some(Process::start(
            "gateway",
            cores.tested,
            &program,
            address,
            scratch.path(),
        )?),
    })
}

fn configuration(
    listen: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    directory: &Path,
) -> String {
    let directory = directory.display();
    format!(
        r#"server:
  listen: ["{listen}"]
  threads: 1
  grace_period: 1s
  upgrade_socket: {directory}/upgrade.sock
admin: {{ listen: "{admin}" }}
data_dir: {directory}
log: {{ access: "off", level: warn }}
providers:
  openai: {{ base_url: "http://{upstream}/v1", allow_insecure: true }}
accounts:
  default:
    gateways:
      default: {{}}
"#
    )
}
