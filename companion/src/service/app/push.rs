//! Pushes, one by one and many in a stream.

use std::sync::Arc;
use std::time::Instant;

use meshgate_proto::app::v1::push_request::{Command as CommandNumber, Target as TargetMessage};
use meshgate_proto::app::v1::{PushRequest, PushResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{audience, session_id};
use crate::domain::credential::MAX_CLAIMS;
use crate::domain::group::GroupName;
use crate::domain::push::{Command, MAX_COMMAND, Only, Outcome, Parcel, Target};
use crate::domain::reach::Reach;
use crate::domain::sessions::Sessions;
use crate::domain::sessions::push::{PushError, Sent};

/// Pushes of one stream that may wait for their answers; beyond, no more are taken from it.
const WAITING: usize = 1024;

/// Sends one push.
pub async fn send(
    sessions: &Sessions,
    reach: &Reach,
    request: PushRequest,
) -> Result<Sent, Status> {
    let PushRequest { target, audience: named, claims, command, body } = request;
    let only = Only { audience: audience(reach, named)?, claims };
    if only.claims.len() > MAX_CLAIMS {
        return Err(Status::invalid_argument(format!("`claims` must be at most {MAX_CLAIMS}")));
    }
    let target = match target {
        Some(TargetMessage::SessionId(id)) => Target::Session(session_id(&id)?),
        Some(TargetMessage::User(user)) if !user.is_empty() => Target::User(user),
        Some(TargetMessage::Group(name)) => {
            if only != Only::default() {
                return Err(Status::invalid_argument(
                    "`audience` and `claims` do not go with a group: it has the members that \
                     were let join",
                ));
            }
            Target::Group(group(reach, name)?)
        }
        _ => return Err(Status::invalid_argument("give `session_id`, `user` or `group`")),
    };
    let command = match command {
        Some(CommandNumber::Number(number)) => Command::Number(number),
        Some(CommandNumber::Name(name)) if (1..=MAX_COMMAND).contains(&name.len()) => {
            Command::Name(name)
        }
        Some(CommandNumber::Name(_)) => {
            return Err(Status::invalid_argument(format!(
                "`name` must have 1 to {MAX_COMMAND} bytes"
            )));
        }
        None => return Err(Status::invalid_argument("give the command: `number` or `name`")),
    };
    let sent = sessions.push(target, &only, reach, Parcel { command, body }).await;
    sent.map_err(|error| match error {
        PushError::Audience(_) => Status::permission_denied(error.to_string()),
        PushError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        PushError::Store(_) => Status::unavailable(error.to_string()),
    })
}

/// The group of a caller that may reach it.
pub fn group(reach: &Reach, name: String) -> Result<GroupName, Status> {
    let name = GroupName::new(name).map_err(Status::invalid_argument)?;
    if !reach.covers_group(name.as_str()) {
        return Err(Status::permission_denied(format!(
            "this caller may not reach the group {:?}: see `app.grants`",
            name.as_str()
        )));
    }
    Ok(name)
}

pub fn answer(sessions: &Sessions, outcome: Outcome) -> PushResponse {
    let Outcome { delivered, away, queued, gone, slow, refused, unconfirmed, reason } = outcome;
    let pushes = &sessions.metrics().pushes;
    for (name, count) in [
        ("delivered", delivered),
        ("away", away),
        ("queued", queued),
        ("gone", gone),
        ("slow", slow),
        ("refused", refused),
        ("unconfirmed", unconfirmed),
    ] {
        pushes.add(name, count.into());
    }
    PushResponse { delivered, away, gone, slow, refused, unconfirmed, reason, queued }
}

/// Takes pushes one after another, each as soon as the one before is sent, and answers them in
/// their order. A push that cannot be tried ends the stream.
pub fn stream(
    sessions: Arc<Sessions>,
    reach: Reach,
    mut requests: Streaming<PushRequest>,
    mut stopping: watch::Receiver<bool>,
) -> impl Stream<Item = Result<PushResponse, Status>> {
    let (waiting, sent) = mpsc::channel::<Result<(Instant, Sent), Status>>(WAITING);
    let sender = Arc::clone(&sessions);
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => {
                    Err(Status::unavailable("the companion is stopping: call another one"))
                }
                request = requests.message() => request,
            };
            let begun = Instant::now();
            let next = match request {
                Ok(Some(request)) => send(&sender, &reach, request).await,
                Ok(None) => return,
                Err(status) => Err(status),
            };
            sender.metrics().app_calls.count(if next.is_ok() { "ok" } else { "failed" });
            let ends = next.is_err();
            // The caller may be gone.
            if waiting.send(next.map(|sent| (begun, sent))).await.is_err() || ends {
                return;
            }
        }
    });
    ReceiverStream::new(sent).then(move |sent| {
        let sessions = Arc::clone(&sessions);
        async move {
            let (begun, sent) = sent?;
            let outcome = sent.outcome().await;
            sessions.metrics().push_time.record(begun.elapsed());
            Ok(answer(&sessions, outcome))
        }
    })
}
