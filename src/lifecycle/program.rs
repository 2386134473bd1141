//! The program itself: where it was started from, and its code in memory.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mm::{Advice, madvise};

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

/// Lets go of the program's code as far as it is in memory: most of what has run so far runs only at
/// the start. What is needed comes back from the page cache, piece by piece as it is called. Where the
/// system does not tell where the code lies, all of it stays.
pub fn forget_how_it_started() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    if let Some(code) = code_around(forget_how_it_started as *const () as usize, &maps) {
        drop_pages(code);
    }
}

/// The mapping of a file's code in which `address` lies, by the lines of proc_pid_maps(5): addresses,
/// permissions, offset, device, inode, path. Code without an inode has no file to come back from.
fn code_around(address: usize, maps: &str) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().take(5).collect();
        let [range, "r-xp", _, _, inode] = fields[..] else {
            return None;
        };
        let (start, end) = range.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let range = hex(start)?..hex(end)?;
        (inode != "0" && range.contains(&address)).then_some(range)
    })
}

#[allow(unsafe_code)]
fn drop_pages(code: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: the pages are those of a file and cannot be written to: they read the same when they are
    // there again.
    let dropped = unsafe { madvise(start, code.len(), Advice::LinuxDontNeed) };
    if let Err(error) = dropped {
        log::debug!("the program's code stays in memory: {error}");
    }
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
    fn code_is_where_it_runs_and_cannot_be_written_to() {
        let maps = "\
            1000-2000 r--p 00000000 fd:00 7 /bin/x\n\
            2000-4000 r-xp 00001000 fd:00 7 /bin/x\n\
            4000-5000 rwxp 00003000 fd:00 7 /bin/x\n\
            5000-6000 r-xp 00000000 00:00 0\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        for (address, expected) in [
            (0x2000, Some(0x2000..0x4000)),
            (0x3fff, Some(0x2000..0x4000)),
            (0x1800, None),
            (0x4000, None),
            (0x5000, None),
            (0x9000, None),
        ] {
            assert_eq!(code_around(address, maps), expected, "{address:x}");
        }
        assert_eq!(code_around(0x2000, "no lines of maps"), None);
    }

    #[test]
    fn what_is_forgotten_runs_again() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(code_around(forget_how_it_started as *const () as usize, &maps).is_some());
        forget_how_it_started();
        assert!(path().is_ok());
    }

    #[test]
    fn the_running_program_is_found() {
        assert!(same_file(
            &path().unwrap(),
            &std::env::current_exe().unwrap()
        ));
    }
}
