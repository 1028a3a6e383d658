//! What every service's program can be asked to do, beside what only some can.

use std::time::Duration;

use std::io::Write;

use crate::settings::sections::InternalSettings;
use crate::settings::{Defaults, SettingsError};

/// The commands that all services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Runs the service, until SIGTERM or Ctrl-C. This is what it does without a command, too.
    Run,
    /// Asks the service of these settings whether it is ready; exits 0 where it is, else 1. For a container's health
    /// check, which then needs no shell.
    Healthcheck,
    /// Prints the settings in effect, and the source of each; passwords are not shown.
    PrintSettings,
}

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// There is no answer.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// The address asked.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// The service says that it is not ready.
    #[error("not ready: {0}")]
    NotReady(String),
}

/// How long a health check may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the settings in effect to standard output.
///
/// # Errors
/// They cannot be read, or standard output is closed.
pub fn print_settings(defaults: &Defaults) -> Result<(), PrintError> {
    Ok(std::io::stdout().write_all(defaults.print()?.as_bytes())?)
}

/// The settings could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// They cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Standard output is closed.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

/// Asks the service that listens where `settings` say whether it is ready.
///
/// # Errors
/// It is not, or does not answer.
pub async fn healthcheck(settings: &InternalSettings) -> Result<(), Unhealthy> {
    // A service that listens everywhere listens here.
    let host = match settings.host.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => settings.host.clone(),
    };
    let url = format!("http://{host}:{}/readyz", settings.port);
    let unreachable = |source| Unhealthy::Unreachable { url: url.clone(), source };
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(unreachable)?;
    let response = client.get(&url).send().await.map_err(unreachable)?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(Unhealthy::NotReady(response.text().await.unwrap_or_default()))
}
