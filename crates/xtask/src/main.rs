//! The project's own commands: `cargo xtask …`.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod postgres;
mod test;
mod up;

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
    Up,
    /// Checks formatting, lints and documentation, then runs every test against a Postgres of its own.
    Test {
        /// Passed on to `cargo test`, such as the name of a test.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Up => up::run().await,
        Command::Test { arguments } => test::run(&arguments).await,
    }
}
