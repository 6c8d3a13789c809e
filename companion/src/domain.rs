//! The rules: who may log in, what a session is, and when it ends.

pub mod bucket;
pub mod credential;
pub mod filter;
pub mod group;
pub mod handshake;
pub mod in_flight;
pub mod jwt;
pub mod key;
pub mod login;
pub mod master;
pub mod pattern;
pub mod presence;
pub mod push;
pub mod ration;
pub mod reach;
pub mod refusal;
pub mod resume;
pub mod ring;
pub mod same_user;
pub mod secret;
pub mod session;
pub mod sessions;
pub mod ticket;
pub mod time;
pub mod token;
pub mod verifier;
