//! `cargo xtask up`: the whole stack on this machine, until Ctrl-C.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local_stack::postgres::{Cluster, ClusterSettings};
use local_stack::services::Service;
use migrate::settings::RoleSettings;
use secrecy::SecretString;
use service_kit::database::DatabaseSettings;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::postgres;

/// How long a service may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the environment, or `.env`, says of the stack.
struct Variables;

impl Variables {
    fn text(name: &str, default: &str) -> String {
        std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    }

    /// A port, and that nobody listens on it.
    fn free_port(name: &str, default: u16) -> anyhow::Result<u16> {
        let text = Self::text(name, &default.to_string());
        let port = text.parse().with_context(|| format!("{name}={text} is not a port"))?;
        TcpListener::bind(("127.0.0.1", port)).with_context(|| {
            format!("port {port} is taken: set {name} to another one, in .env or for this command")
        })?;
        Ok(port)
    }
}

/// Starts everything, and runs until asked to stop.
pub(crate) async fn run() -> anyhow::Result<()> {
    // The process environment outweighs the file, which need not be there.
    let _no_file = dotenvy::dotenv();
    let postgres_port = Variables::free_port("PGPORT", 5432)?;
    let ingest_port = Variables::free_port("INGEST_PORT", 8080)?;
    let gateway_port = Variables::free_port("GATEWAY_PORT", 8081)?;
    let notifier_port = Variables::free_port("NOTIFIER_PORT", 8083)?;
    let (user, password) = (Variables::text("PGUSER", "newcycle"), Variables::text("PGPASSWORD", "newcycle"));
    let name = Variables::text("PGDATABASE", "newcycle");
    let ingest_password = Variables::text("INGEST_DATABASE_PASSWORD", "newcycle-ingest");
    let notifier_password = Variables::text("NOTIFIER_DATABASE_PASSWORD", "newcycle-notifier");

    println!("== building the services");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packages = ["-p", "ingest-api", "-p", "stats-notifier", "-p", "sse-gateway"];
    let built = Command::new(cargo).args(["build", "--locked"]).args(packages).status().await?;
    if !built.success() {
        bail!("the services could not be built; see above");
    }
    // xtask itself was built into the same folder.
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).context("xtask has no folder")?;

    let installation = postgres::bring()?;
    let folder = data_folder()?;
    println!("== starting Postgres on port {postgres_port}, with its data in {}", folder.display());
    let settings = ClusterSettings {
        folder,
        port: postgres_port,
        user: user.clone(),
        password: password.clone(),
        durable: true,
    };
    let mut cluster = Cluster::start(&installation, &settings)?;
    let database = DatabaseSettings {
        host: "127.0.0.1".to_owned(),
        port: postgres_port,
        name: name.clone(),
        user,
        password: SecretString::from(password),
        connect_timeout_milliseconds: 5_000,
    };
    let roles = RoleSettings {
        ingest_password: SecretString::from(ingest_password.clone()),
        notifier_password: SecretString::from(notifier_password.clone()),
    };
    let outcome = migrate::migrate(&database, &roles).await?;
    println!("== migrated to schema version {}; starting the services", outcome.version);

    let common = [
        ("PGHOST", "127.0.0.1".to_owned()),
        ("PGPORT", postgres_port.to_string()),
        ("PGDATABASE", name),
        ("INGEST_PORT", ingest_port.to_string()),
        ("GATEWAY_PORT", gateway_port.to_string()),
        ("NOTIFIER_PORT", notifier_port.to_string()),
        ("NEWCYCLE_UPSTREAMS", format!("http://127.0.0.1:{notifier_port}")),
        ("INGEST_DATABASE_PASSWORD", ingest_password),
        ("NOTIFIER_DATABASE_PASSWORD", notifier_password),
    ];
    let mut services = Vec::new();
    for (name, port) in
        [("stats-notifier", notifier_port), ("ingest-api", ingest_port), ("sse-gateway", gateway_port)]
    {
        let log = move |line: &str| println!("{name:>14} | {line}");
        services.push((Service::start(&programs, name, &common, log)?, port));
    }
    let outcome = serve(&mut services).await;
    println!("== stopping");
    for (service, _) in services.iter_mut().rev() {
        if !service.stop(PATIENCE).await && outcome.is_ok() {
            println!("{} did not stop by itself", service.name());
        }
    }
    cluster.stop();
    outcome
}

/// Waits until all are ready, says so, and returns when asked to stop or when one has died.
async fn serve(services: &mut [(Service, u16)]) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let [first, second, third] = services else { bail!("there are three services") };
    let ports = [first.1, second.1, third.1];
    let ready = async {
        for port in ports {
            until_ready(port).await?;
        }
        println!("== ready; Ctrl-C stops everything");
        println!("post events to     http://127.0.0.1:{}", ports[1]);
        println!("follow counts at   http://127.0.0.1:{}/statistics/item-creation/minute", ports[2]);
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        result = ready => result,
        status = first.0.ended() => bail!("stats-notifier ended: {}", status?),
        status = second.0.ended() => bail!("ingest-api ended: {}", status?),
        status = third.0.ended() => bail!("sse-gateway ended: {}", status?),
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = terminate.recv() => Ok(()),
    }
}

async fn until_ready(port: u16) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{port}/readyz");
    let started = Instant::now();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build()?;
    loop {
        let last = match client.get(&url).send().await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if started.elapsed() > PATIENCE {
            bail!("{url} was not ready within {} s: {last}", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where the data go: `NEWCYCLE_DATA_DIR`, or `.newcycle` here. As root, Postgres runs as another user, who may
/// not be able to enter that folder; then they go to one that it can enter.
fn data_folder() -> anyhow::Result<PathBuf> {
    let wanted = std::path::absolute(Variables::text("NEWCYCLE_DATA_DIR", ".newcycle"))?;
    std::fs::create_dir_all(&wanted).with_context(|| format!("making {}", wanted.display()))?;
    let closed = |folder: &Path| {
        std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    };
    let root = rustix::process::geteuid().is_root();
    match wanted.ancestors().skip(1).find(|folder| root && closed(folder)) {
        None => Ok(wanted.join("postgres")),
        Some(folder) => {
            let name = wanted.to_string_lossy().replace('/', "-");
            let elsewhere = Path::new("/var/lib").join(format!("newcycle{name}"));
            println!(
                "Postgres runs as the user postgres, who cannot enter {}: its data go to {}",
                folder.display(),
                elsewhere.display()
            );
            Ok(elsewhere)
        }
    }
}
