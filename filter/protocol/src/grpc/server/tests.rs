//! The leg against callers written frame by frame.

mod attacks;
mod chaos;
mod flow;
mod lawful;
mod script;
mod splits;
mod wrong;
