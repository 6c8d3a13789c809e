//! End-to-end tests: real Envoy, real companion, real services.
