//! What lies beside the configuration's types says the same as they do: the JSON Schema, the
//! reference in its README, the examples.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by panicking"
)]

mod examples;
mod reference;
mod schema;
mod validator;

use std::path::{Path, PathBuf};

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Holds the file against `content`, or writes it if `MESHGATE_REGENERATE` is set.
fn check_generated(path: &Path, content: &str) {
    if std::env::var_os("MESHGATE_REGENERATE").is_some() {
        std::fs::write(path, content).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == content,
        "{} is stale: run `MESHGATE_REGENERATE=1 cargo test -p meshgate-filter --test config`",
        path.display()
    );
}
