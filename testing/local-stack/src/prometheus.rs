//! A Prometheus with the configuration of `deploy/prometheus`, of which it changes the addresses
//! and the intervals only.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::path::find_program;
use crate::ports::reserve_port;
use crate::stack::{ServiceKind, Stack};

/// The interval of scrapes and of evaluations, in the files of `deploy/`.
const INTERVAL: &str = "interval: 15s";

/// A running Prometheus. It is killed when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Child,
    url: String,
    folder: TempDir,
}

impl Prometheus {
    /// Starts it on the internal ports of a stack, with the files of `deploy/prometheus`. It
    /// answers some time later.
    ///
    /// # Errors
    /// It is not installed, or a file has changed such that this cannot adapt it.
    pub fn start(stack: &Stack, deploy: &Path, secret: &Path) -> anyhow::Result<Self> {
        let program = find_program("prometheus")
            .context("prometheus is not installed: `cargo xtask test` installs it on Debian")?;
        let folder = tempfile::Builder::new().prefix("newcycle-prometheus-").tempdir()?;
        let read = |name: &str| {
            let file = deploy.join(name);
            std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
        };
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("newcycle.rules.yml", &read("newcycle.rules.yml")?)?;
        let configuration = read("prometheus.yml")?;
        ensure!(configuration.matches(INTERVAL).count() == 2, "prometheus.yml: {INTERVAL} twice");
        write("prometheus.yml", &configuration.replace(INTERVAL, "interval: 1s"))?;
        let mut targets = read("targets.yml")?;
        for (service, port) in [
            (ServiceKind::IngestApi, 9080),
            (ServiceKind::StatsNotifier, 8083),
            (ServiceKind::SseGateway, 9081),
            (ServiceKind::Dashboard, 9082),
        ] {
            let (default, url) = (format!("127.0.0.1:{port}"), stack.internal_url(service));
            ensure!(targets.matches(&default).count() == 1, "targets.yml: {default} once");
            targets = targets.replace(&default, url.trim_start_matches("http://"));
        }
        write("targets.yml", &targets)?;
        std::fs::create_dir(folder.path().join("secrets"))?;
        std::fs::copy(secret, folder.path().join("secrets/internal-secret"))?;
        let address = format!("127.0.0.1:{}", reserve_port()?);
        let log = std::fs::File::create(folder.path().join("prometheus.log"))?;
        let process = Command::new(program)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting prometheus")?;
        Ok(Self { process, url: format!("http://{address}"), folder })
    }

    /// The URL of its API and its pages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has logged until now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> std::io::Result<String> {
        std::fs::read_to_string(self.folder.path().join("prometheus.log"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _already_ended = self.process.kill();
        let _already_waited = self.process.wait();
    }
}
