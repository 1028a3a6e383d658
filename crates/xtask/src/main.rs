//! The project's own commands: `cargo xtask …`.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod contract;
mod demo;
mod examples;
mod import;
mod node;
mod packages;
mod page;
mod postgres;
mod python;
mod running;
mod settings;
mod stack;
mod test;
mod trial;
mod up;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Newcycle's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole stack on this machine, until Ctrl-C.
    Up {
        /// Returns when all is ready, and leaves it running.
        #[arg(long)]
        detach: bool,
    },
    /// Stops the stack; its data stay.
    Down,
    /// Deletes the data of the stack, which must not run.
    Reset,
    /// Says what runs, and where.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Posts the base-items, users, items and transfers of a folder, as .ndjson or .ndjson.gz, to ingest-api.
    Import {
        /// The folder.
        folder: PathBuf,
        /// Where ingest-api is, where it is not that of this machine's stack.
        #[arg(long)]
        url: Option<String>,
    },
    /// Lets a small company work: base items, users, items and transfers through ingest-api, until Ctrl-C.
    Demo(demo::Options),
    /// Checks formatting, lints and documentation, then runs every test, and puts the API contract to the test, against
    /// a Postgres of its own.
    Test {
        /// Passed on to `cargo test`, such as the name of a test; the API contract is then skipped.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Up { detach } => up::run(detach).await,
        Command::Down => stack::down(),
        Command::Reset => stack::reset(),
        Command::Status { json } => stack::status(json).await,
        Command::Import { folder, url } => import::run(&folder, url).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Test { arguments } => test::run(&arguments).await,
    }
}
