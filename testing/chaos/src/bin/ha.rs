//! Injects faults into a real cluster of Postgres while the whole stack runs, and checks all of it.

#![expect(clippy::print_stdout, reason = "a command line tool writes to standard output")]

use std::process::ExitCode;

use chaos::ha::namespace::{Privilege, check, enter};
use chaos::ha::{HaPlan, run};
use clap::Parser;
use service_kit::failure::exit_code;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let plan = HaPlan::parse();
    match plan.inside {
        Some(privilege) => exit_code(inside(&plan, privilege)),
        None if plan.check => exit_code(check()),
        None => exit_code(Err::<ExitCode, _>(enter())),
    }
}

#[tokio::main]
async fn inside(plan: &HaPlan, privilege: Privilege) -> anyhow::Result<ExitCode> {
    // The first process of a namespace receives only the signals that it handles.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let outcome = tokio::select! {
        outcome = run(plan, privilege, |line| println!("{line}")) => outcome?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("interrupted"),
        _ = hangup.recv() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", outcome.report);
    if let Some(violation) = &outcome.violation {
        println!("\nWRONG: {violation}");
    }
    Ok(match (plan.planted, &outcome.violation) {
        (true, Some(violation)) if violation.contains("was acknowledged, but is not in") => {
            println!("\nthe lost writes were found");
            ExitCode::SUCCESS
        }
        (true, _) => {
            println!("\nthe lost writes were not found: the checks prove nothing");
            ExitCode::FAILURE
        }
        (false, None) => ExitCode::SUCCESS,
        (false, Some(_)) => ExitCode::FAILURE,
    })
}
