//! Sessions that change hands: to another connection, away, and back.

use redb::{Error, ReadableTable as _};

use super::{SWEEP_SESSIONS, WriteTables, decode, worker_key};
use crate::domain::session::{Hold, Session, SessionId};
use crate::domain::time::UnixMillis;
use crate::store::history::Happened;
use crate::store::{Left, Swept, Takeover, record};

impl WriteTables<'_> {
    pub fn take_over(&mut self, takeover: Takeover) -> Result<bool, Error> {
        let Takeover { session: wanted, base, now, lost_at } = takeover;
        let Some(old) = self.get(wanted.id)? else { return Ok(false) };
        if old.hold != base || old.ends_at() <= now {
            return Ok(false);
        }
        let new = Session {
            hold: wanted.hold,
            worker: wanted.worker,
            proxy: wanted.proxy,
            peer: wanted.peer,
            client: wanted.client,
            away_until: None,
            ..old.clone()
        };
        self.mind(new.worker, lost_at)?;
        if old.away_until.is_some() {
            self.happened.push((Happened::Back, new.clone()));
        }
        self.change(&old, new)?;
        Ok(true)
    }

    pub fn depart(
        &mut self,
        holds: &[Hold],
        until: Option<UnixMillis>,
    ) -> Result<Vec<(SessionId, Left)>, Error> {
        let mut left = Vec::new();
        for hold in holds {
            let Some(session) = self.get(hold.session)? else { continue };
            if session.hold != hold.number || session.away_until.is_some() {
                continue;
            }
            match until {
                Some(until) if session.seed.is_some() => {
                    self.go_away(&session, until)?;
                    left.push((session.id, Left::Away));
                }
                _ => {
                    self.end(&[session.id], &Happened::end(None))?;
                    left.push((session.id, Left::Ended));
                }
            }
        }
        Ok(left)
    }

    pub fn back(&mut self, holds: &[Hold], worker: u64) -> Result<Vec<bool>, Error> {
        let mut counts = Vec::with_capacity(holds.len());
        for hold in holds {
            let session = self.get(hold.session)?;
            let session = session.filter(|s| s.hold == hold.number && s.worker == worker);
            counts.push(session.is_some());
            if let Some(session) = session.filter(|session| session.away_until.is_some()) {
                let live = Session { away_until: None, ..session.clone() };
                self.happened.push((Happened::Back, live.clone()));
                self.change(&session, live)?;
            }
        }
        Ok(counts)
    }

    pub fn attached(&mut self, workers: &[u64], until: UnixMillis) -> Result<Vec<u64>, Error> {
        let mut unknown = Vec::new();
        for worker in workers {
            if self.workers.insert(worker, until.0)?.is_none() {
                unknown.push(*worker);
            }
        }
        Ok(unknown)
    }

    /// Sessions of a worker that was lost before `now` are away until then; ended if that is in
    /// the past. `true` if there is more to do.
    pub(super) fn sweep_lost(
        &mut self,
        now: UnixMillis,
        until: UnixMillis,
        swept: &mut Swept,
    ) -> Result<bool, Error> {
        let mut lost = None;
        for entry in self.workers.iter()? {
            let (worker, since) = entry?;
            if since.value() <= now.0 {
                lost = Some(worker.value());
                break;
            }
        }
        let Some(worker) = lost else { return Ok(false) };
        let [first, last] =
            [[0; 16], [0xff; 16]].map(|id| worker_key(worker, SessionId::from_bytes(id)));
        let keys: Vec<_> = self
            .by_worker
            .range::<&[u8; 24]>(&first..=&last)?
            .take(SWEEP_SESSIONS)
            .map(|entry| entry.map(|(key, _)| *key.value()))
            .collect::<Result<_, _>>()?;
        for key in &keys {
            // Also where it leads nowhere.
            self.by_worker.remove(key)?;
            let Some(id) = key.last_chunk() else { continue };
            let Some(session) = self.get(SessionId::from_bytes(*id))? else { continue };
            if until > now {
                self.go_away(&session, until)?;
                swept.lost.push(session.id);
            } else {
                self.give_up(session.id)?;
                swept.given_up.push(session.id);
            }
        }
        if keys.len() < SWEEP_SESSIONS {
            self.workers.remove(worker)?;
        }
        // Perhaps another worker.
        Ok(true)
    }

    fn go_away(&mut self, session: &Session, until: UnixMillis) -> Result<(), Error> {
        let away = Session { away_until: Some(until), ..session.clone() };
        self.happened.push((Happened::Away, away.clone()));
        self.change(session, away)
    }

    pub(super) fn get(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let bytes = self.sessions.get(id.as_bytes())?;
        bytes.map(|bytes| decode(id, bytes.value())).transpose()
    }

    fn change(&mut self, old: &Session, new: Session) -> Result<(), Error> {
        self.displace(old)?;
        self.place(&new)?;
        let id = new.id;
        self.sessions.insert(id.as_bytes(), record::encode(new).as_slice())?;
        Ok(())
    }
}
