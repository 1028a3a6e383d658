//! `cargo xtask up`: the whole stack as processes on this machine, until Ctrl-C.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local_stack::postgres::Cluster;
use local_stack::stack::{Instance, ServiceKind, Stack};
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};

use crate::install::Installer;
use crate::interrupts::Interrupts;
use crate::lockfile::{FolderLock, StackDescription};
use crate::settings::Settings;
use crate::{keys, page, postgres, processes, programs};

/// The longest time for one service to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time for one service to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time for a detached stack to become ready. The first start makes a database.
const DETACHED_READY_TIMEOUT: Duration = Duration::from_secs(300);

/// The interval between two checks of Postgres, and between two looks at a detached stack.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Return when everything is ready, and leave it running.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Open the dashboard in the browser, logged in, when everything is ready.
    #[arg(long)]
    pub(crate) open: bool,
    /// Print no link that logs a browser in, because the output goes to a file.
    #[arg(long, hide = true, conflicts_with_all = ["detach", "open"])]
    without_link: bool,
}

/// Starts everything, and runs until asked to stop. With `detach`, returns once all is ready.
pub(crate) async fn run(options: &Options, installer: Installer) -> anyhow::Result<()> {
    let mut settings = Settings::load()?;
    // From here on, a signal leads to an orderly shutdown.
    let mut interrupts = Interrupts::new()?;
    let folder = FolderLock::lock(&settings.folder)?;
    settings.check_ports()?;
    settings.make_passwords()?;
    let with_page = tokio::select! {
        built = build(installer) => built?,
        () = interrupts.received() => bail!("interrupted"),
    };
    if options.detach {
        // The detached process takes the lock itself.
        drop(folder);
        detached(&settings, installer, &mut interrupts).await?;
        if let (true, Some(link)) = (with_page, keys::known_browser_link(&settings)?) {
            show_link(&settings, options, &link);
        }
        return Ok(());
    }
    folder.write(&StackDescription::starting(&settings))?;
    let mut started = Started { cluster: None, stack: None };
    let outcome = tokio::select! {
        outcome = serve(&settings, options, with_page, installer, &folder, &mut started) => outcome,
        () = interrupts.received() => Ok(()),
    };
    say("== stopping");
    if let Some(stack) = started.stack {
        for instance in stack.stop(SHUTDOWN_TIMEOUT).await {
            say(&format!("{instance} did not exit with success"));
        }
    }
    if let Some(mut cluster) = started.cluster {
        cluster.stop();
    }
    folder.clear()?;
    outcome
}

/// What has been started so far.
struct Started {
    cluster: Option<Cluster>,
    stack: Option<Stack>,
}

/// Builds the services and the page. Returns whether there is a page.
async fn build(installer: Installer) -> anyhow::Result<bool> {
    let with_page = page::build_or_explain(installer).await;
    programs::services().await?;
    Ok(with_page)
}

/// Starts everything, prints where it is, and returns when a part of it has ended.
async fn serve(
    settings: &Settings,
    options: &Options,
    with_page: bool,
    installer: Installer,
    folder: &FolderLock,
    started: &mut Started,
) -> anyhow::Result<()> {
    let mut running = StackDescription::starting(settings);
    let installation = postgres::ensure(installer)?;
    let (postgres_folder, why) = settings.postgres_folder();
    if let Some(why) = why {
        say(&why);
    }
    let port = settings.postgres_port;
    say(&format!(
        "== starting Postgres on port {port}, with its data in {}",
        postgres_folder.display()
    ));
    let cluster = started.cluster.insert(Cluster::start(&installation, &settings.cluster())?);
    running.add_process("postgres", cluster.process_id());
    folder.write(&running)?;
    let outcome = migrate::migrate(&settings.database, &settings.roles).await?;
    say(&format!("== migrated to schema version {}; starting the services", outcome.version));
    let log = Arc::new(|instance: Instance, line: &str| say(&format!("{instance:>14} | {line}")));
    let stack = started.stack.insert(Stack::start(settings.stack(with_page)?, log)?);
    for (instance, process_id) in stack.process_ids() {
        running.add_process(instance.service.name(), process_id);
    }
    folder.write(&running)?;
    for instance in stack.instances() {
        stack.until_ready(instance, READY_TIMEOUT).await?;
        say(&format!("== {instance} is ready"));
    }
    let link = if with_page { Some(keys::browser_link(settings).await?) } else { None };
    running.ready = true;
    folder.write(&running)?;
    say(&format!("post events to     {}", running.url(ServiceKind::IngestApi)));
    say(&format!(
        "follow counts at   {}/statistics/item-creation/minute",
        running.url(ServiceKind::SseGateway)
    ));
    say("get a key          cargo xtask key");
    if let Some(link) = link.filter(|_| !options.without_link) {
        show_link(settings, options, &link);
    }
    say("== ready; Ctrl-C, or `cargo xtask down`, stops everything");
    tokio::select! {
        ended = stack.ended() => Err(ended),
        () = postgres_ended(cluster) => bail!("Postgres has ended: see {}", postgres_folder.join("postgres.log").display()),
    }
}

/// Prints the link that logs a browser in, and opens it if asked to.
fn show_link(settings: &Settings, options: &Options, link: &SecretString) {
    say(&format!("open the dashboard {}", link.expose_secret()));
    if let Err(error) = options.open.then(|| keys::open(settings, link)).transpose() {
        say(&format!("{error:#}"));
    }
}

async fn postgres_ended(cluster: &mut Cluster) {
    while cluster.runs() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Starts `cargo xtask up` as a process of its own, and shows its output until all is ready.
async fn detached(
    settings: &Settings,
    installer: Installer,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    let path = settings.folder.join("stack.log");
    let log = std::fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    // All was installed by this process, except possibly Postgres.
    if installer.is_refused {
        command.arg("--no-install");
    }
    command
        .args(["up", "--without-link"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // A process group of its own, so that Ctrl-C at this terminal does not reach it.
    let mut process = command.process_group(0).spawn()?;
    let mut shown = std::fs::File::open(&path)?;
    let ready = async {
        let started = Instant::now();
        loop {
            let ended = process.try_wait()?;
            show_more(&mut shown)?;
            if let Some(status) = ended {
                bail!("the stack did not start ({status}); see above, and {}", path.display());
            }
            let running = StackDescription::read(&settings.folder)?;
            if running.is_some_and(|running| running.ready && running.process_id == process.id()) {
                show_more(&mut shown)?;
                say(&format!("== detached; the log is {}", path.display()));
                return Ok(());
            }
            if started.elapsed() > DETACHED_READY_TIMEOUT {
                let seconds = DETACHED_READY_TIMEOUT.as_secs();
                bail!("the stack was not ready within {seconds} s; see {}", path.display());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let outcome = tokio::select! {
        outcome = ready => outcome,
        () = interrupts.received() => Err(anyhow::anyhow!("interrupted")),
    };
    if outcome.is_err() {
        processes::signal(process.id(), Signal::TERM);
        let _status = process.wait();
    }
    outcome
}

/// Prints what was added to a log since the last call.
fn show_more(log: &mut std::fs::File) -> anyhow::Result<()> {
    let mut more = Vec::new();
    log.read_to_end(&mut more)?;
    let _closed = std::io::stdout().write_all(&more);
    Ok(())
}

/// Prints a line. A closed terminal is no error: everything must still stop in order.
fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}
