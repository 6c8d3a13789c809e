//! The checked-in code is what the `.proto` says. `MESHGATE_REGENERATE=1` writes it anew.

use std::path::Path;

use prost::Message;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["demo/v1/demo.proto"], [root.join("proto")]).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(out).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .compile_fds(descriptors.clone())
        .unwrap();

    let code = std::fs::read(out.join("demo.v1.rs")).unwrap();
    compare(&root.join("src/generated/demo.v1.rs"), &code);
    // For reflection: without source locations, which only carry the comments.
    let mut descriptors = descriptors;
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    compare(&root.join("src/generated/demo.v1.binpb"), &descriptors.encode_to_vec());
}

fn compare(path: &Path, generated: &[u8]) {
    if std::env::var_os("MESHGATE_REGENERATE").is_some() {
        std::fs::write(path, generated).unwrap();
    }
    let checked_in = std::fs::read(path).unwrap_or_default();
    assert!(
        checked_in == generated,
        "{} is stale: run `MESHGATE_REGENERATE=1 cargo test -p meshgate-game --test generated`",
        path.display()
    );
}
