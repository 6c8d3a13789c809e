//! A client of a private protocol (layout `game`), written against the documents alone.
//!
//! It shares no code with the filter on purpose: what the two agree on, they agree on because
//! the documents say it. [`Client`] is for calls; [`Connection`] is one level below, frame by
//! frame, and lets a test send what no good client would; [`Steady`] one above it, and stays
//! logged in while proxies and services come and go.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use meshgate_client::{Client, Credential, Login};
//! let login = Login::Ticket(Credential::Ticket("…".into()));
//! let client = Client::connect("127.0.0.1:7000", &login).await?;
//! let reply = client.call(1101, b"hello").await?;
//! client.one_way(1003, b"a line of talk").await?;
//! # Ok(()) }
//! ```

mod attempt;
mod client;
mod connection;
mod error;
mod frame;
mod goodbye;
mod login;
mod seal;
mod steady;

pub use attempt::{Attempt, cookie, with_cookie};
pub use client::{Client, Closed, Stream};
pub use connection::{Connection, Receiver, Sender};
pub use error::{CallError, Error};
pub use frame::{Flags, Frame, HEADER, MAX_FRAME, command};
pub use goodbye::{Goodbye, Return};
pub use login::{Credential, Handshake, Login, LoginReply, NoiseServer, ResumeToken};
pub use seal::{Direction, Seal, TAG};
pub use steady::{Move, Steady};
