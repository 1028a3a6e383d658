//! What runs with its data in a folder: a lock for as long as it runs, and a file that says what it is.
//!
//! Invariant: one stack a folder. Whoever starts one holds the folder's lock until all of it has stopped; the
//! operating system lets go of it however that process ends. What a killed one leaves behind is in the file, and is
//! stopped by the next that takes the lock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local_stack::stack::{ServiceKind, Ports};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// How long everything together may take to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stack, as `status --json` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Whether all services were ready once.
    pub(crate) ready: bool,
    /// The process that started it and stops it.
    pub(crate) process_id: u32,
    pub(crate) data_folder: PathBuf,
    pub(crate) postgres_folder: PathBuf,
    pub(crate) urls: Urls,
    pub(crate) ports: StackPorts,
    pub(crate) processes: Vec<Process>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Urls {
    pub(crate) ingest_api: String,
    pub(crate) ingest_api_internal: String,
    pub(crate) sse_gateway: String,
    pub(crate) sse_gateway_internal: String,
    pub(crate) dashboard: String,
    pub(crate) dashboard_internal: String,
    pub(crate) stats_notifier: String,
    /// Without the password.
    pub(crate) postgres: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackPorts {
    #[serde(flatten)]
    services: Ports,
    postgres: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) process_id: u32,
}

/// The right to run a stack in a folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked for as long as this is open.
    _lock: File,
}

impl Running {
    /// One that is being started by this process.
    pub(crate) fn starting(settings: &Settings) -> Self {
        let url = |part| format!("http://127.0.0.1:{}", settings.ports.public(part));
        let internal = |part| format!("http://127.0.0.1:{}", settings.ports.internal(part));
        let database = &settings.database;
        Self {
            ready: false,
            process_id: std::process::id(),
            data_folder: settings.folder.clone(),
            postgres_folder: settings.postgres_folder().0,
            urls: Urls {
                ingest_api: url(ServiceKind::IngestApi),
                ingest_api_internal: internal(ServiceKind::IngestApi),
                sse_gateway: url(ServiceKind::SseGateway),
                sse_gateway_internal: internal(ServiceKind::SseGateway),
                dashboard: url(ServiceKind::Dashboard),
                dashboard_internal: internal(ServiceKind::Dashboard),
                stats_notifier: url(ServiceKind::StatsNotifier),
                postgres: format!(
                    "postgres://{}@127.0.0.1:{}/{}",
                    database.user, database.port, database.name
                ),
            },
            ports: StackPorts { services: settings.ports, postgres: database.port },
            processes: Vec::new(),
        }
    }

    /// What the file of a folder says; `None` where there is none.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = file(folder);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
}

impl Folder {
    /// Takes the folder's lock, where nobody has it; makes the folder where it is missing.
    pub(crate) fn try_lock(path: &Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let name = path.join("lock");
        let lock = File::create(&name).with_context(|| format!("opening {}", name.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", name.display()))
            }
        }
    }

    /// Takes the folder's lock, or says who has it; stops what a killed stack left behind.
    pub(crate) fn lock(path: &Path) -> anyhow::Result<Self> {
        let Some(folder) = Self::try_lock(path)? else {
            bail!(
                "a stack already runs with its data in {}: `cargo xtask status` shows it, `cargo xtask down` stops \
                 it; to run another beside it, set NEWCYCLE_DATA_DIR and the ports of .env.example",
                path.display()
            );
        };
        folder.stop_leftovers()?;
        Ok(folder)
    }

    /// Writes down what runs. The file is whole at every moment.
    pub(crate) fn write(&self, running: &Running) -> anyhow::Result<()> {
        let (path, next) = (file(&self.path), self.path.join("stack.json.next"));
        std::fs::write(&next, serde_json::to_vec_pretty(running)?)
            .and_then(|()| std::fs::rename(&next, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Nothing runs any more.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(file(&self.path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing the description of the stack")
            }
            _ => Ok(()),
        }
    }

    /// Stops what was started by a process that is no more. Returns what that was.
    pub(crate) fn stop_leftovers(&self) -> anyhow::Result<Vec<String>> {
        let Some(left) = Running::read(&self.path)? else { return Ok(Vec::new()) };
        let mut stopped = Vec::new();
        // Postgres was started first, and ends last.
        for Process { name, process_id } in left.processes.iter().rev() {
            if !runs(*process_id, name) {
                continue;
            }
            println!("stopping {name}, which was left behind (process {process_id})");
            // Postgres calls SIGINT its fast shutdown; the services end as well by it as by SIGTERM.
            signal(*process_id, Signal::INT);
            let started = Instant::now();
            while runs(*process_id, name) {
                if started.elapsed() > PATIENCE {
                    bail!("{name}, process {process_id}, does not end: stop it by hand");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            stopped.push(name.clone());
        }
        self.clear()?;
        Ok(stopped)
    }
}

/// Whether a stack runs with its data in a folder.
pub(crate) fn is_running(folder: &Path) -> anyhow::Result<bool> {
    Ok(folder.exists() && Folder::try_lock(folder)?.is_none())
}

/// Asks the stack of a folder to stop, and waits until all of it has. Returns what was stopped.
pub(crate) fn stop(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let started = Instant::now();
    let mut asked = Vec::new();
    loop {
        if let Some(free) = Folder::try_lock(folder)? {
            asked.extend(free.stop_leftovers()?);
            return Ok(asked);
        }
        if started.elapsed() > PATIENCE {
            bail!("the stack in {} has not stopped within {} s", folder.display(), PATIENCE.as_secs());
        }
        if let (true, Some(running)) = (asked.is_empty(), Running::read(folder)?) {
            signal(running.process_id, Signal::TERM);
            asked = running.processes.into_iter().map(|process| process.name).collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("stack.json")
}

fn signal(process_id: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process_id).ok().and_then(Pid::from_raw) {
        // It may just have ended by itself.
        let _already_ended = kill_process(process, signal);
    }
}

/// Whether a process still runs that program: its number may have been given to another since.
fn runs(process_id: u32, program: &str) -> bool {
    let output = Command::new("ps").args(["-o", "stat=,args=", "-p", &process_id.to_string()]).output();
    output.is_ok_and(|output| {
        let line = String::from_utf8_lossy(&output.stdout);
        let mut words = line.split_whitespace();
        // A zombie has ended, and waits for somebody to ask how.
        let zombie = words.next().is_some_and(|state| state.starts_with('Z'));
        !zombie && words.next().is_some_and(|path| Path::new(path).ends_with(program))
    })
}
