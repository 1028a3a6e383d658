//! The services as processes of their own, as they run anywhere else.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub use rustix::process::Signal;

/// How long a process may take to heed a signal that none can refuse.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running service. It is killed when dropped; [`Service::stop`] lets it finish.
#[derive(Debug)]
pub struct Service {
    process: Child,
}

impl Service {
    /// Starts a program of the folder `programs` with these variables, and passes each line that it logs to `log`. Its
    /// standard error is that of this process: one that outlives this must still be able to complain.
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
        for (variable, value) in variables {
            command.env(variable, value);
        }
        // A group of its own: a Ctrl-C at the terminal is for whoever started the service, who then stops it.
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

    /// Its process id, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it ends, and says how.
    ///
    /// # Errors
    /// The operating system lost it.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.process()?, signal)?)
    }

    /// Stops it in the midst of whatever it does, and returns once it has stopped.
    ///
    /// # Errors
    /// It has ended.
    pub async fn freeze(&self) -> io::Result<Frozen> {
        let process = self.process()?;
        kill_process(process, Signal::STOP)?;
        let frozen = Frozen { process };
        // A signal is only sent: until it has arrived, the process goes on.
        let stopped = async {
            while waitid(WaitId::Pid(process), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(frozen)
        };
        tokio::time::timeout(PATIENCE, stopped).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Kills it, and waits until it has ended.
    pub async fn kill(&mut self) {
        let _already_ended = self.process.kill().await;
    }

    /// Asks it to stop, and kills it where it has not by the end of `patience`. Returns whether it ended well.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        // It may just have ended by itself. One that is frozen hears of it when it is thawed.
        for signal in [Signal::TERM, Signal::CONT] {
            let _already_ended = self.signal(signal);
        }
        match tokio::time::timeout(patience, self.process.wait()).await {
            Ok(status) => status.is_ok_and(|status| status.success()),
            Err(_) => {
                self.kill().await;
                false
            }
        }
    }

    fn process(&self) -> io::Result<Pid> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))
    }
}

/// A process that does nothing until this is dropped, in whatever way.
#[derive(Debug)]
#[must_use = "dropping it thaws the process"]
pub struct Frozen {
    process: Pid,
}

impl Frozen {
    /// Lets the process go on.
    pub fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _already_ended = kill_process(self.process, Signal::CONT);
    }
}
