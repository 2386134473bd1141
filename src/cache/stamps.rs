//! Purges that hold for good: an entry is purged when the request that made it began before
//! the purge of anything that it matches.
//!
//! Nothing is searched for and deleted. A purge is one stamp in a table, compared at lookup,
//! so it holds for both tiers at once, for entries that are still on their way in, and, since
//! the table is a file, after any restart.
//!
//! The table is bounded. It keeps at most [`MOST_STAMPS`] stamps of 24 bytes each: a purged
//! value is kept as a hash, so its length does not matter. Beyond that the oldest stamps are
//! folded into a purge of their whole scope (and the oldest of those into one of everything):
//! that purges too much, never too little. Stamps older than [`LONGEST_LIFE`] are dropped; no
//! entry is old enough to match them.
//!
//! All processes of a machine take their stamps from one clock, the wall clock, made strictly
//! increasing. The file keeps the latest stamp seen, so that a clock that was set back between
//! two runs does not make new purges older than old entries. Call [`Stamps::save`] now and
//! then and before the end: entries made since are only as safe as the wall clock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use std::sync::Mutex;

use super::entry::{Facts, KeyBytes};
use super::form::{Damage, Reader, Writer, checked};

/// How many stamps are kept at most.
pub const MOST_STAMPS: usize = 10_000;

/// No entry lives longer than this: 60 days and one for clocks that differ.
pub const LONGEST_LIFE: Duration = Duration::from_secs(61 * 86_400);

const START: [u8; 5] = *b"tgps\x01";

/// What to purge in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// One entry.
    Key(KeyBytes),
    /// The entries with this key of the client's own.
    CustomKey(Box<str>),
    /// The entries with this tag.
    Tag(Box<str>),
    /// The entries that this provider answered.
    Provider(Box<str>),
    /// The entries of this model.
    Model(Box<str>),
}

/// The purges of all scopes, and the clock that orders them and the requests.
#[derive(Debug)]
pub struct Stamps {
    path: Option<PathBuf>,
    wall: fn() -> u64,
    /// The latest stamp handed out or seen.
    latest: AtomicU64,
    table: ArcSwap<Table>,
    /// One purge at a time changes the table; lookups do not wait for it.
    turn: Mutex<()>,
}

/// A hash of what is purged and its kind.
type Name = [u8; 16];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Table {
    everything: u64,
    scopes: AHashMap<Box<str>, Arc<Scope>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Scope {
    all: u64,
    /// The kinds of which there are stamps: the values of others need not be hashed.
    kinds: u8,
    stamps: AHashMap<Name, u64>,
}

const KEY: u8 = 1;
const CUSTOM_KEY: u8 = 2;
const TAG: u8 = 4;
const PROVIDER: u8 = 8;
const MODEL: u8 = 16;

impl Stamps {
    /// The purges in the file at `path`; without a path they last as long as the process.
    ///
    /// A file that cannot be read may have held any purge: everything stored before now is
    /// purged, and one line in the log says so.
    pub fn open(path: Option<PathBuf>) -> Self {
        Self::open_at(path, wall_clock)
    }

    fn open_at(path: Option<PathBuf>, wall: fn() -> u64) -> Self {
        let stamps = Self {
            path,
            wall,
            latest: AtomicU64::new(0),
            table: ArcSwap::default(),
            turn: Mutex::new(()),
        };
        if let Err(error) = stamps.merge_file() {
            stamps.purge_everything(&error);
        }
        stamps
    }

    /// The next stamp: microseconds since 1970, later than any stamp handed out or seen.
    pub fn now(&self) -> u64 {
        let wall = (self.wall)();
        let next = |latest: u64| wall.max(latest.saturating_add(1));
        let latest = self
            .latest
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |latest| {
                Some(next(latest))
            });
        // The closure never refuses; either way this is the stamp before ours.
        next(latest.unwrap_or_else(|latest| latest))
    }

    /// Purges `what` in `scope`: the entries of all requests that began before now. Blocks
    /// until that is safely on disk.
    ///
    /// # Errors
    /// It could not be written down: it holds in this process, and only until it ends.
    pub fn purge(&self, scope: &str, what: &Purge) -> io::Result<()> {
        let _turn = self.turn.lock();
        // In this process at once, however long the disk takes.
        self.mark(scope, what);
        let _lock = self.lock_file()?;
        // Another process may have written; what it knows must not be lost, and our stamp
        // must be later than its latest.
        if let Err(error) = self.merge_file() {
            self.purge_everything(&error);
        }
        self.mark(scope, what);
        self.write()
    }

    fn mark(&self, scope: &str, what: &Purge) {
        let stamp = self.now();
        let mut table = Table::clone(&self.table.load());
        table.mark(scope, what, stamp);
        table.prune(stamp);
        self.table.store(Arc::new(table));
    }

    /// Whether `facts` are of an entry that was purged.
    pub fn is_purged(&self, facts: &Facts) -> bool {
        self.table.load().is_purged(facts)
    }

    /// Takes over what another process has written since.
    pub fn reload(&self) {
        let _turn = self.turn.lock();
        if let Err(error) = self.merge_file() {
            self.purge_everything(&error);
        }
    }

    /// Writes down how far the clock has come.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        let _lock = self.lock_file()?;
        if let Err(error) = self.merge_file() {
            self.purge_everything(&error);
        }
        self.now();
        self.write()
    }

    /// Keeps other processes from writing; nothing to keep them from without a path.
    fn lock_file(&self) -> io::Result<Option<File>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, "lock"))?;
        file.lock()?;
        Ok(Some(file))
    }

    /// Takes the later of every stamp here and in the file.
    fn merge_file(&self) -> io::Result<()> {
        let Some((latest, found)) = self.path.as_deref().map(read).transpose()?.flatten() else {
            return Ok(());
        };
        self.latest.fetch_max(latest, Ordering::AcqRel);
        let mut table = Table::clone(&self.table.load());
        table.merge(&found);
        table.prune((self.wall)());
        self.table.store(Arc::new(table));
        Ok(())
    }

    fn purge_everything(&self, error: &io::Error) {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        log::error!(
            "cannot read the purges in `{}` ({error}): nothing that was stored so far will be served",
            path.display()
        );
        let mut table = Table::clone(&self.table.load());
        table.everything = self.now();
        table.prune(table.everything);
        self.table.store(Arc::new(table));
        // Otherwise the next process would find the broken file and purge everything again. If
        // it cannot be written either, that is what happens, and all that is lost is time.
        let _ = self.write();
    }

    fn write(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let latest = self.latest.load(Ordering::Acquire);
        self.table.load().encode(latest, &mut bytes)?;
        let fresh = beside(path, "new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        // The rename is only safe once the directory is.
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Table {
    fn is_purged(&self, facts: &Facts) -> bool {
        facts.begun <= self.everything
            || self
                .scopes
                .get(&facts.scope)
                .is_some_and(|scope| scope.is_purged(facts))
    }

    fn mark(&mut self, scope: &str, what: &Purge, stamp: u64) {
        let scope = Arc::make_mut(self.scopes.entry(scope.into()).or_default());
        match what {
            Purge::All => scope.all = stamp,
            Purge::Key(key) => scope.mark(KEY, key, stamp),
            Purge::CustomKey(key) => scope.mark(CUSTOM_KEY, key.as_bytes(), stamp),
            Purge::Tag(tag) => scope.mark(TAG, tag.as_bytes(), stamp),
            Purge::Provider(provider) => scope.mark(PROVIDER, provider.as_bytes(), stamp),
            Purge::Model(model) => scope.mark(MODEL, model.as_bytes(), stamp),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.everything = self.everything.max(other.everything);
        for (name, found) in &other.scopes {
            let scope = Arc::make_mut(self.scopes.entry(name.clone()).or_default());
            scope.all = scope.all.max(found.all);
            scope.kinds |= found.kinds;
            for (name, stamp) in &found.stamps {
                let kept = scope.stamps.entry(*name).or_default();
                *kept = (*kept).max(*stamp);
            }
        }
    }

    /// Drops what no entry can match any more, and folds what is too much.
    fn prune(&mut self, now: u64) {
        let life = u64::try_from(LONGEST_LIFE.as_micros()).unwrap_or(u64::MAX);
        self.drop_until(now.saturating_sub(life));
        if self.count() > MOST_STAMPS {
            self.fold_stamps();
        }
        if self.count() > MOST_STAMPS {
            self.fold_scopes();
        }
    }

    /// Drops the stamps until `oldest`, and those that a purge of more makes needless.
    fn drop_until(&mut self, oldest: u64) {
        let oldest = oldest.max(self.everything);
        for scope in self.scopes.values_mut() {
            let needless = oldest.max(scope.all);
            if scope.stamps.values().any(|stamp| *stamp <= needless) {
                let scope = Arc::make_mut(scope);
                scope.stamps.retain(|_, stamp| *stamp > needless);
            }
        }
        self.scopes
            .retain(|_, scope| scope.all > oldest || !scope.stamps.is_empty());
    }

    /// A scope counts as one stamp, for its name.
    fn count(&self) -> usize {
        let stamps = self.scopes.values().map(|scope| 1 + scope.stamps.len());
        stamps.sum()
    }

    /// Turns the oldest stamps into purges of their scopes, and some more of them, so that
    /// the next purge need not.
    fn fold_stamps(&mut self) {
        let scopes = self.scopes.values();
        let stamps = scopes.flat_map(|scope| scope.stamps.values().copied());
        let Some(cut) = oldest(stamps.collect(), self.count() - MOST_STAMPS * 9 / 10) else {
            return;
        };
        for scope in self.scopes.values_mut() {
            let folded = scope.stamps.values().filter(|stamp| **stamp <= cut).max();
            if let Some(folded) = folded.copied() {
                let scope = Arc::make_mut(scope);
                scope.all = scope.all.max(folded);
            }
        }
        self.drop_until(0);
    }

    /// Turns the purges of the oldest whole scopes into one of everything.
    fn fold_scopes(&mut self) {
        let alls = self.scopes.values().map(|scope| scope.all);
        let cut = oldest(alls.collect(), self.count() - MOST_STAMPS * 9 / 10);
        self.everything = self.everything.max(cut.unwrap_or(0));
        self.drop_until(0);
    }

    fn encode(&self, latest: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let mut writer = Writer::new(out, START)?;
        writer.number(latest)?;
        writer.number(self.everything)?;
        writer.count(self.scopes.len())?;
        for (name, scope) in &self.scopes {
            writer.sized(name.as_bytes())?;
            writer.number(scope.all)?;
            writer.raw(&[scope.kinds])?;
            writer.count(scope.stamps.len())?;
            for (name, stamp) in &scope.stamps {
                writer.raw(name)?;
                writer.number(*stamp)?;
            }
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<(u64, Self), Damage> {
        let mut reader = checked(bytes, START)?;
        let (latest, everything) = (reader.number()?, reader.number()?);
        let scopes = reader.list(17, |reader| Ok((reader.text()?, Arc::new(scope(reader)?))))?;
        let table = Self {
            everything,
            scopes: scopes.into_iter().collect(),
        };
        if reader.0.is_empty() {
            Ok((latest, table))
        } else {
            Err(Damage::Impossible)
        }
    }
}

fn scope(reader: &mut Reader<'_>) -> Result<Scope, Damage> {
    let (all, [kinds]) = (reader.number()?, reader.array()?);
    let stamps = reader.list(24, |reader| Ok((reader.array()?, reader.number()?)))?;
    Ok(Scope {
        all,
        kinds,
        stamps: stamps.into_iter().collect(),
    })
}

impl Scope {
    fn mark(&mut self, kind: u8, value: &[u8], stamp: u64) {
        self.kinds |= kind;
        self.stamps.insert(name(kind, value), stamp);
    }

    fn is_purged(&self, facts: &Facts) -> bool {
        let of = |kind, value: &[u8]| {
            self.kinds & kind != 0
                && self
                    .stamps
                    .get(&name(kind, value))
                    .is_some_and(|stamp| facts.begun <= *stamp)
        };
        let text = |kind, value: &str| of(kind, value.as_bytes());
        facts.begun <= self.all
            || of(KEY, &facts.key)
            || text(PROVIDER, &facts.provider)
            || facts.model.iter().any(|model| text(MODEL, model))
            || facts.custom_key.iter().any(|key| text(CUSTOM_KEY, key))
            || facts.tags.iter().any(|tag| text(TAG, tag))
    }
}

fn name(kind: u8, value: &[u8]) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]).update(value);
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// The latest of the `count` oldest stamps.
fn oldest(mut stamps: Vec<u64>, count: usize) -> Option<u64> {
    stamps.sort_unstable();
    let last = count.min(stamps.len()).checked_sub(1)?;
    stamps.get(last).copied()
}

fn read(path: &Path) -> io::Result<Option<(u64, Table)>> {
    match fs::read(path) {
        Ok(bytes) => Table::decode(&bytes)
            .map(Some)
            .map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage)),
        // Nothing has been purged yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of a file next to `path`, whose name ends with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn wall_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    fn facts(begun: u64) -> Facts {
        let mut facts = entry([7; 32], 0).facts;
        facts.begun = begun;
        facts
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("purges");
        (directory, path)
    }

    #[test]
    fn stamps_increase_even_when_the_clock_stands_still() {
        let stamps = Stamps::open_at(None, || 5_000);
        assert_eq!(
            [stamps.now(), stamps.now(), stamps.now()],
            [5_000, 5_001, 5_002]
        );
    }

    #[test]
    fn every_kind_purges_what_it_names_and_nothing_else() {
        for (hit, miss) in [
            (Purge::Key([7; 32]), Purge::Key([8; 32])),
            (
                Purge::CustomKey("chapter 3".into()),
                Purge::CustomKey("chapter 4".into()),
            ),
            (Purge::Tag("v2".into()), Purge::Tag("manual2".into())),
            (
                Purge::Provider("openai".into()),
                Purge::Provider("gpt-5".into()),
            ),
            (Purge::Model("gpt-5".into()), Purge::Model("openai".into())),
        ] {
            let stamps = Stamps::open(None);
            let facts = facts(stamps.now());
            assert!(!stamps.is_purged(&facts));
            stamps.purge("acme/main", &miss).unwrap();
            stamps.purge("acme/other", &hit).unwrap();
            stamps.purge("acme/other", &Purge::All).unwrap();
            assert!(!stamps.is_purged(&facts), "{miss:?}");
            stamps.purge("acme/main", &hit).unwrap();
            assert!(stamps.is_purged(&facts), "{hit:?}");
        }
    }

    #[test]
    fn what_begins_after_a_purge_is_kept_and_what_was_on_its_way_is_not() {
        let stamps = Stamps::open(None);
        let on_its_way = facts(stamps.now());
        stamps.purge("acme/main", &Purge::All).unwrap();
        let after = facts(stamps.now());
        assert!(stamps.is_purged(&on_its_way));
        assert!(!stamps.is_purged(&after));
    }

    #[test]
    fn purges_survive_a_restart_and_a_clock_that_was_set_back() {
        let (_directory, path) = directory();
        let before = Stamps::open_at(Some(path.clone()), || 1_000_000);
        let old = facts(before.now());
        before.purge("acme/main", &Purge::Tag("v2".into())).unwrap();
        let kept = facts(before.now());
        before.save().unwrap();
        let after = Stamps::open_at(Some(path), || 500);
        assert!(after.is_purged(&old));
        assert!(!after.is_purged(&kept));
        assert!(after.now() > kept.begun);
        after.purge("acme/main", &Purge::All).unwrap();
        assert!(after.is_purged(&kept));
    }

    #[test]
    fn two_processes_learn_of_each_others_purges() {
        let (_directory, path) = directory();
        let (one, two) = (Stamps::open(Some(path.clone())), Stamps::open(Some(path)));
        let facts = facts(one.now());
        one.purge("acme/main", &Purge::Model("gpt-4".into()))
            .unwrap();
        two.purge("acme/main", &Purge::Model("gpt-5".into()))
            .unwrap();
        assert!(!one.is_purged(&facts));
        one.reload();
        assert!(one.is_purged(&facts));
        // Neither has overwritten the other.
        let mut of_one = facts.clone();
        of_one.model = Some("gpt-4".into());
        two.reload();
        assert!(two.is_purged(&of_one));
    }

    #[test]
    fn a_broken_file_purges_everything_before_once() {
        let (_directory, path) = directory();
        let writer = Stamps::open(Some(path.clone()));
        writer.purge("acme/main", &Purge::Tag("v1".into())).unwrap();
        let whole = fs::read(&path).unwrap();
        for torn in [0, 1, 5, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..torn]).unwrap();
            let before = facts(writer.now());
            let stamps = Stamps::open(Some(path.clone()));
            assert!(stamps.is_purged(&before), "torn at {torn}");
            let after = facts(stamps.now());
            assert!(!stamps.is_purged(&after));
            assert!(!Stamps::open(Some(path.clone())).is_purged(&after));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_directory, path) = directory();
        let writer = Stamps::open(Some(path.clone()));
        writer.purge("acme/main", &Purge::Tag("v1".into())).unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Table::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_temporary_file_left_behind_does_not_matter() {
        let (_directory, path) = directory();
        fs::write(beside(&path, "new"), b"half a fi").unwrap();
        let stamps = Stamps::open(Some(path.clone()));
        let facts = facts(stamps.now());
        assert!(!stamps.is_purged(&facts));
        stamps.purge("acme/main", &Purge::All).unwrap();
        assert!(Stamps::open(Some(path)).is_purged(&facts));
    }

    #[test]
    fn a_purge_that_cannot_be_written_holds_and_says_so() {
        let (_directory, file) = directory();
        fs::write(&file, b"not a directory").unwrap();
        let stamps = Stamps::open(Some(file.join("purges")));
        let facts = facts(stamps.now());
        assert!(stamps.purge("acme/main", &Purge::All).is_err());
        assert!(stamps.is_purged(&facts));
    }

    #[test]
    fn the_directory_is_made_for_the_first_purge() {
        let (_directory, path) = directory();
        let path = path.join("deeper/purges");
        let stamps = Stamps::open(Some(path.clone()));
        let facts = facts(stamps.now());
        stamps.purge("acme/main", &Purge::All).unwrap();
        assert!(Stamps::open(Some(path)).is_purged(&facts));
    }

    #[test]
    fn the_table_is_bounded_and_folding_purges_too_much_never_too_little() {
        let stamps = Stamps::open(None);
        let mut table = Table::default();
        let mut begun = Vec::new();
        for number in 0..3 * MOST_STAMPS as u64 {
            let stamp = stamps.now();
            begun.push((number, stamp));
            table.mark("acme/main", &Purge::Tag(number.to_string().into()), stamp);
            if number % 100 == 0 || number > 29_000 {
                table.prune(stamp);
            }
        }
        assert!(table.count() <= MOST_STAMPS);
        for (number, stamp) in begun {
            let mut facts = facts(stamp);
            facts.tags = vec![number.to_string().into()];
            assert!(table.is_purged(&facts), "{number}");
        }
        assert!(!table.is_purged(&facts(stamps.now())));
    }

    #[test]
    fn scopes_are_bounded_too() {
        let stamps = Stamps::open(None);
        let mut table = Table::default();
        let first = stamps.now();
        for number in 0..=MOST_STAMPS {
            table.mark(&format!("acme/{number}"), &Purge::All, stamps.now());
        }
        table.prune(stamps.now());
        assert!(table.count() <= MOST_STAMPS * 9 / 10);
        let mut facts = facts(first);
        facts.scope = "acme/0".into();
        assert!(table.is_purged(&facts));
    }

    #[test]
    fn stamps_older_than_any_entry_are_dropped() {
        let mut table = Table::default();
        table.mark("acme/main", &Purge::All, 1_000);
        table.mark("acme/main", &Purge::Tag("v2".into()), 1_000);
        table.prune(2_000);
        assert_eq!(table.count(), 1, "the tag is covered by the scope");
        table.prune(1_000 + LONGEST_LIFE.as_micros() as u64);
        assert_eq!(table.count(), 0);
    }
}
