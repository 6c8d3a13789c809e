use std::process::ExitCode;

fn main() -> ExitCode {
    meshgate_companion::cli::main()
}
