//! `cargo xtask up`: the whole stack on this machine, until Ctrl-C.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local_stack::postgres::Cluster;
use local_stack::stack::{Instance, Stack};
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::running::{Folder, Process, Running};
use crate::settings::Settings;
use crate::{page, postgres};

/// How long a service may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is built: the same for every command, so that none of them builds anew what another has built.
pub(crate) const BUILD: [&str; 10] =
    ["build", "--locked", "-p", "ingest-api", "-p", "stats-notifier", "-p", "sse-gateway", "-p", "dashboard"];

/// Starts everything, and runs until asked to stop; or, detached, returns when all is ready.
pub(crate) async fn run(detach: bool) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    // From here on, a request to stop is heard, and obeyed in order, whatever is being done.
    let mut interrupts = Interrupts::new()?;
    let folder = Folder::lock(&settings.folder)?;
    settings.check_ports()?;
    let with_page = tokio::select! {
        built = build() => built?,
        () = interrupts.heard() => bail!("interrupted"),
    };
    if detach {
        // The detached process takes the lock itself.
        drop(folder);
        return detached(&settings, &mut interrupts).await;
    }
    folder.write(&Running::starting(&settings))?;
    let mut held = Held { cluster: None, stack: None };
    let outcome = tokio::select! {
        outcome = serve(&settings, with_page, &folder, &mut held) => outcome,
        () = interrupts.heard() => Ok(()),
    };
    say("== stopping");
    if let Some(stack) = held.stack {
        for instance in stack.stop(PATIENCE).await {
            say(&format!("{instance} did not end well"));
        }
    }
    if let Some(mut cluster) = held.cluster {
        cluster.stop();
    }
    folder.clear()?;
    outcome
}

/// What runs, the last to be stopped first.
struct Held {
    cluster: Option<Cluster>,
    stack: Option<Stack>,
}

/// Builds the services, and the page; returns whether there is a page to show.
async fn build() -> anyhow::Result<bool> {
    let with_page = page::build_or_say().await;
    say("== building the services");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(BUILD).kill_on_drop(true).status().await?;
    if !built.success() {
        bail!("the services could not be built; see above");
    }
    Ok(with_page)
}

/// Starts all there is, says so, and ends when a part of it does.
async fn serve(settings: &Settings, with_page: bool, folder: &Folder, held: &mut Held) -> anyhow::Result<()> {
    let mut running = Running::starting(settings);
    let installation = postgres::bring()?;
    let (postgres_folder, why) = settings.postgres_folder();
    if let Some(why) = why {
        say(&why);
    }
    let port = settings.database.port;
    say(&format!("== starting Postgres on port {port}, with its data in {}", postgres_folder.display()));
    let cluster = held.cluster.insert(Cluster::start(&installation, &settings.cluster())?);
    running.processes.push(Process { name: "postgres".to_owned(), process_id: cluster.process_id() });
    folder.write(&running)?;
    let outcome = migrate::migrate(&settings.database, &settings.roles).await?;
    say(&format!("== migrated to schema version {}; starting the services", outcome.version));
    let log = Arc::new(|instance: Instance, line: &str| say(&format!("{instance:>14} | {line}")));
    let stack = held.stack.insert(Stack::start(settings.stack(with_page)?, log)?);
    for (instance, process_id) in stack.process_ids() {
        running.processes.push(Process { name: instance.service.name().to_owned(), process_id });
    }
    folder.write(&running)?;
    for instance in stack.instances() {
        stack.until_ready(instance, PATIENCE).await?;
        say(&format!("== {instance} is ready"));
    }
    running.ready = true;
    folder.write(&running)?;
    if with_page {
        say(&format!("look at            {}", running.urls.dashboard));
    }
    say(&format!("post events to     {}", running.urls.ingest_api));
    say(&format!("follow counts at   {}/statistics/item-creation/minute", running.urls.sse_gateway));
    say("== ready; Ctrl-C, or `cargo xtask down`, stops everything");
    tokio::select! {
        ended = stack.ended() => Err(ended.into()),
        () = postgres_ended(cluster) => bail!("Postgres has ended: {} says why", postgres_folder.join("postgres.log").display()),
    }
}

async fn postgres_ended(cluster: &mut Cluster) {
    while cluster.runs() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Starts this program once more, by itself, and shows what it says until all is ready.
async fn detached(settings: &Settings, interrupts: &mut Interrupts) -> anyhow::Result<()> {
    let path = settings.folder.join("stack.log");
    let log = std::fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("up").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A group of its own: a Ctrl-C at this terminal is not for it.
    let mut process = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn()?;
    let mut shown = std::fs::File::open(&path)?;
    let ready = async {
        let started = Instant::now();
        loop {
            let ended = process.try_wait()?;
            show_more(&mut shown)?;
            if let Some(status) = ended {
                bail!("the stack did not start ({status}); see above, and {}", path.display());
            }
            let running = Running::read(&settings.folder)?;
            if running.is_some_and(|running| running.ready && running.process_id == process.id()) {
                show_more(&mut shown)?;
                say(&format!("== detached; the log goes on in {}", path.display()));
                return Ok(());
            }
            if started.elapsed() > 10 * PATIENCE {
                bail!("the stack was not ready within {} s; see {}", 10 * PATIENCE.as_secs(), path.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = ready => outcome,
        () = interrupts.heard() => Err(anyhow::anyhow!("interrupted")),
    };
    if outcome.is_err() {
        stop(&mut process);
    }
    outcome
}

/// Lets a detached stack that is of no use stop in order.
fn stop(process: &mut Child) {
    let id = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(id) = id {
        // It may have ended by itself.
        let _already_ended = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
    let _status = process.wait();
}

/// Shows what was added to a log since the last time.
fn show_more(log: &mut std::fs::File) -> anyhow::Result<()> {
    let mut more = Vec::new();
    log.read_to_end(&mut more)?;
    let _closed = std::io::stdout().write_all(&more);
    Ok(())
}

/// A line on standard output, where anybody still reads that: a closed terminal must not keep all from being
/// stopped in order.
fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// The signals that ask a program to stop.
pub(crate) struct Interrupts([Signal; 3]);

impl Interrupts {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    pub(crate) async fn heard(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
