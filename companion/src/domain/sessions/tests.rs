use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use redb::backends::InMemoryBackend;
use tokio::sync::{Semaphore, mpsc, watch};

use super::*;
use crate::domain::credential::Identity;
use crate::domain::group::{GroupLimits, GroupName, Joined};
use crate::domain::presence::PENDING_LIFETIME;
use crate::domain::push::Parcel;
use crate::domain::resume::Seed;
use crate::domain::session::Mode;
use crate::domain::time::{ManualClock, UnixMillis};
use crate::store::groups::GroupStore;
use crate::store::history::{Bookmark, Event, History, TooOld};
use crate::store::queue::{AwayQueue, Kept, QueueLimits};
use crate::store::redb::RedbStore;
use crate::store::relay::Relay;
use crate::store::{Answer, Left, Listed, News, Swept, Used};

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const LIFETIME: Duration = Duration::from_secs(3600);

/// A store whose admissions and moves wait at a gate, so that something else can come first.
struct Gated {
    inner: Arc<RedbStore>,
    gate: Arc<Semaphore>,
}

impl GroupStore for Gated {
    fn join(&self, group: GroupName, session: SessionId, limits: GroupLimits) -> Answer<Joined> {
        self.inner.join(group, session, limits)
    }

    fn leave(&self, group: GroupName, session: SessionId) -> Answer<bool> {
        self.inner.leave(group, session)
    }

    fn members(
        &self,
        group: GroupName,
        after: Option<SessionId>,
        limit: usize,
    ) -> Answer<Vec<SessionId>> {
        self.inner.members(group, after, limit)
    }

    fn groups_of(&self, session: SessionId) -> Answer<Vec<GroupName>> {
        self.inner.groups_of(session)
    }
}

impl AwayQueue for Gated {
    fn keep(
        &self,
        ids: Vec<SessionId>,
        parcel: Arc<Parcel>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Answer<Vec<Kept>> {
        self.inner.keep(ids, parcel, limits, now)
    }

    fn take_kept(&self, ids: Vec<SessionId>, since: UnixMillis) -> Answer<Vec<Vec<Parcel>>> {
        self.inner.take_kept(ids, since)
    }
}

impl History for Gated {
    fn newest(&self) -> Answer<Bookmark> {
        self.inner.newest()
    }

    fn since(&self, place: Bookmark, limit: usize) -> Answer<Result<Vec<Event>, TooOld>> {
        self.inner.since(place, limit)
    }

    fn pulse(&self) -> watch::Receiver<u64> {
        self.inner.pulse()
    }
}

impl Store for Gated {
    fn admit(&self, admission: Admission) -> Answer<Admitted> {
        let (inner, gate) = (Arc::clone(&self.inner), Arc::clone(&self.gate));
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            inner.admit(admission).await
        })
    }

    fn end(&self, ids: Vec<SessionId>, farewell: Option<Farewell>) -> Answer<Vec<Session>> {
        self.inner.end(ids, farewell)
    }

    fn find(&self, ids: Vec<SessionId>) -> Answer<Vec<Option<Session>>> {
        self.inner.find(ids)
    }

    fn list(&self, page: Page) -> Answer<Listed> {
        self.inner.list(page)
    }

    fn count(&self) -> Answer<Count> {
        self.inner.count()
    }

    fn used(&self, after: Option<String>, limit: usize) -> Answer<Used> {
        self.inner.used(after, limit)
    }

    fn take_over(&self, takeover: Takeover) -> Answer<bool> {
        let (inner, gate) = (Arc::clone(&self.inner), Arc::clone(&self.gate));
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            inner.take_over(takeover).await
        })
    }

    fn depart(
        &self,
        holds: Vec<Hold>,
        until: Option<UnixMillis>,
    ) -> Answer<Vec<(SessionId, Left)>> {
        self.inner.depart(holds, until)
    }

    fn back(&self, holds: Vec<Hold>, worker: u64) -> Answer<Vec<bool>> {
        self.inner.back(holds, worker)
    }

    fn attached(&self, workers: Vec<u64>, until: UnixMillis) -> Answer<Vec<u64>> {
        self.inner.attached(workers, until)
    }

    fn sweep(&self, sweep: Sweep) -> Answer<Swept> {
        self.inner.sweep(sweep)
    }

    fn announce(&self, whom: &Whom, farewell: &Farewell) -> Answer<()> {
        self.inner.announce(whom, farewell)
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        None
    }

    fn relay(&self) -> Option<Arc<dyn Relay>> {
        None
    }

    fn healthy(&self) -> bool {
        self.inner.healthy()
    }
}

struct Line {
    id: StreamId,
    proxy: &'static str,
    told: Mutex<Vec<String>>,
}

impl ProxyStream for Line {
    fn id(&self) -> StreamId {
        self.id
    }

    fn proxy(&self) -> &str {
        self.proxy
    }

    fn worker(&self) -> u64 {
        self.id.0
    }

    fn drains(&self) -> bool {
        false
    }

    fn tell(&self, word: Word) {
        let text = match word {
            Word::Drain => "drain".into(),
            Word::Accepted(accepted) => format!("accepted {}", accepted.reference),
            Word::Refused { reference, refused } => {
                format!("refused {reference} {:?}", refused.why)
            }
            Word::Activated { refused: None, .. } => "activated".into(),
            Word::Activated { .. } => "not activated".into(),
            Word::Kick { farewell, .. } => format!("kick {} {}", farewell.reason, farewell.code),
            Word::Push { sessions, .. } => format!("push to {}", sessions.len()),
        };
        self.told.lock().unwrap().push(text);
    }
}

struct World {
    sessions: Arc<Sessions>,
    clock: Arc<ManualClock>,
    gate: Arc<Semaphore>,
}

impl World {
    fn new() -> Self {
        let world = Self::gated();
        world.gate.add_permits(10_000);
        world
    }

    fn gated() -> Self {
        let inner = Arc::new(RedbStore::with_backend(InMemoryBackend::new()).unwrap());
        let gate = Arc::new(Semaphore::new(0));
        let clock = Arc::new(ManualClock::at(START));
        let store = Arc::new(Gated { inner, gate: Arc::clone(&gate) });
        let sessions = Arc::new(Sessions::new(
            store,
            Arc::clone(&clock) as Arc<dyn crate::domain::time::Clock>,
        ));
        Self { sessions, clock, gate }
    }

    async fn stream(
        &self,
        id: u64,
        proxy: &'static str,
        ids: Vec<Hold>,
    ) -> (Arc<Line>, Arc<dyn ProxyStream>) {
        let line = Arc::new(Line { id: StreamId(id), proxy, told: Mutex::default() });
        let stream: Arc<dyn ProxyStream> = Arc::clone(&line) as _;
        self.sessions.open(&stream, ids).await.unwrap();
        (line, stream)
    }

    fn accepted(&self, user: &str, proxy: &str) -> Accepted {
        let now = self.clock.now();
        let session = Session {
            id: SessionId::new(now).unwrap(),
            identity: Identity { user: user.into(), roles: vec![], claims: BTreeMap::new() },
            mode: Mode::Ticket,
            audience: "a".into(),
            layout: "l".into(),
            proxy: proxy.into(),
            peer: "p".into(),
            client: String::new(),
            created_at: now,
            expires_at: now.after(LIFETIME),
            hold: HoldNumber::default().next().unwrap(),
            worker: 0,
            away_until: None,
            seed: None,
        };
        Accepted { reference: 1, session, base: None, reply: vec![], keys: None }
    }

    /// A session that lives.
    async fn live(&self, stream: &Arc<dyn ProxyStream>, user: &str) -> Hold {
        let accepted = self.accepted(user, stream.proxy());
        let id = accepted.session.hold();
        self.sessions.join(stream, None, accepted).await.unwrap();
        id
    }

    async fn listed(&self) -> Vec<(String, State)> {
        let search = Search { limit: 100, ..Search::default() };
        let listing = self.sessions.list(search).await.unwrap();
        let mut names: Vec<_> = listing
            .sessions
            .into_iter()
            .map(|(session, state)| (session.identity.user, state))
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    }
}

fn told(line: &Line) -> Vec<String> {
    std::mem::take(&mut line.told.lock().unwrap())
}

fn out() -> Farewell {
    Farewell { reason: "out".into(), code: 7 }
}

#[tokio::test]
async fn a_noise_login_is_recorded_when_it_is_activated_and_not_before() {
    let world = World::new();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    world.sessions.pend(&stream, None, accepted).await.unwrap();
    assert_eq!(world.sessions.store().find(vec![id.session]).await, Ok(vec![None]));
    assert_eq!(world.listed().await, [("ada".into(), State::Pending)]);
    world.sessions.activate(&stream, 1, id).await;
    assert_eq!(told(&line), ["accepted 1", "activated"]);
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
}

#[tokio::test]
async fn activation_comes_too_late_after_ten_seconds() {
    let world = World::new();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    world.sessions.pend(&stream, None, accepted).await.unwrap();
    world.clock.advance(PENDING_LIFETIME);
    world.sessions.sweep().await.unwrap();
    world.sessions.activate(&stream, 1, id).await;
    let late = "kick the login was not completed in time 0";
    assert_eq!(told(&line), ["accepted 1", late, "not activated"]);
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn another_stream_cannot_activate_or_end_a_session() {
    let world = World::new();
    let (_, stream1) = world.stream(1, "p", vec![]).await;
    let (line2, stream2) = world.stream(2, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    world.sessions.pend(&stream1, None, accepted).await.unwrap();
    world.sessions.activate(&stream2, 1, id).await;
    assert_eq!(told(&line2), ["not activated"]);
    let live = world.live(&stream1, "bob").await;
    world.sessions.ended(stream2.id(), live, false).await;
    assert_eq!(world.listed().await, [("ada".into(), State::Pending), ("bob".into(), State::Live)]);
    world.sessions.ended(stream1.id(), live, false).await;
    assert_eq!(world.listed().await, [("ada".into(), State::Pending)]);
}

#[tokio::test]
async fn a_used_credential_starts_no_second_session() {
    let world = World::new();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let credential = Some(CredentialId::new(START.after(LIFETIME), "k", b"jti"));
    let join = || world.sessions.join(&stream, credential, world.accepted("ada", "p"));
    assert_eq!(join().await, Ok(()));
    assert_eq!(join().await, Err(Why::Used));
    let pend = world.sessions.pend(&stream, credential, world.accepted("ada", "p")).await;
    assert_eq!(pend, Err(Why::Used));
    assert_eq!(told(&line), ["accepted 1"]);
    assert_eq!(world.sessions.held(), 1);
}

#[tokio::test]
async fn a_kick_between_record_and_life_leaves_nothing_behind() {
    let world = World::gated();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    let joining = tokio::spawn({
        let (sessions, stream) = (Arc::clone(&world.sessions), Arc::clone(&stream));
        async move { sessions.join(&stream, None, accepted).await }
    });
    while world.sessions.held() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.sessions.kick(Whom::Session(id.session), out()).await, Ok(1));
    world.gate.add_permits(1);
    assert_eq!(joining.await.unwrap(), Err(Why::EndedMeanwhile));
    assert_eq!(told(&line), Vec::<String>::new());
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn a_stream_lost_while_a_session_begins_leaves_nothing_behind() {
    let world = World::gated();
    let (_, stream) = world.stream(1, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let joining = tokio::spawn({
        let (sessions, stream) = (Arc::clone(&world.sessions), Arc::clone(&stream));
        async move { sessions.join(&stream, None, accepted).await }
    });
    while world.sessions.held() == 0 {
        tokio::task::yield_now().await;
    }
    world.sessions.close(stream.id());
    world.gate.add_permits(1);
    assert_eq!(joining.await.unwrap(), Err(Why::EndedMeanwhile));
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn a_kick_by_user_ends_pending_and_live_sessions_of_that_user_alone() {
    let world = World::new();
    let (line1, stream1) = world.stream(1, "p", vec![]).await;
    let (line2, stream2) = world.stream(2, "q", vec![]).await;
    for _ in 0..300 {
        world.live(&stream1, "ada").await;
    }
    world.sessions.pend(&stream2, None, world.accepted("ada", "q")).await.unwrap();
    world.live(&stream2, "adam").await;
    told(&line1);
    told(&line2);
    assert_eq!(world.sessions.kick(Whom::Matching(Filter::of_user("ada")), out()).await, Ok(301));
    assert_eq!(told(&line1), vec!["kick out 7"; 300]);
    assert_eq!(told(&line2), ["kick out 7"]);
    assert_eq!(world.listed().await, [("adam".into(), State::Live)]);
    assert_eq!(world.sessions.kick(Whom::Matching(Filter::of_user("ada")), out()).await, Ok(0));
}

#[tokio::test]
async fn a_stream_that_comes_back_hears_what_ended_meanwhile() {
    let world = World::new();
    let (_, stream1) = world.stream(1, "p", vec![]).await;
    let stays = world.live(&stream1, "ada").await;
    let kicked = world.live(&stream1, "bob").await;
    let (_, other) = world.stream(2, "q", vec![]).await;
    let foreign = world.live(&other, "eve").await;
    world.sessions.close(stream1.id());
    assert_eq!(world.sessions.kick(Whom::Session(kicked.session), out()).await, Ok(1));

    let unknown = Hold { session: SessionId::from_bytes([1; 16]), number: HoldNumber::default() };
    let (line, _) = world.stream(3, "p", vec![stays, kicked, foreign, unknown]).await;
    let ended = "kick the session has ended 0";
    assert_eq!(told(&line), ["kick out 7", ended, ended]);
    // The one that stayed is held again, the foreign one is still held by its own proxy.
    assert_eq!(world.sessions.kick(Whom::Session(stays.session), out()).await, Ok(1));
    assert_eq!(told(&line), ["kick out 7"]);
    assert_eq!(world.sessions.kick(Whom::Session(foreign.session), out()).await, Ok(1));
    assert_eq!(told(&line), Vec::<String>::new());
}

#[tokio::test]
async fn a_session_that_expired_while_its_stream_was_away_says_so() {
    let world = World::new();
    let (_, stream) = world.stream(1, "p", vec![]).await;
    let (swept, due) = (world.live(&stream, "ada").await, world.live(&stream, "bob").await);
    world.sessions.close(stream.id());
    world.clock.advance(LIFETIME);
    let (line, stream) = world.stream(2, "p", vec![due]).await;
    assert_eq!(told(&line), ["kick the session has expired 0"]);
    world.sessions.close(stream.id());
    world.sessions.sweep().await.unwrap();
    let (line, _) = world.stream(3, "p", vec![swept]).await;
    assert_eq!(told(&line), ["kick the session has expired 0"]);
}

#[tokio::test]
async fn an_activation_whose_answer_was_lost_is_answered_again() {
    let world = World::new();
    let (_, stream) = world.stream(1, "p", vec![]).await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    world.sessions.pend(&stream, None, accepted).await.unwrap();
    world.sessions.activate(&stream, 1, id).await;
    world.sessions.close(stream.id());
    let (line, stream) = world.stream(2, "p", vec![id]).await;
    world.sessions.activate(&stream, 1, id).await;
    assert_eq!(told(&line), ["activated"]);
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
}

#[tokio::test]
async fn an_activation_outlives_its_stream_if_the_proxy_comes_back_in_time() {
    for comes_back in [true, false] {
        let world = World::gated();
        let (_, stream) = world.stream(1, "p", vec![]).await;
        let accepted = world.accepted("ada", "p");
        let id = accepted.session.hold();
        world.sessions.pend(&stream, None, accepted).await.unwrap();
        let activating = tokio::spawn({
            let (sessions, stream) = (Arc::clone(&world.sessions), Arc::clone(&stream));
            async move { sessions.activate(&stream, 1, id).await }
        });
        while !world.sessions.presence.pending(|_| true).is_empty() {
            tokio::task::yield_now().await;
        }
        world.sessions.close(stream.id());
        let (line, again) = world.stream(2, "p", if comes_back { vec![id] } else { vec![] }).await;
        if comes_back {
            world.sessions.activate(&again, 1, id).await;
        }
        world.gate.add_permits(1);
        activating.await.unwrap();
        let (words, listed) = if comes_back {
            (vec!["activated"; 2], vec![("ada".into(), State::Live)])
        } else {
            (vec![], vec![])
        };
        assert_eq!(
            (told(&line), world.listed().await),
            (words.into_iter().map(Into::into).collect(), listed)
        );
    }
}

#[tokio::test]
async fn sessions_end_with_their_lifetime() {
    let world = World::new();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let id = world.live(&stream, "ada").await;
    told(&line);
    world.clock.advance(LIFETIME);
    // Not swept yet, but over.
    assert_eq!(world.listed().await, []);
    while world.sessions.sweep().await.unwrap() {}
    assert_eq!(told(&line), ["kick the session has expired 0"]);
    assert_eq!(world.sessions.store().find(vec![id.session]).await, Ok(vec![None]));
}

#[tokio::test]
async fn pages_hold_pending_and_live_sessions_in_one_order() {
    let world = World::new();
    let (_, stream) = world.stream(1, "p", vec![]).await;
    let mut made = Vec::new();
    for number in 0..20 {
        world.clock.advance(Duration::from_millis(1));
        if number % 3 == 0 {
            let accepted = world.accepted("ada", "p");
            made.push(accepted.session.hold().session);
            world.sessions.pend(&stream, None, accepted).await.unwrap();
        } else {
            made.push(world.live(&stream, "ada").await.session);
        }
    }
    for limit in [1, 2, 3, 7, 20, 50] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let search = Search { filter: Filter::of_user("ada"), after, limit };
            let listing = world.sessions.list(search).await.unwrap();
            assert!(listing.sessions.len() <= limit);
            seen.extend(listing.sessions.iter().map(|(session, _)| session.id));
            after = listing.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, made, "by {limit}");
    }
}

/// A session that can be resumed, and its next connection on this stream, pending.
async fn resuming(
    world: &World,
    old: &Arc<dyn ProxyStream>,
    new: &Arc<dyn ProxyStream>,
) -> [Hold; 2] {
    let mut accepted = world.accepted("ada", old.proxy());
    accepted.session.seed = Some(Seed { key: [1; 8], salt: [2; 16], credential: None });
    let (session, base) = (accepted.session.clone(), accepted.session.hold);
    world.gate.add_permits(1);
    world.sessions.join(old, None, accepted).await.unwrap();
    let session = Session { hold: base.next().unwrap(), proxy: new.proxy().into(), ..session };
    let holds = [Hold { number: base, ..session.hold() }, session.hold()];
    let accepted = Accepted { reference: 2, session, base: Some(base), reply: vec![], keys: None };
    world.sessions.pend(new, None, accepted).await.unwrap();
    holds
}

/// Activates, once the store's gate lets it, and lets `meanwhile` come first.
async fn activate_after(
    world: &World,
    stream: &Arc<dyn ProxyStream>,
    hold: Hold,
    meanwhile: impl Future<Output = ()>,
) {
    let activating = tokio::spawn({
        let (sessions, stream) = (Arc::clone(&world.sessions), Arc::clone(stream));
        async move { sessions.activate(&stream, 2, hold).await }
    });
    while !world.sessions.presence.is_joining(hold) {
        tokio::task::yield_now().await;
    }
    meanwhile.await;
    world.gate.add_permits(1);
    activating.await.unwrap();
}

#[tokio::test]
async fn the_old_connection_is_told_when_the_new_one_lives_and_not_before() {
    let world = World::gated();
    let (line1, stream1) = world.stream(1, "p", vec![]).await;
    let (line2, stream2) = world.stream(2, "q", vec![]).await;
    let [old, new] = resuming(&world, &stream1, &stream2).await;
    assert_eq!(
        (told(&line1), told(&line2)),
        (vec!["accepted 1".into()], vec!["accepted 2".into()])
    );
    // A session that is being resumed is listed once, as what it is.
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
    activate_after(&world, &stream2, new, async {
        assert_eq!(told(&line1), Vec::<String>::new());
    })
    .await;
    assert_eq!(told(&line1), [format!("kick {RESUMED} 0")]);
    assert_eq!(told(&line2), ["activated"]);
    world.sessions.ended(stream1.id(), old, false).await;
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
    world.sessions.ended(stream2.id(), new, false).await;
    assert_eq!(world.listed().await, [("ada".into(), State::Away)]);
    world.clock.advance(Duration::from_secs(60));
    world.sessions.sweep().await.unwrap();
    assert_eq!(world.listed().await, []);
    assert_eq!(world.sessions.metrics().ended.value("given_up"), 1);
}

#[tokio::test]
async fn a_kick_while_a_session_is_resumed_ends_it_on_both_connections() {
    let world = World::gated();
    let (line1, stream1) = world.stream(1, "p", vec![]).await;
    let (line2, stream2) = world.stream(2, "q", vec![]).await;
    let [_, new] = resuming(&world, &stream1, &stream2).await;
    told(&line1);
    told(&line2);
    activate_after(&world, &stream2, new, async {
        assert_eq!(world.sessions.kick(Whom::Session(new.session), out()).await, Ok(1));
    })
    .await;
    assert_eq!(
        (told(&line1), told(&line2)),
        (vec!["kick out 7".into()], vec!["not activated".into()])
    );
    assert_eq!((world.listed().await, world.sessions.held()), (vec![], 0));
}

#[tokio::test]
async fn a_stream_lost_while_a_session_is_resumed_leaves_it_to_its_client() {
    let world = World::gated();
    let (line1, stream1) = world.stream(1, "p", vec![]).await;
    let (_, stream2) = world.stream(2, "q", vec![]).await;
    let [_, new] = resuming(&world, &stream1, &stream2).await;
    told(&line1);
    activate_after(&world, &stream2, new, async { world.sessions.close(stream2.id()) }).await;
    // The old connection was overtaken by one that is no more.
    assert_eq!(told(&line1), [format!("kick {RESUMED} 0")]);
    assert_eq!(world.listed().await, [("ada".into(), State::Away)]);
    let found = world.sessions.store().find(vec![new.session]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().hold, new.number);
}

#[tokio::test]
async fn a_proxy_that_comes_back_too_late_hears_that_its_session_moved() {
    let world = World::gated();
    let (_, stream1) = world.stream(1, "p", vec![]).await;
    let (_, stream2) = world.stream(2, "q", vec![]).await;
    let [old, new] = resuming(&world, &stream1, &stream2).await;
    world.sessions.close(stream1.id());
    activate_after(&world, &stream2, new, async {}).await;
    let (line, _) = world.stream(3, "p", vec![old]).await;
    assert_eq!(told(&line), [format!("kick {RESUMED} 0")]);
    // And nobody else takes it by naming its hold.
    let (line, _) = world.stream(4, "thief", vec![new]).await;
    assert_eq!(told(&line), [format!("kick {ENDED_MEANWHILE} 0")]);
    assert_eq!(world.sessions.kick(Whom::Session(new.session), out()).await, Ok(1));
}

fn replaced() -> String {
    "kick logged in elsewhere 7".into()
}

#[tokio::test]
async fn a_newer_login_replaces_the_older_one_wherever_it_is() {
    let world = World::new();
    world.sessions.set_same_user(SameUser::Replace { code: 7 });
    let (line1, stream1) = world.stream(1, "p", vec![]).await;
    let (line2, stream2) = world.stream(2, "q", vec![]).await;
    let first = world.live(&stream1, "ada").await;
    world.live(&stream2, "bob").await;
    world.live(&stream2, "ada").await;
    assert_eq!(told(&line1), ["accepted 1".into(), replaced()]);
    assert_eq!(told(&line2), ["accepted 1", "accepted 1"]);
    assert_eq!(world.listed().await, [("ada".into(), State::Live), ("bob".into(), State::Live)]);
    assert_eq!(world.sessions.metrics().ended.value("replaced"), 1);
    assert_eq!(world.sessions.store().find(vec![first.session]).await, Ok(vec![None]));

    // One whose proxy is away hears it when that is back.
    let away = world.live(&stream2, "eve").await;
    world.sessions.close(stream2.id());
    world.live(&stream1, "eve").await;
    let (line3, _) = world.stream(3, "q", vec![away]).await;
    assert_eq!(told(&line3), [replaced()]);
}

#[tokio::test]
async fn a_pending_login_ends_nobody_before_it_is_activated() {
    let world = World::new();
    world.sessions.set_same_user(SameUser::Replace { code: 7 });
    let (line, stream) = world.stream(1, "p", vec![]).await;
    world.live(&stream, "ada").await;
    let accepted = world.accepted("ada", "p");
    let id = accepted.session.hold();
    let credential = Some(CredentialId::new(START.after(LIFETIME), "k", b"jti"));
    world.sessions.pend(&stream, credential, accepted).await.unwrap();
    assert_eq!(told(&line), ["accepted 1", "accepted 1"]);
    world.sessions.activate(&stream, 1, id).await;
    assert_eq!(told(&line), [replaced(), "activated".into()]);
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
}

#[tokio::test]
async fn whether_a_session_may_live_is_asked_again_at_its_activation() {
    let world = World::new();
    world.sessions.set_same_user(SameUser::REFUSE);
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let (one, two) = (world.accepted("ada", "p"), world.accepted("ada", "p"));
    let (first, second) = (one.session.hold(), two.session.hold());
    world.sessions.pend(&stream, None, one).await.unwrap();
    // The first one only waits: it is in nobody's way.
    world.sessions.pend(&stream, None, two).await.unwrap();
    world.sessions.activate(&stream, 1, second).await;
    world.sessions.activate(&stream, 1, first).await;
    assert_eq!(told(&line), ["accepted 1", "accepted 1", "activated", "not activated"]);
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
    // Now the answer is known at the login, and its credential is not used up by it.
    let credential = Some(CredentialId::new(START.after(LIFETIME), "k", b"jti"));
    let pend = || world.sessions.pend(&stream, credential, world.accepted("ada", "p"));
    assert_eq!(pend().await, Err(Why::TooManySessions));
    world.sessions.ended(stream.id(), second, false).await;
    assert_eq!(pend().await, Ok(()));
}

/// Fifty ticket logins and fifty activations of one user at the same moment; what their clients
/// heard, in no order.
async fn hundred(world: &Arc<World>) -> Vec<String> {
    let mut waiting = Vec::new();
    for number in 0..50 {
        let (line, stream) = world.stream(number, "p", vec![]).await;
        let noise = world.accepted("ada", "p");
        let pending = noise.session.hold();
        world.sessions.pend(&stream, None, noise).await.unwrap();
        told(&line);
        waiting.push((line, stream, pending));
    }
    let mut tasks = Vec::new();
    for (_, stream, pending) in &waiting {
        let ticket = world.accepted("ada", "p");
        let (sessions, again) = (Arc::clone(&world.sessions), Arc::clone(stream));
        tasks.push(tokio::spawn(async move {
            let _ = sessions.join(&again, None, ticket).await;
        }));
        let (sessions, stream, id) = (Arc::clone(&world.sessions), Arc::clone(stream), *pending);
        tasks.push(tokio::spawn(async move { sessions.activate(&stream, 1, id).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    waiting.iter().flat_map(|(line, ..)| told(line)).collect()
}

fn times(said: &[String], wanted: &str) -> usize {
    said.iter().filter(|said| said.starts_with(wanted)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_at_the_same_moment_one_lives_under_refuse() {
    let world = Arc::new(World::new());
    world.sessions.set_same_user(SameUser::REFUSE);
    let said = hundred(&world).await;
    let (accepted, activated) = (times(&said, "accepted"), times(&said, "activated"));
    assert_eq!(accepted + activated, 1, "{said:?}");
    assert_eq!(times(&said, "kick"), 0, "{said:?}");
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
    assert_eq!(world.sessions.held(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_at_the_same_moment_one_lives_under_replace() {
    let world = Arc::new(World::new());
    world.sessions.set_same_user(SameUser::Replace { code: 7 });
    let said = hundred(&world).await;
    // Whoever heard that he lives heard that he was replaced, but one.
    let lived = times(&said, "accepted") + times(&said, "activated");
    assert_eq!(lived, times(&said, "kick logged in elsewhere") + 1, "{said:?}");
    assert_eq!(world.listed().await, [("ada".into(), State::Live)]);
    assert_eq!(world.sessions.held(), 1);
}

#[tokio::test]
async fn a_kick_meets_all_that_match_wherever_they_are_in_a_long_list() {
    let world = World::new();
    let (line, stream) = world.stream(1, "p", vec![]).await;
    let zone = |zone: &str, user: &str| {
        let mut accepted = world.accepted(user, "p");
        accepted.session.identity.claims = [("zone".into(), zone.into())].into();
        accepted
    };
    for number in 0..600_u32 {
        let accepted = zone(if number.is_multiple_of(100) { "7" } else { "8" }, "ada");
        world.sessions.join(&stream, None, accepted).await.unwrap();
    }
    world.sessions.pend(&stream, None, zone("7", "bob")).await.unwrap();
    told(&line);
    let filter = Filter { claims: [("zone".into(), "7".into())].into(), ..Filter::default() };
    let of_bob = Filter { user: Some("bob".into()), ..filter.clone() };
    let search = Search { filter: filter.clone(), after: None, limit: 5 };
    let first = world.sessions.list(search.clone()).await.unwrap();
    let after = first.next;
    let second = world.sessions.list(Search { after, ..search }).await.unwrap();
    assert_eq!((first.sessions.len(), second.sessions.len(), second.next), (5, 2, None));
    assert_eq!(world.sessions.count().await.unwrap().0.live, 600);

    assert_eq!(world.sessions.kick(Whom::Matching(of_bob), out()).await, Ok(1));
    assert_eq!(world.sessions.kick(Whom::Matching(filter), out()).await, Ok(6));
    assert_eq!(told(&line), vec!["kick out 7"; 7]);
    let (recorded, census) = world.sessions.count().await.unwrap();
    assert_eq!((recorded.live, census.live, census.pending), (594, 594, 0));
}

#[tokio::test]
async fn a_search_that_finds_little_stops_on_its_way_and_goes_on_with_the_next_page() {
    let world = World::new();
    let (_, stream) = world.stream(1, "p", vec![]).await;
    let joins = (0..MAX_LOOKED_AT + 500).map(|_| {
        let accepted = world.accepted("ada", "p");
        let (sessions, stream) = (Arc::clone(&world.sessions), Arc::clone(&stream));
        tokio::spawn(async move { sessions.join(&stream, None, accepted).await })
    });
    world.gate.add_permits(MAX_LOOKED_AT);
    for join in joins.collect::<Vec<_>>() {
        join.await.unwrap().unwrap();
    }
    world.clock.advance(Duration::from_millis(1));
    let wanted = world.live(&stream, "zoe").await;
    let filter = Filter { proxy: Some("p".into()), ..Filter::of_user("zoe") };
    let found = world.sessions.list(Search { filter, after: None, limit: 10 }).await.unwrap();
    assert_eq!((found.sessions.len(), found.next), (1, None));
    let filter = Filter { role: Some("nobody".into()), ..Filter::default() };
    let search = Search { filter, after: None, limit: 10 };
    let found = world.sessions.list(search.clone()).await.unwrap();
    assert!(found.sessions.is_empty() && found.next.is_some_and(|next| next < wanted.session));
    let found = world.sessions.list(Search { after: found.next, ..search }).await.unwrap();
    assert!(found.sessions.is_empty() && found.next.is_none());
}
