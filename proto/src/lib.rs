//! MeshGate's contracts: generated code, checked in; `proto/tests/generated.rs` keeps it true.
