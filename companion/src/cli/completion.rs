//! `meshgate completion`: what a shell needs to complete commands and flags.

use std::io;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

#[derive(Args)]
pub struct Completion {
    /// The shell. For bash: meshgate completion bash > /etc/bash_completion.d/meshgate
    shell: Shell,
}

impl Completion {
    /// `meshgate`: the whole command.
    pub fn run(&self, mut meshgate: Command) -> anyhow::Result<()> {
        // Into memory first: a pipe that closes early is no panic here.
        let mut script = Vec::new();
        generate(self.shell, &mut meshgate, "meshgate", &mut script);
        match io::Write::write_all(&mut io::stdout(), &script) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
