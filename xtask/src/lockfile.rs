//! The stack that uses a data folder: a lock while it runs, and a file that describes it.
//!
//! Invariant: one stack per folder. The process that starts a stack holds the folder's lock until
//! all of the stack has stopped; the operating system releases the lock however that process ends.
//! The file lists what a killed process leaves behind, and the next process to take the lock stops
//! it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local_stack::stack::{Ports, ServiceKind};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::processes;
use crate::settings::Settings;

/// The longest time for a whole stack to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(120);

/// A stack, as `status --json` prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackDescription {
    /// Whether all services have been ready.
    pub(crate) ready: bool,
    /// The process of `cargo xtask up`.
    pub(crate) process_id: u32,
    pub(crate) data_folder: PathBuf,
    pub(crate) postgres_folder: PathBuf,
    pub(crate) urls: Urls,
    ports: StackPorts,
    pub(crate) processes: Vec<StackProcess>,
}

/// The URLs for `status --json`. Those of services follow from the ports as well.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Urls {
    /// By service, such as `sse_gateway` and `sse_gateway_internal`.
    #[serde(flatten)]
    services: BTreeMap<String, String>,
    /// Without the password.
    pub(crate) postgres: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StackPorts {
    #[serde(flatten)]
    services: Ports,
    postgres: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackProcess {
    pub(crate) name: String,
    pub(crate) process_id: u32,
}

/// The exclusive right to run a stack in a folder.
pub(crate) struct FolderLock {
    path: PathBuf,
    /// The lock is held until this file is closed.
    _file: File,
}

impl StackDescription {
    /// A stack that this process is starting.
    pub(crate) fn starting(settings: &Settings) -> Self {
        let Settings { folder, postgres_port, database, ports, .. } = settings;
        let mut services = BTreeMap::new();
        for service in ServiceKind::ALL {
            let name = service.name().replace('-', "_");
            services.insert(format!("{name}_internal"), local_url(ports.internal(service)));
            services.insert(name, local_url(ports.public(service)));
        }
        let postgres =
            format!("postgres://{}@127.0.0.1:{postgres_port}/{}", database.user, database.name);
        Self {
            ready: false,
            process_id: std::process::id(),
            data_folder: folder.clone(),
            postgres_folder: settings.postgres_folder().0,
            urls: Urls { services, postgres },
            ports: StackPorts { services: *ports, postgres: *postgres_port },
            processes: Vec::new(),
        }
    }

    pub(crate) fn url(&self, service: ServiceKind) -> String {
        local_url(self.ports.services.public(service))
    }

    /// The URL of a service's health and metrics.
    pub(crate) fn internal_url(&self, service: ServiceKind) -> String {
        local_url(self.ports.services.internal(service))
    }

    pub(crate) fn add_process(&mut self, name: &str, process_id: u32) {
        self.processes.push(StackProcess { name: name.to_owned(), process_id });
    }

    /// Reads the file of a folder; `None` without a file.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = description_path(folder);
        let reading = || format!("reading {}", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => serde_json::from_slice(&read.with_context(reading)?).with_context(reading),
        }
    }
}

impl FolderLock {
    /// Takes the folder's lock, or returns `None` if another process has it. Makes a missing
    /// folder.
    pub(crate) fn try_lock(path: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let name = path.join("lock");
        let file = File::create(&name).with_context(|| format!("opening {}", name.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", name.display()))
            }
        }
    }

    /// Takes the folder's lock, and stops what a killed stack left behind.
    ///
    /// # Errors
    /// Another process has the lock.
    pub(crate) fn lock(path: &Path) -> anyhow::Result<Self> {
        let Some(folder) = Self::try_lock(path)? else {
            bail!(
                "a stack already runs with its data in {}: `cargo xtask status` shows it, `cargo xtask down` stops \
                 it; to run a second one, set NEWCYCLE_DATA_DIR and the ports of .env.example",
                path.display()
            );
        };
        folder.stop_leftovers()?;
        Ok(folder)
    }

    pub(crate) fn write(&self, running: &StackDescription) -> anyhow::Result<()> {
        processes::write_description(&description_path(&self.path), running)
    }

    /// Removes the description, because nothing runs any more.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(description_path(&self.path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.context("removing the description of the stack"),
        }
    }

    /// Stops what a process that has ended left behind. Returns the names of what was stopped.
    pub(crate) fn stop_leftovers(&self) -> anyhow::Result<Vec<String>> {
        let Some(left) = StackDescription::read(&self.path)? else { return Ok(Vec::new()) };
        let mut stopped = Vec::new();
        // The services go first: Postgres was started before them.
        for StackProcess { name, process_id } in left.processes.iter().rev() {
            if !processes::runs(*process_id, name) {
                continue;
            }
            println!("stopping {name}, which was left behind (process {process_id})");
            processes::stop(*process_id, name, SHUTDOWN_TIMEOUT)?;
            stopped.push(name.clone());
        }
        self.clear()?;
        Ok(stopped)
    }
}

/// Whether a stack runs with its data in a folder.
pub(crate) fn is_running(folder: &Path) -> anyhow::Result<bool> {
    Ok(folder.exists() && FolderLock::try_lock(folder)?.is_none())
}

/// Asks the stack of a folder to stop, and waits until all of it has. Returns the names of what was
/// stopped.
pub(crate) fn stop(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let started = Instant::now();
    let mut asked = Vec::new();
    loop {
        if let Some(free) = FolderLock::try_lock(folder)? {
            asked.extend(free.stop_leftovers()?);
            return Ok(asked);
        }
        if started.elapsed() > SHUTDOWN_TIMEOUT {
            bail!(
                "the stack in {} has not stopped within {} s",
                folder.display(),
                SHUTDOWN_TIMEOUT.as_secs()
            );
        }
        if let (true, Some(running)) = (asked.is_empty(), StackDescription::read(folder)?) {
            processes::signal(running.process_id, Signal::TERM);
            asked = running.processes.into_iter().map(|process| process.name).collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn local_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn description_path(folder: &Path) -> PathBuf {
    folder.join("stack.json")
}
