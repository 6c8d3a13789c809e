//! MeshGate's contracts: generated code, checked in; `proto/tests/generated.rs` keeps it true.
//!
//! The messages build without tonic, also for wasm32. Feature `service` adds the client and
//! server stubs and [`FILE_DESCRIPTOR_SET`].
//!
//! Messages that carry a credential or a key have no derived `Debug`: theirs (in `redacted`)
//! tells sizes only, so that no log line can hold a secret by accident.

mod redacted;

/// Between the filter and the companion.
pub mod edge {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic)]
        include!("gen/meshgate.edge.v1.rs");
    }
}

/// Between operators and the companion.
pub mod admin {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic)]
        include!("gen/meshgate.admin.v1.rs");
    }
}

/// Between services and the companion.
pub mod app {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic)]
        include!("gen/meshgate.app.v1.rs");
    }
}

/// Between clients and the companion, inside login frames.
pub mod session {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic)]
        include!("gen/meshgate.session.v1.rs");
    }
}

/// Between the companion and a login server.
pub mod verifier {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic)]
        include!("gen/meshgate.verifier.v1.rs");
    }
}

/// All contracts as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
#[cfg(feature = "service")]
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor_set.bin");
