//! The way down to one worker of a proxy: a bounded queue, and a knife.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use meshgate_proto::edge::v1::{
    Activated, Drain, Hello, Kick, Leave, LoginAccepted, LoginRefused, Push,
    Refusal as RefusalNumber, ToProxy, push, to_proxy::Kind,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;
use tracing::warn;

use crate::domain;
use crate::domain::presence::{Accepted, ProxyStream, StreamId, Word};
use crate::domain::push::Command;
use crate::domain::refusal::Refusal;

/// Messages that may wait for a proxy. A second of logins at full speed; a proxy that is further
/// behind does not read, and is cut: after its return it learns what it missed.
pub const QUEUE: usize = 8192;

/// The sending end, as the domain sees it.
pub struct Outbox {
    id: StreamId,
    proxy: String,
    takes_pushes: bool,
    takes_cookies: bool,
    asks_to_leave: bool,
    worker: u64,
    drains: bool,
    queue: mpsc::Sender<ToProxy>,
    cut: Mutex<Option<oneshot::Sender<Status>>>,
}

/// The receiving end, as tonic sees it: ends with a status when the stream is cut.
pub struct Downward {
    queue: mpsc::Receiver<ToProxy>,
    cut: Option<oneshot::Receiver<Status>>,
}

/// Both ends before the proxy has said who it is.
pub struct Unnamed {
    queue: mpsc::Sender<ToProxy>,
    cut: oneshot::Sender<Status>,
}

pub fn channel() -> (Unnamed, Downward) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (cut, is_cut) = oneshot::channel();
    (Unnamed { queue: sender, cut }, Downward { queue: receiver, cut: Some(is_cut) })
}

impl Unnamed {
    pub fn named(self, id: StreamId, hello: Hello) -> Outbox {
        let Hello { proxy, worker, takes_pushes, takes_cookies, asks_to_leave, drains, .. } = hello;
        let cut = Mutex::new(Some(self.cut));
        let queue = self.queue;
        Outbox { id, proxy, takes_pushes, takes_cookies, asks_to_leave, worker, drains, queue, cut }
    }

    pub fn cut(self, status: Status) {
        // The other end may be gone already.
        let _ = self.cut.send(status);
    }
}

impl Outbox {
    /// Ends the stream with a status; what is queued is dropped.
    pub fn cut(&self, status: Status) {
        let knife = self.cut.lock().ok().and_then(|mut knife| knife.take());
        if let Some(knife) = knife {
            let _ = knife.send(status);
        }
    }

    /// Whether it was cut because its proxy does not read.
    pub fn was_cut(&self) -> bool {
        self.cut.lock().is_ok_and(|knife| knife.is_none())
    }

    /// Waits until the stream has ended, for whichever reason.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    pub fn send(&self, kind: Kind) {
        match self.queue.try_send(ToProxy { kind: Some(kind) }) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                warn!(proxy = self.proxy, "a proxy does not read: its stream is cut");
                self.cut(Status::resource_exhausted(
                    "too many messages wait for this proxy: read faster, and attach again",
                ));
            }
        }
    }
}

impl ProxyStream for Outbox {
    fn id(&self) -> StreamId {
        self.id
    }

    fn proxy(&self) -> &str {
        &self.proxy
    }

    fn takes_pushes(&self) -> bool {
        self.takes_pushes
    }

    fn takes_cookies(&self) -> bool {
        self.takes_cookies
    }

    fn asks_to_leave(&self) -> bool {
        self.asks_to_leave
    }

    fn worker(&self) -> u64 {
        self.worker
    }

    fn drains(&self) -> bool {
        self.drains
    }

    fn tell(&self, word: Word) {
        self.send(message(word));
    }
}

impl Stream for Downward {
    type Item = Result<ToProxy, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(cut) = &mut self.cut {
            match Pin::new(cut).poll(context) {
                Poll::Ready(Ok(status)) => {
                    self.cut = None;
                    self.queue.close();
                    return Poll::Ready(Some(Err(status)));
                }
                // The outbox is gone: what is queued still goes out.
                Poll::Ready(Err(_)) => self.cut = None,
                Poll::Pending => {}
            }
        }
        self.queue.poll_recv(context).map(|message| message.map(Ok))
    }
}

/// A word of the domain in the contract's terms.
fn message(word: Word) -> Kind {
    match word {
        Word::Accepted(accepted) => {
            let activate = accepted.pends();
            let Accepted { reference, session, reply, keys, .. } = *accepted;
            let (client_to_server_key, server_to_client_key) = keys
                .map(|keys| (keys.client_to_server.to_vec(), keys.server_to_client.to_vec()))
                .unwrap_or_default();
            Kind::LoginAccepted(LoginAccepted {
                r#ref: reference,
                session_id: session.id.as_bytes().to_vec(),
                reply,
                user: session.identity.user,
                claims: session.identity.claims,
                roles: session.identity.roles,
                expires_at_ms: session.expires_at.0,
                client_to_server_key,
                server_to_client_key,
                hold: session.hold.0,
                activate,
            })
        }
        Word::Refused { reference, refused } => {
            let refusal = refused.why.refusal();
            let number = match refusal {
                Refusal::Unauthenticated | Refusal::NotResumed => RefusalNumber::Unauthenticated,
                Refusal::Expired => RefusalNumber::Expired,
                Refusal::LoggedIn | Refusal::TryAgain => RefusalNumber::TryAgain,
                Refusal::ComeBack => RefusalNumber::ComeBack,
                Refusal::Malformed => RefusalNumber::Malformed,
            };
            Kind::LoginRefused(LoginRefused {
                r#ref: reference,
                refusal: number.into(),
                text: refused.text.map_or_else(|| refusal.text().to_owned(), String::from),
            })
        }
        Word::Activated { reference, refused } => Kind::Activated(Activated {
            r#ref: reference,
            refused: refused.unwrap_or_default().into(),
        }),
        Word::Drain => Kind::Drain(Drain {}),
        Word::Kick { hold, farewell } => Kind::Kick(Kick {
            session_id: hold.session.as_bytes().to_vec(),
            reason: farewell.reason,
            code: farewell.code,
            hold: hold.number.0,
        }),
        Word::Push { reference, sessions, parcel } => Kind::Push(Push {
            r#ref: reference,
            sessions: sessions.iter().flat_map(|session| *session.as_bytes()).collect(),
            command: Some(match &parcel.command {
                Command::Number(number) => push::Command::Number(*number),
                Command::Name(name) => push::Command::Name(name.clone()),
                Command::Leave(leave) => push::Command::Leave(self::leave(leave)),
            }),
            body: parcel.body.clone(),
        }),
    }
}

fn leave(leave: &domain::push::Leave) -> Leave {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Leave {
        service: leave.service.clone(),
        reason: leave.reason.clone(),
        spread_ms: millis(leave.spread),
        within_ms: millis(leave.within),
        address: leave.address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::domain::session::{Farewell, Hold, HoldNumber, SessionId};

    fn kick(outbox: &Outbox) {
        let hold = Hold { session: SessionId::from_bytes([1; 16]), number: HoldNumber(1 << 32) };
        outbox.tell(Word::Kick { hold, farewell: Farewell::new("bye") });
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_read_is_cut_with_a_reason() {
        let (unnamed, mut downward) = channel();
        let outbox = unnamed.named(StreamId(1), Hello { proxy: "p".into(), ..Hello::default() });
        (0..QUEUE).for_each(|_| kick(&outbox));
        assert!(!outbox.queue.is_closed());
        kick(&outbox);
        let status = downward.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(downward);
        outbox.closed().await;
    }

    #[tokio::test]
    async fn what_is_queued_goes_out_after_the_outbox_is_gone() {
        let (unnamed, mut downward) = channel();
        let outbox = unnamed.named(StreamId(1), Hello { proxy: "p".into(), ..Hello::default() });
        kick(&outbox);
        drop(outbox);
        assert!(downward.next().await.unwrap().is_ok());
        assert!(downward.next().await.is_none());
    }
}
