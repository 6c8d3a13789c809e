//! End-to-end tests: real Envoy, real companion, real services.
//!
//! Everything listens on free ports and stops with the test that started it. The binaries are
//! those of `scripts/build`; `scripts/test` sets `MESHGATE_ENVOY` and `MESHGATE_WASM`.

pub mod companion;
pub mod egress;
pub mod envoy;
pub mod faulty;
pub mod golden;
pub mod http;
pub mod ledger;
pub mod player;
pub mod process;
pub mod prometheus;
/// A Redis server of a test's own.
#[path = "../../../companion/tests/support/redis.rs"]
pub mod redis;
pub mod relay;
pub mod reluctant;
pub mod services;

pub use companion::Companion;
pub use envoy::Envoy;
pub use faulty::Faulty;
pub use golden::{Replay, Stage};
pub use ledger::Ledger;
pub use prometheus::Prometheus;
pub use redis::RedisServer;
pub use reluctant::Reluctant;
pub use services::{GameServer, PrivateServer};

/// The commands of the demo's layout and table (`envoy-config/`).
pub mod command {
    pub const LOGIN: u32 = 1;
    pub const GOODBYE: u32 = 2;
    pub const HEARTBEAT: u32 = 3;
    pub const CANCEL: u32 = 4;
    pub const ENTER: u32 = 1001;
    pub const MOVE: u32 = 1002;
    pub const SAY: u32 = 1003;
    pub const LOOK: u32 = 1004;
    pub const LISTEN: u32 = 1006;
    pub const ECHO: u32 = 1100;
    pub const ECHO_BYTES: u32 = 1101;
    pub const SLOW: u32 = 1102;
    pub const FAIL: u32 = 1103;
    pub const WHOAMI: u32 = 1104;
    pub const REPEAT: u32 = 1105;
    pub const GATHER: u32 = 1106;
    pub const CONVERSE: u32 = 1107;
    pub const CHAT: u32 = 1007;
    pub const REPEATED: u32 = 1205;
    pub const LINE: u32 = 1206;
    pub const CONVERSED: u32 = 1207;
    /// A further message of a stream, and the end of them.
    pub const SEND: u32 = 8;
    pub const CLOSE: u32 = 9;
}
