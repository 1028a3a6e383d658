//! Makes, lists, replaces and revokes the keys that clients present.

use std::error::Error;
use std::process::ExitCode;

use access::arguments::{Arguments, Program};
use access::commands;
use access::settings::Settings;
use clap::Parser;
use service_kit::command::print_settings;
use service_kit::failure::exit_code;
use service_kit::settings::ProgramSettings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit_code(execute(Arguments::parse().program).await)
}

async fn execute(program: Program) -> Result<(), Box<dyn Error + Send + Sync>> {
    let command = match program {
        Program::Keys(command) => command,
        Program::PrintSettings => return print_settings::<Settings>(),
    };
    let settings = Settings::load()?;
    service_kit::telemetry::start(&settings.log)?;
    Ok(commands::execute(command, &settings).await?)
}
