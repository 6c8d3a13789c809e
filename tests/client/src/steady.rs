//! A client that stays: it leaves a connection when it is asked to, comes back into its session over
//! another one, and sends again what was certainly not carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, RwLock, mpsc};

use crate::client::{Client, Closed};
use crate::error::{CallError, Error};
use crate::goodbye::Return;
use crate::login::Login;

/// Between two attempts to come back.
const PAUSE: Duration = Duration::from_millis(50);
/// After that many attempts in vain it gives up.
const ATTEMPTS: usize = 200;

/// A client with a session that moves from connection to connection.
#[derive(Clone)]
pub struct Steady {
    shared: Arc<Shared>,
}

/// It left one connection for another.
#[derive(Debug, Clone)]
pub struct Move {
    /// What the server had said; `None` if the connection ended without a goodbye.
    pub back: Option<Return>,
    /// From the goodbye, or the connection's end, to the first attempt to come back.
    pub waited: Duration,
    /// From there to the new connection.
    pub took: Duration,
    /// The session goes on; `false` after a new login.
    pub resumed: bool,
}

struct Shared {
    /// Calls hold it for reading; whoever moves takes it for writing, and so after the last reply.
    current: RwLock<Current>,
    /// Where to begin; a server may name another place.
    addresses: Vec<String>,
    next: AtomicUsize,
    login: Login,
    moves: mpsc::UnboundedSender<Move>,
    moved: Mutex<mpsc::UnboundedReceiver<Move>>,
}

struct Current {
    client: Client,
    login: Login,
    generation: u64,
    /// Why there is no connection any more.
    lost: Option<String>,
}

impl Steady {
    /// Connects to the first of these that lets it in.
    pub async fn connect(addresses: &[String], login: &Login) -> Result<Self, Error> {
        Self::starting_at(addresses, 0, login).await
    }

    /// The same, beginning with the `first`.
    pub async fn starting_at(
        addresses: &[String],
        first: usize,
        login: &Login,
    ) -> Result<Self, Error> {
        let address = &addresses[first % addresses.len()];
        let client = Client::connect(address.as_str(), login).await?;
        let (moves, moved) = mpsc::unbounded_channel();
        let current = Current { client, login: login.clone(), generation: 0, lost: None };
        let shared = Arc::new(Shared {
            current: RwLock::new(current),
            addresses: addresses.to_vec(),
            next: AtomicUsize::new(first + 1),
            login: login.clone(),
            moves,
            moved: Mutex::new(moved),
        });
        tokio::spawn(stay(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Calls and waits for the reply. A call that was certainly not carried out is made again; one
    /// of which that is not known is an error.
    pub async fn call(&self, command: u32, body: &[u8]) -> Result<Vec<u8>, CallError> {
        loop {
            let current = self.shared.current.read().await;
            if let Some(lost) = &current.lost {
                return Err(CallError::Closed { goodbye: Some(lost.clone()) });
            }
            let result = current.client.call(command, body).await;
            if !matches!(result, Err(CallError::Closed { .. })) {
                return result;
            }
            let Closed { back, .. } = current.client.closed().await;
            let generation = current.generation;
            drop(current);
            if back.is_none() {
                return result;
            }
            // Whoever moves comes first: the lock is fair, and he waits for it already or soon.
            while self.shared.current.read().await.generation == generation {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The next move that it made.
    pub async fn next_move(&self) -> Option<Move> {
        self.shared.moved.lock().await.recv().await
    }

    /// The moves that it made so far and that nobody has asked for.
    pub async fn moves(&self) -> Vec<Move> {
        let mut moved = self.shared.moved.lock().await;
        std::iter::from_fn(|| moved.try_recv().ok()).collect()
    }

    /// The connection that it has at the moment.
    pub async fn client(&self) -> Client {
        self.shared.current.read().await.client.clone()
    }
}

/// Moves whenever that is asked for, for as long as anybody has the client.
async fn stay(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let client = strong.current.read().await.client.clone();
        drop(strong);
        let back = tokio::select! {
            closed = client.closed() => closed.back,
            back = client.asked_to_leave() => Some(back),
        };
        let told = Instant::now();
        if let Some(back) = &back {
            tokio::time::sleep(back.after).await;
        }
        let Some(shared) = shared.upgrade() else { return };
        let mut current = shared.current.write().await;
        let waited = told.elapsed();
        // Nothing of its own is under way. It may be closed already.
        drop(current.client.finish().await);
        current.client.closed().await;
        let begun = Instant::now();
        match come_back(&shared, &current, back.as_ref()).await {
            Ok((client, login, resumed)) => {
                current.client = client;
                current.login = login;
                let took = begun.elapsed();
                drop(shared.moves.send(Move { back, waited, took, resumed }));
            }
            Err(error) => {
                current.lost = Some(error.to_string());
                current.generation += 1;
                return;
            }
        }
        current.generation += 1;
    }
}

async fn come_back(
    shared: &Shared,
    current: &Current,
    back: Option<&Return>,
) -> Result<(Client, Login, bool), Error> {
    let mut login = current.client.resumption(&current.login);
    let mut named = back.and_then(|back| back.address.clone());
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let address = named.take().unwrap_or_else(|| {
            let next = shared.next.fetch_add(1, Ordering::Relaxed);
            shared.addresses[next % shared.addresses.len()].clone()
        });
        let attempt = login.as_ref().unwrap_or(&shared.login);
        match Client::connect(address.as_str(), attempt).await {
            Ok(client) => return Ok((client, attempt.clone(), login.is_some())),
            // The session is gone.
            Err(Error::Refused { status: 16, .. }) if login.is_some() => login = None,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last.unwrap_or(Error::Closed { goodbye: None }))
}
