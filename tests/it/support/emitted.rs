//! What a gateway has written and tells, for searching what must be in it and what must not.

use std::io::Read;
use std::path::{Path, PathBuf};

use memchr::memmem::{find, find_iter};

use super::client::Request;
use super::gateway::Gateway;

/// How a zstd frame begins.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// All files below a directory: their bytes, and after them what their zstd frames say.
pub fn written(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let below = entries.flat_map(|entry| {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            return written(&path);
        }
        // Files of a living process come and go.
        let mut bytes = std::fs::read(&path).unwrap_or_default();
        bytes.extend(decompressed(&bytes));
        vec![(path, bytes)]
    });
    below.collect()
}

/// Whether a file below a directory has these bytes, in a zstd frame or plain.
pub fn is_written(directory: &Path, needle: &str) -> bool {
    let files = written(directory);
    files
        .iter()
        .any(|(_, bytes)| find(bytes, needle.as_bytes()).is_some())
}

/// Fails where a secret is in what was told, or in a file.
pub fn assert_nowhere(secret: &str, told: &str, files: &[(PathBuf, Vec<u8>)]) {
    let line = told.lines().find(|line| line.contains(secret));
    assert_eq!(line, None, "{secret} is told");
    for (path, bytes) in files {
        let found = find(bytes, secret.as_bytes());
        assert_eq!(found, None, "{secret} in {}", path.display());
    }
}

/// Fails where what is no secret is not found as a secret would be: told, and in a compressed file.
pub fn assert_searched(harmless: &str, told: &str, files: &[(PathBuf, Vec<u8>)]) {
    assert!(told.contains(harmless), "{harmless} is not told");
    let is_compressed = |path: &Path| path.extension().is_some_and(|name| name == "zst");
    let mut bodies = files.iter().filter(|(path, _)| is_compressed(path));
    let found = bodies.any(|(_, bytes)| find(bytes, harmless.as_bytes()).is_some());
    assert!(found, "{harmless} is in no file of bodies");
}

/// What all frames say that begin somewhere in `bytes`, as far as they can be read.
fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for at in find_iter(bytes, &FRAME) {
        let decoder = zstd::stream::Decoder::new(&bytes[at..]).expect("a decoder");
        let _ = decoder.single_frame().read_to_end(&mut plain);
    }
    plain
}

/// All that who brings `token` is told of the requests so far, and of `paths`.
pub async fn told(gateway: &Gateway, token: &str, paths: &[&str]) -> String {
    let ask = async |path: &str| {
        let request = Request::get(path).header("authorization", &format!("Bearer {token}"));
        gateway.ask(request).await
    };
    let logs = ask("/-/logs?per_page=50").await;
    let mut all = logs.everything();
    for entry in logs.json()["result"].as_array().expect("entries") {
        let one = format!("/-/logs/{}", entry["id"].as_str().expect("an id"));
        for part in ["", "/request", "/response"] {
            all += &ask(&format!("{one}{part}")).await.everything();
        }
    }
    for path in ["/metrics", "/-/analytics", "/-/logs/export?bodies=true"] {
        all += &ask(path).await.everything();
    }
    for path in paths {
        all += &ask(path).await.everything();
    }
    all
}
