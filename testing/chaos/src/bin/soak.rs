//! Puts the whole stack under load and faults for some minutes, and reports what grew.

#![expect(clippy::print_stdout, reason = "a command line tool writes to standard output")]

use std::process::ExitCode;
use std::time::Duration;

use chaos::soak::{long_transactions, soak};
use clap::Parser;
use service_kit::failure::exit_code;

/// Puts the whole stack under load and faults for some minutes: clients that connect and
/// disconnect, takeovers, purges, retention. Exits with 1 if memory, file descriptors, threads or
/// tables grow.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", version)]
struct Arguments {
    /// Duration in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Seed of what producers and clients do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead, holds a writing and then a reading transaction open, and measures their effect on
    /// the services.
    #[arg(long)]
    long_transactions: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(execute(&Arguments::parse()).await)
}

async fn execute(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let duration = Duration::from_secs(arguments.seconds);
    let log = |line: &str| println!("{line}");
    let run = async {
        if arguments.long_transactions {
            long_transactions(arguments.seed, duration, log).await
        } else {
            soak(arguments.seed, duration, log).await
        }
    };
    let outcome = tokio::select! {
        outcome = run => outcome?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", outcome.report);
    for problem in &outcome.problems {
        println!("\nWRONG: {problem}");
    }
    Ok(if outcome.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
