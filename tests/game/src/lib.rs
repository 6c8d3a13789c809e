//! Demo services: an ordinary gRPC game, and the private-protocol server that it grew out of.
//!
//! Both serve the same rules ([`hall`]). [`service`] is plain tonic and knows nothing of
//! MeshGate; [`private`] speaks 20-byte frames over TCP, as such servers did for decades.

pub mod hall;
pub mod private;
pub mod reactor;
pub mod service;

/// Generated from `proto/demo/v1/demo.proto`; `tests/generated.rs` keeps it true.
pub mod demo {
    #[allow(clippy::all)]
    pub mod v1 {
        include!("generated/demo.v1.rs");

        /// The encoded `FileDescriptorSet`, for gRPC reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/demo.v1.binpb");
    }
}
