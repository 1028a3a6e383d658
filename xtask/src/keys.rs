//! Keys of the native stack. The program `access` makes them: it has the only database role that
//! can.
//!
//! Invariant: a key is in no argument of a process. `cargo xtask key` prints it, and `up` prints
//! the browser's in a link.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use local_stack::stack::{ServiceKind, built_programs};
use local_stack::test_database;
use reqwest::{ClientBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use service_kit::client;
use tokio::process::Command;

use crate::lockfile;
use crate::secrets::SecretFolder;
use crate::settings::Settings;

/// The environment variable with the key for an ingest-api that `--url` names.
const KEY_VARIABLE: &str = "NEWCYCLE_KEY";

/// Everything that a key can permit.
const ALL_SCOPES: &str = "ingest:write,ingest:delete,ingest:read,statistics:read";

/// What uploads need.
const UPLOAD_SCOPES: &str = "ingest:write,ingest:read";

/// When the key of an upload ends, if its command is killed before it revokes the key. It is longer
/// than a demo is likely to run.
const UPLOAD_KEY_LIFETIME: &str = "7d";

const BROWSER_KEY_LIFETIME: &str = "30d";
const BROWSER_KEY_FILE: &str = "browser-key";

/// The longest time until services know a new key. They follow the list of keys within a second.
const DISTRIBUTION_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the key may do, separated by commas: ingest:write, ingest:delete, ingest:read,
    /// statistics:read, or only some counts, as statistics:read:transfers/*.
    #[arg(long, default_value = ALL_SCOPES)]
    scope: String,
    /// When it ends by itself: a time such as 90d or 8h.
    #[arg(long, default_value = "8h")]
    expires: String,
    /// A name that no other valid key has. [default: a new name]
    #[arg(long)]
    name: Option<String>,
}

/// Makes a key for the stack that runs, and prints it alone on the last line when the services know
/// it.
pub(crate) async fn command(options: Options) -> anyhow::Result<()> {
    let settings = running()?;
    let name = options.name.unwrap_or_else(|| new_name("xtask"));
    let key = create(&settings, &name, &options.scope, &options.expires).await?;
    until_known(&settings, &[ServiceKind::IngestApi, ServiceKind::SseGateway], &key).await?;
    println!("{}", key.expose_secret());
    Ok(())
}

/// The settings of the stack that runs, with its passwords.
fn running() -> anyhow::Result<Settings> {
    let mut settings = Settings::load()?;
    if !lockfile::is_running(&settings.folder)? {
        bail!(
            "nothing runs with its data in {}: start it with `cargo xtask up`",
            settings.folder.display()
        );
    }
    settings.make_passwords()?;
    Ok(settings)
}

/// The link that logs a browser in. Its key is the one of the last `up`, while that is valid.
pub(crate) async fn browser_link(settings: &Settings) -> anyhow::Result<SecretString> {
    let secrets = SecretFolder::of(&settings.folder);
    let key = match secrets.read(BROWSER_KEY_FILE)? {
        Some(key) if is_valid(settings, &key).await? => key,
        _ => {
            let name = new_name("browser");
            let key = create(settings, &name, ALL_SCOPES, BROWSER_KEY_LIFETIME).await?;
            secrets.write(BROWSER_KEY_FILE, key.expose_secret())?;
            until_known(settings, &[ServiceKind::IngestApi, ServiceKind::SseGateway], &key).await?;
            key
        }
    };
    Ok(link(settings, &key))
}

/// The same link; `None` if there is no key for it.
pub(crate) fn known_browser_link(settings: &Settings) -> anyhow::Result<Option<SecretString>> {
    let key = SecretFolder::of(&settings.folder).read(BROWSER_KEY_FILE)?;
    Ok(key.map(|key| link(settings, &key)))
}

fn link(settings: &Settings, key: &SecretString) -> SecretString {
    let page = settings.url(ServiceKind::Dashboard);
    format!("{page}/#{}", key.expose_secret()).into()
}

/// Opens a link in the browser, by a page that leads to it: other users can see the arguments of a
/// process, but not read the page.
pub(crate) fn open(settings: &Settings, link: &SecretString) -> anyhow::Result<()> {
    let link = link.expose_secret();
    let page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Newcycle</title>\n\
         <meta http-equiv=\"refresh\" content=\"0; url={link}\">\n\
         <a href=\"{link}\">Newcycle</a>\n"
    );
    let path = SecretFolder::of(&settings.folder).write("open.html", &page)?;
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let opened = std::process::Command::new(opener).arg(&path).status();
    ensure!(
        opened.is_ok_and(|status| status.success()),
        "no browser could be opened: open the link, or {}",
        path.display()
    );
    Ok(())
}

/// A key for the uploads of one command.
pub(crate) struct UploadKey {
    key: SecretString,
    /// The stack and the name of the key, if it was made for this command.
    made: Option<(Settings, String)>,
}

impl UploadKey {
    /// The key of the environment for a URL that the user names, else a new one of the stack that
    /// runs. So the stack's keys go to no other host.
    pub(crate) async fn get(url: Option<&str>, command: &str) -> anyhow::Result<Self> {
        if url.is_some() {
            let key = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
            let key = key.with_context(|| {
                format!("--url needs a key with the scopes {UPLOAD_SCOPES}, in {KEY_VARIABLE}")
            })?;
            return Ok(Self { key: key.into(), made: None });
        }
        let settings = running()?;
        let name = new_name(command);
        let key = create(&settings, &name, UPLOAD_SCOPES, UPLOAD_KEY_LIFETIME).await?;
        until_known(&settings, &[ServiceKind::IngestApi], &key).await?;
        Ok(Self { key, made: Some((settings, name)) })
    }

    /// A client that presents the key.
    pub(crate) fn client(&self) -> anyhow::Result<ClientBuilder> {
        presenting(&self.key)
    }

    /// Ends the key, if it was made for this command. It ends by itself if that fails.
    pub(crate) async fn revoke(self) {
        let Some((settings, name)) = self.made else { return };
        if let Err(error) = access(&settings, &["revoke", &name]).await {
            println!("the key {name} was not revoked, and ends by itself: {error:#}");
        }
    }
}

/// A client that presents a key. It follows no redirect, so the key goes nowhere else.
fn presenting(key: &SecretString) -> anyhow::Result<ClientBuilder> {
    test_database::presenting(client::internal(), key.expose_secret())
        .context("a key has only letters and digits")
}

fn new_name(purpose: &str) -> String {
    format!("{purpose}-{:016x}", rand::random::<u64>())
}

async fn create(
    settings: &Settings,
    name: &str,
    scopes: &str,
    expires: &str,
) -> anyhow::Result<SecretString> {
    let arguments = ["create", "--name", name, "--scope", scopes, "--expires", expires];
    Ok(access(settings, &arguments).await?.trim().into())
}

/// Runs the program `access` with the password of its role, and returns what it prints.
async fn access(settings: &Settings, arguments: &[&str]) -> anyhow::Result<String> {
    let program: PathBuf = built_programs()?.join("access");
    let output = Command::new(&program)
        .args(arguments)
        .env("PGHOST", settings.database.host.to_string())
        .env("PGPORT", settings.database.port.to_string())
        .env("PGDATABASE", &settings.database.name)
        .env("NEWCYCLE__DATABASE__PASSWORD", settings.roles.access_password.expose_secret())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}: `cargo xtask up` builds it", program.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`access {}` failed: {}", arguments.join(" "), errors.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a key may be used. A service that cannot tell yet is asked again.
async fn is_valid(settings: &Settings, key: &SecretString) -> anyhow::Result<bool> {
    let cannot_tell = |status| status == StatusCode::SERVICE_UNAVAILABLE;
    let answer = answer_unless(cannot_tell, settings, ServiceKind::IngestApi, key).await?;
    Ok(answer == StatusCode::OK)
}

/// Waits until services know a new key.
async fn until_known(
    settings: &Settings,
    services: &[ServiceKind],
    key: &SecretString,
) -> anyhow::Result<()> {
    for service in services {
        let unknown = |status: StatusCode| !status.is_success();
        let status = answer_unless(unknown, settings, *service, key).await?;
        let seconds = DISTRIBUTION_TIMEOUT.as_secs();
        ensure!(
            status.is_success(),
            "{service} does not know a new key after {seconds} s: it answers {status}"
        );
    }
    Ok(())
}

/// What a service answers to a key. While that is `pending`, the service is asked again, for at
/// most [`DISTRIBUTION_TIMEOUT`].
async fn answer_unless(
    pending: impl Fn(StatusCode) -> bool,
    settings: &Settings,
    service: ServiceKind,
    key: &SecretString,
) -> anyhow::Result<StatusCode> {
    let started = Instant::now();
    let url = format!("{}/access", settings.url(service));
    let client = presenting(key)?.timeout(DISTRIBUTION_TIMEOUT).build()?;
    loop {
        let answer = client.get(&url).send().await;
        let status = answer.with_context(|| format!("{url} does not answer"))?.status();
        if !pending(status) || started.elapsed() >= DISTRIBUTION_TIMEOUT {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
