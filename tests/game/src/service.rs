//! The game as ordinary tonic services, with health and reflection.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::demo::v1::echo_server::{Echo, EchoServer};
use crate::demo::v1::hall_server::{Hall as HallService, HallServer};
use crate::demo::v1::{
    EchoReply, EchoRequest, Empty, EnterReply, EnterRequest, FailRequest, LeaveRequest, Line,
    LookReply, MoveReply, MoveRequest, RepeatRequest, SayRequest, SlowRequest, WhoamiReply,
};
use crate::hall::{Hall, HallError};

/// The longest that `Slow` waits: a test that asks for more has a typing error.
pub const MAX_SLOW: Duration = Duration::from_secs(60);
/// The most that `Gather` takes.
pub const MAX_GATHERED: usize = 64 << 20;
/// How much of a message is printed.
const PRINTED: usize = 160;

/// Lines that a listener may lag behind before it is told that it missed some.
const MAX_LAG: usize = 1024;

/// Messages of a stream that wait for its caller to take them.
const AHEAD: usize = 4;

type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// One running game.
#[derive(Debug, Clone)]
pub struct Game {
    hall: Arc<Mutex<Hall>>,
    said: broadcast::Sender<Line>,
    print_calls: bool,
}

impl Game {
    /// `print_calls`: one line on standard output for each call, with its metadata.
    pub fn new(print_calls: bool) -> Self {
        let (said, _) = broadcast::channel(MAX_LAG);
        Self { hall: Arc::default(), said, print_calls }
    }

    /// Serves until `stop` completes, then lets the calls in flight finish.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<EchoServer<Game>>().await;
        health.set_serving::<HallServer<Game>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::demo::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(health_service)
            .add_service(reflection)
            .add_service(EchoServer::new(self.clone()))
            .add_service(HallServer::new(self))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
            .await?;
        Ok(())
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the call if asked to, and gives its message.
    fn take<M: Debug>(&self, method: &str, request: Request<M>) -> M {
        if self.print_calls {
            let mut message = format!("{:?}", request.get_ref());
            if let Some((cut, _)) = message.char_indices().nth(PRINTED) {
                message.truncate(cut);
                message.push('…');
            }
            let metadata: Vec<String> = text_metadata(request.metadata())
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            println!("call demo.v1.{method} {message} [{}]", metadata.join(" "));
        }
        request.into_inner()
    }
}

/// Text metadata by name; several values of one name are joined by `", "`. Binary metadata
/// (`-bin`) is shown in its base64 form.
fn text_metadata(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let mut by_name = BTreeMap::<String, String>::new();
    for pair in metadata.iter() {
        let (name, value) = match &pair {
            KeyAndValueRef::Ascii(name, value) => (name.as_str(), value.as_encoded_bytes()),
            KeyAndValueRef::Binary(name, value) => (name.as_str(), value.as_encoded_bytes()),
        };
        let value = String::from_utf8_lossy(value);
        by_name
            .entry(name.to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    by_name
}

impl From<HallError> for Status {
    fn from(error: HallError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}

#[tonic::async_trait]
impl Echo for Game {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let EchoRequest { body } = self.take("Echo/Echo", request);
        Ok(Response::new(EchoReply { body }))
    }

    async fn slow(&self, request: Request<SlowRequest>) -> Result<Response<EchoReply>, Status> {
        let SlowRequest { millis, body } = self.take("Echo/Slow", request);
        let wait = Duration::from_millis(millis.into());
        if wait > MAX_SLOW {
            return Err(Status::invalid_argument(format!("at most {} ms", MAX_SLOW.as_millis())));
        }
        tokio::time::sleep(wait).await;
        Ok(Response::new(EchoReply { body }))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<Empty>, Status> {
        let FailRequest { code, message } = self.take("Echo/Fail", request);
        match i32::try_from(code) {
            Ok(0) => Ok(Response::new(Empty {})),
            Ok(code @ 1..=16) => Err(Status::new(Code::from_i32(code), message)),
            _ => Err(Status::invalid_argument("a status code is a number from 0 to 16")),
        }
    }

    type RepeatStream = Messages<EchoReply>;

    async fn repeat(
        &self,
        request: Request<RepeatRequest>,
    ) -> Result<Response<Self::RepeatStream>, Status> {
        let RepeatRequest { body, times, millis, code } = self.take("Echo/Repeat", request);
        let wait = Duration::from_millis(millis.into());
        let (sender, messages) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            for _ in 0..times {
                tokio::time::sleep(wait).await;
                if sender.send(Ok(EchoReply { body: body.clone() })).await.is_err() {
                    return;
                }
            }
            if code != 0 {
                let code = Code::from_i32(i32::try_from(code).unwrap_or(i32::MAX));
                // Whoever has gone meanwhile does not want to know.
                let _ = sender.send(Err(Status::new(code, "as it was asked for"))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn gather(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let mut requests = self.take("Echo/Gather", request);
        let mut body = Vec::new();
        while let Some(request) = requests.message().await? {
            if body.len() + request.body.len() > MAX_GATHERED {
                return Err(Status::resource_exhausted(format!("at most {MAX_GATHERED} bytes")));
            }
            body.extend_from_slice(&request.body);
        }
        Ok(Response::new(EchoReply { body }))
    }

    type ConverseStream = Messages<EchoReply>;

    async fn converse(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let requests = self.take("Echo/Converse", request);
        let replies =
            requests.map(|request| request.map(|EchoRequest { body }| EchoReply { body }));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn whoami(&self, request: Request<Empty>) -> Result<Response<WhoamiReply>, Status> {
        let metadata = text_metadata(request.metadata());
        self.take("Echo/Whoami", request);
        Ok(Response::new(WhoamiReply { metadata }))
    }
}

#[tonic::async_trait]
impl HallService for Game {
    async fn enter(&self, request: Request<EnterRequest>) -> Result<Response<EnterReply>, Status> {
        let EnterRequest { name } = self.take("Hall/Enter", request);
        let mut hall = self.hall();
        let player = hall.enter(&name)?;
        let players = u32::try_from(hall.players().len()).unwrap_or(u32::MAX);
        Ok(Response::new(EnterReply { player: Some(player), players }))
    }

    async fn r#move(&self, request: Request<MoveRequest>) -> Result<Response<MoveReply>, Status> {
        let MoveRequest { player_id, dx, dy } = self.take("Hall/Move", request);
        let position = self.hall().walk(player_id, dx, dy)?;
        Ok(Response::new(MoveReply { position: Some(position) }))
    }

    async fn say(&self, request: Request<SayRequest>) -> Result<Response<Empty>, Status> {
        let SayRequest { player_id, text } = self.take("Hall/Say", request);
        self.hall().say(player_id, &text)?;
        // An error means that nobody listens.
        let _ = self.said.send(Line { player_id, text });
        Ok(Response::new(Empty {}))
    }

    type ListenStream = Messages<Line>;

    async fn listen(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        // Before the call is printed: who reads that somebody listens may rely on it.
        let said = self.said.subscribe();
        self.take("Hall/Listen", request);
        let lines = BroadcastStream::new(said)
            .map(|line| line.map_err(|_| Status::data_loss("too slow, some lines were missed")));
        Ok(Response::new(Box::pin(lines)))
    }

    type ChatStream = Messages<Line>;

    async fn chat(
        &self,
        request: Request<Streaming<SayRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let mut said = self.said.subscribe();
        let mut lines = self.take("Hall/Chat", request);
        let game = self.clone();
        let (sender, messages) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let end = loop {
                let heard = tokio::select! {
                    // What the caller said is heard before it is told that it has said all.
                    biased;
                    line = said.recv() => line,
                    line = lines.message() => match line {
                        Ok(Some(SayRequest { player_id, text })) => {
                            if let Err(error) = game.hall().say(player_id, &text) {
                                break Err(error.into());
                            }
                            let _ = game.said.send(Line { player_id, text });
                            continue;
                        }
                        Ok(None) => break Ok(()),
                        Err(status) => break Err(status),
                    },
                };
                let Ok(line) = heard else {
                    break Err(Status::data_loss("too slow, some lines were missed"));
                };
                if sender.send(Ok(line)).await.is_err() {
                    break Ok(());
                }
            };
            if let Err(status) = end {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn look(&self, request: Request<Empty>) -> Result<Response<LookReply>, Status> {
        self.take("Hall/Look", request);
        let hall = self.hall();
        Ok(Response::new(LookReply {
            players: hall.players().cloned().collect(),
            lines: hall.lines().cloned().collect(),
        }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Empty>, Status> {
        let LeaveRequest { player_id } = self.take("Hall/Leave", request);
        self.hall().leave(player_id)?;
        Ok(Response::new(Empty {}))
    }
}
