//! Every shipped configuration loads.

use std::path::{Path, PathBuf};

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

fn dummy(name: &str) -> String {
    if name.contains("AWS") {
        return r#"{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"x","region":"us-east-1"}"#
            .to_owned();
    }
    "dummy".to_owned()
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
    for path in shipped {
        let text = std::fs::read_to_string(&path).unwrap();
        let output = check_file(&path, &environment(&text));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}: {said}", path.display());
    }
}
