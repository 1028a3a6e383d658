//! A stack for one test, and the commands that it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use local_stack::ports::reserve_port;
use local_stack::stack::built_programs;
use serde_json::Value;

/// The longest time for the gateway to show what was sent.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// A data folder and ports, for a stack that may run or not. Dropping it stops the stack, and
/// deletes the folder.
pub(crate) struct TestStack {
    pub(crate) folder: PathBuf,
    pub(crate) variables: Vec<(&'static str, String)>,
    key: OnceLock<String>,
}

impl TestStack {
    pub(crate) fn new(name: &str) -> Self {
        // Not in the checkout: as root, Postgres runs as another user, who may not be able to enter
        // it.
        let name = format!("newcycle-{name}-{:016x}", rand::random::<u64>());
        let folder = std::env::temp_dir().join(name);
        let mut variables = vec![("NEWCYCLE_DATA_DIR", folder.to_str().unwrap().to_owned())];
        let ports = [
            "PGPORT",
            "INGEST_PORT",
            "GATEWAY_PORT",
            "NOTIFIER_PORT",
            "DASHBOARD_PORT",
            "INGEST_INTERNAL_PORT",
            "GATEWAY_INTERNAL_PORT",
            "DASHBOARD_INTERNAL_PORT",
        ];
        variables.extend(ports.map(|port| (port, reserve_port().unwrap().to_string())));
        Self { folder, variables, key: OnceLock::new() }
    }

    /// A stack that runs.
    pub(crate) fn started(name: &str) -> Self {
        let stack = Self::new(name);
        stack.run(&["up", "--detach"]);
        stack
    }

    pub(crate) fn value(&self, variable: &str) -> &str {
        &self.variables.iter().find(|(name, _)| *name == variable).unwrap().1
    }

    /// A key that may do everything, of the stack, which must run.
    pub(crate) fn key(&self) -> &str {
        self.key.get_or_init(|| {
            let output = self.command(&["key"]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
        })
    }

    /// A request by curl that presents the [key](Self::key).
    pub(crate) fn curl(&self) -> Command {
        let header = self.folder.join("header");
        std::fs::write(&header, format!("authorization: Bearer {}\n", self.key())).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "-H", &format!("@{}", header.display())]);
        curl
    }

    /// The JSON that a service answers.
    pub(crate) fn get(&self, url: &str) -> Value {
        let output = self.curl().args(["-H", "accept: application/json", url]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A command of xtask in this stack.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        command.args(arguments).current_dir(root()).envs(variables);
        command
    }

    /// Runs a command that must succeed, and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = output(&mut self.command(arguments));
        assert!(succeeded, "{arguments:?} failed: {text}");
        text
    }

    /// Runs a command that must fail, and returns its output.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = output(&mut self.command(arguments));
        assert!(!succeeded, "{arguments:?} must fail: {text}");
        text
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--json"])).unwrap()
    }

    /// Kills the stack's own process, and waits until it has ended: on a busy machine, it holds its
    /// lock for a moment after the signal.
    pub(crate) fn kill(&self) {
        signal("-KILL", &self.status()["process_id"]);
        let started = std::time::Instant::now();
        while self.status()["running"] == true {
            assert!(started.elapsed().as_secs() < 60, "a killed stack must end");
        }
    }

    /// The id of a service's process, as JSON.
    pub(crate) fn process_id(&self, service: &str) -> Value {
        let status = self.status();
        let mut processes = status["processes"].as_array().unwrap().iter();
        processes.find(|process| process["name"] == service).unwrap()["process_id"].clone()
    }

    /// The URL of a service, by the variable of its port.
    pub(crate) fn url(&self, port: &str) -> String {
        format!("http://127.0.0.1:{}", self.value(port))
    }

    /// The gateway's counts of all years: items created, and transfers.
    fn counts(&self) -> (u64, u64) {
        let url =
            self.url("GATEWAY_PORT") + "/statistics?topic=item-creation/year&topic=transfers/year";
        let topics = self.get(&url);
        let sum = |topic: usize| {
            let buckets = topics[topic]["buckets"].as_array().unwrap();
            buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum()
        };
        (sum(0), sum(1))
    }

    /// Waits until the gateway shows these counts.
    pub(crate) fn until_counted(&self, items: u64, transfers: u64) {
        self.until_counts(&format!("{items} and {transfers}"), |counts| {
            counts == (items, transfers)
        });
    }

    /// Waits until the gateway shows counts that meet a condition.
    pub(crate) fn until_counts(&self, wanted: &str, are_wanted: impl Fn((u64, u64)) -> bool) {
        let started = Instant::now();
        loop {
            let counts = self.counts();
            if are_wanted(counts) {
                return;
            }
            assert!(started.elapsed() < COUNT_TIMEOUT, "{counts:?} must become {wanted}");
        }
    }
}

impl Drop for TestStack {
    fn drop(&mut self) {
        let _said = self.command(&["down"]).output();
        let _missing = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a command. Returns whether it succeeded, and its output and errors.
pub(crate) fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned());
    (output.status.success(), text.concat())
}

/// The accepted, repeated and rejected rows of a kind, from the table that `import` and `demo`
/// print.
pub(crate) fn row(text: &str, kind: &str) -> [u64; 3] {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(kind));
    let line = line.unwrap_or_else(|| panic!("no {kind}: {text}"));
    let numbers = line.split_whitespace().skip(1).map(|number| number.parse().unwrap());
    numbers.collect::<Vec<u64>>().try_into().unwrap()
}

/// Sends a signal to a process. The id is as in [`TestStack::status`].
pub(crate) fn signal(name: &str, process_id: &Value) {
    assert!(Command::new("kill").args([name, &process_id.to_string()]).status().unwrap().success());
}

/// Node: the one that xtask has installed below `target/`, else the one on PATH.
pub(crate) fn node() -> PathBuf {
    let programs = built_programs().unwrap();
    let local = programs.parent().unwrap().join("python-node/bin/node");
    if local.exists() { local } else { PathBuf::from("node") }
}

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
