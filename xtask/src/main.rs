//! The project's own commands: `cargo xtask …`.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod chaos;
mod compose;
mod contract;
mod demo;
mod examples;
mod fuzz;
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

use crate::compose::With;

/// Newcycle's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole stack, until Ctrl-C.
    Up {
        /// Where it runs.
        #[arg(long, value_enum, default_value_t = With::Native)]
        with: With,
        /// Returns when all is ready, and leaves it running.
        #[arg(long)]
        detach: bool,
    },
    /// Stops the stack; its data stay.
    Down {
        /// Where it runs; auto: wherever it does.
        #[arg(long, value_enum, default_value_t = With::Native)]
        with: With,
    },
    /// Deletes the data of the stack, which must not run.
    Reset {
        /// Where its data are; auto: all there are.
        #[arg(long, value_enum, default_value_t = With::Native)]
        with: With,
    },
    /// Says what runs, and where.
    Status {
        /// Where it runs; auto: wherever it does.
        #[arg(long, value_enum, default_value_t = With::Native)]
        with: With,
        /// As JSON; of containers, that of Compose.
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
    /// Kills, freezes, cuts and fills whatever the stack consists of while producers write and subscribers follow, and
    /// checks that nothing is lost and nothing counts twice. `--help` says more.
    #[command(disable_help_flag = true)]
    Chaos {
        /// Passed on, such as --seed 7 --faults 200.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Lets clients come and go, leaders change and old counts be deleted for some minutes, and checks that neither memory
    /// nor descriptors nor tables grow. `--help` says more.
    #[command(disable_help_flag = true)]
    Soak {
        /// Passed on, such as --seconds 600, or --long-transactions.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Looks for bad input that does what no input may do; needs a nightly compiler.
    Fuzz(fuzz::Options),
    /// Sends ingest-api and sse-gateway what they say can be sent, and what they say cannot, and compares the answers
    /// with what they say of those, on a Postgres of its own.
    Contract {
        /// How many requests they must have answered, in rounds of a few thousand, each of another seed.
        #[arg(long, default_value_t = 10_000)]
        cases: u64,
    },
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
        Command::Up { with, detach } => match compose::choose(with).await? {
            Some(compose) => compose.up(detach),
            None => up::run(detach).await,
        },
        Command::Down { with } => stack::down(with).await,
        Command::Reset { with } => stack::reset(with).await,
        Command::Status { with, json } => stack::status(with, json).await,
        Command::Import { folder, url } => import::run(&folder, url).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Chaos { arguments } => chaos::run(&arguments).await,
        Command::Soak { arguments } => chaos::soak(&arguments).await,
        Command::Fuzz(options) => fuzz::run(options).await,
        Command::Contract { cases } => contract::command(cases).await,
        Command::Test { arguments } => test::run(&arguments).await,
    }
}
