use std::io;
use std::sync::atomic::AtomicUsize;

use redb::TableHandle as _;
use redb::backends::InMemoryBackend;

use super::*;
use crate::domain::session::HoldNumber;
use crate::store::behaviour::{at, lives, on_every_store, session, uses, yes};

fn memory() -> RedbStore {
    RedbStore::with_backend(InMemoryBackend::new()).unwrap()
}

macro_rules! on_redb {
    ($($behaviour:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $behaviour() {
                crate::store::behaviour::$behaviour(Arc::new(memory())).await;
            }
        )+
    };
}
on_every_store!(on_redb);

#[tokio::test]
async fn a_sweep_takes_expired_credentials_too() {
    let store = memory();
    store.admit(uses(400, "old")).await.unwrap();
    store.admit(uses(10_000, "young")).await.unwrap();
    let swept = Swept { credentials: 1, ..Swept::default() };
    let sweep = Sweep { now: at(499), lost_until: None };
    assert_eq!(store.sweep(sweep).await, Ok(swept));
    // A swept credential has expired: that it is unknown now harms nobody.
    assert_eq!(store.admit(uses(10_000, "young")).await, Ok(Admitted::CredentialUsed));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let ada = session(1, "ada", 100);
    let store = RedbStore::open(&path).unwrap();
    store.admit(lives(&ada)).await.unwrap();
    store.admit(uses(100, "jti")).await.unwrap();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.find(vec![ada.id]).await, Ok(vec![Some(ada)]));
    assert_eq!(store.admit(uses(100, "jti")).await, Ok(Admitted::CredentialUsed));
}

#[tokio::test]
async fn a_store_of_a_companion_that_knew_no_holds_opens_and_its_sessions_end_as_they_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let old =
        Session { hold: HoldNumber::default(), worker: 0, seed: None, ..session(1, "ada", 100) };
    let store = RedbStore::open(&path).unwrap();
    store.admit(lives(&old)).await.unwrap();
    drop(store);
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    for table in ["sessions_away", "sessions_by_worker", "workers"] {
        let table = write.list_tables().unwrap().find(|found| found.name() == table).unwrap();
        write.delete_table(table).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.find(vec![old.id]).await, Ok(vec![Some(old.clone())]));
    assert_eq!(store.count().await, Ok(Count { live: 1, away: 0 }));
    let sweep = Sweep { now: at(50), lost_until: Some(at(90)) };
    assert_eq!(store.sweep(sweep).await, Ok(Swept::default()));
    let left = store.depart(vec![old.hold()], Some(at(90))).await;
    assert_eq!(left, Ok(vec![(old.id, Left::Ended)]));
}

/// Stores as earlier companions wrote them: three sessions until a thousand seconds after the
/// epoch of these tests, two of them in a room, and a used credential.
///
/// `MESHGATE_REGENERATE=1` writes the one that is named for this version, if it is not there.
#[tokio::test]
async fn stores_of_earlier_companions_open_and_are_whole() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let newest = recorded.join(format!("store-v{VERSION}.redb"));
    if std::env::var_os("MESHGATE_REGENERATE").is_some() && !newest.exists() {
        record(&newest).await;
    }
    for name in ["store-v1-before-holds.redb", "store-v1.redb"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::copy(recorded.join(name), &path).unwrap();
        let checked = RedbStore::check(&path).unwrap();
        let expected = Checked { sessions: 3, credentials: 1, memberships: 2, ..checked.clone() };
        assert_eq!(checked, expected, "{name}");
        assert_eq!(checked.problems, [] as [&str; 0], "{name}");

        let store = RedbStore::open(&path).unwrap();
        for (number, user) in [(1, "ada"), (2, "bob"), (3, "eve")] {
            let expected = session(number, user, 1_000_000);
            let found = store.find(vec![expected.id]).await.unwrap().remove(0).unwrap();
            assert_eq!((found.identity, found.expires_at), (expected.identity, at(1_000_000)));
        }
        let room = GroupName::new("room").unwrap();
        assert_eq!(store.members(room, None, 9).await.unwrap().len(), 2, "{name}");
        assert_eq!(store.admit(uses(1_000_000, "jti")).await, Ok(Admitted::CredentialUsed));
    }
}

async fn record(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    for (number, user) in [(1, "ada"), (2, "bob"), (3, "eve")] {
        store.admit(lives(&session(number, user, 1_000_000))).await.unwrap();
    }
    for number in [1, 3] {
        let (room, id) = (GroupName::new("room").unwrap(), session(number, "", 0).id);
        store.join(room, id, GroupLimits::default()).await.unwrap();
    }
    store.admit(uses(1_000_000, "jti")).await.unwrap();
    drop(store);
    let mut database = Database::open(path).unwrap();
    while database.compact().unwrap() {}
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(RedbStore::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_store_of_another_version_or_kind_or_in_use_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(&path).unwrap();
    assert!(matches!(RedbStore::open(&path), Err(OpenError::InUse { .. })));
    drop(store);

    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("version", VERSION + 1).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Version { found: 2, .. }));
    assert!(error.to_string().contains("format version 2"), "{error}");

    let foreign = folder.path().join("foreign.redb");
    let database = Database::create(&foreign).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("other")).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(RedbStore::open(&foreign), Err(OpenError::Foreign { .. })));

    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, vec![0xa5; 8192]).unwrap();
    assert!(matches!(RedbStore::open(&garbage), Err(OpenError::Broken { .. })));
}

/// A disk that counts its flushes and can be broken.
#[derive(Debug, Default, Clone)]
struct Disk {
    inner: Arc<InMemoryBackend>,
    broken: Arc<AtomicBool>,
    flushes: Arc<AtomicUsize>,
}

impl Disk {
    fn work(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.work()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.work()?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.work()?;
        self.inner.write(offset, data)
    }
}

#[tokio::test]
async fn many_writes_share_one_flush() {
    let disk = Disk::default();
    let store = Arc::new(RedbStore::with_backend(disk.clone()).unwrap());
    let before = disk.flushes.load(Ordering::SeqCst);
    let writes: Vec<_> = (0..1000)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.admit(lives(&session(number, "ada", 100))).await })
        })
        .collect();
    for write in writes {
        assert_eq!(write.await.unwrap(), Ok(yes()));
    }
    let flushes = disk.flushes.load(Ordering::SeqCst) - before;
    assert!((1..100).contains(&flushes), "{flushes} flushes for 1000 writes");
}

#[tokio::test]
async fn a_broken_disk_fails_every_write_and_shows_in_the_health() {
    let disk = Disk::default();
    let store = RedbStore::with_backend(disk.clone()).unwrap();
    assert_eq!(store.admit(uses(100, "a")).await, Ok(yes()));
    assert!(store.healthy());
    disk.broken.store(true, Ordering::SeqCst);
    assert!(store.admit(uses(100, "b")).await.is_err());
    assert!(store.end(vec![session(1, "ada", 1).id], None).await.is_err());
    assert!(!store.healthy());
}
