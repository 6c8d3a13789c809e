//! The key ring on disk: read whole, replaced whole, changed by one at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::files;
use crate::domain::ring::Ring;

pub fn read(path: &Path) -> anyhow::Result<Ring> {
    Ring::from_json(&files::read(path)?).with_context(|| path.display().to_string())
}

/// Changes the ring, which is made if it is not there. If `change` fails, so does this, and the
/// file is as it was; the same holds if the machine stops at any moment.
pub fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Ring) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = path.display();
    let _alone = lock(path).with_context(|| format!("cannot lock {name}"))?;
    let mut ring = match fs::metadata(path) {
        Ok(_) => read(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Ring::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
    };
    let changed = change(&mut ring)?;
    replace(path, &ring.to_json()).with_context(|| format!("cannot write {name}"))?;
    Ok(changed)
}

/// Held until it is dropped. A file beside the ring, which itself is replaced by each change.
fn lock(path: &Path) -> std::io::Result<File> {
    let lock = beside(path, ".lock");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    file.lock()?;
    Ok(file)
}

fn replace(path: &Path, json: &str) -> std::io::Result<()> {
    let part = beside(path, ".part");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(json.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // The new name is safe when its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
