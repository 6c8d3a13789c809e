//! Pushes that wait, in lists `q:<session>`: each entry is 16 hexadecimal digits of when it was
//! kept (ms), and [`crate::store::queue`]'s record.

use std::sync::Arc;

use super::RedisStore;
use crate::domain::push::Parcel;
use crate::domain::session::SessionId;
use crate::domain::time::UnixMillis;
use crate::store::queue::{AwayQueue, Kept, QueueLimits, decode, encode};
use crate::store::{Answer, StoreError};

/// Sessions that one step looks at while others wait for the server.
const STEP: usize = 256;
const TIME: usize = 16;

impl AwayQueue for RedisStore {
    fn keep(
        &self,
        ids: Vec<SessionId>,
        parcel: Arc<Parcel>,
        limits: QueueLimits,
        now: UnixMillis,
    ) -> Answer<Vec<Kept>> {
        let (link, scripts) = (Arc::clone(&self.link), Arc::clone(&self.scripts));
        Box::pin(async move {
            let Some(record) = encode(&parcel, now) else {
                return Ok(ids.iter().map(|_| Kept::Elsewhere).collect());
            };
            let mut entry = format!("{:016x}", now.0).into_bytes();
            entry.extend(record);
            let mut kept = Vec::with_capacity(ids.len());
            for ids in ids.chunks(STEP) {
                let call = scripts.keep(ids, entry.clone(), limits, now)?;
                let answer: Vec<String> = link.confirmed(call).await?;
                kept.extend(answer.iter().map(|word| match word.as_str() {
                    "queued" => Kept::Queued,
                    "full" => Kept::Full,
                    _ => Kept::Elsewhere,
                }));
            }
            Ok(kept)
        })
    }

    fn take_kept(&self, ids: Vec<SessionId>, since: UnixMillis) -> Answer<Vec<Vec<Parcel>>> {
        let (link, scripts) = (Arc::clone(&self.link), Arc::clone(&self.scripts));
        Box::pin(async move {
            let mut taken = Vec::with_capacity(ids.len());
            for ids in ids.chunks(STEP) {
                let queues: Vec<Vec<Vec<u8>>> = link.call(scripts.take_kept(ids)?).await?;
                for queue in queues {
                    let entries = queue.iter().filter_map(|entry| entry.get(TIME..));
                    let entries = entries.map(decode).collect::<Result<Vec<_>, _>>();
                    let entries = entries.map_err(StoreError)?.into_iter();
                    taken.push(entries.filter(|(kept, _)| *kept >= since).map(|e| e.1).collect());
                }
            }
            Ok(taken)
        })
    }
}
