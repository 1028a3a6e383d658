//! Logs: one line an event on standard output, a readable message and dotted fields.
//!
//! What is logged while a request is served carries that request's id: see [`observe`](crate::observe).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::sections::{LogFormat, LogSettings};

/// Logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has a directive that cannot be parsed.
    #[error("log.filter is not a list of directives: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process receives the logs already.
    #[error(transparent)]
    Installed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts to log to standard output.
///
/// # Errors
/// [`TelemetryError`] for a filter that cannot be parsed, and the second time in a process.
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

/// Logs panics, too, beside what is written to standard error: whoever reads the log must not miss them.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(panic.message = %panic, "panicked");
        before(panic);
    }));
}
