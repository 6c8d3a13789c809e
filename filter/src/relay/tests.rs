//! A client, a relay and a private server on a simulated clock.

mod faults;
mod layouts;
mod requests;
mod wire;
