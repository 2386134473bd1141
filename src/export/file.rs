//! A file that lines are added to, and that may be rotated away at any time.
//!
//! Several processes may add to it, as at an upgrade: lines are only ever added, each batch in one
//! write where the disk takes it. Everything here may block: see [`super::destination`].

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use bytes::Bytes;

/// Of a new file, less what the process's umask takes.
const MODE: u32 = 0o640;

/// The file.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// The last line has no end: there was no room for it.
    is_torn: bool,
}

impl Lines {
    /// The file at `path`, opened with the first lines.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Adds lines, each with its end.
    ///
    /// # Errors
    /// How many of them are in the file all the same, and why the others are not. A line that was
    /// cut off there is ended before the next one, and has to be added again.
    pub fn add(&mut self, lines: &[Bytes]) -> Result<(), (usize, io::Error)> {
        let open = self.opened().map_err(|error| (0, error))?;
        let mut bytes = Vec::with_capacity(1 + lines.iter().map(Bytes::len).sum::<usize>());
        if open.is_torn {
            bytes.push(b'\n');
        }
        let skipped = bytes.len();
        lines.iter().for_each(|line| bytes.extend_from_slice(line));
        let (written, result) = write_all(&mut open.file, &bytes);
        if written > 0 {
            open.is_torn = bytes[written - 1] != b'\n';
        }
        result.map_err(|error| (whole(lines, written.saturating_sub(skipped)), error))
    }

    /// The file that has the name now.
    fn opened(&mut self) -> io::Result<&mut Open> {
        let found = std::fs::metadata(&self.path).ok();
        let is_current = |open: &Open| found.is_some_and(|found| identity(&found) == open.identity);
        let open = match self.open.take().filter(is_current) {
            Some(open) => open,
            None => self.reopened()?,
        };
        Ok(self.open.insert(open))
    }

    fn reopened(&self) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        // Reading tells whether the last line has an end, and keeps a FIFO from blocking.
        let options = options.read(true).append(true).create(true).mode(MODE);
        let file = options.open(&self.path)?;
        let found = file.metadata()?;
        Ok(Open {
            is_torn: is_torn(&file, found.len()),
            identity: identity(&found),
            file,
        })
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Devices have no length, and no last line.
fn is_torn(file: &File, length: u64) -> bool {
    let mut last = [b'\n'];
    let Some(at) = length.checked_sub(1) else {
        return false;
    };
    file.read_at(&mut last, at).is_ok() && last != [b'\n']
}

/// How many bytes were written, and what came of the others.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// How many of the lines are in the first `written` bytes.
fn whole(lines: &[Bytes], written: usize) -> usize {
    let mut end = 0;
    let ends = lines.iter().map(|line| {
        end += line.len();
        end
    });
    ends.take_while(|end| *end <= written).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lines(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from(*text)).collect()
    }

    #[test]
    fn lines_are_added_and_a_rotated_file_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ndjson");
        let mut sink = Lines::new(path.clone());
        sink.add(&lines(&["1\n", "2\n"])).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !MODE, 0, "{mode:o}");
        fs::rename(&path, directory.path().join("x.1")).unwrap();
        sink.add(&lines(&["3\n"])).unwrap();
        fs::remove_file(&path).unwrap();
        sink.add(&lines(&["4\n"])).unwrap();
        // Emptied in its place.
        File::create(&path).unwrap();
        sink.add(&lines(&["5\n"])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
        let old = fs::read_to_string(directory.path().join("x.1")).unwrap();
        assert_eq!(old, "1\n2\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.ndjson");
        fs::write(&path, "1\n{\"a\":").unwrap();
        let mut sink = Lines::new(path.clone());
        sink.add(&lines(&["2\n"])).unwrap();
        sink.add(&lines(&["3\n"])).unwrap();
        let told = fs::read_to_string(&path).unwrap();
        assert_eq!(told, "1\n{\"a\":\n2\n3\n");
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let full = Lines::new("/dev/full".into()).add(&lines(&["1\n"]));
        let (added, error) = full.unwrap_err();
        assert_eq!((added, error.kind()), (0, io::ErrorKind::StorageFull));
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none/x");
        let (_, error) = Lines::new(missing).add(&lines(&["1\n"])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let is_directory = Lines::new(directory.path().into()).add(&lines(&["1\n"]));
        assert!(is_directory.is_err());
    }

    #[test]
    fn only_whole_lines_are_in_the_file() {
        let lines = lines(&["123\n", "456\n"]);
        for (written, expected) in [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)] {
            assert_eq!(whole(&lines, written), expected);
        }
    }
}
