//! Upgrades the whole stack from an older release under load, and goes back.

#![expect(clippy::print_stdout, reason = "a command line tool writes to standard output")]

use std::process::ExitCode;

use chaos::upgrade::{Plan, run};
use clap::Parser;
use service_kit::failure::exit_code;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(execute(&Plan::parse()).await)
}

async fn execute(plan: &Plan) -> anyhow::Result<ExitCode> {
    let outcome = tokio::select! {
        outcome = run(plan, |line| println!("{line}")) => outcome?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", outcome.report);
    let Some(violation) = &outcome.violation else { return Ok(ExitCode::SUCCESS) };
    println!("\nWRONG: {violation}");
    if let Some(logs) = &outcome.logs {
        println!("\nthe services' logs: {}", logs.display());
    }
    Ok(ExitCode::FAILURE)
}
