//! The leg against an upstream that is written down frame by frame.

mod answers;
mod attacks;
mod chaos;
mod ends;
mod flow;
mod lawful;
mod open_requests;
mod opening;
mod script;
mod splits;
