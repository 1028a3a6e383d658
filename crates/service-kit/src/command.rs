//! The commands and the exit codes that every service's program has, and the version of all
//! programs.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::failure::exit_code;
use crate::internal::InternalSecrets;
use crate::service::{About, Application};
use crate::settings::sections::{InternalSettings, LogSettings};
use crate::settings::{Overrides, ProgramSettings, SettingsError, load_checked};
use crate::{client, limits, shutdown, telemetry};

/// How long the service may take to answer a health check.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The commit that this program was built from, if the build was given it.
pub const REVISION: Option<&str> = option_env!("NEWCYCLE_REVISION");

/// What `--help` of each service's program says about its exit codes. Wrong arguments are reported
/// by clap, which exits with 2.
pub const EXIT_CODES: &str = "\
Exit codes: 0 if it did what it was asked to, such as to stop on SIGTERM; 1 if it failed, with the
reason on standard error; 2 if the arguments are wrong.";

/// What `--version` of every program prints after its name: the version, the commit, and the schema
/// version if it uses the database. It is computed once for each process, and never freed.
#[must_use]
pub fn version(schema: Option<i32>) -> &'static str {
    let commit = REVISION.unwrap_or("unknown: it was built without NEWCYCLE_REVISION");
    let schema = schema.map_or(String::new(), |schema| format!(", schema {schema}"));
    format!("{} (commit {commit}{schema})", env!("CARGO_PKG_VERSION")).leak()
}

/// The commands that every service's program has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Runs the service until SIGTERM or Ctrl-C. This is the default.
    #[default]
    Serve,
    /// Checks whether the service with these settings is ready: exits with 0 if it is, and with 1
    /// if not. For the health check of a container, which then needs no shell.
    Healthcheck,
    /// Prints the settings in effect and the origin of each. Passwords are redacted.
    PrintSettings,
}

#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The sections that every service has.
#[derive(Debug, Deserialize)]
struct CommonSettings {
    internal: InternalSettings,
    log: LogSettings,
}

/// The `main` of a service that has only the common commands, and that `build` puts together.
pub async fn main<S: ProgramSettings, E: Into<Box<dyn Error + Send + Sync>>>(
    about: &About,
    purpose: &'static str,
    build: impl FnOnce(S, CancellationToken) -> Result<Application, E>,
) -> ExitCode {
    let program = Arguments::command()
        .name(about.service)
        .version(version(about.schema))
        .about(purpose)
        .after_help(EXIT_CODES);
    let arguments = Arguments::from_arg_matches(&program.get_matches());
    let command = arguments.unwrap_or_else(|error| error.exit()).command.unwrap_or_default();
    exit_code(command.execute(build).await)
}

impl Command {
    /// Executes the command of a service that `build` puts together.
    ///
    /// # Errors
    /// The settings cannot be used, the service failed, or it is not healthy.
    pub async fn execute<S: ProgramSettings, E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        build: impl FnOnce(S, CancellationToken) -> Result<Application, E>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self {
            Self::Serve => {
                let overrides = Overrides::from_process()?;
                let settings: S = load_checked(&overrides)?;
                let common: CommonSettings = S::DEFAULTS.load_with(&overrides)?;
                telemetry::start(&common.log)?;
                limits::raise_open_files();
                let application = build(settings, shutdown::on_signal()?).map_err(Into::into)?;
                application.run_until_stopped().await?;
            }
            Self::Healthcheck => {
                let overrides = Overrides::from_process()?;
                let common: CommonSettings = S::DEFAULTS.load_with(&overrides)?;
                healthcheck(&common.internal).await?;
            }
            Self::PrintSettings => print_settings::<S>()?,
        }
        Ok(())
    }
}

/// Prints the settings in effect to standard output.
///
/// # Errors
/// The settings cannot be read, or standard output is closed.
pub fn print_settings<S: ProgramSettings>() -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(std::io::stdout().write_all(S::DEFAULTS.print()?.as_bytes())?)
}

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("{url} does not answer")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("the service is not ready: {0}")]
    NotReady(String),
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Checks whether the service with these settings is ready.
async fn healthcheck(settings: &InternalSettings) -> Result<(), Unhealthy> {
    // A service that listens on all interfaces also listens on this one.
    let host = match settings.host.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => settings.host.clone(),
    };
    let url = format!("http://{host}:{}/readyz", settings.port);
    let unreachable = |source| Unhealthy::Unreachable { url: url.clone(), source };
    let client = client::internal().timeout(HEALTHCHECK_TIMEOUT).build();
    let mut request = client.map_err(unreachable)?.get(&url);
    // The reasons are in answers to those who have the secret.
    let secrets = InternalSecrets::open(&settings.secret_file)?;
    if let Some(value) = secrets.authorization() {
        request = request.header(reqwest::header::AUTHORIZATION, value);
    }
    let response = request.send().await.map_err(unreachable)?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(Unhealthy::NotReady(response.text().await.unwrap_or_default()))
}
