//! A link, a host that does what it says, and a companion that a test plays by hand.

mod disorder;
mod logins;
mod pushes;
mod sessions;
mod streams;

use std::collections::VecDeque;

use meshgate_proto::edge::v1::{self as edge, from_proxy, to_proxy};
use prost::Message;

use super::*;
use crate::session::SessionId;

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: u32 = 14;

struct Sim {
    link: Link,
    now: Moment,
    /// The stream that the host holds, and the next one's name.
    open: Option<Token>,
    next_token: Token,
    /// Whether the host can open streams.
    reachable: bool,
    /// How often the host was asked for a stream.
    opened: usize,
    sent: VecDeque<from_proxy::Kind>,
    cancelled: Vec<Token>,
}

impl Sim {
    /// A link before its first timer.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LinkConfig)) -> Self {
        let mut config = LinkConfig::new("proxy-1", 42);
        change(&mut config);
        Self {
            link: Link::new(config),
            now: Moment::from_micros(5_000_000),
            open: None,
            next_token: 100,
            reachable: true,
            opened: 0,
            sent: VecDeque::new(),
            cancelled: Vec::new(),
        }
    }

    /// A link that the companion has welcomed; the Hello is taken off.
    fn connected() -> Self {
        let mut sim = Self::new();
        sim.connect();
        sim
    }

    /// Opens a stream and plays the companion's part of its beginning. Returns the sessions
    /// that were listed.
    fn connect(&mut self) -> Vec<Vec<u8>> {
        self.fire();
        let sessions = self.hello();
        self.welcome();
        assert!(self.link.is_connected());
        assert_eq!(
            self.events().last(),
            Some(&Event::Connected { companion: "companion-1".to_owned() })
        );
        sessions
    }

    fn hello(&mut self) -> Vec<Vec<u8>> {
        let Some(from_proxy::Kind::Hello(hello)) = self.sent.pop_front() else {
            panic!("no Hello")
        };
        assert_eq!((hello.contract, hello.proxy.as_str(), hello.worker), (1, "proxy-1", 42));
        assert_eq!(hello.sessions.len(), hello.holds.len());
        hello.sessions
    }

    fn welcome(&mut self) {
        self.say(to_proxy::Kind::Welcome(edge::Welcome {
            contract: 1,
            companion: "companion-1".to_owned(),
        }));
    }

    /// The host: does what the link says until it says nothing more.
    fn drain(&mut self) {
        while let Some(transmit) = self.link.poll_transmit() {
            match transmit {
                Transmit::OpenStream => {
                    assert_eq!(self.open, None, "a second stream beside the first");
                    self.opened += 1;
                    if self.reachable {
                        self.next_token += 1;
                        self.open = Some(self.next_token);
                        self.link.stream_opened(self.now, self.next_token);
                    } else {
                        self.link.open_failed(self.now);
                    }
                }
                Transmit::Send { token, message } => {
                    assert_eq!(self.open, Some(token), "sent on a stream that is not open");
                    let message = edge::FromProxy::decode(message.as_slice()).unwrap();
                    self.sent.push_back(message.kind.unwrap());
                }
                Transmit::Cancel { token } => {
                    self.cancelled.push(token);
                    if self.open == Some(token) {
                        self.open = None;
                    }
                }
            }
        }
    }

    /// The companion says something.
    fn say(&mut self, kind: to_proxy::Kind) {
        self.say_bytes(&edge::ToProxy { kind: Some(kind) }.encode_to_vec());
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        let token = self.open.expect("a stream to say it on");
        self.link.stream_message(self.now, token, bytes);
        self.drain();
    }

    /// The stream breaks.
    fn break_stream(&mut self) {
        let token = self.open.take().expect("a stream to break");
        self.link.stream_closed(self.now, token, UNAVAILABLE);
        self.drain();
        assert!(self.cancelled.contains(&token), "a closed stream has to be let go of");
    }

    /// Lets time pass until the link's next timer and fires it.
    fn fire(&mut self) {
        let due = self.link.poll_timeout().expect("a timer");
        self.now = self.now.max(due);
        self.link.handle_timeout(self.now);
        self.drain();
    }

    /// Lets `time` pass, firing every timer on its way.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.link.poll_timeout().is_some_and(|due| due <= end) {
            self.fire();
        }
        self.now = end;
    }

    fn login(&mut self, connection: u32, mode: Mode) -> Result<(), LinkBusy> {
        let login = LoginRequest {
            mode,
            audience: "game-live",
            layout: "game",
            message: b"credential",
            peer: "203.0.113.7:40112",
        };
        let result = self.link.login(self.now, connection, login);
        self.drain();
        result
    }

    /// Logs a connection in up to the question, and returns the question's reference.
    fn asked(&mut self, connection: u32, mode: Mode) -> u64 {
        self.login(connection, mode).unwrap();
        match self.sent.pop_front() {
            Some(from_proxy::Kind::Login(login)) => login.r#ref,
            other => panic!("expected a login, got {other:?}"),
        }
    }

    /// Logs a connection in with a ticket.
    fn live(&mut self, connection: u32, session: u8) -> Hold {
        let reference = self.asked(connection, Mode::Ticket);
        self.say(accepted(reference, session, None));
        assert!(matches!(self.only_answer(connection), Outcome::LoginAccepted(_)));
        id(session)
    }

    /// Logs a connection in by Noise, up to its first sealed frame.
    fn pending(&mut self, connection: u32, session: u8) -> Hold {
        let reference = self.asked(connection, Mode::Noise);
        self.say(accepted(reference, session, Some(([1; 32], [2; 32]))));
        assert!(matches!(self.only_answer(connection), Outcome::LoginAccepted(_)));
        id(session)
    }

    /// Asks for an activation and returns the question's reference.
    fn activating(&mut self, connection: u32, hold: Hold) -> u64 {
        self.link.activate(self.now, connection, hold);
        self.drain();
        match self.sent.pop_front() {
            Some(from_proxy::Kind::Activate(activate)) => {
                assert_eq!(
                    (&activate.session_id[..], activate.hold),
                    (&hold.session.as_bytes()[..], hold.number)
                );
                activate.r#ref
            }
            other => panic!("expected an activation, got {other:?}"),
        }
    }

    fn only_answer(&mut self, connection: u32) -> Outcome {
        let answer = self.link.poll_answer().expect("an answer");
        assert_eq!(answer.connection, connection);
        assert!(self.link.poll_answer().is_none(), "a second answer");
        answer.outcome
    }

    fn no_answer(&mut self) {
        let answer = self.link.poll_answer();
        assert!(answer.is_none(), "{answer:?}");
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.link.poll_event()).collect()
    }

    /// The sessions that the companion was told to be over.
    fn told_ended(&mut self) -> Vec<Vec<u8>> {
        let mut ended = Vec::new();
        self.sent.retain(|kind| match kind {
            from_proxy::Kind::Ended(told) => {
                ended.push(told.session_id.clone());
                false
            }
            _ => true,
        });
        ended
    }
}

/// Sessions and holds have the same number here.
fn id(session: u8) -> Hold {
    Hold { session: SessionId::from_slice(&[session; 16]).unwrap(), number: session.into() }
}

fn accepted(reference: u64, session: u8, keys: Option<([u8; 32], [u8; 32])>) -> to_proxy::Kind {
    let (up, down) = keys.map_or_else(Default::default, |(up, down)| (up.to_vec(), down.to_vec()));
    to_proxy::Kind::LoginAccepted(edge::LoginAccepted {
        r#ref: reference,
        session_id: id(session).session.as_bytes().to_vec(),
        reply: b"welcome".to_vec(),
        user: "ann".to_owned(),
        claims: [("level".to_owned(), "7".to_owned())].into(),
        roles: vec!["player".to_owned()],
        expires_at_ms: 1,
        client_to_server_key: up,
        server_to_client_key: down,
        hold: id(session).number,
        activate: false,
    })
}

fn refused(reference: u64, refusal: edge::Refusal, text: &str) -> to_proxy::Kind {
    to_proxy::Kind::LoginRefused(edge::LoginRefused {
        r#ref: reference,
        refusal: refusal.into(),
        text: text.to_owned(),
    })
}

fn activated(reference: u64, refused: &str) -> to_proxy::Kind {
    to_proxy::Kind::Activated(edge::Activated { r#ref: reference, refused: refused.to_owned() })
}

fn kick(hold: Hold, reason: &str) -> to_proxy::Kind {
    to_proxy::Kind::Kick(edge::Kick {
        session_id: hold.session.as_bytes().to_vec(),
        hold: hold.number,
        reason: reason.to_owned(),
        code: 9,
    })
}

#[track_caller]
fn assert_try_again(outcome: &Outcome) {
    assert!(
        matches!(outcome, Outcome::LoginRefused { refusal: Refusal::TryAgain, .. }),
        "{outcome:?}"
    );
}
