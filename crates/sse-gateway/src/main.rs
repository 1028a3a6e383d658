//! Relays the statistics to any number of clients by server-sent events.

use std::process::ExitCode;

use sse_gateway::settings::Settings;
use sse_gateway::startup::{ABOUT, build};
use statistics_stream::Hub;

#[tokio::main]
async fn main() -> ExitCode {
    let purpose = "Relays the statistics to any number of clients by server-sent events";
    service_kit::command::main(&ABOUT, purpose, |settings: Settings, shutdown| {
        build(&settings, Hub::new(settings.stream.clone()), shutdown)
    })
    .await
}
