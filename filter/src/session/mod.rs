//! Sessions: who the client is, what it may do, and the sealing of its frames.
//!
//! ```text
//!   mode none     Established (anonymous)
//!   mode ticket   Fresh -> LoggingIn -> Established
//!                 Fresh -> LoggingIn -> Pending -> Activating -> Established    (resumed)
//!   mode noise    Fresh -> LoggingIn -> Pending -> Activating -> Established
//! ```
//!
//! `PROTOCOL.md` beside this file is what a client has to know, to the byte. [`state`] holds the
//! machine above, one struct a state, and [`outcome`] what its steps come to; [`identity`] what the
//! services behind get to see; [`seal`] the frames' encryption; [`rate`] how often something may
//! happen.

pub mod access;
pub mod identity;
pub mod login;
pub mod outcome;
pub mod rate;
pub mod seal;
pub mod state;

pub use access::Access;
pub use identity::{Identity, MetadataPolicy};
pub use login::{Accepted, Hold, Mode, Refusal, SessionId, Settings};
pub use seal::{OpenError, Opener, Sealer};
pub use state::{Pass, Session};
