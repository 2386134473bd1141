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
    entry.stored = now.unwrap().as_millis() as u64;
    entry.facts.ttl = Duration::from_secs(3600);
    Arc::new(entry)
}

/// Asserts that `found` is what [`fresh`] made, but for the time.
fn assert_whole(found: &Entry, number: u64) {
    let mut made = entry(key(number), found.body.len());
    made.stored = found.stored;
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

/// What the disk has under the key of `number`, once it has it: a directory that was just
/// opened is still being read, and a machine that is busy with other tests may take longer
/// than a request waits.
async fn found(tiers: &Tiers, number: u64) -> Option<Arc<Entry>> {
    for _ in 0..200 {
        if let Some(entry) = tiers.disk(&key(number)).await {
            return Some(entry);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// The segments in `directory`, the oldest first.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut segments: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
        .collect();
    segments.sort();
    segments
}

fn bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // One may be removed meanwhile.
    let all = segments(directory).into_iter();
    all.filter_map(|path| Some(fs::metadata(path).ok()?.blocks() * 512))
        .sum()
}

/// Where entries begin in `content`.
fn entries(content: &[u8]) -> Vec<usize> {
    let starts = content.windows(5).enumerate();
    let starts = starts.filter(|(_, window)| window == b"tgce\x02");
    starts.map(|(at, _)| at).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
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
    assert!(second.disk_bytes() >= 50 * 3000);
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
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..2, 3000);
    insert_all(&first, &watch, 1..2, 30_000);
    assert_eq!(found(&first, 1).await.unwrap().body.len(), 30_000);
    first.remove(&key(0));
    assert!(first.memory(&key(0)).is_none());
    insert_all(&first, &watch, 2..3, 3000);
    assert!(first.disk(&key(0)).await.is_none());
    assert!(first.release_disk());
    let (second, _) = owned(MIB, directory.path(), 16 * MIB);
    assert_eq!(found(&second, 1).await.unwrap().body.len(), 30_000);
    assert!(found(&second, 2).await.is_some());
    assert!(second.disk(&key(0)).await.is_none(), "it stays removed");
}

#[tokio::test]
async fn what_is_over_does_not_bring_back_what_it_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..2, 3000);
    let mut short = Entry::clone(&fresh(0, 3000));
    short.facts.ttl = Duration::from_secs(2);
    first.insert(Arc::new(short));
    assert!(within(5, || watch.of("stored Disk") == 3));
    assert!(first.release_disk());
    std::thread::sleep(Duration::from_millis(2100));
    let (second, _) = owned(MIB, directory.path(), 16 * MIB);
    assert!(found(&second, 1).await.is_some());
    assert!(second.disk(&key(0)).await.is_none());
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
        assert!(bytes(directory.path()) <= 4 * MIB);
    }
    assert!(bytes(directory.path()) > 3 * MIB);
    assert!(watch.of("evicted Disk") > 3 * MIB);
    assert!(tiers.release_disk());
    let (smaller, _) = owned(MIB, directory.path(), MIB);
    assert!(within(5, || bytes(directory.path()) <= MIB));
    assert!(smaller.disk_bytes() > MIB / 2);
}

#[tokio::test]
async fn what_is_read_gets_a_second_chance_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 4 * MIB);
    for number in 0..400 {
        insert_all(&tiers, &watch, number..number + 1, 20_000);
        for read in 0..2.min(number) {
            assert_whole(&found(&tiers, read).await.unwrap(), read);
        }
    }
    let mut there = Vec::new();
    for number in 0..400 {
        there.extend(tiers.disk(&key(number)).await.map(|_| number));
    }
    assert_eq!(there[..2], [0, 1]);
    assert!(there.len() > 120 && !there.contains(&2) && there.contains(&399));
    let mut encoded = Vec::new();
    fresh(0, 20_000).encode(&mut encoded).unwrap();
    let lost = (400 - there.len()) * (24 + encoded.len());
    assert_eq!(watch.of("evicted Disk"), lost as u64);
    assert_eq!(
        watch.of("stored Disk"),
        400,
        "a second chance is not counted"
    );
}

/// All that is on disk is read all the time: nothing can be kept, and nothing runs in circles.
#[tokio::test]
async fn a_second_chance_for_everything_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(64 * MIB, directory.path(), MIB);
    for number in 0..200 {
        insert_all(&tiers, &watch, number..number + 1, 20_000);
        for read in 0..number {
            tiers.disk(&key(read)).await;
        }
    }
    assert!(found(&tiers, 199).await.is_some());
    assert!(bytes(directory.path()) <= MIB);
}

/// Each opening begins a segment, and each segment is an open file.
#[tokio::test]
async fn many_short_lives_do_not_leave_more_and_more_files() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..110 {
        let (tiers, watch) = owned(MIB, directory.path(), MIB);
        insert_all(&tiers, &watch, number..number + 1, 300);
        assert!(tiers.release_disk());
    }
    assert_eq!(segments(directory.path()).len(), 97);
    let (tiers, _) = owned(MIB, directory.path(), MIB);
    assert!(found(&tiers, 109).await.is_some() && found(&tiers, 20).await.is_some());
}

#[tokio::test]
async fn large_entries_have_a_segment_of_their_own_up_to_an_eighth_of_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(64 * MIB, directory.path(), 16 * MIB);
    insert_all(&tiers, &watch, 0..1, 3000);
    insert_all(&tiers, &watch, 1..2, 1_900_000);
    tiers.insert(fresh(2, 2_200_000));
    insert_all(&tiers, &watch, 3..4, 3000);
    for number in [0, 1, 3] {
        assert_whole(&found(&tiers, number).await.unwrap(), number);
    }
    assert!(tiers.disk(&key(2)).await.is_none());
    assert_eq!(segments(directory.path()).len(), 3);
    insert_all(&tiers, &watch, 10..30, 1_900_000);
    assert!(bytes(directory.path()) <= 16 * MIB);
    assert!(bytes(directory.path()) > 12 * MIB);
}

#[tokio::test]
async fn small_inserts_take_few_writes() {
    const COUNT: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(512 * MIB, directory.path(), 64 * MIB);
    let begin = Instant::now();
    for number in 0..COUNT {
        // The queue holds about as many.
        let waits = || watch.of("stored Disk") + 10_000 < number;
        assert!(within(5, || !waits()));
        tiers.insert(fresh(number, 400));
    }
    assert!(within(20, || watch.of("stored Disk") == COUNT));
    assert_eq!(watch.of("queue_full"), 0);
    let writes = tiers.disk_tier().unwrap().writes();
    let moments = begin.elapsed().as_millis() / 5;
    assert!(u128::from(writes) <= 100 + moments, "{writes}");
    assert!(writes < COUNT / 10, "{writes}");
    for number in (0..COUNT).step_by(997) {
        assert_whole(&found(&tiers, number).await.unwrap(), number);
    }
}

#[tokio::test]
async fn damaged_entries_are_misses_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..40, 3000);
    assert!(first.release_disk());
    let mut random = noise(11);
    change(&segments(directory.path())[0], |content| {
        for start in entries(content) {
            content[start + random() as usize % 3000] ^= 1 << (random() % 8);
        }
    });
    let (second, watch) = owned(MIB, directory.path(), 16 * MIB);
    for number in 0..40 {
        let is_counted = |times| watch.of("disk_corrupt") == times;
        while !is_counted(number + 1) {
            assert!(second.disk(&key(number)).await.is_none(), "{number}");
        }
    }
    insert_all(&second, &watch, 50..51, 3000);
    for number in 0..40 {
        assert!(second.disk(&key(number)).await.is_none(), "{number}");
    }
    assert_eq!(watch.of("disk_corrupt"), 40);
    assert!(second.release_disk());
    let (third, watch) = owned(MIB, directory.path(), 16 * MIB);
    assert!(found(&third, 50).await.is_some());
    for number in 0..40 {
        assert!(third.disk(&key(number)).await.is_none(), "{number}");
    }
    assert_eq!(watch.of("disk_corrupt"), 0, "they are known to be gone");
}

#[tokio::test]
async fn damaged_and_shortened_segments_lose_no_more_than_what_follows() {
    let directory = tempfile::tempdir().unwrap();
    let (first, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&first, &watch, 0..45, 100_000);
    assert!(first.release_disk());
    let paths = segments(directory.path());
    assert_eq!(paths.len(), 5);
    // The header of the fourth entry; the whole; and the middle of an entry, twice.
    change(&paths[0], |content| {
        let fourth = entries(content)[3];
        content[fourth - 7] ^= 4;
    });
    change(&paths[1], Vec::clear);
    change(&paths[2], |content| content.truncate(650_000));
    change(&paths[4], |content| content.truncate(250_000));
    let (second, watch) = owned(MIB, directory.path(), 16 * MIB);
    let mut there = Vec::new();
    assert!(found(&second, 0).await.is_some());
    for number in 0..45 {
        if let Some(entry) = second.disk(&key(number)).await {
            assert_whole(&entry, number);
            there.push(number);
        }
    }
    // Ten to a segment.
    let left = [0..3, 20..26, 30..40, 40..42].into_iter().flatten();
    assert_eq!(there, left.collect::<Vec<_>>());
    assert_eq!(watch.of("disk_corrupt"), 2, "the last may be torn");
    // What was lost can be stored again.
    insert_all(&second, &watch, 10..12, 100_000);
    assert_whole(&found(&second, 10).await.unwrap(), 10);
    assert!(second.release_disk());
    let (third, watch) = owned(MIB, directory.path(), 16 * MIB);
    for number in there {
        assert_whole(&found(&third, number).await.unwrap(), number);
    }
    assert_eq!(watch.of("disk_corrupt"), 0, "it is known to be gone");
}

#[tokio::test]
async fn a_segment_that_is_cut_under_our_hands_makes_misses() {
    let directory = tempfile::tempdir().unwrap();
    let (tiers, watch) = owned(MIB, directory.path(), 16 * MIB);
    insert_all(&tiers, &watch, 0..10, 3000);
    let path = &segments(directory.path())[0];
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(10_000).unwrap();
    assert!(found(&tiers, 0).await.is_some());
    assert!(tiers.disk(&key(9)).await.is_none());
    assert_eq!(watch.of("disk_corrupt"), 1);
    insert_all(&tiers, &watch, 20..21, 3000);
    assert_whole(&found(&tiers, 20).await.unwrap(), 20);
}

#[tokio::test]
async fn strangers_in_the_directory_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let strangers = ["7.seg", "notes.txt", "0000000003.seg.old", "ab/cd"];
    fs::create_dir(directory.path().join("ab")).unwrap();
    fs::create_dir(directory.path().join("0000000009.seg")).unwrap();
    for name in strangers {
        fs::write(directory.path().join(name), name).unwrap();
    }
    for round in 0..2 {
        let (tiers, watch) = owned(MIB, directory.path(), MIB);
        insert_all(&tiers, &watch, round * 100..round * 100 + 100, 20_000);
        assert!(tiers.release_disk());
        let errors = ["disk_corrupt", "disk_read", "disk_write"];
        assert!(errors.iter().all(|error| watch.of(error) == 0));
    }
    for name in strangers {
        let content = fs::read_to_string(directory.path().join(name));
        assert_eq!(content.unwrap(), name);
    }
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
    assert!(within(5, || second.disk_bytes() >= 30 * 3000));
    for number in 0..30 {
        assert_whole(&found(&second, number).await.unwrap(), number);
    }
    // The first goes on in memory and leaves the disk alone.
    let before = bytes(directory.path());
    first.insert(fresh(50, 30_000));
    assert!(first.memory(&key(50)).is_some());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bytes(directory.path()), before);
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
    let Some(_mounted) = Mounted::new(directory.path(), "size=4m") else {
        return;
    };
    let ballast = directory.path().join("ballast");
    fs::write(&ballast, vec![0; 2 << 20]).unwrap();
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
    fs::remove_file(ballast).unwrap();
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
    // Segments are open and are read at positions, so no pipe can stand in for one.
    let disk = tiers.disk_tier().unwrap();
    disk.hang(true);
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
    disk.hang(false);
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
        // Several at once, so that a write is long enough to be killed in it.
        let before = watch.of("stored Disk");
        for _ in 0..20 {
            let length = random() as usize % 30_000;
            tiers.insert(fresh(random() % 500, length));
        }
        within(5, || watch.of("stored Disk") >= before + 20);
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
