use std::time::Duration;

use super::*;
use crate::domain::filter::Filter;
use crate::domain::session::{HoldNumber, State};
use crate::store::behaviour::{at, id, lives, session, uses, yes};
use server::RedisServer;

mod failover;
#[path = "../../../tests/support/redis.rs"]
mod server;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(server: &RedisServer) -> RedisSettings {
    RedisSettings {
        place: Place::Server(Address::new("127.0.0.1", server.port)),
        username: None,
        password_file: None,
        database: 0,
        prefix: "test".into(),
        timeout: Duration::from_secs(5),
        tls: None,
        confirm: 0,
    }
}

async fn open(server: &RedisServer) -> RedisStore {
    RedisStore::open(settings(server)).await.unwrap()
}

/// The suite of every store; each test with a server of its own.
macro_rules! on_redis {
    ($($behaviour:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $behaviour() {
                let Some(server) = RedisServer::start(&[]) else { return };
                let store = Arc::new(open(&server).await);
                crate::store::behaviour::$behaviour(store).await;
            }
        )+
    };
}
crate::store::behaviour::on_every_store!(on_redis);

async fn next(news: &mut mpsc::Receiver<News>) -> News {
    tokio::time::timeout(PATIENCE, news.recv()).await.expect("news in time").expect("news")
}

/// Waits until a condition holds.
async fn becomes(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
}

fn out() -> Farewell {
    Farewell { reason: "out".into(), code: 7 }
}

fn ended(number: u16, own: bool) -> News {
    let (session, proxy) = (id(number), Some("proxy-1".into()));
    News::Ended { session, proxy, farewell: out(), own }
}

#[tokio::test]
async fn a_replica_hears_what_another_one_ended_in_order_and_without_delay() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (one, two) = (open(&server).await, open(&server).await);
    let mut news = two.news().unwrap();
    assert!(two.news().is_none());
    assert_eq!(next(&mut news).await, News::Gap);
    for number in 0..10 {
        one.admit(lives(&session(number, "ada", 100))).await.unwrap();
    }
    // Whoever ends by himself is no news.
    one.end(vec![id(9)], None).await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(one.end((0..9).map(id).collect(), Some(out())).await.unwrap().len(), 9);
    for number in 0..9 {
        assert_eq!(next(&mut news).await, ended(number, false));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let whom = Whom::Matching(Filter::of_user("ada"));
    one.announce(&whom, &out()).await.unwrap();
    assert_eq!(next(&mut news).await, News::Call { whom: whom.clone(), farewell: out() });
    // Of its own it hears only what ended.
    two.announce(&whom, &out()).await.unwrap();
    two.admit(lives(&session(20, "ada", 100))).await.unwrap();
    two.end(vec![id(20)], Some(out())).await.unwrap();
    assert_eq!(next(&mut news).await, ended(20, true));
}

#[tokio::test]
async fn while_the_server_is_away_everything_fails_at_once_and_nothing_is_missed_after() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let (one, two) = (open(&server).await, open(&server).await);
    let mut news = two.news().unwrap();
    assert_eq!(next(&mut news).await, News::Gap);
    for number in 0..3 {
        one.admit(lives(&session(number, "ada", 100))).await.unwrap();
    }
    one.end(vec![id(0)], Some(out())).await.unwrap();
    assert_eq!(next(&mut news).await, ended(0, false));

    server.kill();
    assert!(one.admit(uses(100, "jti")).await.is_err());
    assert!(!one.healthy());
    let began = std::time::Instant::now();
    assert!(one.admit(uses(100, "jti")).await.is_err());
    // Its client left meanwhile: that is not forgotten.
    assert!(one.end(vec![id(1)], None).await.is_err());
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());

    server.run();
    becomes(|| one.healthy()).await;
    assert_eq!(one.find(vec![id(1), id(2)]).await.unwrap()[0], None);
    assert_eq!(one.end(vec![id(2)], Some(out())).await.unwrap().len(), 1);
    // The last event is still there, and those after it are heard as they are; then what is held
    // is looked up.
    let heard = [next(&mut news).await, next(&mut news).await];
    assert!(heard.contains(&ended(2, false)) && heard.contains(&News::Gap), "{heard:?}");
    assert_eq!(one.admit(uses(100, "jti")).await, Ok(yes()));
}

#[tokio::test]
async fn an_admission_whose_answer_is_lost_leaves_no_session_behind() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let hasty = RedisSettings { timeout: Duration::from_millis(300), ..settings(&server) };
    let (store, other) = (RedisStore::open(hasty).await.unwrap(), open(&server).await);
    // The script must be known, or the server would not run it without being asked again.
    store.admit(uses(100, "first")).await.unwrap();
    server.signal("STOP");
    assert!(store.admit(lives(&session(1, "ada", 100))).await.is_err());
    assert!(!store.healthy());
    server.signal("CONT");
    becomes(|| store.healthy()).await;
    assert_eq!(other.find(vec![id(1)]).await, Ok(vec![None]));
    assert_eq!(other.count().await, Ok(Count::default()));
}

#[tokio::test]
async fn a_resume_whose_answer_is_lost_leaves_the_session_to_its_client() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let hasty = RedisSettings { timeout: Duration::from_millis(300), ..settings(&server) };
    let (store, other) = (RedisStore::open(hasty).await.unwrap(), open(&server).await);
    let old = session(1, "ada", 1_000_000);
    store.admit(lives(&old)).await.unwrap();
    let takeover = |old: &Session, number| Takeover {
        session: Session { hold: HoldNumber(number), ..old.clone() },
        base: old.hold,
        now: at(10),
        lost_at: None,
    };
    // The script must be known, or the server would not run it without being asked again.
    let new = Session { hold: HoldNumber(2 << 32), ..old.clone() };
    assert_eq!(store.take_over(takeover(&old, 2 << 32)).await, Ok(true));
    server.signal("STOP");
    assert!(store.take_over(takeover(&new, 3 << 32)).await.is_err());
    server.signal("CONT");
    becomes(|| store.healthy()).await;
    // It happened, and nobody holds it: its client finds it where his newest token leads.
    let found = other.find(vec![old.id]).await.unwrap().remove(0).unwrap();
    assert_eq!((found.hold, found.state()), (HoldNumber(3 << 32), State::Away));
    assert_eq!(other.take_over(takeover(&found, 4 << 32)).await, Ok(true));
}

#[tokio::test]
async fn a_connection_that_ends_while_the_server_is_away_is_not_forgotten() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let store = open(&server).await;
    let (stays, goes) = (session(1, "ada", 1_000_000), session(2, "bob", 1_000_000));
    for session in [&stays, &goes] {
        store.admit(lives(session)).await.unwrap();
    }
    server.kill();
    assert!(store.depart(vec![stays.hold()], Some(at(500))).await.is_err());
    assert!(store.depart(vec![goes.hold()], None).await.is_err());
    server.run();
    becomes(|| store.healthy()).await;
    let found = store.find(vec![stays.id, goes.id]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().away_until, Some(at(500)));
    assert_eq!(found[1], None);
}

#[tokio::test]
async fn a_server_that_lost_everything_is_noticed() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let store = open(&server).await;
    let mut news = store.news().unwrap();
    assert_eq!(next(&mut news).await, News::Gap);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
    assert_eq!(next(&mut news).await, News::Gap);
    store.admit(lives(&session(1, "ada", 100))).await.unwrap();
    store.end(vec![id(1)], Some(out())).await.unwrap();
    assert_eq!(next(&mut news).await, ended(1, true));
}

#[tokio::test]
async fn a_server_that_forgot_a_login_is_noticed_though_it_knows_all_events() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let store = open(&server).await;
    let mut news = store.news().unwrap();
    assert_eq!(next(&mut news).await, News::Gap);
    store.admit(lives(&session(1, "ada", 100))).await.unwrap();
    store.end(vec![id(1)], Some(out())).await.unwrap();
    assert_eq!(next(&mut news).await, ended(1, true));
    let before = server.copy();
    store.admit(lives(&session(2, "ada", 100))).await.unwrap();
    server.kill();
    server.restore(&before);
    server.run();
    assert_eq!(next(&mut news).await, News::Gap);
    assert_eq!(store.find(vec![id(2)]).await, Ok(vec![None]));
}

#[tokio::test]
async fn what_expires_is_news_and_leaves_nothing_in_the_server() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (one, two) = (open(&server).await, open(&server).await);
    let mut news = two.news().unwrap();
    assert_eq!(next(&mut news).await, News::Gap);
    one.admit(lives(&session(1, "ada", 100))).await.unwrap();
    assert_eq!(
        one.sweep(Sweep { now: at(100), lost_until: None }).await.unwrap().sessions,
        [id(1)]
    );
    let farewell = Farewell::new(crate::store::EXPIRED);
    let proxy = Some("proxy-1".into());
    let expected = News::Ended { session: id(1), proxy, farewell, own: false };
    assert_eq!(next(&mut news).await, expected);

    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    keys.sort();
    let expected = ["epoch", "events", "log", "log-revision", "revision", "version", "written"];
    assert_eq!(keys, expected.map(|key| format!("{{test}}:{key}")));
    // Should nobody sweep, the server does it by itself.
    one.admit(lives(&session(2, "ada", 100))).await.unwrap();
    one.admit(uses(100, "jti")).await.unwrap();
    for key in redis::cmd("KEYS")
        .arg("{test}:[sc]:*")
        .query_async::<Vec<String>>(&mut connection)
        .await
        .unwrap()
    {
        let expires: u64 =
            redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut connection).await.unwrap();
        assert_eq!(expires, at(100 + 60_000).0, "{key}");
    }
}

#[tokio::test]
async fn what_waiting_cannot_cure_is_an_error_at_once() {
    let users = "--user default off --user gate on >secret ~{test}:* &{test}:* \
                 +@read +@write +@scripting +@connection +@pubsub +time";
    let users: Vec<_> = users.split(' ').collect();
    let Some(server) = RedisServer::start(&users) else { return };
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret\n").unwrap();
    let good = RedisSettings {
        username: Some("gate".into()),
        password_file: Some(password_file.clone()),
        ..settings(&server)
    };
    let store = RedisStore::open(good.clone()).await.unwrap();
    assert_eq!(store.admit(lives(&session(1, "ada", 100))).await, Ok(yes()));

    let other = RedisSettings { prefix: "other".into(), ..good.clone() };
    for wrong in [settings(&server), other] {
        assert!(RedisStore::open(wrong).await.is_err());
    }
    std::fs::write(&password_file, "wrong").unwrap();
    let error = RedisStore::open(good.clone()).await.err().unwrap().to_string();
    assert!(!error.contains("wrong"), "{error}");
    let missing = RedisSettings { password_file: Some("nowhere".into()), ..good.clone() };
    let error = RedisStore::open(missing).await.err().unwrap().to_string();
    assert!(error.contains("password_file") && error.contains("nowhere"), "{error}");

    std::fs::write(&password_file, "secret").unwrap();
    let call = store.scripts.key("version");
    let _: () = store
        .link
        .run(|mut connection| async move {
            redis::cmd("SET").arg(call).arg("9").query_async(&mut connection).await
        })
        .await
        .unwrap();
    let error = RedisStore::open(good).await.err().unwrap();
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "9"), "{error}");
    // A server that is not there may come.
    let mut gone = server;
    gone.kill();
    assert!(!RedisStore::open(settings(&gone)).await.unwrap().healthy());
}
