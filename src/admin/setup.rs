//! The set-up token: what the APIs of API keys and of provider keys want while no `admin.tokens` are
//! configured. It lies in a file that only the user of the process can read, so whoever can read it
//! may make and store keys; as soon as tokens are configured the file goes, and what was in it is
//! worth nothing.
//!
//! The file is all there is: two processes of an upgrade agree by it, and who removes it takes the
//! token away.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::auth::{SHORTEST, digest_of};
use crate::config::secret::Secret;

/// Random bytes of a token.
const BYTES: usize = 32;

/// Where the token lies.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("setup-token")
}

/// Sees to it that there is a token exactly where one is wanted. What goes wrong is told in the log:
/// traffic does not depend on it.
pub fn keep(data_dir: &Path, wanted: bool) {
    let path = path(data_dir);
    let kept = match wanted {
        true => make(&path),
        false => remove(&path).map(|()| false),
    };
    let shown = path.display();
    match kept {
        Ok(true) => {
            log::info!(
                "a token to manage API keys and provider keys is in {shown} until there are admin.tokens"
            )
        }
        Ok(false) => {}
        Err(error) if wanted => {
            log::error!(
                "no token to manage API keys and provider keys can be left in {shown}: {error}"
            );
        }
        Err(error) => log::error!("{shown} is of no use any more and cannot be removed: {error}"),
    }
}

/// Makes the token, if there is none that nobody else could read. Says whether it did.
fn make(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => {
            let is_private = there.is_file() && there.permissions().mode() & 0o077 == 0;
            if is_private && there.len() as usize >= SHORTEST {
                return Ok(false);
            }
            remove(path)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mut random = [0; BYTES];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| io::Error::other("the system has no randomness"))?;
    let mut only_ours = OpenOptions::new();
    match only_ours
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            writeln!(file, "{}", URL_SAFE_NO_PAD.encode(random))?;
            file.sync_all().map(|()| true)
        }
        // Of the other process of an upgrade.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The token, for who may read it.
///
/// # Errors
/// Names the file and why it cannot be read.
pub fn read(data_dir: &Path) -> Result<Secret, String> {
    Secret::from_file(&path(data_dir))
}

/// Whether this is the token.
pub fn is_it(data_dir: &Path, brought: &[u8]) -> bool {
    if brought.len() < SHORTEST {
        return false;
    }
    let token = read(data_dir).map(|token| digest_of(token.expose().as_bytes()));
    token.is_ok_and(|token| token.ct_eq(&digest_of(brought)).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_there_while_it_is_wanted_and_for_one_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        keep(&data, true);
        let mode = || fs::metadata(path(&data)).unwrap().permissions().mode();
        assert_eq!(mode() & 0o777, 0o600);
        let token = read(&data).unwrap();
        keep(&data, true);
        assert_eq!(read(&data).unwrap(), token, "it stays");
        assert!(is_it(&data, token.expose().as_bytes()));
        for other in [
            "",
            "x",
            &token.expose()[1..],
            &format!("{}x", token.expose()),
        ] {
            assert!(!is_it(&data, other.as_bytes()), "{other}");
        }
        keep(&data, false);
        keep(&data, false);
        assert!(!path(&data).exists());
        assert!(!is_it(&data, token.expose().as_bytes()));
    }

    #[test]
    fn a_token_that_others_could_read_or_that_was_not_written_whole_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        for (content, mode) in [("0123456789abcdef-known", 0o644), ("", 0o600)] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            keep(dir.path(), true);
            let token = read(dir.path()).unwrap();
            assert!(token.expose() != content, "{mode:o}");
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}
