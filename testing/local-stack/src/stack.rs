//! The services of one stack on one database, with any number of replicas of each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use reqwest::header::AUTHORIZATION;
use secrecy::ExposeSecret;
use service_kit::client;
use service_kit::internal::InternalSecrets;

use crate::process::ServiceProcess;
pub use crate::process::{Frozen, Signal};
pub use crate::replicas::{Instance, Ports, Replicas, ServiceKind};

/// An environment variable of every replica of a service.
pub type Variable<'a> = (ServiceKind, &'static str, &'a str);

/// The configuration of a stack.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The folder of the services' programs. See also [`Stack::use_programs`].
    pub programs: PathBuf,
    /// The migrated database. Its user and password are not used: each service has its own role.
    pub database: DatabaseSettings,
    /// The passwords of the services' roles.
    pub roles: RoleSettings,
    /// The file with the secret of the internal ports.
    pub internal_secret: PathBuf,
    /// The number of replicas of each service.
    pub replicas: Replicas,
    /// The ports, by replica: the first replica of each service listens on the first element.
    pub ports: Vec<Ports>,
    /// More environment variables of some instances. They override those that follow from the
    /// fields above.
    pub variables: Vec<(Instance, &'static str, String)>,
}

impl StackSettings {
    /// Sets environment variables.
    pub fn set(&mut self, variables: &[Variable<'_>]) {
        for (service, variable, value) in variables {
            for number in 1..=self.replicas.count(*service) {
                let value = (*value).to_owned();
                self.variables.push((service.replica(number), variable, value));
            }
        }
    }
}

/// Receives each line that an instance logs.
pub type Log = Arc<dyn Fn(Instance, &str) + Send + Sync>;

/// The running services of one database. They are killed when this is dropped, frozen ones too;
/// [`Stack::stop`] lets them finish.
pub struct Stack {
    settings: StackSettings,
    log: Log,
    /// The folders of the instances that run other programs than the settings name.
    programs: BTreeMap<Instance, PathBuf>,
    /// The instances that were started and not stopped.
    services: BTreeMap<Instance, ServiceProcess>,
}

impl Stack {
    /// Starts all services. They become [ready](Stack::until_ready) some time later.
    ///
    /// # Errors
    /// A program cannot be started, or there are not enough ports.
    pub fn start(settings: StackSettings, log: Log) -> anyhow::Result<Self> {
        let mut stack =
            Self { settings, log, programs: BTreeMap::new(), services: BTreeMap::new() };
        for instance in stack.instances() {
            stack.start_one(instance)?;
        }
        Ok(stack)
    }

    /// Starts an instance that does not run.
    ///
    /// # Errors
    /// The program cannot be started, or the settings have no such instance.
    pub fn start_one(&mut self, instance: impl Into<Instance>) -> anyhow::Result<()> {
        let instance = instance.into();
        let known = self.instances().any(|known| known == instance);
        ensure!(
            known && instance.number <= self.settings.ports.len(),
            "the stack has no {instance}: its settings name the replicas of each service and their ports"
        );
        let programs = self.programs.get(&instance).unwrap_or(&self.settings.programs);
        let service = self.launch(instance, programs).with_context(|| {
            format!("{instance} could not be started from {}", programs.display())
        })?;
        self.services.insert(instance, service);
        Ok(())
    }

    /// Sets the folder of the program of an instance, from its next start on.
    pub fn use_programs(&mut self, instance: impl Into<Instance>, programs: &Path) {
        self.programs.insert(instance.into(), programs.to_owned());
    }

    /// The base URL of an instance.
    ///
    /// # Panics
    /// The stack has no such instance.
    #[must_use]
    pub fn url(&self, instance: impl Into<Instance>) -> String {
        let Instance { service, number } = instance.into();
        format!("http://127.0.0.1:{}", self.settings.ports[number - 1].public(service))
    }

    /// The base URL of an instance's health and metrics.
    ///
    /// # Panics
    /// The stack has no such instance.
    #[must_use]
    pub fn internal_url(&self, instance: impl Into<Instance>) -> String {
        let Instance { service, number } = instance.into();
        format!("http://127.0.0.1:{}", self.settings.ports[number - 1].internal(service))
    }

    /// All instances of the settings, whether they run or not.
    pub fn instances(&self) -> impl Iterator<Item = Instance> + use<> {
        self.settings.replicas.instances()
    }

    /// The process ids of the instances that run.
    pub fn process_ids(&self) -> impl Iterator<Item = (Instance, u32)> + '_ {
        self.services
            .iter()
            .filter_map(|(instance, service)| Some((*instance, service.process_id()?)))
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
    ) -> anyhow::Result<()> {
        let instance = instance.into();
        let url = format!("{}/readyz", self.internal_url(instance));
        // Without the secret, the service does not say why it is not ready.
        let secret = InternalSecrets::open(&self.settings.internal_secret)?.authorization();
        let secret = secret.context("the stack has no internal secret")?;
        let ready = async {
            let started = Instant::now();
            let client = client::internal().build()?;
            loop {
                let request = client.get(&url).header(AUTHORIZATION, secret.clone());
                let last = match request.timeout(timeout).send().await {
                    Ok(response) if response.status().is_success() => return Ok(()),
                    Ok(response) => response.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if started.elapsed() > timeout {
                    let seconds = timeout.as_secs();
                    bail!("{instance} was not ready within {seconds} s: {last}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ready = ready => ready,
            ended = self.ended() => Err(ended),
        }
    }

    /// Waits until any service ends although nothing stopped it, and returns which.
    pub async fn ended(&mut self) -> anyhow::Error {
        let ends: Vec<_> = self
            .services
            .iter_mut()
            .map(|(instance, service)| {
                Box::pin(async move {
                    let how = match service.ended().await {
                        Ok(status) => status.to_string(),
                        Err(error) => error.to_string(),
                    };
                    anyhow!("{instance} has ended ({how}): its log says why")
                })
            })
            .collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(ends).await.0
    }

    /// Sends a signal to an instance.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, instance: impl Into<Instance>, signal: Signal) -> anyhow::Result<()> {
        let instance = instance.into();
        self.running(instance)?
            .signal(signal)
            .with_context(|| format!("{instance} could not be signalled"))
    }

    /// Freezes an instance until the returned value is dropped.
    ///
    /// # Errors
    /// It does not run.
    pub async fn freeze(&self, instance: impl Into<Instance>) -> anyhow::Result<Frozen> {
        let instance = instance.into();
        let frozen = self.running(instance)?.freeze().await;
        frozen.with_context(|| format!("{instance} could not be frozen"))
    }

    /// Kills an instance (SIGKILL), and waits until it has ended.
    pub async fn kill(&mut self, instance: impl Into<Instance>) {
        if let Some(mut service) = self.services.remove(&instance.into()) {
            service.kill().await;
        }
    }

    /// Stops an instance (SIGTERM). Returns whether it ran, and exited with success in time.
    pub async fn stop_one(&mut self, instance: impl Into<Instance>, timeout: Duration) -> bool {
        match self.services.remove(&instance.into()) {
            Some(mut service) => service.stop(timeout).await,
            None => false,
        }
    }

    /// Stops an instance and starts it again. Returns whether it exited with success in time.
    ///
    /// # Errors
    /// As [`Stack::start_one`].
    pub async fn restart(
        &mut self,
        instance: impl Into<Instance>,
        timeout: Duration,
    ) -> anyhow::Result<bool> {
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
            if !service.stop(timeout).await {
                unwell.push(*instance);
            }
        }
        unwell
    }

    fn launch(&self, instance: Instance, programs: &Path) -> io::Result<ServiceProcess> {
        let StackSettings { database, roles, replicas, .. } = &self.settings;
        let ports = self.settings.ports[instance.number - 1];
        let notifiers =
            (1..=replicas.stats_notifier).map(|number| ServiceKind::StatsNotifier.replica(number));
        let upstreams: Vec<String> = notifiers.map(|notifier| self.url(notifier)).collect();
        // The page is served from another origin than the services that it uses, and may be opened
        // under either name.
        let origins =
            ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{}", ports.dashboard));
        let mut variables = vec![
            ("PGHOST", database.host.to_string()),
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
                variables.push(("NEWCYCLE__CORS__ALLOWED_ORIGINS", origins.join(",")));
            }
            ServiceKind::Dashboard => variables.extend([
                ("NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(",")),
                ("NEWCYCLE__SERVICES__GATEWAY_PORT", ports.sse_gateway.to_string()),
                ("NEWCYCLE__SERVICES__INGEST_PORT", ports.ingest_api.to_string()),
            ]),
        }
        let secret = self.settings.internal_secret.display().to_string();
        variables.push(("NEWCYCLE__INTERNAL__SECRET_FILE", secret));
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
    }

    fn running(&self, instance: Instance) -> anyhow::Result<&ServiceProcess> {
        self.services.get(&instance).with_context(|| format!("{instance} does not run"))
    }
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
