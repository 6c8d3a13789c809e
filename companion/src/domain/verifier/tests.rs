use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::domain::time::ManualClock;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A login server that answers as it was told before, and then not at all.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Result<Reply, Trouble>>>,
    asked: Mutex<usize>,
    /// Where it is given, each answer waits for it.
    go: Option<Notify>,
}

struct Way(Arc<Scripted>);

#[tonic::async_trait]
impl Ask for Way {
    async fn ask(&self, _: &Question) -> Result<Reply, Trouble> {
        *self.0.asked.lock().unwrap() += 1;
        if let Some(go) = &self.0.go {
            go.notified().await;
        }
        let next = self.0.answers.lock().unwrap().pop_front();
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

struct World {
    server: Arc<Scripted>,
    verifier: Verifier,
    clock: ManualClock,
    metrics: Metrics,
}

impl World {
    fn new(answers: Vec<Result<Reply, Trouble>>, limits: Limits) -> Self {
        Self::with(Scripted { answers: Mutex::new(answers.into()), ..Default::default() }, limits)
    }

    fn with(server: Scripted, limits: Limits) -> Self {
        let server = Arc::new(server);
        let verifier = Verifier::new(Box::new(Way(Arc::clone(&server))), limits).unwrap();
        Self { server, verifier, clock: ManualClock::at(NOW), metrics: Metrics::default() }
    }

    async fn verify(&self, credential: &str) -> Result<Granted, Refused> {
        self.verifier.verify(question(credential), &self.clock, &self.metrics).await
    }

    fn asked(&self) -> usize {
        *self.server.asked.lock().unwrap()
    }
}

fn question(credential: &str) -> Question {
    Question {
        credential: Zeroizing::new(credential.into()),
        kind: CredentialKind::Opaque,
        audience: "game".into(),
        peer: "192.0.2.1:1".into(),
        mode: Mode::Ticket,
        layout: "happy".into(),
        client: String::new(),
    }
}

fn granted(user: &str) -> Granted {
    Granted { identity: Identity { user: user.into(), ..Identity::default() }, until: None }
}

fn accepts(user: &str, reusable_for: Option<Duration>) -> Result<Reply, Trouble> {
    Ok(Reply { answer: Answer::Accepted(granted(user)), reusable_for })
}

fn refuses(why: Why, text: Option<&str>, reusable_for: Option<Duration>) -> Result<Reply, Trouble> {
    let refused = Refused { why, text: text.map(Into::into) };
    Ok(Reply { answer: Answer::Refused(refused), reusable_for })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn an_accepted_credential_is_remembered_only_as_long_as_the_answer_and_the_limit_say() {
    let answers = vec![
        accepts("ada", None),
        accepts("ada", Some(seconds(10))),
        accepts("eve", Some(seconds(600))),
    ];
    let world = World::new(answers, Limits { cache_accepted: seconds(20), ..Limits::default() });
    assert_eq!(world.verify("a").await, Ok(granted("ada")));
    assert_eq!((world.verify("a").await, world.asked()), (Ok(granted("ada")), 2));
    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!((world.verify("a").await, world.asked()), (Ok(granted("ada")), 2));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!((world.verify("a").await, world.asked()), (Ok(granted("eve")), 3));
    world.clock.advance(Duration::from_millis(19_999));
    assert_eq!((world.verify("a").await, world.asked()), (Ok(granted("eve")), 3));
    assert_eq!(world.metrics.verifier_answers.value("cached_accepted"), 2);
}

#[tokio::test]
async fn a_refused_credential_is_remembered_for_a_moment_with_its_text() {
    let answers = vec![
        refuses(Why::VerifierRefused, Some("banned"), None),
        refuses(Why::VerifierExpired, None, Some(Duration::ZERO)),
        refuses(Why::VerifierTryAgain, None, Some(seconds(9))),
        accepts("ada", None),
    ];
    let world = World::new(answers, Limits::default());
    let banned = Refused { why: Why::VerifierRefused, text: Some("banned".into()) };
    assert_eq!(world.verify("a").await, Err(banned.clone()));
    assert_eq!((world.verify("a").await, world.asked()), (Err(banned), 1));
    world.clock.advance(seconds(3));
    assert_eq!(world.verify("a").await, Err(Why::VerifierExpired.into()));
    assert_eq!(world.verify("a").await, Err(Why::VerifierTryAgain.into()), "it said zero");
    assert_eq!(world.verify("a").await, Ok(granted("ada")), "not now is not never");
}

#[tokio::test]
async fn a_login_server_that_fails_is_left_alone_and_found_again() {
    // It answers never, or at once.
    let limits = Limits { timeout: Duration::from_millis(1), ..Limits::default() };
    let rules = limits.breaker;
    let world = World::new(vec![Err(Trouble::Failed("HTTP 500".into()))], limits);
    for number in 0..rules.failures {
        // The first fails, the others take for ever.
        assert_eq!(world.verify(&number.to_string()).await, Err(Why::VerifierAway.into()));
    }
    assert_eq!(world.verifier.breaker_state(), "open");
    assert_eq!(world.verify("x").await, Err(Why::VerifierAway.into()));
    assert_eq!(world.asked(), rules.failures as usize);
    let count = |result| world.metrics.verifier_answers.value(result);
    assert_eq!((count("failed"), count("slow"), count("open")), (1, 9, 1));

    world.clock.advance(rules.pause);
    world.server.answers.lock().unwrap().push_back(accepts("ada", None));
    assert_eq!(world.verify("x").await, Ok(granted("ada")));
    assert_eq!(world.verifier.breaker_state(), "closed");
}

#[tokio::test]
async fn a_remembered_answer_is_given_while_the_login_server_is_away() {
    let breaker = breaker::Rules { failures: 1, pause: seconds(2) };
    let world = World::new(
        vec![accepts("ada", Some(seconds(60))), Err(Trouble::Unreachable("gone".into()))],
        Limits { breaker, ..Limits::default() },
    );
    assert!(world.verify("a").await.is_ok());
    assert_eq!(world.verify("b").await, Err(Why::VerifierAway.into()));
    assert_eq!(world.verifier.breaker_state(), "open");
    assert_eq!(world.verify("a").await, Ok(granted("ada")));
}

#[tokio::test]
async fn beyond_the_room_clients_are_told_to_try_again_at_once() {
    let answers = Mutex::new([accepts("ada", None), accepts("eve", None)].into());
    let server = Scripted { answers, go: Some(Notify::new()), ..Scripted::default() };
    let world = World::with(server, Limits { max_concurrent: 1, ..Limits::default() });
    let (first, ()) = tokio::join!(world.verify("a"), async {
        assert_eq!(world.verifier.under_way(), 1);
        assert_eq!(world.verify("b").await, Err(Why::VerifierBusy.into()));
        world.server.go.as_ref().unwrap().notify_one();
    });
    assert_eq!(first, Ok(granted("ada")));
    world.server.go.as_ref().unwrap().notify_one();
    assert_eq!(world.verify("b").await, Ok(granted("eve")));
    assert_eq!((world.asked(), world.verifier.under_way()), (2, 0));
}

#[tokio::test]
async fn an_identity_beyond_the_limits_and_a_session_of_the_past_are_refused() {
    let reply = |granted| Ok(Reply { answer: Answer::Accepted(granted), reusable_for: None });
    let past = Granted { until: Some(NOW), ..granted("ada") };
    let answers = vec![reply(granted("a\nb")), reply(granted("")), reply(past)];
    let world = World::new(answers, Limits::default());
    assert_eq!(world.verify("a").await, Err(Why::UnacceptableIdentity.into()));
    assert_eq!(world.verify("a").await, Err(Why::UnacceptableIdentity.into()));
    assert_eq!(world.verify("a").await, Err(Why::Expired.into()));
}

#[tokio::test]
async fn nobody_is_asked_about_what_is_no_credential() {
    let world = World::new(vec![], Limits::default());
    assert_eq!(world.verify("").await, Err(Why::Malformed.into()));
    let long = "x".repeat(MAX_CREDENTIAL_BYTES + 1);
    assert_eq!((world.verify(&long).await, world.asked()), (Err(Why::Malformed.into()), 0));
}

#[test]
fn a_text_for_a_client_is_short_and_on_one_line() {
    assert_eq!(text_for_client("a\r\nb\u{0}"), Some("ab".into()));
    assert_eq!(text_for_client("\n"), None);
    let long = text_for_client(&"ä".repeat(200)).unwrap();
    assert_eq!(long.len(), 256);
    let odd = text_for_client(&format!("x{}", "ä".repeat(200))).unwrap();
    assert_eq!(odd.len(), 255);
}
