//! The project's own commands: `cargo xtask …`.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod postgres;
mod test;

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
        Command::Test { arguments } => test::run(&arguments).await,
    }
}
