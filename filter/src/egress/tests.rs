//! A caller, a connection and a private server on a simulated clock. [`Wire`] does what Envoy and
//! the host do with the outputs; the caller's side is written frame by frame.

mod calls;
mod faults;
mod ordered;
mod streams;
mod tunnel;
mod wire;
