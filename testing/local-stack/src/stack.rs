//! The services of one stack, on one database: of each as many replicas as are wanted, usually one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;

pub use crate::parts::{Instance, Part, Ports, Replicas};
use crate::services::{Frozen, Service, Signal};

/// What the services are told.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The folder of the programs.
    pub programs: PathBuf,
    /// The migrated database; the role and its password are of no concern to the services, who have their own.
    pub database: DatabaseSettings,
    /// The passwords of the services' roles.
    pub roles: RoleSettings,
    /// How many there are of each.
    pub replicas: Replicas,
    /// Where they listen: the first replica of each service on the first of these ports, and so on.
    pub ports: Vec<Ports>,
    /// Further variables of some instances; they win over all that is said above.
    pub variables: Vec<(Instance, &'static str, String)>,
}

/// Receives each line that a service logs.
pub type Log = Arc<dyn Fn(Instance, &str) + Send + Sync>;

/// Why a stack does not run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// There are fewer replicas, or ports for fewer.
    #[error("the stack has no {0}: its settings name how many of each service there are, and their ports")]
    Unknown(Instance),
    /// A program cannot be run.
    #[error("{instance} could not be started from {}: {source}", programs.display())]
    NotStarted {
        /// Which.
        instance: Instance,
        /// The folder of the programs.
        programs: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A signal cannot be sent.
    #[error("{instance} could not be signalled: {source}")]
    NotSignalled {
        /// To which.
        instance: Instance,
        /// What the operating system says.
        source: io::Error,
    },
    /// A service has ended without being asked to.
    #[error("{instance} has ended ({how}): its log says why")]
    Ended {
        /// Which.
        instance: Instance,
        /// Its exit status.
        how: String,
    },
    /// A service is not ready in time.
    #[error("{instance} was not ready within {} s: {last}", patience.as_secs())]
    NotReady {
        /// Which.
        instance: Instance,
        /// How long it was waited for.
        patience: Duration,
        /// Its last answer.
        last: String,
    },
}

/// The running services of one database. They are killed when dropped, frozen ones too; [`Stack::stop`] lets them
/// finish.
pub struct Stack {
    settings: StackSettings,
    log: Log,
    /// Those that run, each in its place.
    services: Vec<(Instance, Option<Service>)>,
}

impl Stack {
    /// Starts all services, which then need some time to be [ready](Stack::until_ready).
    ///
    /// # Errors
    /// [`StackError::NotStarted`], or [`StackError::Unknown`] where there are not enough ports.
    pub fn start(settings: StackSettings, log: Log) -> Result<Self, StackError> {
        if let Some(instance) =
            settings.replicas.instances().find(|wanted| wanted.number > settings.ports.len())
        {
            return Err(StackError::Unknown(instance));
        }
        let services = settings.replicas.instances().map(|instance| (instance, None)).collect();
        let mut stack = Self { settings, log, services };
        for instance in stack.settings.replicas.instances() {
            stack.start_one(instance)?;
        }
        Ok(stack)
    }

    /// Starts an instance that does not run.
    ///
    /// # Errors
    /// [`StackError::NotStarted`], or [`StackError::Unknown`].
    pub fn start_one(&mut self, instance: impl Into<Instance>) -> Result<(), StackError> {
        let instance = instance.into();
        let place = self.place(instance).ok_or(StackError::Unknown(instance))?;
        self.services[place].1 = Some(self.launch(instance)?);
        Ok(())
    }

    /// The base URL of an instance.
    ///
    /// # Panics
    /// The stack has no such instance.
    #[must_use]
    pub fn url(&self, instance: impl Into<Instance>) -> String {
        let instance = instance.into();
        format!("http://127.0.0.1:{}", self.settings.ports[instance.number - 1].of(instance.part))
    }

    /// The base URL of an instance's health and metrics.
    ///
    /// # Panics
    /// The stack has no such instance.
    #[must_use]
    pub fn internal_url(&self, instance: impl Into<Instance>) -> String {
        let instance = instance.into();
        format!("http://127.0.0.1:{}", self.settings.ports[instance.number - 1].internal(instance.part))
    }

    /// All instances that the stack may have running.
    pub fn instances(&self) -> impl Iterator<Item = Instance> + use<> {
        self.settings.replicas.instances()
    }

    /// The process ids of the services that still run.
    pub fn process_ids(&self) -> impl Iterator<Item = (Instance, u32)> + '_ {
        self.services
            .iter()
            .filter_map(|(instance, service)| Some((*instance, service.as_ref()?.process_id()?)))
    }

    /// Waits until an instance is ready.
    ///
    /// # Errors
    /// A service has ended without being asked to, or this one is not ready by the end of `patience`.
    pub async fn until_ready(
        &mut self,
        instance: impl Into<Instance>,
        patience: Duration,
    ) -> Result<(), StackError> {
        let instance = instance.into();
        let url = format!("{}/readyz", self.internal_url(instance));
        let ready = async {
            let (started, client) = (Instant::now(), reqwest::Client::new());
            loop {
                let last = match client.get(&url).timeout(patience).send().await {
                    Ok(response) if response.status().is_success() => return Ok(()),
                    Ok(response) => response.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if started.elapsed() > patience {
                    return Err(StackError::NotReady { instance, patience, last });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ready = ready => ready,
            ended = ended(&mut self.services) => Err(ended),
        }
    }

    /// Waits until any service ends without being asked to, and says which.
    pub async fn ended(&mut self) -> StackError {
        ended(&mut self.services).await
    }

    /// Sends a signal to an instance.
    ///
    /// # Errors
    /// [`StackError::NotSignalled`] where it does not run.
    pub fn signal(&self, instance: impl Into<Instance>, signal: Signal) -> Result<(), StackError> {
        let instance = instance.into();
        let sent = self.running(instance).and_then(|service| service.signal(signal));
        sent.map_err(|source| StackError::NotSignalled { instance, source })
    }

    /// Stops an instance in the midst of whatever it does, until what is returned is dropped.
    ///
    /// # Errors
    /// [`StackError::NotSignalled`] where it does not run.
    pub async fn freeze(&self, instance: impl Into<Instance>) -> Result<Frozen, StackError> {
        let instance = instance.into();
        let frozen = match self.running(instance) {
            Ok(service) => service.freeze().await,
            Err(error) => Err(error),
        };
        frozen.map_err(|source| StackError::NotSignalled { instance, source })
    }

    /// Kills an instance, as SIGKILL does, and waits until it has ended.
    pub async fn kill(&mut self, instance: impl Into<Instance>) {
        if let Some(mut service) = self.take(instance.into()) {
            service.kill().await;
        }
    }

    /// Lets an instance finish. Returns whether it ran, and ended well.
    pub async fn stop_one(&mut self, instance: impl Into<Instance>, patience: Duration) -> bool {
        match self.take(instance.into()) {
            Some(mut service) => service.stop(patience).await,
            None => false,
        }
    }

    /// Lets an instance finish, and starts it anew. Returns whether it ended well.
    ///
    /// # Errors
    /// [`StackError::NotStarted`], or [`StackError::Unknown`].
    pub async fn restart(
        &mut self,
        instance: impl Into<Instance>,
        patience: Duration,
    ) -> Result<bool, StackError> {
        let instance = instance.into();
        let ended_well = self.stop_one(instance, patience).await;
        self.start_one(instance)?;
        Ok(ended_well)
    }

    /// Lets all services finish, those that show counts first. Returns those that did not end well.
    pub async fn stop(mut self, patience: Duration) -> Vec<Instance> {
        let mut unwell = Vec::new();
        for (instance, service) in self.services.iter_mut().rev() {
            if let Some(service) = service
                && !service.stop(patience).await
            {
                unwell.push(*instance);
            }
        }
        unwell
    }

    fn launch(&self, instance: Instance) -> Result<Service, StackError> {
        let StackSettings { programs, database, roles, replicas, .. } = &self.settings;
        let ports = self.settings.ports[instance.number - 1];
        let notifiers = (1..=replicas.stats_notifier).map(|number| Part::StatsNotifier.replica(number));
        let upstreams: Vec<String> = notifiers.map(|notifier| self.url(notifier)).collect();
        // The page is another origin than what it asks, and is looked at under either name of this machine.
        let origins = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{}", ports.dashboard));
        let mut variables = vec![
            ("PGHOST", database.host.clone()),
            ("PGPORT", database.port.to_string()),
            ("PGDATABASE", database.name.clone()),
        ];
        match instance.part {
            Part::StatsNotifier => {
                let password = roles.notifier_password.expose_secret().to_owned();
                variables.push(("NEWCYCLE__DATABASE__PASSWORD", password));
            }
            Part::IngestApi => {
                let password = roles.ingest_password.expose_secret().to_owned();
                variables.push(("NEWCYCLE__DATABASE__PASSWORD", password));
                variables.push(("NEWCYCLE__CORS__ALLOWED_ORIGINS", origins.join(",")));
            }
            Part::SseGateway => variables.push(("NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(","))),
            Part::Dashboard => variables.extend([
                ("NEWCYCLE__SERVICES__GATEWAY_PORT", ports.sse_gateway.to_string()),
                ("NEWCYCLE__SERVICES__INGEST_PORT", ports.ingest_api.to_string()),
            ]),
        }
        variables.push(("NEWCYCLE__INTERNAL__PORT", ports.internal(instance.part).to_string()));
        if instance.part != Part::StatsNotifier {
            variables.push(("NEWCYCLE__HTTP__PORT", ports.of(instance.part).to_string()));
        }
        let further = self.settings.variables.iter().filter(|(of, ..)| *of == instance);
        variables.extend(further.map(|(_, variable, value)| (*variable, value.clone())));
        let log = Arc::clone(&self.log);
        Service::start(programs, instance.part.name(), &variables, move |line| log(instance, line))
            .map_err(|source| StackError::NotStarted { instance, programs: programs.clone(), source })
    }

    fn place(&self, instance: Instance) -> Option<usize> {
        self.services.iter().position(|(other, _)| *other == instance)
    }

    fn take(&mut self, instance: Instance) -> Option<Service> {
        self.place(instance).and_then(|place| self.services[place].1.take())
    }

    fn running(&self, instance: Instance) -> io::Result<&Service> {
        let service = self.place(instance).and_then(|place| self.services[place].1.as_ref());
        service.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it does not run"))
    }
}

async fn ended(services: &mut [(Instance, Option<Service>)]) -> StackError {
    let running = services.iter_mut().filter_map(|(instance, service)| Some((*instance, service.as_mut()?)));
    let ends = running.map(|(instance, service)| {
        Box::pin(async move {
            let how = match service.ended().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            StackError::Ended { instance, how }
        })
    });
    let ends: Vec<_> = ends.collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
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
