use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicUsize;

use redb::backends::InMemoryBackend;

use super::*;
use crate::domain::credential::{CredentialId, Identity};
use crate::domain::session::Mode;

fn memory() -> RedbStore {
    RedbStore::with_backend(InMemoryBackend::new()).unwrap()
}

fn session(number: u16, user: &str, expires_at: u64) -> Session {
    let mut id = [0; 16];
    id[14..].copy_from_slice(&number.to_be_bytes());
    Session {
        id: SessionId::from_bytes(id),
        identity: Identity {
            user: user.into(),
            roles: vec!["player".into()],
            claims: BTreeMap::from([("zone".into(), "7".into())]),
        },
        mode: if number.is_multiple_of(2) { Mode::Noise } else { Mode::Ticket },
        audience: "game".into(),
        layout: "happy".into(),
        proxy: "proxy-1".into(),
        peer: "203.0.113.7:40112".into(),
        client: "demo/1".into(),
        created_at: UnixMillis(5),
        expires_at: UnixMillis(expires_at),
    }
}

fn lives(session: &Session) -> Admission {
    Admission { credential: None, session: Some(session.clone()) }
}

fn uses(expires: u64, name: &str) -> Admission {
    let credential = CredentialId::new(UnixMillis(expires), "issuer", name.as_bytes());
    Admission { credential: Some(credential), session: None }
}

fn page(user: Option<&str>, after: Option<SessionId>, limit: usize) -> Page {
    Page { user: user.map(str::to_owned), after, limit }
}

#[tokio::test]
async fn a_session_is_found_whole_until_it_ends() {
    let store = memory();
    let (ada, bob) = (session(1, "ada", 100), session(2, "bob", 100));
    for session in [&ada, &bob] {
        assert_eq!(store.admit(lives(session)).await, Ok(Admitted::Yes));
    }
    let found = store.find(vec![bob.id, SessionId::from_bytes([9; 16]), ada.id]).await.unwrap();
    assert_eq!(found, [Some(bob.clone()), None, Some(ada.clone())]);
    assert_eq!(store.end(vec![ada.id, ada.id]).await, Ok(vec![ada.clone()]));
    assert_eq!(store.find(vec![ada.id]).await, Ok(vec![None]));
    assert_eq!(store.list(page(Some("ada"), None, 10)).await, Ok(vec![]));
    assert_eq!(store.list(page(None, None, 10)).await, Ok(vec![bob]));
}

#[tokio::test]
async fn a_credential_works_once_also_among_fifty_at_the_same_moment() {
    let store = Arc::new(memory());
    let tries = (0..50).map(|number| {
        let store = Arc::clone(&store);
        let mut admission = uses(100, "jti");
        admission.session = Some(session(number, "ada", 100));
        tokio::spawn(async move { store.admit(admission).await.unwrap() })
    });
    let mut admitted = 0;
    for attempt in tries.collect::<Vec<_>>() {
        admitted += usize::from(attempt.await.unwrap() == Admitted::Yes);
    }
    assert_eq!(admitted, 1);
    // Those who came late left no session behind.
    assert_eq!(store.list(page(Some("ada"), None, 100)).await.unwrap().len(), 1);
    assert_eq!(store.admit(uses(100, "other")).await, Ok(Admitted::Yes));
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let store = memory();
    for number in 0..25 {
        let user = if number % 5 == 0 { "ada" } else { "adam" };
        store.admit(lives(&session(number, user, 100))).await.unwrap();
    }
    for (user, expected) in [(None, 25), (Some("ada"), 5), (Some("adam"), 20), (Some("a"), 0)] {
        for size in [1, 2, 7, 100] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = store.list(page(user, after, size)).await.unwrap();
                assert!(page.len() <= size);
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                seen.extend(page.iter().map(|session| session.id));
            }
            assert_eq!(seen.len(), expected, "{user:?} by {size}");
            assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}

#[tokio::test]
async fn a_sweep_takes_what_expired_in_bounded_steps() {
    let store = memory();
    for number in 0..600 {
        let expires = if number < 500 { u64::from(number) } else { 10_000 };
        store.admit(lives(&session(number, "ada", expires))).await.unwrap();
    }
    store.admit(uses(400, "old")).await.unwrap();
    store.admit(uses(10_000, "young")).await.unwrap();

    let first = store.sweep(UnixMillis(499)).await.unwrap();
    assert_eq!((first.sessions.len(), first.credentials, first.more), (256, 1, true));
    let second = store.sweep(UnixMillis(499)).await.unwrap();
    assert_eq!((second.sessions.len(), second.more), (244, false));
    assert_eq!(store.sweep(UnixMillis(499)).await, Ok(Swept::default()));
    assert_eq!(store.list(page(None, None, 1000)).await.unwrap().len(), 100);
    // A swept credential has expired: that it is unknown now harms nobody.
    assert_eq!(store.admit(uses(10_000, "young")).await, Ok(Admitted::CredentialUsed));
    // An ended session leaves no trace for the sweep.
    let last = session(599, "ada", 10_000);
    store.end(vec![last.id]).await.unwrap();
    let swept = store.sweep(UnixMillis(10_000)).await.unwrap();
    assert_eq!((swept.sessions.len(), swept.credentials), (99, 1));
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
        assert_eq!(write.await.unwrap(), Ok(Admitted::Yes));
    }
    let flushes = disk.flushes.load(Ordering::SeqCst) - before;
    assert!((1..100).contains(&flushes), "{flushes} flushes for 1000 writes");
}

#[tokio::test]
async fn a_broken_disk_fails_every_write_and_shows_in_the_health() {
    let disk = Disk::default();
    let store = RedbStore::with_backend(disk.clone()).unwrap();
    assert_eq!(store.admit(uses(100, "a")).await, Ok(Admitted::Yes));
    assert!(store.healthy());
    disk.broken.store(true, Ordering::SeqCst);
    assert!(store.admit(uses(100, "b")).await.is_err());
    assert!(store.end(vec![session(1, "ada", 1).id]).await.is_err());
    assert!(!store.healthy());
}
