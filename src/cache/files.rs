//! The disk tier's directory: one file per entry, in 256 directories by the key's first byte.
//!
//! The name of a file says all that the index needs (`hash-blocks-expires`, hexadecimal), so
//! that opening a directory reads names and no file. A file is written under another name and
//! renamed when it is whole: a process that is killed leaves whole files and at most one
//! named `new`. Nothing is synced: after a power failure a file may be torn, which its
//! checksum tells, and that is a miss.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use bytes::Bytes;

use super::entry::{Damage, Entry, KeyBytes};
use super::index::{BLOCK, Slot};

/// What a file costs besides its content: an inode and a name in its directory.
const FILE: u64 = 512;

/// Nobody else needs to read what users were answered.
const OWN_DIRECTORY: u32 = 0o700;
const OWN_FILE: u32 = 0o600;

/// The directory of the disk tier.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
}

/// Why an entry could not be read.
#[derive(Debug)]
pub enum Unread {
    /// It is gone, or another key's.
    Absent,
    /// It is not what was written.
    Damaged(Damage),
    /// The disk failed.
    Failed(io::Error),
}

impl Files {
    /// The files in `directory`; nothing is touched yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Takes the directory for this process; `None` while another has it. It is given up when
    /// the lock is dropped or its process ends, however it ends.
    ///
    /// # Errors
    /// The directory or the lock file cannot be made.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(OWN_DIRECTORY);
        builder.create(&self.directory)?;
        let file = self.create("lock")?;
        match file.try_lock() {
            Ok(()) => {
                // What a process was writing when it was killed would count for nothing.
                let _ = fs::remove_file(self.directory.join("new"));
                Ok(Some(file))
            }
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The slot that a file with `content` for `key` gets, of no use after `expires`.
    pub fn slot(key: &KeyBytes, content: &[u8], expires: u32) -> Slot {
        let blocks = (content.len() as u64 + FILE).div_ceil(BLOCK);
        Slot {
            hash: hash(key),
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            expires,
            used: 0,
        }
    }

    /// Writes the file of `slot`.
    ///
    /// # Errors
    /// The disk fails; no file of that name is left.
    pub fn write(&self, slot: &Slot, content: &[u8]) -> io::Result<()> {
        let written = self.write_new(slot, content);
        if written.is_err() {
            let _ = fs::remove_file(self.directory.join("new"));
        }
        written
    }

    fn write_new(&self, slot: &Slot, content: &[u8]) -> io::Result<()> {
        let mut file = self.create("new")?;
        file.write_all(content)?;
        let (new, path) = (self.directory.join("new"), self.path(slot));
        match fs::rename(&new, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.mode(OWN_DIRECTORY);
                builder.create(path.parent().unwrap_or(&self.directory))?;
                fs::rename(&new, &path)
            }
            renamed => renamed,
        }
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        options.mode(OWN_FILE).open(self.directory.join(name))
    }

    /// Reads the entry of `slot`, which must be that of `key`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(&self, slot: &Slot, key: &KeyBytes) -> Result<Entry, Unread> {
        let file = File::open(self.path(slot)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unread::Absent,
            _ => Unread::Failed(error),
        })?;
        // A file that grew since is damaged; it is not worth more memory than it should have.
        let most = slot.bytes();
        let length = file.metadata().map_err(Unread::Failed)?.len().min(most);
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let read = file.take(most).read_to_end(&mut content);
        read.map_err(Unread::Failed)?;
        let entry = Entry::decode(&Bytes::from(content)).map_err(Unread::Damaged)?;
        if entry.facts.key == *key {
            Ok(entry)
        } else {
            Err(Unread::Absent)
        }
    }

    /// Deletes the file of `slot`; one that is not there is deleted already.
    ///
    /// # Errors
    /// The disk fails.
    pub fn delete(&self, slot: &Slot) -> io::Result<()> {
        match fs::remove_file(self.path(slot)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The files in the directory of keys that begin with `first`. Strangers are left alone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self, first: u8) -> io::Result<Vec<Slot>> {
        let directory = match fs::read_dir(self.directory.join(format!("{first:02x}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            directory => directory?,
        };
        let mut slots = Vec::new();
        for file in directory {
            let name = file?.file_name();
            let slot = name.to_str().and_then(parse);
            slots.extend(slot.filter(|slot| slot.hash.to_be_bytes()[0] == first));
        }
        Ok(slots)
    }

    fn path(&self, slot: &Slot) -> PathBuf {
        let first = slot.hash.to_be_bytes()[0];
        self.directory.join(format!(
            "{first:02x}/{:016x}-{:x}-{:x}",
            slot.hash, slot.blocks, slot.expires
        ))
    }
}

/// What the index knows a key by.
pub fn hash(key: &KeyBytes) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    u64::from_be_bytes(first)
}

fn parse(name: &str) -> Option<Slot> {
    let mut parts = name.split('-');
    let slot = Slot {
        hash: u64::from_str_radix(parts.next()?, 16).ok()?,
        blocks: u32::from_str_radix(parts.next()?, 16).ok()?,
        expires: u32::from_str_radix(parts.next()?, 16).ok()?,
        used: 0,
    };
    parts.next().is_none().then_some(slot)
}
