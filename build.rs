//! Takes the price list out of the `genai-prices` crate, which computes in floating point and shows
//! its rates to nobody: what is left out here is not read (`src/pricing/source.rs`).
//!
//! The list is that of the version in `Cargo.lock`: `cargo update -p genai-prices` brings newer prices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Map, Value};

const CRATE: &str = "genai-prices";
/// What is read of a provider, and of a model.
const OF_PROVIDER: [&str; 3] = ["id", "fallback_model_providers", "models"];
const OF_MODEL: [&str; 5] = ["id", "match", "prices", "price_variants", "context_window"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let list = fs::read(source()).expect("the crate has its price list");
    let list: Vec<Map<String, Value>> = serde_json::from_slice(&list).expect("the list is JSON");
    let short: Vec<_> = list.into_iter().map(provider).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let json = serde_json::to_string(&short).expect("what was JSON is JSON");
    fs::write(out.join("prices.json"), json).expect("OUT_DIR can be written to");
}

/// Where Cargo has put the crate's list.
fn source() -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    // Not offline: it wants all packages of the lock file, also those that no build needs.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", &target])
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {told}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo answers in JSON");
    let packages = metadata["packages"].as_array().expect("it lists packages");
    let package = packages.iter().find(|package| package["name"] == CRATE);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.expect("genai-prices is a dependency"));
    manifest.with_file_name("data").join("prices.json")
}

fn provider(mut provider: Map<String, Value>) -> Map<String, Value> {
    provider.retain(|key, _| OF_PROVIDER.contains(&key.as_str()));
    let models = provider.get_mut("models").and_then(Value::as_array_mut);
    for model in models.into_iter().flatten() {
        if let Some(model) = model.as_object_mut() {
            model.retain(|key, _| OF_MODEL.contains(&key.as_str()));
        }
    }
    provider
}
