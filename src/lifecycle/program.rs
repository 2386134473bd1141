//! Where this program was started from.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path this program was started from, made absolute but with its symbolic links kept:
/// an upgrade starts what the path then names. Ask early: later the working directory or the
/// file may have changed.
///
/// # Errors
/// The system does not tell.
pub fn path() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let named = std::env::args_os().next().and_then(|name| find(&name));
    Ok(named
        .filter(|named| same_file(named, &running))
        .unwrap_or(running))
}

/// Resolves the name of a command as a shell does.
fn find(name: &OsStr) -> Option<PathBuf> {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path| {
        std::fs::metadata(path)
            .map(|file| (file.dev(), file.ino()))
            .ok()
    };
    id(one).is_some() && id(one) == id(other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_by_a_shell() {
        assert!(find(OsStr::new("sh")).unwrap().is_absolute());
        assert_eq!(find(OsStr::new("/bin/sh")).unwrap(), Path::new("/bin/sh"));
        assert!(find(OsStr::new("no-such-command-anywhere")).is_none());
    }

    #[test]
    fn a_link_is_the_file_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(same_file(&file, &link));
        assert!(!same_file(&file, Path::new("/bin/sh")));
        assert!(!same_file(Path::new("/nowhere"), Path::new("/nowhere")));
    }

    #[test]
    fn the_running_program_is_found() {
        assert!(same_file(
            &path().unwrap(),
            &std::env::current_exe().unwrap()
        ));
    }
}
