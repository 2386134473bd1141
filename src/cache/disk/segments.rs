//! The disk tier's directory and the files in it: `NNNNNNNNNN.seg`, numbered in the order in
//! which they were written. What else lies there is left alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;

use bytes::Bytes;

use super::index::Place;
use super::record::{HEADER, Header};
use crate::cache::entry::{Damage, Entry, KeyBytes};

/// Nobody else needs to read what users were answered.
const OWN_DIRECTORY: u32 = 0o700;
const OWN_FILE: u32 = 0o600;
/// So much is read at a time when a directory is opened: a disk that seeks gives it in about
/// the time of one header, and where entries are small it holds many.
const WINDOW: u64 = 64 << 10;

/// The directory of the disk tier.
#[derive(Debug)]
pub struct Directory(PathBuf);

/// The numbers and the lengths of the segments in a directory, the oldest first.
pub type Found = Vec<(u32, u64)>;

/// Why an entry could not be read.
#[derive(Debug)]
pub enum Unread {
    /// It is another key's.
    Absent,
    /// It is not what was written.
    Damaged(Damage),
    /// The disk failed.
    Failed(io::Error),
}

impl Directory {
    /// The directory at `path`; nothing is touched yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Takes the directory for this process; `None` while another has it. It is given up when
    /// the lock is dropped or its process ends, however it ends.
    ///
    /// # Errors
    /// The directory or the lock file cannot be made.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(OWN_DIRECTORY);
        builder.create(&self.0)?;
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        let file = options.mode(OWN_FILE).open(self.0.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The segments that are there.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> io::Result<Found> {
        let mut segments = Vec::new();
        for file in fs::read_dir(&self.0)? {
            let file = file?;
            let number = file.file_name().to_str().and_then(parse);
            let metadata = file.metadata()?;
            if let (Some(number), true) = (number, metadata.is_file()) {
                segments.push((number, metadata.len()));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Opens a segment to read it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(&self, number: u32) -> io::Result<File> {
        File::open(self.path(number))
    }

    /// Makes a new segment.
    ///
    /// # Errors
    /// The disk fails, or there is one of that number.
    pub fn create(&self, number: u32) -> io::Result<File> {
        let mut options = File::options();
        options.create_new(true).read(true).write(true);
        options.mode(OWN_FILE).open(self.path(number))
    }

    /// Cuts a segment off at `length`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn cut(&self, number: u32, length: u64) -> io::Result<()> {
        let file = File::options().write(true).open(self.path(number))?;
        file.set_len(length)
    }

    /// Deletes a segment; one that is not there is deleted already.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove(&self, number: u32) -> io::Result<()> {
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.0.join(format!("{number:010}.seg"))
    }
}

fn parse(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let all_digits = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// Reads the entry at `place` in `file`, which must be that of `key`.
///
/// # Errors
/// Why there is none.
pub fn read(file: &File, place: &Place, key: &KeyBytes) -> Result<Entry, Unread> {
    let mut content = vec![0; place.length() as usize];
    let start = u64::from(place.offset) + HEADER as u64;
    match file.read_exact_at(&mut content, start) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Unread::Damaged(Damage::Checksum));
        }
        read => read.map_err(Unread::Failed)?,
    }
    let entry = Entry::decode(&Bytes::from(content)).map_err(Unread::Damaged)?;
    if entry.facts.key == *key {
        Ok(entry)
    } else {
        Err(Unread::Absent)
    }
}

/// Tells `found` of the header and the offset of each record in the first `length` bytes of
/// `file`; returns where they end: at `length`, or in front of what is no record.
///
/// # Errors
/// The disk fails.
pub fn scan(file: &File, length: u64, mut found: impl FnMut(Header, u32)) -> io::Result<u64> {
    let mut window = Window::new(file, length);
    let mut at = 0;
    while at < length {
        let header = window.header(at)?;
        let whole = header.filter(|header| at + header.whole() <= length);
        let (Some(header), Ok(offset)) = (whole, u32::try_from(at)) else {
            break;
        };
        found(header, offset);
        at += header.whole();
    }
    Ok(at)
}

/// The part of a segment that is in memory while it is scanned.
struct Window<'a> {
    file: &'a File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, length: u64) -> Self {
        Self {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The header at `at`, which is never in front of the last one asked for.
    fn header(&mut self, at: u64) -> io::Result<Option<Header>> {
        if at + HEADER as u64 > self.start + self.bytes.len() as u64 {
            self.bytes.resize(WINDOW.min(self.length - at) as usize, 0);
            self.start = at;
            self.file.read_exact_at(&mut self.bytes, at)?;
        }
        let from = (at - self.start) as usize;
        Ok(self.bytes.get(from..).and_then(Header::decode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_taken_for_them() {
        assert_eq!(parse("0000000042.seg"), Some(42));
        for name in ["42.seg", "+000000042.seg", "9999999999.seg", "lock", "ab"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
