//! `cargo xtask upgrade`: a rolling upgrade from an older release under load, and the way back. The
//! crate `chaos` does it; this builds the older programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::command::{cargo, in_checkout, is_continuous_integration, step, target_folder};
use crate::install::Installer;
use crate::programs::select;
use crate::{chaos, postgres, programs};

/// The programs of the older release that are used.
const PROGRAMS: [&str; 4] = ["migrate", "ingest-api", "stats-notifier", "sse-gateway"];

/// Upgrades from a revision, by default from [`previous`].
pub(crate) async fn run(from: Option<&str>, installer: Installer) -> anyhow::Result<()> {
    let revision = match from {
        Some(revision) => commit(&format!("{revision}^{{commit}}")).await?,
        None => previous().await?,
    };
    let older = build(&revision).await?;
    programs::services_and_chaos().await?;
    postgres::ensure(installer)?;
    let name = format!("upgrading from {revision}, and going back");
    chaos::program(&name, "upgrade", &[Path::new("--older"), &older]).await
}

/// [`run`] for continuous integration. A checkout without history has no older release.
pub(crate) async fn test(installer: Installer) -> anyhow::Result<()> {
    match previous().await {
        Ok(revision) => run(Some(&revision), installer).await,
        // What a developer's checkout may lack is an error in continuous integration.
        Err(error) if is_continuous_integration() => {
            Err(error.context("there is no older release to upgrade from"))
        }
        Err(error) => {
            println!("== SKIPPED: the upgrade from an older release: {error:#}");
            Ok(())
        }
    }
}

/// The commit of the last release. Before the first one, the last commit without the newest
/// migration: its programs run on two schemas.
async fn previous() -> anyhow::Result<String> {
    if let Ok(tag) = git(&["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]).await {
        return commit(&format!("{tag}^{{commit}}")).await;
    }
    let newest = format!("migrations/V{}__*.sql", postgres_kit::schema::VERSION);
    let added = git(&["log", "--diff-filter=A", "--format=%H", "-1", "--", &newest]).await?;
    if added.is_empty() {
        bail!("no commit has added {newest}");
    }
    let parent = commit(&format!("{added}^")).await;
    parent.context("the checkout has no older commits: fetch the whole history")
}

async fn commit(revision: &str) -> anyhow::Result<String> {
    git(&["rev-parse", "--verify", "--quiet", revision]).await
}

/// Runs git in the checkout, and returns what it prints.
async fn git(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    let output = command.args(arguments).current_dir(in_checkout("")).output().await;
    let output = output.context("git cannot be run")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("git {} failed: {}", arguments.join(" "), reason.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds the programs of a commit, unless that was done before, and returns their folder.
///
/// They share the dependencies with this build, which takes the longest: cargo keeps what it builds
/// of them in the same folder, and [`set_profiles`] makes them the same.
async fn build(revision: &str) -> anyhow::Result<PathBuf> {
    let target = target_folder()?;
    let folder = target.join("upgrade").join(revision);
    let (source, programs) = (folder.join("source"), folder.join("programs"));
    let finished = folder.join("finished");
    if finished.exists() {
        return Ok(programs.join("debug"));
    }
    std::fs::create_dir_all(&source).with_context(|| format!("making {}", source.display()))?;
    let mut export = Command::new("sh");
    // With pipefail, bash would be needed: an archive that is cut off is an error of tar.
    export.args(["-eu", "-c", "git archive \"$1\" | tar -x -C \"$2\"", "sh", revision]);
    export.arg(&source).current_dir(in_checkout(""));
    step(&format!("reading the files of {revision}"), export).await?;
    set_profiles(&source)?;
    let mut build = cargo(&["build", "--locked"]);
    build.arg("--config").arg(format!("build.build-dir={target:?}"));
    build.arg("--target-dir").arg(&programs).args(select(&PROGRAMS)).current_dir(&source);
    step("building the older programs", build).await?;
    std::fs::write(&finished, "").with_context(|| format!("making {}", finished.display()))?;
    Ok(programs.join("debug"))
}

/// Gives the sources of an older release the profiles of this one, which are a part of the names
/// that cargo gives to what it builds.
///
/// The project's own crates would have the same names, too, and each build would replace those of
/// the other. So theirs is another profile, which is compiled fast.
fn set_profiles(source: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| -> anyhow::Result<toml::Table> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        text.parse().with_context(|| format!("reading {}", path.display()))
    };
    let path = source.join("Cargo.toml");
    let mut manifest = read(&path)?;
    let mut profiles = read(&in_checkout("Cargo.toml"))?.remove("profile");
    let packages = profiles
        .as_mut()
        .and_then(|profiles| profiles.get_mut("dev")?.get_mut("package")?.as_table_mut())
        .context("Cargo.toml has no profile of packages")?;
    let crates = source.join("crates");
    let entries =
        std::fs::read_dir(&crates).with_context(|| format!("reading {}", crates.display()))?;
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let fast = [("opt-level".to_owned(), 0.into()), ("debug".to_owned(), false.into())];
        packages.insert(name, toml::Table::from_iter(fast).into());
    }
    manifest.extend(profiles.map(|profiles| ("profile".to_owned(), profiles)));
    std::fs::write(&path, manifest.to_string())
        .with_context(|| format!("writing {}", path.display()))
}
