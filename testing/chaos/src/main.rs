//! Injects faults into the whole stack, and checks everything.

#![expect(clippy::print_stdout, reason = "a command line tool writes to standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos::fault_kind::FaultKind;
use chaos::planted::Planted;
use chaos::run::{Plan, run};
use clap::Parser;
use local_stack::postgres::Installation;
use service_kit::failure::exit_code;

/// Injects faults into the whole stack while producers write and subscribers follow, and checks
/// that no event is lost or counted twice. Exits with 1 if a check fails, or if a planted error is
/// not found.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos", version)]
struct Arguments {
    /// Seed of the schedule of faults; random by default. The timing between processes still
    /// differs from run to run.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of faults that must have an effect.
    #[arg(long, default_value_t = 100)]
    faults: usize,
    /// Stops after this many minutes, even if fewer faults have had an effect.
    #[arg(long)]
    minutes: Option<u64>,
    /// Injects only these kinds of fault.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<FaultKind>,
    /// Folder of the Postgres programs to use, such as /usr/lib/postgresql/15/bin. The default is
    /// the newest version on this machine.
    #[arg(long)]
    postgres: Option<PathBuf>,
    /// Puts a known error into the system. The run succeeds when the checks find it.
    #[arg(long, value_enum)]
    planted: Option<Planted>,
}

/// How long recovery may take after a fault.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The same if an error is planted: some numbers then never become right, and waiting longer does
/// not help.
const PLANTED_RECOVERY_TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(execute(Arguments::parse()).await)
}

async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let kinds = match (arguments.only, arguments.planted) {
        (only, _) if !only.is_empty() => only,
        (_, Some(planted)) => planted.faults().to_vec(),
        _ => FaultKind::ALL.to_vec(),
    };
    let installation = match arguments.postgres {
        Some(programs) => Installation::at(programs)?,
        None => Installation::find()?,
    };
    let plan = Plan {
        installation,
        seed: arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        faults: arguments.faults,
        time_limit: arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        kinds,
        planted: arguments.planted,
        recovery_timeout: if arguments.planted.is_some() {
            PLANTED_RECOVERY_TIMEOUT
        } else {
            RECOVERY_TIMEOUT
        },
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
            println!("\nthe planted error {planted:?} was not found: the checks prove nothing");
            ExitCode::FAILURE
        }
        (None, None) => ExitCode::SUCCESS,
        (None, Some(_)) => {
            if let Some(logs) = &outcome.logs {
                println!("\nthe services' logs: {}", logs.display());
            }
            println!("\nto run the same schedule again: cargo xtask chaos --seed {}", plan.seed);
            ExitCode::FAILURE
        }
    })
}
