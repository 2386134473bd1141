//! The unit file, checked by systemd's own tools.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Highest exposure that is accepted, in tenths: systemd's scale goes to 100.
const EXPOSURE: &str = "--threshold=20";

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/tollgate.service")
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output();
    output.expect("systemd-analyze; `make test` installs it")
}

#[test]
fn systemd_understands_every_line() {
    // The paths of an installation do not exist here: a copy names the test's binary.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("tollgate.service");
    let text = std::fs::read_to_string(unit()).unwrap();
    std::fs::write(
        &copy,
        text.replace("/usr/bin/tollgate", env!("CARGO_BIN_EXE_tollgate")),
    )
    .unwrap();
    let output = analyze(&["verify", "--man=no"], &copy);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn it_is_hardened() {
    let output = analyze(
        &["security", "--offline=true", "--no-pager", EXPOSURE],
        &unit(),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn the_examples_in_it_are_valid_too() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("tollgate.service");
    let text = std::fs::read_to_string(unit())
        .unwrap()
        .replace("/usr/bin/tollgate", env!("CARGO_BIN_EXE_tollgate"));
    let is_setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(char::is_uppercase) && rest.contains('='))
    };
    let lines = text
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line });
    std::fs::write(&copy, lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert!(
        std::fs::read_to_string(&copy)
            .unwrap()
            .contains("\nMemoryMax=")
    );
    let output = analyze(&["verify", "--man=no"], &copy);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
