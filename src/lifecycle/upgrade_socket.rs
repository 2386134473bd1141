//! The Unix socket over which an upgrade hands the listeners over.
//!
//! Pingora makes it writable by everyone, and whoever connects first may pass off a listener
//! of theirs: so its directory must keep others out.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// The longest path the system accepts for a Unix socket, in bytes.
const LONGEST: usize = 107;

/// Makes the directory of `socket` (mode 0700) if it is missing, and removes what a crashed
/// upgrade left behind.
///
/// # Errors
/// Says what is wrong with the path and what to do.
pub fn prepare(socket: &Path) -> Result<(), String> {
    let shown = socket.display();
    if socket.as_os_str().len() > LONGEST {
        return Err(format!(
            "server.upgrade_socket: `{shown}` is longer than {LONGEST} bytes; choose a shorter path"
        ));
    }
    let directory = socket
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| {
            format!(
                "server.upgrade_socket: cannot make `{}`: {error}",
                directory.display()
            )
        })?;
    check(directory)?;
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!(
            "server.upgrade_socket: cannot remove the old `{shown}`: {error}"
        )),
        _ => Ok(()),
    }
}

/// Removes the socket of an upgrade that failed.
pub fn remove(socket: &Path) {
    // It is there only if the new process died while it waited.
    let _ = std::fs::remove_file(socket);
}

fn check(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let mode = std::fs::metadata(directory).map(|directory| directory.permissions().mode());
    match mode {
        Ok(mode) if mode & 0o022 == 0 => Ok(()),
        Ok(mode) => Err(format!(
            "server.upgrade_socket: others may write to `{shown}` (mode {:o}) and could offer listeners of their own; \
             choose a directory of mode 0700",
            mode & 0o7777
        )),
        Err(error) => Err(format!(
            "server.upgrade_socket: cannot look at `{shown}`: {error}"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_private_and_a_stale_socket_removed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/tollgate/upgrade.sock");
        prepare(&socket).unwrap();
        let mode = std::fs::metadata(socket.parent().unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(&socket, "").unwrap();
        prepare(&socket).unwrap();
        assert!(!socket.exists());
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let error = prepare(&dir.path().join("upgrade.sock")).unwrap_err();
        assert!(error.contains("mode 1777"), "{error}");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let error = prepare(&Path::new("/run").join("x".repeat(LONGEST))).unwrap_err();
        assert!(error.contains("shorter"), "{error}");
    }
}
