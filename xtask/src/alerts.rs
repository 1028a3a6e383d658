//! `cargo xtask alerts`: whether the alerts of `deploy/prometheus` are valid, and fire when they
//! should.

use local_stack::path::find_program;
use tokio::process::Command;

use crate::command::{in_checkout, step};
use crate::install::Installer;

/// The folder of the rules, and of the tests that name them.
const FOLDER: &str = "deploy/prometheus";

/// Checks the rules and the configuration, then runs the tests of the rules.
pub(crate) async fn run(installer: Installer) -> anyhow::Result<()> {
    if find_program("promtool").is_none() {
        installer.package_without_service("prometheus", "prometheus")?;
    }
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(in_checkout(FOLDER));
        command
    };
    step("alerts: rules", promtool(&["check", "rules", "newcycle.rules.yml"])).await?;
    // The secret is on the machine of Prometheus.
    let syntax = ["check", "config", "--syntax-only", "prometheus.yml"];
    step("alerts: the configuration", promtool(&syntax)).await?;
    step("alerts: tests", promtool(&["test", "rules", "newcycle.test.yml"])).await
}
