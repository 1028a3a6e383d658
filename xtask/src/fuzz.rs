//! `cargo xtask fuzz`: runs the fuzz targets. The crate `fuzz-properties` has the properties that
//! they check, and `testing/fuzz/README.md` says what to do with a finding.

use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::Command;

use crate::command::{in_checkout, step, succeeds};
use crate::install::Installer;

/// The longest input, in bytes. The bounds under test are shorter.
const LONGEST_INPUT: &str = "-max_len=1400";

/// The memory of one target including the corpus, in megabytes, and the time for one input, in
/// seconds. The targets themselves bound the memory for one input.
const BOUNDS: [&str; 2] = ["-rss_limit_mb=1024", "-timeout=10"];

/// Our code has no `unsafe` in which a sanitizer could find anything, and a target runs several
/// times as fast without one.
const NO_SANITIZER: &str = "--sanitizer=none";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The number of inputs for each target.
    #[arg(long, default_value_t = 100_000)]
    executions: u64,
    /// Run only this target; testing/fuzz/README.md lists them.
    #[arg(long)]
    target: Option<String>,
}

/// Runs the targets one after another, each until it finds something or has run all inputs.
pub(crate) async fn run(options: Options, installer: Installer) -> anyhow::Result<()> {
    let mut targets = targets()?;
    if let Some(name) = options.target {
        if !targets.contains(&name) {
            bail!("there is no target {name}; there are: {}", targets.join(", "));
        }
        targets = vec![name];
    }
    ensure(installer).await?;
    step("building the targets", fuzz(&["build", NO_SANITIZER])).await?;
    for target in targets {
        let started = Instant::now();
        let found = format!("target/found/{target}");
        let kept = format!("../corpus/{target}");
        let found_folder = in_checkout("testing/fuzz/targets").join(&found);
        std::fs::create_dir_all(&found_folder)
            .with_context(|| format!("making {}", found_folder.display()))?;
        let executions = format!("-runs={}", options.executions);
        let dictionary = format!("-dict=../dictionaries/{target}.dict");
        let mut command = fuzz(&["run", NO_SANITIZER]);
        command.args([&target, &found, &kept, "--", &executions, &dictionary]).args(BOUNDS);
        command.args([LONGEST_INPUT, "-print_final_stats=1"]);
        step(&format!("fuzzing: {target}"), command).await.with_context(|| {
            format!(
                "the input that breaks {target} is in testing/fuzz/targets/artifacts/{target}; \
                 testing/fuzz/README.md says what to do"
            )
        })?;
        println!("== {target}: nothing found in {} s", started.elapsed().as_secs());
    }
    Ok(())
}

/// The names of all targets, from their files: `cargo fuzz list` needs a nightly toolchain.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = in_checkout("testing/fuzz/targets/fuzz_targets");
    let reading = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// A subcommand of `cargo +nightly fuzz`, in its folder.
fn fuzz(arguments: &[&str]) -> Command {
    let mut command = nightly(&["fuzz"]);
    // Without it, cargo-fuzz 0.13.2 looks for a folder `fuzz` at the root of the checkout.
    command.args(arguments).args(["--fuzz-dir", "."]);
    command.current_dir(in_checkout("testing/fuzz/targets"));
    command
}

/// The cargo on PATH, which can choose a toolchain. CARGO names one that cannot.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments).env_remove("RUSTUP_TOOLCHAIN").kill_on_drop(true);
    command
}

/// Installs cargo-fuzz if it is missing; a nightly toolchain must be there.
async fn ensure(installer: Installer) -> anyhow::Result<()> {
    if !succeeds(nightly(&["--version"])).await {
        bail!(
            "fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`. \
             Without one, `cargo test -p fuzz-properties` replays the corpora and variations of them"
        );
    }
    if !succeeds(nightly(&["fuzz", "--version"])).await {
        installer.check_allowed("cargo-fuzz")?;
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-fuzz", "--locked"]).current_dir("/").kill_on_drop(true);
        step("installing cargo-fuzz into cargo's home folder", install).await?;
    }
    Ok(())
}
