//! Serves the page that shows the live statistics.

use std::process::ExitCode;

use dashboard::startup::{ABOUT, build};

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::command::main(&ABOUT, "Serves the page that shows the live statistics", build)
        .await
}
