//! Injects faults into the whole stack, and checks everything.

#![expect(clippy::print_stdout, reason = "a command line tool writes to standard output")]

use std::process::ExitCode;

use chaos::run::{Plan, run};
use clap::Parser;
use service_kit::failure::exit_code;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(execute(&Plan::parse()).await)
}

async fn execute(plan: &Plan) -> anyhow::Result<ExitCode> {
    println!("seed {}", plan.seed);
    let outcome = tokio::select! {
        outcome = run(plan, |line| println!("{line}")) => outcome?,
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
