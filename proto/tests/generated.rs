//! Generated code is what the contracts say. `MESHGATE_REGENERATE=1 cargo test -p meshgate-proto
//! --test generated` writes it anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const CONTRACTS: [&str; 5] = [
    "meshgate/edge/v1/edge.proto",
    "meshgate/admin/v1/admin.proto",
    "meshgate/app/v1/app.proto",
    "meshgate/session/v1/session.proto",
    "meshgate/verifier/v1/verifier.proto",
];

/// Messages with secrets; `src/redacted.rs` writes their `Debug`.
const SECRETIVE: [&str; 8] = [
    ".meshgate.app.v1.PushRequest",
    ".meshgate.edge.v1.Login",
    ".meshgate.edge.v1.LoginAccepted",
    ".meshgate.edge.v1.Push",
    ".meshgate.session.v1.LoginRequest",
    ".meshgate.session.v1.LoginRequest.credential",
    ".meshgate.session.v1.ResumeToken",
    ".meshgate.verifier.v1.VerifyRequest",
];

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut descriptors = protox::compile(CONTRACTS, [root]).expect("the contracts compile");

    let stubs = "#[cfg(feature = \"service\")]";
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(SECRETIVE)
        .client_mod_attribute(".", stubs)
        .server_mod_attribute(".", stubs)
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds(descriptors.clone())
        .expect("code is generated");

    // Reflection needs no comments.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(into.join("descriptor_set.bin"), descriptors.encode_to_vec()).expect("writable");
}

fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder exists")
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(path).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn checked_in_code_is_what_the_contracts_generate() {
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if env::var_os("MESHGATE_REGENERATE").is_some() {
        generate(&checked_in);
        return;
    }
    let fresh = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("generated");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).expect("the last run's code goes away");
    }
    fs::create_dir_all(&fresh).expect("a folder for fresh code");
    generate(&fresh);

    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    let (old, new) = (files_of(&checked_in), files_of(&fresh));
    assert_eq!(names(&old), names(&new), "src/gen holds other files than the contracts give");
    for ((name, old), (_, new)) in old.iter().zip(&new) {
        assert!(
            old == new,
            "src/gen/{name} is out of date: run \
             `MESHGATE_REGENERATE=1 cargo test -p meshgate-proto --test generated`"
        );
    }
}
