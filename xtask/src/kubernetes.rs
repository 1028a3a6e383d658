//! `cargo xtask kubernetes`: whether the manifests of `deploy/kubernetes` are valid, permit what
//! the design needs and nothing else, and fit the programs. No cluster is involved.
//!
//! Each folder is rendered as `kubectl apply -k` would do it, and each check lists the mistakes
//! that it finds. Then each check must find the errors that are [`planted`] for it.
//!
//! Reading order: [`tools`] has the programs of others, [`manifests`] what they render, and one
//! file each has a check of ours.

mod availability;
mod manifests;
mod network;
mod planted;
mod pods;
mod settings;
mod tools;

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use self::manifests::Manifests;
use self::planted::Planted;
use self::settings::Secrets;
use self::tools::{Outcome, Tools};
use crate::command::in_checkout;
use crate::install::Installer;
use crate::programs;

/// Where the manifests are, in the checkout.
const MANIFESTS: &str = "deploy/kubernetes";

/// What an operator applies: the overlays, and one as an operator may write it.
const FOLDERS: [&str; 3] = [SMALL, HIGHLY_AVAILABLE, "example"];

/// The overlay with one of each, and without autoscalers and their metrics.
const SMALL: &str = "overlays/small";

/// The overlay that the planted errors change.
const HIGHLY_AVAILABLE: &str = "overlays/highly-available";

/// A check of rendered manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Kubernetes' own definitions.
    Definitions,
    /// The types of CloudNativePG.
    CustomResources,
    /// Who can reach whom.
    Network,
    /// What every pod must have.
    Pods,
    /// What the programs read, and what must fit it.
    Settings,
    /// What the highly available overlay promises.
    Availability,
}

impl Check {
    const ALL: [Self; 6] = [
        Self::Definitions,
        Self::CustomResources,
        Self::Network,
        Self::Pods,
        Self::Settings,
        Self::Availability,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Definitions => "definitions",
            Self::CustomResources => "custom resources",
            Self::Network => "network",
            Self::Pods => "pods",
            Self::Settings => "settings",
            Self::Availability => "availability",
        })
    }
}

/// What the checks need besides the manifests.
struct Checker {
    tools: Tools,
    secrets: Secrets,
    stand_ins: String,
    dockerfile: String,
    metrics: String,
}

/// Checks all manifests, then the checks.
pub(crate) async fn run(installer: Installer) -> anyhow::Result<()> {
    programs::services().await?;
    let tools = Tools::ensure(installer).await?;
    let started = Instant::now();
    let secrets = settings::make_secrets(&tools, &tools.folder.join("secrets")).await?;
    let read = |path: &str| {
        std::fs::read_to_string(in_checkout(path)).with_context(|| format!("reading {path}"))
    };
    let checker = Checker {
        tools,
        secrets,
        stand_ins: read("testing/kubernetes/stand-ins.yaml")?,
        dockerfile: read("deploy/Dockerfile")?,
        metrics: read("docs/operations.md")?,
    };
    for folder in FOLDERS {
        checker.check_folder(folder).await?;
    }
    checker.check_planted().await?;
    println!("== kubernetes: all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

impl Checker {
    async fn check_folder(&self, folder: &str) -> anyhow::Result<()> {
        println!("== {MANIFESTS}/{folder}");
        let manifests = self.tools.render(&in_checkout(MANIFESTS).join(folder)).await?;
        let is_small = folder == SMALL;
        let checks = Check::ALL.into_iter();
        let mut found = 0;
        for check in checks.filter(|check| !is_small || *check != Check::Availability) {
            for mistake in self.mistakes(check, &manifests, !is_small).await? {
                println!("{check}: {mistake}");
                found += 1;
            }
        }
        ensure!(found == 0, "{found} mistakes in {MANIFESTS}/{folder}; see above");
        println!("{} resources, no mistakes", manifests.0.len());
        Ok(())
    }

    /// What a check finds.
    async fn mistakes(
        &self,
        check: Check,
        manifests: &Manifests,
        has_metrics: bool,
    ) -> anyhow::Result<Vec<String>> {
        Ok(match check {
            Check::Definitions => lines_of_failure(&self.tools.validate(manifests).await?),
            Check::CustomResources => lines_of_failure(&self.tools.check_custom(manifests).await?),
            Check::Network => {
                let pods = network::with_pods(manifests);
                let lines = self.tools.connections(&pods, &self.stand_ins).await?;
                network::mistakes(&lines, has_metrics)
            }
            Check::Pods => pods::mistakes(manifests, &self.dockerfile),
            Check::Settings => settings::mistakes(manifests, &self.secrets).await?,
            Check::Availability => availability::mistakes(manifests, &self.metrics),
        })
    }

    /// Plants each error, and fails if its check does not report it.
    async fn check_planted(&self) -> anyhow::Result<()> {
        println!("== planted errors");
        unrenderable(&self.tools).await?;
        let manifests = self.tools.render(&in_checkout(MANIFESTS).join(HIGHLY_AVAILABLE)).await?;
        for Planted { error, check, plant, found } in planted::ALL {
            let mut changed = manifests.clone();
            let is_planted = plant(&mut changed).is_some() && changed != manifests;
            ensure!(is_planted, "{error}: cannot be planted: the manifests have changed");
            let mistakes = self.mistakes(check, &changed, true).await?;
            if !mistakes.iter().any(|mistake| mistake.contains(found)) {
                bail!("{error}: {check} must report `{found}`, and reports {mistakes:#?}");
            }
        }
        let checks = Check::ALL.map(|check| {
            let errors = planted::ALL.iter().filter(|planted| planted.check == check).count();
            format!("{check} {errors}")
        });
        println!("all found: rendering 1, {}", checks.join(", "));
        Ok(())
    }
}

/// What a program printed, if it failed.
fn lines_of_failure(outcome: &Outcome) -> Vec<String> {
    if outcome.succeeded {
        return Vec::new();
    }
    let lines: Vec<String> = outcome.printed.lines().map(str::to_owned).collect();
    if lines.is_empty() { vec!["it failed without a message".to_owned()] } else { lines }
}

/// The planted error of rendering: an overlay that changes a workload that does not exist. kubectl
/// must refuse it.
async fn unrenderable(tools: &Tools) -> anyhow::Result<()> {
    let folder = tools.folder.join("unrenderable");
    copy(&in_checkout(MANIFESTS), &folder)?;
    let overlay = folder.join(SMALL);
    let file = overlay.join("kustomization.yaml");
    let patch = "
patches:
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: stats-notifier
      spec:
        replicas: 2
";
    let written =
        std::fs::read_to_string(&file).and_then(|text| std::fs::write(&file, text + patch));
    written.with_context(|| format!("changing {}", file.display()))?;
    let Err(error) = tools.render(&overlay).await else {
        bail!("an overlay that changes a Deployment that does not exist must not be rendered");
    };
    let message = format!("{error:#}");
    ensure!(message.contains("no resource matches"), "another reason was expected: {message}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from)?);
        let copied = if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target)
        } else {
            std::fs::copy(entry.path(), &target).map(drop)
        };
        copied.with_context(|| format!("copying to {}", target.display()))?;
    }
    Ok(())
}
