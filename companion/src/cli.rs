//! `meshgate`: the companion itself, and the operator's tool.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage; `doctor` has its own. Results go to standard output, everything else to
//! standard error, so that pipes get what they want.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod call;
mod check;
mod completion;
mod config;
mod connect;
mod doctor;
mod drain;
mod files;
mod group;
mod key;
mod keygen;
mod logs;
mod masters;
mod place;
mod push;
mod ring_file;
mod serve;
mod session;
mod session_watch;
mod store;
mod ticket;
mod token;

/// MeshGate's companion service and operator's tool.
#[derive(Parser)]
#[command(name = "meshgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the companion: logins, sessions, kicks
    Serve(Box<serve::Serve>),
    /// Check a filter configuration, as the filter would read it
    Check(check::Check),
    /// Call a private command: one frame out, its reply back
    Call(Box<call::Call>),
    /// Say what is wrong with a proxy or with manifests, and what to do
    Doctor(doctor::Doctor),
    /// Print what a shell needs to complete commands and flags
    Completion(completion::Completion),
    /// Ask clients to leave a proxy or a service, and to come back
    #[command(subcommand)]
    Drain(drain::Drain),
    /// Explain the companion's configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Let sessions join and leave groups, and see who is in which
    #[command(subcommand)]
    Group(group::Group),
    /// Keep a ring of sealed keys: rotate, retire, re-wrap
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Make a key file
    Keygen(keygen::Keygen),
    /// Say which server holds a session, and move its client there
    Place(place::Place),
    /// Send a frame to clients
    Push(Box<push::Push>),
    /// Work with tickets
    #[command(subcommand)]
    Ticket(ticket::Ticket),
    /// See who is there, and throw them out
    #[command(subcommand)]
    Session(session::Session),
    /// Check a store, write it as text, and read it back
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Work with operators' bearer tokens
    #[command(subcommand)]
    Token(token::Token),
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Place(place) => place.run(),
        Command::Push(push) => push.run(),
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Call(call) => call.run(),
        Command::Doctor(doctor) => return doctor.run(),
        Command::Completion(completion) => completion.run(Cli::command()),
        Command::Config(config) => config.run(),
        Command::Drain(drain) => drain.run(),
        Command::Group(group) => group.run(),
        Command::Key(key) => key.run(),
        Command::Keygen(keygen) => keygen.run(),
        Command::Ticket(ticket) => ticket.run(),
        Command::Session(session) => session.run(),
        Command::Store(store) => store.run(),
        Command::Token(token) => token.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime for commands that make a call or two.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
