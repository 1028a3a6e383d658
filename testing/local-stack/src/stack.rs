//! The services of one stack on one database, with any number of replicas of each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;

use crate::process::ServiceProcess;
pub use crate::process::{Frozen, Signal};
pub use crate::replicas::{Instance, Ports, Replicas, ServiceKind};

/// The configuration of a stack.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The folder of the services' programs.
    pub programs: PathBuf,
    /// The migrated database. Its user and password are not used: each service has its own role.
    pub database: DatabaseSettings,
    /// The passwords of the services' roles.
    pub roles: RoleSettings,
    /// The number of replicas of each service.
    pub replicas: Replicas,
    /// The ports, by replica: the first replica of each service listens on the first element.
    pub ports: Vec<Ports>,
    /// More environment variables of some instances. They override those that follow from the
    /// fields above.
    pub variables: Vec<(Instance, &'static str, String)>,
}

/// Receives each line that an instance logs.
pub type Log = Arc<dyn Fn(Instance, &str) + Send + Sync>;

/// Why a stack does not run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The settings have fewer replicas or fewer ports.
    #[error("the stack has no {0}: its settings name the replicas of each service and their ports")]
    Unknown(Instance),
    /// A program cannot be started.
    #[error("{instance} could not be started from {}: {source}", programs.display())]
    NotStarted {
        /// The instance that should run it.
        instance: Instance,
        /// The folder of the programs.
        programs: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A signal cannot be sent.
    #[error("{instance} could not be signalled: {source}")]
    NotSignalled {
        /// The instance that should get it.
        instance: Instance,
        /// The operating system's error.
        source: io::Error,
    },
    /// A service ended although nothing stopped it.
    #[error("{instance} has ended ({how}): its log says why")]
    Ended {
        /// The instance that ended.
        instance: Instance,
        /// Its exit status.
        how: String,
    },
    /// A service did not become ready in time.
    #[error("{instance} was not ready within {} s: {last}", timeout.as_secs())]
    NotReady {
        /// The instance that is not ready.
        instance: Instance,
        /// How long it had to become ready.
        timeout: Duration,
        /// Its last answer, or why there was none.
        last: String,
    },
}

/// The running services of one database. They are killed when this is dropped, frozen ones too;
/// [`Stack::stop`] lets them finish.
pub struct Stack {
    settings: StackSettings,
    log: Log,
    /// Each instance, with its process if it runs.
    services: Vec<(Instance, Option<ServiceProcess>)>,
}

impl Stack {
    /// Starts all services. They become [ready](Stack::until_ready) some time later.
    ///
    /// # Errors
    /// [`StackError::NotStarted`], or [`StackError::Unknown`] if there are not enough ports.
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
        format!(
            "http://127.0.0.1:{}",
            self.settings.ports[instance.number - 1].public(instance.service)
        )
    }

    /// The base URL of an instance's health and metrics.
    ///
    /// # Panics
    /// The stack has no such instance.
    #[must_use]
    pub fn internal_url(&self, instance: impl Into<Instance>) -> String {
        let instance = instance.into();
        format!(
            "http://127.0.0.1:{}",
            self.settings.ports[instance.number - 1].internal(instance.service)
        )
    }

    /// All instances of the settings, whether they run or not.
    pub fn instances(&self) -> impl Iterator<Item = Instance> + use<> {
        self.settings.replicas.instances()
    }

    /// The process ids of the instances that run.
    pub fn process_ids(&self) -> impl Iterator<Item = (Instance, u32)> + '_ {
        self.services
            .iter()
            .filter_map(|(instance, service)| Some((*instance, service.as_ref()?.process_id()?)))
    }

    /// Waits until an instance is ready.
    ///
    /// # Errors
    /// This instance is not ready after `timeout`, or some service ended although nothing stopped
    /// it.
    pub async fn until_ready(
        &mut self,
        instance: impl Into<Instance>,
        timeout: Duration,
    ) -> Result<(), StackError> {
        let instance = instance.into();
        let url = format!("{}/readyz", self.internal_url(instance));
        let ready = async {
            let started = Instant::now();
            let client = reqwest::Client::new();
            loop {
                let last = match client.get(&url).timeout(timeout).send().await {
                    Ok(response) if response.status().is_success() => return Ok(()),
                    Ok(response) => response.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if started.elapsed() > timeout {
                    return Err(StackError::NotReady { instance, timeout, last });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ready = ready => ready,
            ended = ended(&mut self.services) => Err(ended),
        }
    }

    /// Waits until any service ends although nothing stopped it, and returns which.
    pub async fn ended(&mut self) -> StackError {
        ended(&mut self.services).await
    }

    /// Sends a signal to an instance.
    ///
    /// # Errors
    /// [`StackError::NotSignalled`] if it does not run.
    pub fn signal(&self, instance: impl Into<Instance>, signal: Signal) -> Result<(), StackError> {
        let instance = instance.into();
        let sent = self.running(instance).and_then(|service| service.signal(signal));
        sent.map_err(|source| StackError::NotSignalled { instance, source })
    }

    /// Freezes an instance until the returned value is dropped.
    ///
    /// # Errors
    /// [`StackError::NotSignalled`] if it does not run.
    pub async fn freeze(&self, instance: impl Into<Instance>) -> Result<Frozen, StackError> {
        let instance = instance.into();
        let frozen = match self.running(instance) {
            Ok(service) => service.freeze().await,
            Err(error) => Err(error),
        };
        frozen.map_err(|source| StackError::NotSignalled { instance, source })
    }

    /// Kills an instance (SIGKILL), and waits until it has ended.
    pub async fn kill(&mut self, instance: impl Into<Instance>) {
        if let Some(mut service) = self.take(instance.into()) {
            service.kill().await;
        }
    }

    /// Stops an instance (SIGTERM). Returns whether it ran, and exited with success in time.
    pub async fn stop_one(&mut self, instance: impl Into<Instance>, timeout: Duration) -> bool {
        match self.take(instance.into()) {
            Some(mut service) => service.stop(timeout).await,
            None => false,
        }
    }

    /// Stops an instance and starts it again. Returns whether it exited with success in time.
    ///
    /// # Errors
    /// [`StackError::NotStarted`], or [`StackError::Unknown`].
    pub async fn restart(
        &mut self,
        instance: impl Into<Instance>,
        timeout: Duration,
    ) -> Result<bool, StackError> {
        let instance = instance.into();
        let ended_well = self.stop_one(instance, timeout).await;
        self.start_one(instance)?;
        Ok(ended_well)
    }

    /// Stops all services, gateways before the services they depend on. Returns the instances that
    /// did not exit with success in time.
    pub async fn stop(mut self, timeout: Duration) -> Vec<Instance> {
        let mut unwell = Vec::new();
        for (instance, service) in self.services.iter_mut().rev() {
            if let Some(service) = service
                && !service.stop(timeout).await
            {
                unwell.push(*instance);
            }
        }
        unwell
    }

    fn launch(&self, instance: Instance) -> Result<ServiceProcess, StackError> {
        let StackSettings { programs, database, roles, replicas, .. } = &self.settings;
        let ports = self.settings.ports[instance.number - 1];
        let notifiers =
            (1..=replicas.stats_notifier).map(|number| ServiceKind::StatsNotifier.replica(number));
        let upstreams: Vec<String> = notifiers.map(|notifier| self.url(notifier)).collect();
        // The page is served from another origin than ingest-api, and may be opened under either
        // name.
        let origins =
            ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{}", ports.dashboard));
        let mut variables = vec![
            ("PGHOST", database.host.clone()),
            ("PGPORT", database.port.to_string()),
            ("PGDATABASE", database.name.clone()),
        ];
        match instance.service {
            ServiceKind::StatsNotifier => {
                let password = roles.notifier_password.expose_secret().to_owned();
                variables.push(("NEWCYCLE__DATABASE__PASSWORD", password));
            }
            ServiceKind::IngestApi => {
                let password = roles.ingest_password.expose_secret().to_owned();
                variables.push(("NEWCYCLE__DATABASE__PASSWORD", password));
                variables.push(("NEWCYCLE__CORS__ALLOWED_ORIGINS", origins.join(",")));
            }
            ServiceKind::SseGateway => {
                variables.push(("NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(",")));
            }
            ServiceKind::Dashboard => variables.extend([
                ("NEWCYCLE__SERVICES__GATEWAY_PORT", ports.sse_gateway.to_string()),
                ("NEWCYCLE__SERVICES__INGEST_PORT", ports.ingest_api.to_string()),
            ]),
        }
        variables.push(("NEWCYCLE__INTERNAL__PORT", ports.internal(instance.service).to_string()));
        if instance.service != ServiceKind::StatsNotifier {
            variables.push(("NEWCYCLE__HTTP__PORT", ports.public(instance.service).to_string()));
        }
        let further = self.settings.variables.iter().filter(|(of, ..)| *of == instance);
        variables.extend(further.map(|(_, variable, value)| (*variable, value.clone())));
        let log = Arc::clone(&self.log);
        ServiceProcess::start(programs, instance.service.name(), &variables, move |line| {
            log(instance, line);
        })
        .map_err(|source| StackError::NotStarted {
            instance,
            programs: programs.clone(),
            source,
        })
    }

    fn place(&self, instance: Instance) -> Option<usize> {
        self.services.iter().position(|(other, _)| *other == instance)
    }

    fn take(&mut self, instance: Instance) -> Option<ServiceProcess> {
        self.place(instance).and_then(|place| self.services[place].1.take())
    }

    fn running(&self, instance: Instance) -> io::Result<&ServiceProcess> {
        let service = self.place(instance).and_then(|place| self.services[place].1.as_ref());
        service.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it does not run"))
    }
}

async fn ended(services: &mut [(Instance, Option<ServiceProcess>)]) -> StackError {
    let running =
        services.iter_mut().filter_map(|(instance, service)| Some((*instance, service.as_mut()?)));
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

/// The folder of the programs that were built together with this one.
///
/// # Errors
/// The operating system does not know the path of this program.
pub fn built_programs() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().unwrap_or(Path::new("/"));
    // cargo puts test programs into a folder below it.
    let within = folder.file_name().is_some_and(|name| name == "deps");
    Ok(folder.parent().filter(|_| within).unwrap_or(folder).to_owned())
}
