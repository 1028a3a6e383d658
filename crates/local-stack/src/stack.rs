//! The services of one stack, on one database.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrate::settings::RoleSettings;
use secrecy::ExposeSecret;
use service_kit::database::DatabaseSettings;

use crate::postgres::free_port;
use crate::services::Service;

/// One service of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Counts.
    StatsNotifier,
    /// Takes events.
    IngestApi,
    /// Shows counts.
    SseGateway,
}

impl Part {
    /// Every part, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::StatsNotifier, Self::IngestApi, Self::SseGateway];

    /// The name of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StatsNotifier => "stats-notifier",
            Self::IngestApi => "ingest-api",
            Self::SseGateway => "sse-gateway",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Where the services listen, on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Of stats-notifier, which has no public one.
    pub stats_notifier: u16,
    /// Of ingest-api.
    pub ingest_api: u16,
    /// Of ingest-api's health and metrics.
    pub ingest_api_internal: u16,
    /// Of sse-gateway.
    pub sse_gateway: u16,
    /// Of sse-gateway's health and metrics.
    pub sse_gateway_internal: u16,
}

impl Ports {
    /// Some on which nobody listens just now.
    ///
    /// # Errors
    /// None are free.
    pub fn free() -> io::Result<Self> {
        Ok(Self {
            stats_notifier: free_port()?,
            ingest_api: free_port()?,
            ingest_api_internal: free_port()?,
            sse_gateway: free_port()?,
            sse_gateway_internal: free_port()?,
        })
    }

    /// That of a part's health and metrics.
    #[must_use]
    pub const fn internal(self, part: Part) -> u16 {
        match part {
            Part::StatsNotifier => self.stats_notifier,
            Part::IngestApi => self.ingest_api_internal,
            Part::SseGateway => self.sse_gateway_internal,
        }
    }

    /// That of a part.
    #[must_use]
    pub const fn of(self, part: Part) -> u16 {
        match part {
            Part::StatsNotifier => self.stats_notifier,
            Part::IngestApi => self.ingest_api,
            Part::SseGateway => self.sse_gateway,
        }
    }
}

/// What the services are told.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The folder of the programs.
    pub programs: PathBuf,
    /// The migrated database; the role and its password are of no concern to the services, who have their own.
    pub database: DatabaseSettings,
    /// The passwords of the services' roles.
    pub roles: RoleSettings,
    /// Where they listen.
    pub ports: Ports,
}

/// Receives each line that a service logs.
pub type Log = Arc<dyn Fn(Part, &str) + Send + Sync>;

/// Why a stack does not run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A program cannot be run.
    #[error("{part} could not be started from {}: {source}", programs.display())]
    NotStarted {
        /// Which.
        part: Part,
        /// The folder of the programs.
        programs: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A service has ended without being asked to.
    #[error("{part} has ended ({how}): its log says why")]
    Ended {
        /// Which.
        part: Part,
        /// Its exit status.
        how: String,
    },
    /// A service is not ready in time.
    #[error("{part} was not ready within {} s: {last}", patience.as_secs())]
    NotReady {
        /// Which.
        part: Part,
        /// How long it was waited for.
        patience: Duration,
        /// Its last answer.
        last: String,
    },
}

/// The running services of one database. They are killed when dropped; [`Stack::stop`] lets them finish.
pub struct Stack {
    settings: StackSettings,
    log: Log,
    services: Vec<(Part, Service)>,
}

impl Stack {
    /// Starts all services, which then need some time to be [ready](Stack::until_ready).
    ///
    /// # Errors
    /// [`StackError::NotStarted`].
    pub fn start(settings: StackSettings, log: Log) -> Result<Self, StackError> {
        let mut stack = Self { settings, log, services: Vec::new() };
        for part in Part::ALL {
            let service = stack.launch(part)?;
            stack.services.push((part, service));
        }
        Ok(stack)
    }

    /// The base URL of a part.
    #[must_use]
    pub fn url(&self, part: Part) -> String {
        format!("http://127.0.0.1:{}", self.settings.ports.of(part))
    }

    /// The base URL of a part's health and metrics.
    #[must_use]
    pub fn internal_url(&self, part: Part) -> String {
        format!("http://127.0.0.1:{}", self.settings.ports.internal(part))
    }

    /// The process ids of the services that still run.
    pub fn process_ids(&self) -> impl Iterator<Item = (Part, u32)> + '_ {
        self.services.iter().filter_map(|(part, service)| Some((*part, service.process_id()?)))
    }

    /// Waits until a part is ready.
    ///
    /// # Errors
    /// It has ended, or is not ready by the end of `patience`.
    pub async fn until_ready(&mut self, part: Part, patience: Duration) -> Result<(), StackError> {
        let url = format!("{}/readyz", self.internal_url(part));
        let ready = async {
            let (started, client) = (Instant::now(), reqwest::Client::new());
            loop {
                let last = match client.get(&url).timeout(patience).send().await {
                    Ok(response) if response.status().is_success() => return Ok(()),
                    Ok(response) => response.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if started.elapsed() > patience {
                    return Err(StackError::NotReady { part, patience, last });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ready = ready => ready,
            ended = ended(&mut self.services) => Err(ended),
        }
    }

    /// Waits until any service ends, and says which.
    pub async fn ended(&mut self) -> StackError {
        ended(&mut self.services).await
    }

    /// Lets a part finish, and starts it anew. Returns whether it ended well.
    ///
    /// # Errors
    /// [`StackError::NotStarted`].
    pub async fn restart(&mut self, part: Part, patience: Duration) -> Result<bool, StackError> {
        let mut ended_well = false;
        for place in 0..self.services.len() {
            if self.services[place].0 == part {
                ended_well = self.services[place].1.stop(patience).await;
                self.services[place].1 = self.launch(part)?;
            }
        }
        Ok(ended_well)
    }

    /// Lets all services finish, those that show counts first. Returns those that did not end well.
    pub async fn stop(mut self, patience: Duration) -> Vec<Part> {
        let mut unwell = Vec::new();
        for (part, service) in self.services.iter_mut().rev() {
            if !service.stop(patience).await {
                unwell.push(*part);
            }
        }
        unwell
    }

    fn launch(&self, part: Part) -> Result<Service, StackError> {
        let StackSettings { programs, database, roles, ports } = &self.settings;
        let variables = [
            ("PGHOST", database.host.clone()),
            ("PGPORT", database.port.to_string()),
            ("PGDATABASE", database.name.clone()),
            ("INGEST_DATABASE_PASSWORD", roles.ingest_password.expose_secret().to_owned()),
            ("NOTIFIER_DATABASE_PASSWORD", roles.notifier_password.expose_secret().to_owned()),
            ("INGEST_PORT", ports.ingest_api.to_string()),
            ("INGEST_INTERNAL_PORT", ports.ingest_api_internal.to_string()),
            ("GATEWAY_PORT", ports.sse_gateway.to_string()),
            ("GATEWAY_INTERNAL_PORT", ports.sse_gateway_internal.to_string()),
            ("NOTIFIER_PORT", ports.stats_notifier.to_string()),
            ("NEWCYCLE_UPSTREAMS", self.url(Part::StatsNotifier)),
        ];
        let log = Arc::clone(&self.log);
        Service::start(programs, part.name(), &variables, move |line| log(part, line))
            .map_err(|source| StackError::NotStarted { part, programs: programs.clone(), source })
    }
}

async fn ended(services: &mut [(Part, Service)]) -> StackError {
    let ends = services.iter_mut().map(|(part, service)| {
        Box::pin(async move {
            let how = match service.ended().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            StackError::Ended { part: *part, how }
        })
    });
    futures_util::future::select_all(ends).await.0
}

/// The folder that this program, or the tests' own, was built into: that of the services too.
///
/// # Errors
/// The operating system does not say where this program is.
pub fn built_programs() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().unwrap_or(Path::new("/"));
    // Tests are built into a folder within.
    let within = folder.file_name().is_some_and(|name| name == "deps");
    Ok(folder.parent().filter(|_| within).unwrap_or(folder).to_owned())
}
