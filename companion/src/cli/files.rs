//! Key files on disk.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::domain::key::Key;

/// A key file is a few hundred bytes; a JWK set of many RSA keys some tens of thousands.
const MAX_BYTES: u64 = 1 << 20;

pub fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let name = path.display();
    let size = fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if size > MAX_BYTES {
        bail!("{name} has {size} bytes, which no key file needs");
    }
    fs::read(path).map(Zeroizing::new).with_context(|| format!("cannot read {name}"))
}

pub fn read_key(path: &Path) -> anyhow::Result<Key> {
    let name = path.display();
    let key = Key::from_json(&read(path)?).with_context(|| name.to_string())?;
    let mode = fs::metadata(path).with_context(|| name.to_string())?.permissions().mode();
    if key.kind().is_secret() && mode & 0o007 != 0 {
        tracing::warn!("{name} can be read by everybody: chmod 600 it");
    }
    Ok(key)
}

/// Writes a file that its owner alone can read.
pub fn write_private(path: &Path, contents: &str, replace: bool) -> anyhow::Result<()> {
    let name = path.display();
    if replace && let Err(error) = fs::remove_file(path) {
        anyhow::ensure!(
            error.kind() == std::io::ErrorKind::NotFound,
            "cannot replace {name}: {error}"
        );
    }
    let opened: std::io::Result<File> =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
            "{name} is there already, and what was made with that key would be lost: choose \
             another name, or say --force"
        ),
        Err(error) => return Err(error).with_context(|| format!("cannot write {name}")),
    };
    file.write_all(contents.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {name}"))
}
