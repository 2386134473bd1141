//! Every shipped configuration loads.

use std::path::{Path, PathBuf};

use crate::support::Authority;
use crate::support::gateway::check_file;

/// The configurations under `conf/`; the provider catalogue there is no configuration.
fn shipped() -> Vec<PathBuf> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files = |directory: PathBuf| {
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        entries
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    let mut all = [files(conf.clone()), files(conf.join("examples"))].concat();
    all.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    all.retain(|path| {
        path.file_name()
            .is_some_and(|name| name != "providers.yaml")
    });
    all.sort();
    all
}

/// A dummy for every `${NAME}` of the text.
fn environment(text: &str) -> Vec<(String, String)> {
    let names = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    names
        .map(|(name, _)| (name.to_owned(), dummy(name)))
        .collect()
}

/// Something that looks like what the name promises.
pub fn dummy(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains("vertex") || name.contains("google_service") {
        let key = include_str!("../keys/google-service-account-test-only.pem");
        let account = serde_json::json!({
            "type": "service_account",
            "client_email": "gateway@example.iam.gserviceaccount.com",
            "private_key": key,
            "token_uri": "https://oauth2.googleapis.com/token",
        });
        return account.to_string();
    }
    if name.contains("aws") {
        return r#"{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"x","region":"us-east-1"}"#
            .to_owned();
    }
    if name.contains("master_key") {
        return "0f".repeat(32);
    }
    if name.contains("token") {
        return format!("{name}-0123456789");
    }
    "dummy".to_owned()
}

/// Files that the examples expect on a deployed machine, made in `directory`; the text
/// with their paths.
fn deployed(text: &str, directory: &Path, authority: &Authority) -> String {
    let identity = authority.issue(&["localhost"]);
    let (certificate, key) = identity.pem();
    for (name, content) in [
        ("tls.crt", certificate),
        ("tls.key", key),
        ("internal-ca.pem", certificate),
    ] {
        std::fs::write(directory.join(name), content).unwrap();
    }
    text.replace("/etc/tollgate/", &format!("{}/", directory.display()))
}

#[test]
fn every_shipped_configuration_loads() {
    let shipped = shipped();
    assert!(
        shipped
            .iter()
            .any(|path| path.ends_with("conf/tollgate.yaml"))
    );
    assert!(shipped.len() > 1, "there are examples");
    let authority = Authority::new();
    for path in shipped {
        let directory = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let copy = directory.path().join("tollgate.yaml");
        std::fs::write(&copy, deployed(&text, directory.path(), &authority)).unwrap();
        let output = check_file(&copy, &environment(&text));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}: {said}", path.display());
    }
}
