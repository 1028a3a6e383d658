//! Uses and disturbs the whole stack for some minutes, and says what grew.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::process::ExitCode;
use std::time::Duration;

use chaos::soak::{long_transactions, soak};
use clap::Parser;

/// Uses and disturbs the whole stack for some minutes: clients that come and go, takeovers, purges, retention. Exits 1 where
/// memory, descriptors, threads or tables grew.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", version)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Of what producers and clients do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead, holds a writing and a reading transaction open, and measures what that does to the others.
    #[arg(long)]
    long_transactions: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { seconds, seed, long_transactions: long } = Arguments::parse();
    let (time, say) = (Duration::from_secs(seconds), |line: &str| println!("{line}"));
    let run =
        async { if long { long_transactions(seed, time, say).await } else { soak(seed, time, say).await } };
    let outcome = tokio::select! {
        outcome = run => outcome?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", outcome.report);
    for grown in &outcome.grown {
        println!("\nWRONG: {grown}");
    }
    Ok(if outcome.grown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
