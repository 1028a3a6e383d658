//! stats-notifier with a planted error, which the checks of a run must find.

use std::process::ExitCode;

use chaos::planted::{Planted, VARIABLE};
use service_kit::command::Command;
use service_kit::failure::exit_code;
use stats_notifier::startup;

#[tokio::main]
async fn main() -> ExitCode {
    let run = Command::Serve.execute(|settings, shutdown| {
        let statements = Planted::statements(&std::env::var(VARIABLE).unwrap_or_default())?;
        startup::build_with(settings, shutdown, statements)
    });
    exit_code(run.await)
}
