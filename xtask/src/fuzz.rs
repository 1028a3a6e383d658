//! `cargo xtask fuzz`: looks for bad input that does what no input may do. What is checked is in the crate
//! `fuzz-properties`; `testing/fuzz/targets` has what is run, and its README what to do with what is found.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::Command;

use crate::node::folder;
use crate::test::step;

/// The longest input, in bytes: the bounds that are checked are shorter.
const LONGEST_INPUT: &str = "-max_len=1400";

/// How much memory one target may have with what the fuzzer keeps, in megabytes, and how long one input may take, in
/// seconds. The crate of the targets bounds what an input takes.
const BOUNDS: [&str; 2] = ["-rss_limit_mb=1024", "-timeout=10"];

/// There is no unsafe code of our own in which a sanitizer could find anything, and without one a target is several times
/// as fast.
const NO_SANITIZER: [&str; 2] = ["--sanitizer", "none"];

/// What is run, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many inputs each target is given.
    #[arg(long, default_value_t = 100_000)]
    executions: u64,
    /// Only this target; testing/fuzz/README.md says what there is.
    #[arg(long)]
    target: Option<String>,
}

/// Runs the targets, one after another, each until it finds something or has had so many inputs.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut targets = targets()?;
    if let Some(name) = options.target {
        if !targets.contains(&name) {
            bail!("there is no target {name}; there are: {}", targets.join(", "));
        }
        targets = vec![name];
    }
    bring().await?;
    step("building the targets", fuzz("build")).await?;
    for target in targets {
        let started = Instant::now();
        let (found, kept) = (format!("target/found/{target}"), format!("../corpus/{target}"));
        let found_folder = folder("testing/fuzz/targets").join(&found);
        std::fs::create_dir_all(&found_folder)
            .with_context(|| format!("making {}", found_folder.display()))?;
        let (executions, dictionary) =
            (format!("-runs={}", options.executions), format!("-dict=../dictionaries/{target}.dict"));
        let mut command = fuzz("run");
        command.args([&target, &found, &kept, "--", &executions, &dictionary]).args(BOUNDS);
        command.args([LONGEST_INPUT, "-print_final_stats=1"]);
        step(&format!("fuzzing: {target}"), command).await.with_context(|| {
            format!(
                "bytes that break {target} are in testing/fuzz/targets/artifacts/{target}; testing/fuzz/README.md says what to do"
            )
        })?;
        println!("== {target}: nothing found in {} s", started.elapsed().as_secs());
    }
    Ok(())
}

/// The names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = folder("testing/fuzz/targets/fuzz_targets");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let names = paths.iter().filter_map(|path| path.file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// A subcommand of `cargo +nightly fuzz`, in its folder.
fn fuzz(subcommand: &str) -> Command {
    let mut command = nightly(&["fuzz", subcommand]);
    command.args(NO_SANITIZER).current_dir(folder("testing/fuzz/targets"));
    command
}

/// The cargo that knows toolchains, rather than that of the toolchain by which this was started.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments).env_remove("RUSTUP_TOOLCHAIN").kill_on_drop(true);
    command
}

/// Brings cargo-fuzz, and says what else is needed.
async fn bring() -> anyhow::Result<()> {
    if !succeeds(nightly(&["--version"])).await {
        bail!(
            "fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`. \
             Without one, `cargo test -p fuzz-properties` replays what was found before"
        );
    }
    if !succeeds(nightly(&["fuzz", "--version"])).await {
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-fuzz", "--locked"]).current_dir(Path::new("/")).kill_on_drop(true);
        step("installing cargo-fuzz", install).await?;
    }
    Ok(())
}

async fn succeeds(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}
