//! A connection's way from nobody to somebody.
//!
//! ```text
//!             login()            accepted(), by ticket
//!   Fresh ------------> LoggingIn -------------------------------------> Established
//!     |                    |  | accepted(), by Noise or resumed             ^  |
//!     |                    |  v            open(): genuine, or prove()      |  |
//!     |                    | Pending -----------------------> Activating ---+  |
//!     |                    |   |                                  |  activated()
//!     v  expire()          v   v  expire(), a forged frame        v            v
//!   Over <-----------------+---+----------------------------------+------------+  end()
//! ```
//!
//! Each state is a struct that its successor consumes, so that what is not proven yet is not
//! there to be used. Two values cannot be made anywhere else: an [`Identity`], and the [`Pass`]
//! without which the bridge forwards nothing.

use crate::time::Moment;

use super::access::Access;
use super::identity::{Identity, NamedBy};
use super::login::{Accepted, Hold, Mode, Refusal, Settings};
use super::outcome::{AcceptError, Denied, Expired, Opened};
use super::seal::{self, OpenError, Opener, Sealer};

/// One connection's session.
#[derive(Debug)]
pub struct Session(State);

#[derive(Debug)]
enum State {
    Fresh(Fresh),
    LoggingIn(LoggingIn),
    Pending(Box<Pending>),
    Activating(Box<Activating>),
    Established(Established),
    Over(Over),
}

/// Nothing is proven. Commands that ask for no login may pass, in nobody's name.
#[derive(Debug)]
struct Fresh {
    mode: Mode,
    visitor: Identity,
    deadline: Moment,
}

/// The companion has the login message. It always answers: the link sees to it.
#[derive(Debug)]
struct LoggingIn {
    mode: Mode,
}

/// The companion agreed on keys with someone. Whether it is the one who holds the credential,
/// or one who sent again what that one once sent, the first sealed frame tells. Of a session that is
/// resumed without keys, the first frame tells that the reply arrived.
#[derive(Debug)]
struct Pending {
    identity: Identity,
    hold: Hold,
    sealing: Option<Box<(Sealer, Opener)>>,
    deadline: Moment,
}

/// A frame was genuine. The companion has the last word: only now may it end the user's other
/// sessions, or say that this one came too late.
#[derive(Debug)]
struct Activating {
    identity: Identity,
    sealing: Option<Box<(Sealer, Opener)>>,
}

/// Frames may be forwarded.
#[derive(Debug)]
struct Established {
    identity: Identity,
    sealing: Option<Box<(Sealer, Opener)>>,
}

/// Nothing comes in any more. A last word may go out, sealed if the frames before it were.
#[derive(Debug)]
struct Over {
    sealer: Option<Sealer>,
}

/// The permission to forward one frame, in somebody's name.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'s> {
    identity: &'s Identity,
}

impl<'s> Pass<'s> {
    pub const fn identity(&self) -> &'s Identity {
        self.identity
    }
}

/// # Getters
impl Session {
    /// The connection may forward frames that ask for a login.
    pub const fn is_established(&self) -> bool {
        matches!(self.0, State::Established(_))
    }

    /// The companion's answer is due: no frame may be taken meanwhile.
    pub const fn is_waiting(&self) -> bool {
        matches!(self.0, State::LoggingIn(_) | State::Activating(_))
    }

    /// A login or a resume is on its way: the session would end with its connection.
    pub const fn is_coming(&self) -> bool {
        matches!(self.0, State::LoggingIn(_) | State::Pending(_) | State::Activating(_))
    }

    /// Each frame from the client has to be sealed; any that is not closes the connection.
    pub const fn expects_sealed(&self) -> bool {
        match &self.0 {
            State::Pending(pending) => pending.sealing.is_some(),
            State::Activating(activating) => activating.sealing.is_some(),
            State::Established(established) => established.sealing.is_some(),
            State::Fresh(_) | State::LoggingIn(_) | State::Over(_) => false,
        }
    }

    /// Who the client is, as far as it is known.
    pub const fn identity(&self) -> Option<&Identity> {
        match &self.0 {
            State::Fresh(fresh) => Some(&fresh.visitor),
            State::Established(established) => Some(&established.identity),
            _ => None,
        }
    }

    /// The only way to a [`Pass`].
    pub fn pass(&self, access: &Access) -> Result<Pass<'_>, Denied> {
        match &self.0 {
            State::Established(established) => established.pass(access),
            State::Fresh(fresh) => fresh.pass(access),
            State::LoggingIn(_) | State::Pending(_) | State::Activating(_) => Err(Denied::NotYet),
            State::Over(_) => Err(Denied::Over),
        }
    }

    /// When [`Session::expire`] has to be called.
    pub const fn deadline(&self) -> Option<Moment> {
        match &self.0 {
            State::Fresh(fresh) => Some(fresh.deadline),
            State::Pending(pending) => Some(pending.deadline),
            State::LoggingIn(_) | State::Activating(_) => None,
            State::Established(_) | State::Over(_) => None,
        }
    }

    /// What every frame to the client has to be sealed with, after the reply to its login.
    pub fn sealer(&mut self) -> Option<&mut Sealer> {
        let sealing = match &mut self.0 {
            State::Pending(pending) => &mut pending.sealing,
            State::Activating(activating) => &mut activating.sealing,
            State::Established(established) => &mut established.sealing,
            State::Over(over) => return over.sealer.as_mut(),
            State::Fresh(_) | State::LoggingIn(_) => return None,
        };
        sealing.as_mut().map(|sealing| &mut sealing.0)
    }
}

/// # Handle
impl Session {
    /// A connection begins. `peer` is the client's address and port as text; one that cannot
    /// stand in metadata is left out.
    pub fn new(now: Moment, settings: &Settings, peer: &str) -> Self {
        let visitor = Identity::anonymous(&settings.metadata, peer);
        Self(match settings.mode {
            Mode::None => State::Established(Established { identity: visitor, sealing: None }),
            mode => {
                let deadline = now.after(settings.login_within);
                State::Fresh(Fresh { mode, visitor, deadline })
            }
        })
    }

    /// The body of a login frame came. If this agrees, the companion has to get it; if not, the
    /// refusal is the answer, and the session stays what it is.
    pub fn login(&mut self, settings: &Settings, message: &[u8]) -> Result<(), Refusal> {
        let State::Fresh(fresh) = &self.0 else {
            return Err(Refusal::Repeated);
        };
        if message.is_empty() || message.len() > settings.max_login_bytes {
            return Err(Refusal::Malformed);
        }
        self.0 = State::LoggingIn(LoggingIn { mode: fresh.mode });
        Ok(())
    }

    /// The companion let the client in. Returns the body of the reply to the login frame, which
    /// goes out unsealed. After an error the session is over.
    pub fn accepted(
        &mut self,
        now: Moment,
        settings: &Settings,
        peer: &str,
        accepted: Accepted,
    ) -> Result<Vec<u8>, AcceptError> {
        match self.take() {
            State::LoggingIn(login) => {
                let (state, reply) = login.accepted(now, settings, peer, accepted)?;
                self.0 = state;
                Ok(reply)
            }
            other => {
                self.0 = other;
                Err(AcceptError::NotLoggingIn)
            }
        }
    }

    /// Opens the body of a sealed frame in place. `associated` as in [`Sealer::seal`].
    /// After an error the session is over: close without a word.
    pub fn open<'b>(
        &mut self,
        associated: &[&[u8]],
        body: &'b mut [u8],
    ) -> Result<Opened<'b>, OpenError> {
        if let State::Established(Established { sealing: Some(sealing), .. }) = &mut self.0 {
            // The path of every frame but the first.
            return match sealing.1.open(associated, body) {
                Ok(body) => Ok(Opened { body, activate: None }),
                Err(error) => {
                    self.end();
                    Err(error)
                }
            };
        }
        match self.take() {
            State::Pending(pending) if pending.sealing.is_some() => {
                let hold = pending.hold;
                let (activating, body) = pending.open(associated, body)?;
                self.0 = State::Activating(activating);
                Ok(Opened { body, activate: Some(hold) })
            }
            other => {
                self.0 = other;
                Err(OpenError::Unexpected)
            }
        }
    }

    /// A frame came. If it is the first one of a session that was resumed without keys, the
    /// companion has to activate what is returned: keep the frame, as with [`Opened::activate`].
    pub fn prove(&mut self) -> Option<Hold> {
        if !matches!(&self.0, State::Pending(pending) if pending.sealing.is_none()) {
            // So it is for every frame but the first.
            return None;
        }
        let State::Pending(pending) = self.take() else { return None };
        let Pending { identity, hold, sealing, .. } = *pending;
        self.0 = State::Activating(Box::new(Activating { identity, sealing }));
        Some(hold)
    }

    /// The companion activated the session. `false` if nobody asked it to; nothing changes then.
    pub fn activated(&mut self) -> bool {
        match self.take() {
            State::Activating(activating) => {
                self.0 = State::Established(activating.activated());
                true
            }
            other => {
                self.0 = other;
                false
            }
        }
    }

    /// Login refused, kicked, expired, drained: the session is over. Frames to the client can
    /// still be sealed, none of the client's can be opened or forwarded.
    pub fn end(&mut self) {
        let sealing = match self.take() {
            State::Pending(pending) => pending.sealing,
            State::Activating(activating) => activating.sealing,
            State::Established(established) => established.sealing,
            State::Over(over) => {
                self.0 = State::Over(over);
                return;
            }
            State::Fresh(_) | State::LoggingIn(_) => None,
        };
        self.0 = State::Over(Over { sealer: sealing.map(|sealing| sealing.0) });
    }

    /// Ends the session if its deadline has passed, and says which.
    pub fn expire(&mut self, now: Moment) -> Option<Expired> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let expired = match &self.0 {
            State::Pending(_) => Expired::FirstFrame,
            _ => Expired::Login,
        };
        self.end();
        Some(expired)
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.0, State::Over(Over { sealer: None }))
    }
}

impl Fresh {
    fn pass(&self, access: &Access) -> Result<Pass<'_>, Denied> {
        // Someone unknown has no role and no claim, whether a login is asked for or not.
        if access.login || !access.permits::<&str>(&[], |_| None) {
            return Err(Denied::LoginFirst);
        }
        Ok(Pass { identity: &self.visitor })
    }
}

impl LoggingIn {
    fn accepted(
        self,
        now: Moment,
        settings: &Settings,
        peer: &str,
        mut accepted: Accepted,
    ) -> Result<(State, Vec<u8>), AcceptError> {
        let (hold, activate) = (accepted.hold(), accepted.activate);
        let named = NamedBy::take(&mut accepted);
        let identity =
            Identity::named(named, &settings.metadata, peer).map_err(AcceptError::Identity)?;
        let sealing = match (self.mode, accepted.keys) {
            (Mode::Ticket, None) => None,
            (Mode::Noise, Some(keys)) => Some(Box::new(seal::server_side(&keys))),
            _ => return Err(AcceptError::Keys),
        };
        let state = if sealing.is_none() && !activate {
            State::Established(Established { identity, sealing })
        } else {
            let deadline = now.after(settings.first_frame_within);
            State::Pending(Box::new(Pending { identity, hold, sealing, deadline }))
        };
        Ok((state, accepted.reply))
    }
}

impl Pending {
    fn open<'b>(
        mut self,
        associated: &[&[u8]],
        body: &'b mut [u8],
    ) -> Result<(Box<Activating>, &'b mut [u8]), OpenError> {
        let sealing = self.sealing.as_mut().ok_or(OpenError::Unexpected)?;
        let body = sealing.1.open(associated, body)?;
        let Self { identity, sealing, .. } = self;
        Ok((Box::new(Activating { identity, sealing }), body))
    }
}

impl Activating {
    fn activated(self) -> Established {
        let Self { identity, sealing } = self;
        Established { identity, sealing }
    }
}

impl Established {
    fn pass(&self, access: &Access) -> Result<Pass<'_>, Denied> {
        let identity = &self.identity;
        if access.permits(identity.roles(), |claim| identity.claim(claim)) {
            Ok(Pass { identity })
        } else {
            Err(Denied::NotAllowed)
        }
    }
}

#[cfg(test)]
mod tests;
