//! Masters that are lost: by Sentinel, and in a Cluster.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::server::{RedisCluster, RedisSentinels, until};
use super::*;
use crate::domain::same_user::SameUser;
use crate::store::history::{Bookmark, Happened, History};

/// Of the prefix `test`.
const SLOT: u16 = 6918;
/// What the README says that the user needs.
const RIGHTS: &str = "~{test}:* &{test}:* +@read +@write +@scripting +@connection +@pubsub +time \
                      +info +cluster|slots +cluster|keyslot";

fn cluster(cluster: &RedisCluster, prefix: &str) -> RedisSettings {
    // Two that are given are enough to learn the others.
    let nodes = cluster.nodes().iter().take(2).map(|node| Address::parse(node).unwrap()).collect();
    RedisSettings {
        place: Place::Cluster(nodes),
        username: None,
        password_file: None,
        database: 0,
        prefix: prefix.into(),
        timeout: Duration::from_secs(5),
        tls: None,
        confirm: 1,
    }
}

fn sentinels(sentinels: &RedisSentinels) -> RedisSettings {
    let nodes = sentinels.nodes();
    RedisSettings {
        place: Place::Sentinel {
            sentinels: nodes.iter().map(|node| Address::parse(node).unwrap()).collect(),
            master: "games".into(),
            username: None,
            password_file: None,
        },
        username: None,
        password_file: None,
        database: 0,
        prefix: "test".into(),
        timeout: Duration::from_secs(2),
        tls: None,
        confirm: 1,
    }
}

macro_rules! on_cluster {
    ($($behaviour:ident)+) => {
        /// The suite of every store; each with a prefix of its own, so on any of the masters.
        #[tokio::test(flavor = "multi_thread")]
        async fn a_cluster_behaves_as_every_store_does() {
            let Some(servers) = RedisCluster::start() else { return };
            $(
                let settings = cluster(&servers, stringify!($behaviour));
                let store = Arc::new(RedisStore::open(settings).await.unwrap());
                crate::store::behaviour::$behaviour(store).await;
            )+
        }
    };
}
crate::store::behaviour::on_every_store!(on_cluster);

/// One user's login, and what came of it.
struct Login {
    session: Session,
    base: HoldNumber,
}

fn user(number: u16) -> Session {
    session(number, &format!("user-{number}"), 1_000_000)
}

fn once(session: &Session) -> Admission {
    let mut admission = uses(1_000_000, &session.identity.user);
    admission.bound = SameUser::REFUSE.bound(session, at(0), false);
    admission.session = Some(session.clone());
    admission
}

fn moved(session: &Session) -> Takeover {
    Takeover {
        session: Session { hold: HoldNumber(2 << 32 | 9), ..session.clone() },
        base: session.hold,
        now: at(0),
        lost_at: None,
    }
}

/// Logins of ever new users, half of whom come back over another connection, until so many were
/// answered; those whose every step was.
async fn log_in(
    store: Arc<RedisStore>,
    numbers: std::ops::Range<u16>,
    answered: Arc<AtomicUsize>,
    enough: usize,
) -> Vec<Login> {
    let mut logins = Vec::new();
    for number in numbers {
        if answered.load(Ordering::SeqCst) >= enough {
            break;
        }
        let mut session = user(number);
        let base = session.hold;
        let Ok(admitted) = store.admit(once(&session)).await else {
            becomes(|| store.healthy()).await;
            continue;
        };
        assert_eq!(admitted, yes());
        if number.is_multiple_of(2) {
            let takeover = moved(&session);
            let new = takeover.session.clone();
            if store.take_over(takeover).await != Ok(true) {
                // Away, in doubt; out of the count that is checked.
                becomes(|| store.healthy()).await;
                let _ = store.end(vec![session.id], None).await;
                continue;
            }
            session = new;
        }
        answered.fetch_add(1, Ordering::SeqCst);
        logins.push(Login { session, base });
    }
    logins
}

/// Everything that was answered holds: sessions, used credentials, and which connection counts.
async fn all_holds(store: &RedisStore, logins: &[Login]) {
    for login in logins {
        let found = store.find(vec![login.session.id]).await.unwrap().remove(0);
        assert_eq!(found.as_ref(), Some(&login.session));
        assert_eq!(store.admit(once(&login.session)).await, Ok(Admitted::CredentialUsed));
        let mut other = once(&Session { id: id(60_000), ..login.session.clone() });
        other.credential = None;
        assert_eq!(store.admit(other).await, Ok(Admitted::TooManySessions));
        if login.session.hold != login.base {
            let old = Session { hold: login.base, ..login.session.clone() };
            assert_eq!(store.take_over(moved(&old)).await, Ok(false));
        }
    }
}

/// The sessions whose logins the history tells from this place on.
async fn told(store: &RedisStore, mut place: Bookmark) -> Vec<SessionId> {
    let mut told = Vec::new();
    loop {
        let events = store.since(place, 100).await.unwrap().expect("nothing is missing");
        let Some(last) = events.last() else { return told };
        place.revision = last.revision;
        let logins = events.iter().filter(|event| event.happened == Happened::Login);
        told.extend(logins.map(|event| event.session.id));
    }
}

/// The news, once everything until now was told.
async fn ended_news(news: &mut mpsc::Receiver<News>, last: SessionId) -> Vec<SessionId> {
    let mut ended = Vec::new();
    while ended.last() != Some(&last) {
        if let News::Ended { session, .. } = next(news).await {
            ended.push(session);
        }
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_a_master_and_a_slot_amid_logins_and_nothing_that_was_answered() {
    let Some(mut servers) = RedisCluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret").unwrap();
    for server in &servers.servers {
        server.ask(&format!("ACL SETUSER gate on >secret {RIGHTS}"));
    }
    let settings = RedisSettings {
        username: Some("gate".into()),
        password_file: Some(password_file),
        ..cluster(&servers, "test")
    };
    let one = Arc::new(RedisStore::open(settings.clone()).await.unwrap());
    let two = RedisStore::open(settings).await.unwrap();
    let (begin, mut news) = (one.newest().await.unwrap(), two.news().unwrap());
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..8_u16)
        .map(|task| {
            let (store, answered) = (Arc::clone(&one), Arc::clone(&answered));
            tokio::spawn(log_in(store, task * 5000..(task + 1) * 5000, answered, 600))
        })
        .collect();
    becomes(|| answered.load(Ordering::SeqCst) >= 200).await;
    let master = servers.master_of(SLOT);
    let replica = servers.replica_of(master);
    let began = Instant::now();
    servers.servers[master].kill();
    becomes(|| !one.healthy()).await;
    becomes(|| one.healthy() && two.healthy()).await;
    eprintln!("another master after {:?}", began.elapsed());
    assert_eq!(servers.master_of(SLOT), replica);
    let mut logins = Vec::new();
    for task in tasks {
        logins.extend(task.await.unwrap());
    }
    assert!(logins.len() >= 600);
    all_holds(&two, &logins).await;
    // What failed left nothing behind.
    let waits = async {
        while one.count().await != Ok(Count { live: logins.len() as u64, away: 0 }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("nothing else lives");
    let told = told(&two, begin).await;
    assert!(
        logins.iter().all(|login| told.iter().filter(|id| **id == login.session.id).count() == 1)
    );
    let [first, last] = [&logins[0], &logins[logins.len() - 1]].map(|login| login.session.id);
    one.end(vec![first, last], Some(out())).await.unwrap();
    assert!(ended_news(&mut news, last).await.ends_with(&[first, last]));

    // The old master comes back as a replica, and the slot moves to a third one, key by key.
    servers.servers[master].run();
    let (from, to) = (&servers.servers[replica], (master + 1) % 3);
    let to = &servers.servers[to];
    let [from_id, to_id] = [from, to].map(|server| server.ask("CLUSTER MYID").trim().to_owned());
    to.ask(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {from_id}"));
    from.ask(&format!("CLUSTER SETSLOT {SLOT} MIGRATING {to_id}"));
    loop {
        let keys = from.ask(&format!("CLUSTER GETKEYSINSLOT {SLOT} 100"));
        if keys.is_empty() {
            break;
        }
        let keys = keys.trim().replace('\n', " ");
        from.ask(&format!("MIGRATE 127.0.0.1 {}  0 5000 KEYS {keys}", to.port));
    }
    for server in [to, from] {
        server.ask(&format!("CLUSTER SETSLOT {SLOT} NODE {to_id}"));
    }
    until(|| {
        servers.servers.iter().all(|server| {
            let lines = server.ask("CLUSTER NODES");
            lines.lines().any(|line| line.starts_with(&to_id) && line.contains(&format!(" {SLOT}")))
        })
    });
    let fresh = user(50_000);
    let waits = async {
        while one.admit(once(&fresh)).await != Ok(yes()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the store is found again");
    becomes(|| two.healthy()).await;
    logins.retain(|login| login.session.id != first && login.session.id != last);
    all_holds(&one, &logins[logins.len() - 50..]).await;
    one.end(vec![fresh.id], Some(out())).await.unwrap();
    assert!(ended_news(&mut news, fresh.id).await.contains(&fresh.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_name_another_master_and_what_no_replica_had_was_not_answered() {
    let Some(mut servers) = RedisSentinels::start() else { return };
    let mut unknown = sentinels(&servers);
    if let Place::Sentinel { master, .. } = &mut unknown.place {
        *master = "nobody".into();
    }
    let error = RedisStore::open(unknown).await.err().unwrap().to_string();
    assert!(error.contains("no sentinel knows a master `nobody`"), "{error}");
    let store = Arc::new(RedisStore::open(sentinels(&servers)).await.unwrap());
    let begin = store.newest().await.unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let before = log_in(Arc::clone(&store), 0..50, Arc::clone(&answered), 20).await;

    servers.servers[1].signal("STOP");
    let unheard = user(100);
    let began = Instant::now();
    assert!(store.admit(once(&unheard)).await.is_err());
    assert!(store.end(vec![before[0].session.id], None).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!store.healthy());
    servers.servers[1].signal("CONT");
    becomes(|| store.healthy()).await;
    // It did not happen, or is undone: its client heard that it failed.
    let there = || async { store.find(vec![unheard.id, before[0].session.id]).await };
    let waits = async {
        while there().await != Ok(vec![None, None]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("neither lives");

    let logging = tokio::spawn(log_in(Arc::clone(&store), 1000..9000, Arc::clone(&answered), 300));
    becomes(|| answered.load(Ordering::SeqCst) >= 100).await;
    servers.servers[0].kill();
    let after = logging.await.unwrap();
    assert!(servers.servers[1].ask("INFO replication").contains("role:master"));
    all_holds(&store, &before[1..]).await;
    all_holds(&store, &after).await;
    let told = told(&store, begin).await;
    let all = before.iter().chain(&after);
    for login in all {
        assert_eq!(told.iter().filter(|id| **id == login.session.id).count(), 1);
    }
}

#[tokio::test]
async fn a_server_without_a_cluster_is_named() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let address = Address::new("127.0.0.1", server.port);
    let settings = RedisSettings { place: Place::Cluster(vec![address]), ..settings(&server) };
    let error = RedisStore::open(settings).await.err().unwrap().to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
}
