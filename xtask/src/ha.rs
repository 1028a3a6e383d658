//! `cargo xtask ha`: failovers of a real cluster of Postgres. The crate `chaos` runs them; this
//! builds and installs what it needs.

use std::path::PathBuf;

use anyhow::{Context, bail};
use local_stack::path::find_program;
use local_stack::stack::built_programs;
use tokio::process::Command;

use crate::command::is_continuous_integration;
use crate::install::Installer;
use crate::{chaos, page, postgres, programs};

/// A program that the cluster consists of or is made with.
pub(crate) struct Program {
    name: &'static str,
    pub(crate) package: &'static str,
    /// The name of the package's service, which must not start.
    service: Option<&'static str>,
}

pub(crate) const PROGRAMS: [Program; 5] = [
    Program { name: "patroni", package: "patroni", service: Some("patroni") },
    Program { name: "etcd", package: "etcd-server", service: Some("etcd") },
    Program { name: "haproxy", package: "haproxy", service: Some("haproxy") },
    Program { name: "ip", package: "iproute2", service: None },
    Program { name: "nsenter", package: "util-linux", service: None },
];

impl Program {
    pub(crate) fn find(&self) -> Option<PathBuf> {
        find_program(self.name)
    }
}

/// Runs the whole matrix, or what the arguments select.
pub(crate) async fn run(arguments: &[String], installer: Installer) -> anyhow::Result<()> {
    ensure(installer).await?;
    chaos::program("failovers", "ha", arguments).await
}

/// [`run`], but on a machine that cannot have such a cluster it is left out, except in continuous
/// integration. In the short form, one of the faults must lose acknowledged writes, and the checks
/// must find them.
pub(crate) async fn test(arguments: &[&str], installer: Installer) -> anyhow::Result<()> {
    let ready = match ensure(installer).await {
        Ok(()) => check_namespaces().await,
        missing => missing,
    };
    match ready {
        Ok(()) => chaos::program("failovers", "ha", arguments).await,
        Err(error) if is_continuous_integration() => {
            Err(error.context("failovers cannot be tested"))
        }
        Err(error) => {
            println!("== SKIPPED: failovers: {error:#}");
            Ok(())
        }
    }
}

async fn ensure(installer: Installer) -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the nodes live in namespaces, which only Linux has");
    }
    // Also makes the user that the cluster runs as.
    postgres::ensure(installer)?;
    for Program { package, service, .. } in
        PROGRAMS.iter().filter(|program| program.find().is_none())
    {
        match service {
            Some(service) => installer.package_without_service(package, service)?,
            None => installer.packages(&[package])?,
        }
    }
    page::build(installer).await?;
    programs::services_and_chaos().await
}

/// Fails if this machine does not permit the namespaces; the message says what to do.
async fn check_namespaces() -> anyhow::Result<()> {
    let program = built_programs()?.join("ha");
    let output = Command::new(program).arg("--check").output().await.context("running ha")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{}", message.trim().trim_start_matches("error: "));
    }
    Ok(())
}
