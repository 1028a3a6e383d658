//! A machine of the cluster: a network, process and IPC namespace, in which etcd and Patroni run,
//! and Postgres under Patroni.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::namespace::{Unprivileged, succeed};
use super::network;
use super::settings::ClusterSettings;

/// The first process of a node. Its arguments are the folder, the beginning of the names of the
/// logs, and the words that run a command without privileges. It waits until its network is there;
/// when it is killed, the kernel kills all others of the node with it.
const FIRST_PROCESS: &str = r#"
    folder=$0 logs=$1
    shift
    echo started
    read -r network || exit
    "$@" etcd --config-file "$folder/etcd.yml" >> "$logs-etcd.log" 2>&1 &
    "$@" patroni "$folder/patroni.yml" >> "$logs-patroni.log" 2>&1 &
    wait
"#;

/// A node. Its data stay when it is killed.
#[derive(Debug)]
pub(super) struct Node {
    number: u8,
    folder: PathBuf,
    logs: PathBuf,
    user: Unprivileged,
    running: Option<Running>,
}

/// The processes of a node that runs.
#[derive(Debug)]
struct Running {
    /// unshare(1), which waits for the first process.
    unshare: Child,
    /// The first process, as this process sees it.
    first: Pid,
}

impl Node {
    /// Writes the configuration of a node to a new folder in `folders`. Its logs go to `logs`.
    pub(super) fn create(
        number: u8,
        folders: &Path,
        logs: &Path,
        settings: &ClusterSettings,
        user: &Unprivileged,
    ) -> anyhow::Result<Self> {
        let node = Self {
            number,
            folder: folders.join(format!("node{number}")),
            logs: logs.join(format!("node{number}")),
            user: user.clone(),
            running: None,
        };
        let folder = &node.folder;
        for path in [folder, &node.sockets()] {
            std::fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
            user.own(path)?;
        }
        for (name, content) in [
            ("etcd.yml", settings.etcd(number, folder)),
            ("patroni.yml", settings.patroni(number, folder, &node.sockets(), &node.data())),
        ] {
            // Every JSON text is YAML.
            let file = folder.join(name);
            std::fs::write(&file, serde_json::to_vec_pretty(&content)?)
                .with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(node)
    }

    /// The data folder of Postgres.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of Postgres's socket, which can be used also if the node is cut off.
    pub(super) fn sockets(&self) -> PathBuf {
        self.folder.join("sockets")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of one of the node's programs.
    pub(super) fn log(&self, program: &str) -> PathBuf {
        let mut log = self.logs.clone().into_os_string();
        log.push(format!("-{program}.log"));
        log.into()
    }

    /// Starts the node, or starts it again after it was killed.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let errors = std::fs::File::create(self.log("unshare"))?;
        let mut unshare = Command::new("unshare")
            .args(["--net", "--pid", "--ipc", "--mount", "--mount-proc", "--fork", "--kill-child"])
            .args(["sh", "-c", FIRST_PROCESS])
            .args([&self.folder, &self.logs])
            .args(self.user.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("running unshare")?;
        let output = unshare.stdout.take().context("unshare has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "started\n", "node {} did not start; see unshare.log", self.number);
        let process = unshare.id();
        let children = format!("/proc/{process}/task/{process}/children");
        let first = std::fs::read_to_string(&children).context("finding a node's first process")?;
        let first = first.trim().parse().ok().and_then(Pid::from_raw);
        let first = first.context("unshare has no child")?;
        network::connect(self.number, process)?;
        let input = unshare.stdin.as_mut().context("unshare has no input")?;
        writeln!(input, "connected")?;
        self.running = Some(Running { unshare, first });
        Ok(())
    }

    /// Kills all processes of the node, and returns when they have ended.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let Some(Running { mut unshare, first }) = self.running.take() else { return Ok(()) };
        // The first process of a namespace can be waited for only when all others have ended.
        kill_process(first, Signal::KILL)?;
        unshare.wait()?;
        Ok(())
    }

    /// Sends a signal to processes of the node, by their ids in the node.
    pub(super) fn signal(&self, signal: &str, processes: &[i32]) -> anyhow::Result<()> {
        let first = self.running.as_ref().context("the node does not run")?.first;
        let first = first.as_raw_nonzero().to_string();
        let mut kill = Command::new("nsenter");
        kill.args(["--pid", "--mount", "--target", &first, "kill", "-s", signal]);
        kill.args(processes.iter().map(ToString::to_string));
        succeed(&mut kill).map(drop)
    }

    /// The id in the node of the first process of Postgres.
    pub(super) fn postmaster(&self) -> anyhow::Result<i32> {
        let file = self.data().join("postmaster.pid");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let first = text.lines().next().unwrap_or_default().trim();
        first.parse().context("postmaster.pid has no process id")
    }
}
