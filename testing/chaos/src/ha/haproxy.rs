//! HAProxy in front of the nodes: it leads to the one that Patroni reports as the primary.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use local_stack::path::find_program;
use local_stack::ports::reserve_port;
use tokio::net::TcpStream;

use super::namespace::succeed;
use super::network::{NODES, address};
use super::settings::{PATRONI_PORT, POSTGRES_PORT};
use crate::wait::until;

/// How long HAProxy may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval between two checks of a node, in seconds.
const CHECK_INTERVAL: u32 = 1;

/// The number of checks that must fail before a node is no longer used.
const FAILED_CHECKS: u32 = 2;

/// A running HAProxy. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct HaProxy {
    process: Child,
    pub(super) port: u16,
}

impl HaProxy {
    /// Starts it with a configuration in this folder.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = reserve_port()?;
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, configuration(port)).context("writing haproxy.cfg")?;
        let log = std::fs::File::create(folder.join("haproxy.log"))?;
        let process = Command::new(program()?)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("running haproxy")?;
        let proxy = Self { process, port };
        let listens = until(START_TIMEOUT, async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        });
        ensure!(listens.await?, "HAProxy does not listen; see haproxy.log");
        Ok(proxy)
    }

    /// The version, and the settings that decide how fast it notices a new primary.
    pub(super) fn description() -> anyhow::Result<String> {
        // HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
        let text = succeed(Command::new(program()?).arg("-v"))?;
        let version = text.split_whitespace().nth(2).unwrap_or_default();
        Ok(format!("HAProxy {version}, inter {CHECK_INTERVAL}s fall {FAILED_CHECKS}"))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _already_ended = self.process.kill();
        let _already_ended = self.process.wait();
    }
}

fn program() -> anyhow::Result<PathBuf> {
    find_program("haproxy").context("haproxy is missing: `cargo xtask ha` installs it")
}

/// docs/high-availability.md explains the settings.
fn configuration(port: u16) -> String {
    let mut text = format!(
        "\
defaults
    mode tcp
    timeout connect 2s
    timeout client 30m
    timeout server 30m
    timeout check 2s

listen primary
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter {CHECK_INTERVAL}s fall {FAILED_CHECKS} rise 1 on-marked-down shutdown-sessions
"
    );
    for node in NODES {
        let server = format!(
            "    server node{node} {}:{POSTGRES_PORT} check port {PATRONI_PORT}\n",
            address(node)
        );
        text.push_str(&server);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_configuration_that_was_tested() {
        let page = include_str!("../../../../docs/high-availability.md");
        assert!(page.contains(&configuration(5000)), "{}", configuration(5000));
    }
}
