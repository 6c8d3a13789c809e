//! `meshgate keygen`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::files;
use crate::domain::key::{Key, Kind};

/// Makes a new key file that only its owner can read, and prints the public part, itself a
/// key file for whoever may know it.
#[derive(Args)]
pub struct Keygen {
    /// What the key is for
    kind: Purpose,
    /// Where to write the key
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The key's name in login messages and tickets [default: a short hash]
    #[arg(long)]
    id: Option<String>,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    /// The companion's static key of Noise logins (X25519)
    Noise,
    /// Signs tickets; the companion needs its public part alone
    TicketEd25519,
    /// Signs and checks tickets with one shared secret (HMAC-SHA256)
    TicketHmac,
    /// Seals the keys of a ring (`meshgate key`)
    Master,
}

impl Keygen {
    pub fn run(self) -> anyhow::Result<()> {
        let kind = match self.kind {
            Purpose::Noise => Kind::Noise,
            Purpose::TicketEd25519 => Kind::TicketEd25519,
            Purpose::TicketHmac => Kind::TicketHmac,
            Purpose::Master => Kind::Master,
        };
        let key = Key::generate(kind, self.id)?;
        files::write_private(&self.out, &key.to_json(), self.force)?;
        eprintln!("{} key `{}` written to {}", kind.name(), key.id(), self.out.display());
        match key.public() {
            Some(public) => print!("{}", public.to_json().as_str()),
            None if kind == Kind::Master => {
                eprintln!("keep it apart from the ring: whoever has both has every key");
            }
            None => eprintln!("it has no public part: issuer and companion share the file"),
        }
        Ok(())
    }
}
