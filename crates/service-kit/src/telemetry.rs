//! Logs: one line per event on standard output, with a readable message and dotted fields.
//!
//! Each line that is logged for a request carries its id: see [`observe`](crate::observe).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::sections::{LogFormat, LogSettings};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("log.filter is not a list of directives: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Another subscriber in this process receives the logs already.
    #[error(transparent)]
    Installed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging to standard output.
///
/// # Errors
/// The filter cannot be parsed, or logging was started before in this process.
pub fn start(settings: &LogSettings) -> Result<(), TelemetryError> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&settings.filter)?)
        .with_ansi(std::io::stdout().is_terminal())
        .with_target(false);
    match settings.format {
        LogFormat::Text => log.try_init()?,
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init()?,
    }
    log_panics();
    Ok(())
}

/// Logs panics in addition to the message on standard error, because operators read the log.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(panic.message = %panic, "panicked");
        before(panic);
    }));
}
