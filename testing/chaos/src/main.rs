//! Runs faults against the whole stack, and checks everything.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos::fault::Kind;
use chaos::planted::Planted;
use chaos::run::{Plan, run};
use clap::Parser;
use local_stack::postgres::Installation;

/// Runs faults against the whole stack while producers write and subscribers follow, and checks everything. Exits 1
/// where anything was wrong, or a planted error was not found.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos", version)]
struct Arguments {
    /// Of the schedule; drawn at random where it is left out. When what happens between processes still differs from
    /// run to run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults must have had an effect.
    #[arg(long, default_value_t = 100)]
    faults: usize,
    /// The end, should it come first.
    #[arg(long)]
    minutes: Option<u64>,
    /// Only faults of these kinds.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// The programs of the Postgres to use, such as /usr/lib/postgresql/15/bin; without it, the newest on this machine.
    #[arg(long)]
    postgres: Option<PathBuf>,
    /// Puts an error into the system, and succeeds once it is found.
    #[arg(long, value_enum)]
    planted: Option<Planted>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let kinds = match (arguments.only, arguments.planted) {
        (only, _) if !only.is_empty() => only,
        (_, Some(planted)) => planted.faults().to_vec(),
        _ => Kind::ALL.to_vec(),
    };
    let installation = match arguments.postgres {
        Some(programs) => Installation::at(programs)?,
        None => Installation::find()?,
    };
    let plan = Plan {
        installation,
        seed: arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        faults: arguments.faults,
        time: arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        kinds,
        planted: arguments.planted,
        // With an error in the system much is never right, which need not be waited for so long.
        patience: Duration::from_secs(if arguments.planted.is_some() { 15 } else { 60 }),
    };
    println!("seed {}", plan.seed);
    let outcome = tokio::select! {
        outcome = run(&plan, |line| println!("{line}")) => outcome?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", outcome.report);
    if let Some(violation) = &outcome.violation {
        println!("\nWRONG: {violation}");
    }
    Ok(match (plan.planted, &outcome.violation) {
        (Some(planted), Some(violation)) if planted.is_found(violation) => {
            println!("\nthe planted error {planted:?} was found");
            ExitCode::SUCCESS
        }
        (Some(planted), _) => {
            println!("\nthe planted error {planted:?} was not found: the checks are worth nothing");
            ExitCode::FAILURE
        }
        (None, None) => ExitCode::SUCCESS,
        (None, Some(_)) => {
            if let Some(logs) = &outcome.logs {
                println!("\nthe services' logs: {}", logs.display());
            }
            println!("\nto draw the same schedule again: cargo xtask chaos --seed {}", plan.seed);
            ExitCode::FAILURE
        }
    })
}
