//! The services as processes of their own, as they run anywhere else.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running service. It is killed when dropped; [`Service::stop`] lets it finish.
#[derive(Debug)]
pub struct Service {
    process: Child,
}

impl Service {
    /// Starts a program of the folder `programs` with these variables, and passes each line that it logs to `log`.
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

    /// Asks it to stop, and kills it where it has not by the end of `patience`. Returns whether it ended well.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // It may just have ended by itself.
            let _already_ended = kill_process(id, Signal::TERM);
        }
        match tokio::time::timeout(patience, self.process.wait()).await {
            Ok(status) => status.is_ok_and(|status| status.success()),
            Err(_) => {
                let _already_ended = self.process.kill().await;
                false
            }
        }
    }
}
