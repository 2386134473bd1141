//! Which processes live: each holds the lock of a file that bears its name, and the kernel takes it
//! from whoever dies.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// This process lives for as long as there is one.
#[derive(Debug)]
pub struct Alive {
    /// What it is known by.
    pub name: String,
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Alive {
    /// Begins to live, under a new name.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        let name = Uuid::now_v7().to_string();
        let path = path(dir, &name);
        let file = File::create_new(&path)?;
        file.try_lock()?;
        Ok(Self {
            name,
            path,
            _file: file,
        })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // Left behind, it is only a file that nobody holds.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the process of that name lives. What cannot be found out is taken for alive: its money is
/// left alone.
pub fn is_alive(dir: &Path, name: &str) -> bool {
    match File::open(path(dir, name)) {
        Err(error) => error.kind() != io::ErrorKind::NotFound,
        // Shared, so that two who ask do not take each other for the owner.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        },
    }
}

/// Removes what a dead process has left.
pub fn bury(dir: &Path, name: &str) {
    let _ = std::fs::remove_file(path(dir, name));
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("spend-{name}.lock"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_is_known_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (
            Alive::begin(dir.path()).unwrap(),
            Alive::begin(dir.path()).unwrap(),
        );
        assert!(is_alive(dir.path(), &one.name) && is_alive(dir.path(), &other.name));
        let name = one.name.clone();
        drop(one);
        assert!(!is_alive(dir.path(), &name) && is_alive(dir.path(), &other.name));
        // As a kill leaves it.
        std::fs::write(path(dir.path(), &name), "").unwrap();
        assert!(!is_alive(dir.path(), &name));
        bury(dir.path(), &name);
        assert!(!path(dir.path(), &name).exists());
    }
}
