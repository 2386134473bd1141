//! The tiers on real directories: restarts, kills, two owners, broken and full disks.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::entry::tests::{entry, noise};
use super::entry::{Entry, KeyBytes};
use super::tiers::{DiskSettings, Tier, Tiers, Watch};

const MIB: u64 = 1 << 20;
/// Tells the test executable that it is the process to be killed, and where to write.
const VICTIM: &str = "TOLLGATE_TEST_CACHE_VICTIM";

#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn add(&self, what: &str, by: u64) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += by;
    }

    fn of(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

impl Watch for Counts {
    fn stored(&self, tier: Tier, _: u64) {
        self.add(&format!("stored {tier:?}"), 1);
    }

    fn evicted(&self, tier: Tier, bytes: u64) {
        self.add(&format!("evicted {tier:?}"), bytes);
    }

    fn error(&self, what: &'static str) {
        self.add(what, 1);
    }

    fn disk_owned(&self, owned: bool) {
        self.add(if owned { "owned" } else { "given up" }, 1);
    }
}

/// Tiers in `directory`, and what they count.
fn tiers(memory: u64, directory: &Path, size: u64) -> (Tiers, Arc<Counts>) {
    let watch = Arc::new(Counts::default());
    let directory = directory.to_owned();
    let disk = DiskSettings { directory, size };
    (Tiers::new(memory, Some(disk), watch.clone()), watch)
}

fn owned(memory: u64, directory: &Path, size: u64) -> (Tiers, Arc<Counts>) {
    let (tiers, watch) = tiers(memory, directory, size);
    assert!(within(5, || tiers.disk_owned()));
    (tiers, watch)
}

fn within(seconds: u64, what: impl Fn() -> bool) -> bool {
    let latest = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < latest {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    what()
}

/// A key whose bytes are spread as those of a hash.
fn key(number: u64) -> KeyBytes {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// An entry that may be served for an hour.
fn fresh(number: u64, length: usize) -> Arc<Entry> {
    let mut entry = entry(key(number), length);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    entry.facts.stored = now.unwrap().as_millis() as u64;
    entry.facts.ttl = Duration::from_secs(3600);
    Arc::new(entry)
}

/// Asserts that `found` is what [`fresh`] made, but for the time.
fn assert_whole(found: &Entry, number: u64) {
    let mut made = entry(key(number), found.body.len());
    made.facts.stored = found.facts.stored;
    made.facts.ttl = found.facts.ttl;
    assert_eq!(*found, made);
}

/// Inserts and waits for the disk as long as it takes.
fn insert_all(tiers: &Tiers, watch: &Counts, numbers: std::ops::Range<u64>, length: usize) {
    for number in numbers {
        let before = watch.of("stored Disk");
        tiers.insert(fresh(number, length));
        assert!(within(5, || watch.of("stored Disk") > before));
    }
}

/// What the disk has under the key of `number`. A machine that is busy with other tests may
/// take longer than a request waits.
async fn found(tiers: &Tiers, number: u64) -> Option<Arc<Entry>> {
    for _ in 0..3 {
        if let Some(entry) = tiers.disk(&key(number)).await {
            return Some(entry);
        }
    }
    None
}

/// The files of entries in `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let directories = fs::read_dir(directory).unwrap();
    let directories = directories.map(|found| found.unwrap().path());
    let inside = directories.filter(|path| path.is_dir());
    let inside = inside.flat_map(|path| fs::read_dir(path).unwrap());
    inside.map(|file| file.unwrap().path()).collect()
}

fn bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let all = files(directory).into_iter();
    all.map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

#[tokio::test]
async fn entries_survive_a_restart_and_come_back_to_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..50, 3000);
    assert!(first.release_disk());
    assert_eq!(watch.of("given up"), 1);
    assert!(!first.disk_owned() && first.memory(&key(7)).is_some());
    let (second, watch) = owned(MIB, directory.path(), 16 * MIB);
    assert!(within(5, || second.disk_bytes() >= 50 * 4096));
    for number in 0..50 {
        assert!(second.memory(&key(number)).is_none());
        assert_whole(&found(&second, number).await.unwrap(), number);
        assert!(second.memory(&key(number)).is_some());
    }
    assert!(second.disk(&key(50)).await.is_none());
    assert_eq!(watch.of("disk_corrupt") + watch.of("disk_read"), 0);
}

#[tokio::test]
async fn a_newer_entry_replaces_the_older_and_a_removed_one_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&tiers, &watch, 1..2, 3000);
    insert_all(&tiers, &watch, 1..2, 30_000);
    assert_eq!(found(&tiers, 1).await.unwrap().body.len(), 30_000);
    assert!(within(5, || files(directory.path()).len() == 1));
    tiers.remove(&key(1));
    assert!(tiers.memory(&key(1)).is_none());
    assert!(within(5, || files(directory.path()).is_empty()));
    assert!(tiers.disk(&key(1)).await.is_none());
}

#[test]
fn memory_stays_within_its_bound_under_ten_times_as_much() {
    let watch = Arc::new(Counts::default());
    let tiers = Tiers::new(16 * MIB, None, watch.clone());
    let mut random = noise(5);
    let mut inserted = 0;
    let body = fresh(0, 60_000).body.clone();
    for number in 0.. {
        let mut entry = Entry::clone(&fresh(number, 0));
        entry.body = body.slice(..random() as usize % 60_000);
        inserted += entry.weight() as u64;
        tiers.insert(Arc::new(entry));
        assert!(tiers.memory_bytes() <= 16 * MIB);
        if inserted > 160 * MIB {
            break;
        }
    }
    assert!(tiers.memory_bytes() > 14 * MIB);
    assert_eq!(watch.of("evicted Memory"), inserted - tiers.memory_bytes());
}

#[test]
fn the_directory_stays_within_its_bound_and_shrinks_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 4 * MIB);
    for number in 0..400 {
        insert_all(&tiers, &watch, number..number + 1, 20_000);
        assert!(number % 20 > 0 || bytes(directory.path()) <= 4 * MIB);
    }
    assert!(bytes(directory.path()) > 3 * MIB);
    assert!(watch.of("evicted Disk") > 4 * MIB);
    assert!(tiers.release_disk());
    let (smaller, _) = owned(MIB, directory.path(), MIB);
    assert!(within(5, || bytes(directory.path()) <= MIB));
    assert!(within(5, || smaller.disk_bytes() > MIB / 2));
}

#[tokio::test]
async fn damaged_files_are_misses_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..40, 3000);
    assert!(first.release_disk());
    let mut random = noise(11);
    for path in files(directory.path()) {
        let mut content = fs::read(&path).unwrap();
        match random() % 3 {
            0 => content.truncate(random() as usize % content.len()),
            1 => content.clear(),
            _ => {
                let at = random() as usize % content.len();
                content[at] ^= 1 << (random() % 8);
            }
        }
        fs::write(&path, content).unwrap();
    }
    let (second, watch) = owned(MIB, directory.path(), 16 * MIB);
    assert!(within(5, || second.disk_bytes() >= 40 * 4096));
    for number in 0..40 {
        assert!(second.disk(&key(number)).await.is_none(), "{number}");
    }
    assert_eq!(watch.of("disk_corrupt"), 40);
    assert!(within(5, || files(directory.path()).is_empty()));
}

#[tokio::test]
async fn the_second_process_works_on_memory_until_the_first_lets_go() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    let (second, _) = tiers(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..10, 3000);
    second.insert(fresh(99, 3000));
    assert!(second.memory(&key(99)).is_some());
    std::thread::sleep(Duration::from_millis(700));
    assert!(!second.disk_owned());
    assert!(second.disk(&key(3)).await.is_none());
    // What is still queued is written before the directory changes hands.
    (10..30).for_each(|number| first.insert(fresh(number, 3000)));
    assert!(first.release_disk());
    assert!(within(5, || second.disk_owned()));
    assert!(within(5, || second.disk_bytes() >= 30 * 4096));
    for number in 0..30 {
        assert_whole(&found(&second, number).await.unwrap(), number);
    }
    // The first goes on in memory and leaves the disk alone.
    first.insert(fresh(50, 3000));
    assert!(first.memory(&key(50)).is_some());
    assert_eq!(files(directory.path()).len(), 30);
}

#[tokio::test]
async fn a_path_that_is_a_file_leaves_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "not a directory").unwrap();
    let (tiers, watch) = tiers(MIB, &path, 16 * MIB);
    assert!(within(5, || watch.of("disk_open") == 1));
    tiers.insert(fresh(1, 3000));
    assert!(tiers.memory(&key(1)).is_some() && tiers.disk(&key(1)).await.is_none());
    assert!(!tiers.disk_owned() && tiers.release_disk());
}

/// A small file system of its own at `path`; only root can have one.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(path: &'a Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mount = mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path);
        let done = mount.stderr(Stdio::null()).status().ok()?.success();
        if !done {
            eprintln!("SKIPPED: cannot mount a file system here");
        }
        done.then_some(Self(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_a_miss_and_works_again_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(directory.path(), "size=2m") else {
        return;
    };
    let (tiers, watch) = owned(64 * MIB, directory.path(), 64 * MIB);
    for number in 0..200 {
        tiers.insert(fresh(number, 20_000));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(watch.of("disk_full") > 0);
    for number in 0..200 {
        assert!(tiers.memory(&key(number)).is_some());
        if let Some(found) = tiers.disk(&key(number)).await {
            assert_whole(&found, number);
        }
    }
    files(directory.path())
        .into_iter()
        .for_each(|path| fs::remove_file(path).unwrap());
    std::thread::sleep(Duration::from_secs(6));
    insert_all(&tiers, &watch, 500..501, 20_000);
    assert_whole(&found(&tiers, 500).await.unwrap(), 500);
}

#[tokio::test]
async fn a_read_only_disk_leaves_memory() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(directory.path(), "size=2m,ro") else {
        return;
    };
    let (tiers, watch) = tiers(MIB, directory.path(), MIB);
    assert!(within(5, || watch.of("disk_open") == 1));
    tiers.insert(fresh(1, 3000));
    assert!(tiers.memory(&key(1)).is_some() && tiers.disk(&key(1)).await.is_none());
}

#[tokio::test]
async fn a_disk_that_hangs_is_a_miss_in_time_and_then_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&tiers, &watch, 0..10, 3000);
    // Opening a pipe that nobody writes to waits for ever.
    for path in files(directory.path()) {
        fs::remove_file(&path).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
    }
    for number in 0..3 {
        let begin = Instant::now();
        assert!(tiers.disk(&key(number)).await.is_none());
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
    let begin = Instant::now();
    assert!(tiers.disk(&key(5)).await.is_none());
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "it is left alone"
    );
    assert_eq!(watch.of("disk_slow"), 4);
    // The blocked threads must end, or the runtime would wait for them.
    for path in files(directory.path()) {
        let writer = fs::File::options().read(true).write(true).open(path);
        std::thread::sleep(Duration::from_millis(10));
        drop(writer);
    }
}

#[test]
fn the_queue_is_bounded_and_never_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 1 << 30);
    let begin = Instant::now();
    let entry = fresh(1, 400_000);
    (0..2000).for_each(|_| tiers.insert(entry.clone()));
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(watch.of("queue_full") > 0);
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn victim() {
    let Ok(directory) = std::env::var(VICTIM) else {
        return;
    };
    let (tiers, watch) = owned(MIB, Path::new(&directory), 8 * MIB);
    let mut random = noise(u64::from(std::process::id()) + 1);
    loop {
        let length = random() as usize % 30_000;
        let before = watch.of("stored Disk");
        tiers.insert(fresh(random() % 500, length));
        within(5, || watch.of("stored Disk") > before);
    }
}

#[tokio::test]
async fn a_killed_process_leaves_whole_entries_and_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache::tests::victim"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(700 + 37 * round));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let (tiers, watch) = owned(MIB, directory.path(), 8 * MIB);
        assert!(within(5, || tiers.disk_bytes() > 0));
        std::thread::sleep(Duration::from_millis(200));
        let mut found = 0;
        for number in 0..500 {
            if let Some(entry) = tiers.disk(&key(number)).await {
                assert_whole(&entry, number);
                found += 1;
            }
        }
        assert!(found > 20, "{found}");
        assert_eq!(watch.of("disk_corrupt"), 0);
        assert!(tiers.release_disk());
    }
}
