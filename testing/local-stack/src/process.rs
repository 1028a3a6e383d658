//! A service as a process of its own, as it runs in production.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::test_database::CLUSTER_VARIABLE;

pub use rustix::process::Signal;

/// How long a process may take to stop after SIGSTOP, which it cannot refuse.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running service. It is killed when this is dropped; [`ServiceProcess::stop`] lets it finish.
#[derive(Debug)]
pub struct ServiceProcess {
    process: Child,
}

/// Whether an environment variable has a secret, as far as its name says.
fn is_secret(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.contains("PASSWORD") || name == "NEWCYCLE_KEY" || name == CLUSTER_VARIABLE
}

impl ServiceProcess {
    /// Starts a program of the folder `programs` with these environment variables. Each line that
    /// it logs is passed to `log`. Its standard error is that of this process, because the service
    /// may outlive this process and must still be able to report an error.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        programs: &Path,
        name: &str,
        variables: &[(&str, String)],
        mut log: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = Command::new(programs.join(name));
        // What this process has of other programs, such as PGPASSWORD for the superuser.
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| is_secret(variable)) {
            command.env_remove(variable);
        }
        for (variable, value) in variables {
            command.env(variable, value);
        }
        // In its own process group, a Ctrl-C at the terminal does not reach it: the process that
        // started it gets the signal and stops it in order.
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(output) = process.stdout.take() {
            tokio::spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    log(&line);
                }
            });
        }
        Ok(Self { process })
    }

    /// The process id, while the process runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until the process ends, and returns its exit status.
    ///
    /// # Errors
    /// The operating system cannot wait for it.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Freezes the process (SIGSTOP), and returns when it no longer runs.
    ///
    /// # Errors
    /// The process has ended.
    pub async fn freeze(&self) -> io::Result<Frozen> {
        let process = self.pid()?;
        kill_process(process, Signal::STOP)?;
        let frozen = Frozen { process };
        // The process goes on until the signal has been delivered.
        let stopped = async {
            while waitid(WaitId::Pid(process), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?
                .is_none()
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(frozen)
        };
        tokio::time::timeout(FREEZE_TIMEOUT, stopped).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Kills the process, and waits until it has ended.
    pub async fn kill(&mut self) {
        let _already_ended = self.process.kill().await;
    }

    /// Asks the process to stop (SIGTERM), and kills it after `timeout`. Returns whether it exited
    /// with success by itself.
    pub async fn stop(&mut self, timeout: Duration) -> bool {
        // It may have ended by itself. A frozen process handles SIGTERM only after SIGCONT.
        for signal in [Signal::TERM, Signal::CONT] {
            let _already_ended = self.signal(signal);
        }
        match tokio::time::timeout(timeout, self.process.wait()).await {
            Ok(status) => status.is_ok_and(|status| status.success()),
            Err(_) => {
                self.kill().await;
                false
            }
        }
    }

    fn pid(&self) -> io::Result<Pid> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))
    }
}

/// A frozen process. It continues when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it lets the process continue"]
pub struct Frozen {
    process: Pid,
}

impl Frozen {
    /// Lets the process continue.
    pub fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The process may have been killed meanwhile.
        let _already_ended = kill_process(self.process, Signal::CONT);
    }
}
