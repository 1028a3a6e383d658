//! Runs the tasks of a service, which start and end together.
//!
//! Invariant: if one task fails, the service does not go on without it. The other tasks are
//! cancelled and get time to drain, and the process exits with an error.

use std::error::Error;
use std::time::Duration;

use actix_web::dev::Server;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The error of a task.
pub type TaskError = Box<dyn Error + Send + Sync>;

type Ended = (&'static str, Result<(), TaskError>);

/// Why a service ended without being asked to, or did not end in time.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A task failed.
    #[error("{task} failed: {source}")]
    Failed {
        /// The name of the task.
        task: &'static str,
        /// Its error.
        source: TaskError,
    },
    /// A task ended before the service was asked to stop.
    #[error("{0} ended before the service was asked to stop")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task panicked: {0}")]
    Panicked(JoinError),
    /// Tasks were still running when the time to drain was over.
    #[error("{tasks} task(s) still running after {seconds} s of draining")]
    DrainExceeded {
        /// The number of tasks.
        tasks: usize,
        /// The time to drain.
        seconds: u64,
    },
}

/// The tasks of one service.
pub struct Supervisor {
    tasks: JoinSet<Ended>,
    shutdown: CancellationToken,
    drain: Duration,
}

impl Supervisor {
    /// A supervisor without tasks. When `shutdown` is cancelled, its tasks have `drain` to end.
    #[must_use]
    pub fn new(shutdown: CancellationToken, drain: Duration) -> Self {
        Self { tasks: JoinSet::new(), shutdown, drain }
    }

    /// Changes the time that tasks have to end.
    pub(crate) const fn set_drain(&mut self, drain: Duration) {
        self.drain = drain;
    }

    /// Starts a task. It must end soon after the shutdown token is cancelled, and not before.
    pub fn spawn<E: Into<TaskError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Starts an HTTP server. When the service is asked to stop, it accepts no more connections and
    /// lets the open requests finish.
    pub fn serve(&mut self, name: &'static str, server: Server) {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            let handle = server.handle();
            let stop = async {
                shutdown.cancelled().await;
                handle.stop(true).await;
            };
            // A server that fails by itself must be noticed now, and not when the service stops.
            tokio::pin!(server);
            tokio::select! {
                ended = &mut server => ended,
                () = stop => server.await,
            }
        });
    }

    /// Runs until the service is asked to stop or a task ends, then drains the others.
    ///
    /// # Errors
    /// The first failure.
    pub async fn run_until_stopped(mut self) -> Result<(), SupervisorError> {
        // Checked first, so that a task that ended on request is not mistaken for one that failed.
        let first = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        let mut result = match first {
            None => Ok(()),
            Some(ended) => Err(failure(ended)),
        };
        if let Err(error) = &result {
            tracing::error!(error = %error, "stopping because a task of the service failed");
        }
        self.shutdown.cancel();
        let drained = tokio::time::timeout(self.drain, async {
            while let Some(ended) = self.tasks.join_next().await {
                if !matches!(ended, Ok((_, Ok(())))) && result.is_ok() {
                    result = Err(failure(ended));
                }
            }
        });
        if drained.await.is_err() && result.is_ok() {
            let tasks = self.tasks.len();
            result = Err(SupervisorError::DrainExceeded { tasks, seconds: self.drain.as_secs() });
        }
        result
    }
}

fn failure(ended: Result<Ended, JoinError>) -> SupervisorError {
    match ended {
        Ok((task, Ok(()))) => SupervisorError::Ended(task),
        Ok((task, Err(source))) => SupervisorError::Failed { task, source },
        Err(panicked) => SupervisorError::Panicked(panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(token: CancellationToken) -> Result<(), TaskError> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_failed_task_stops_its_siblings() {
        let token = CancellationToken::new();
        let mut supervisor = Supervisor::new(token.clone(), Duration::from_secs(60));
        supervisor.spawn("sibling", until(token.clone()));
        supervisor.spawn("failing", async { Err::<(), TaskError>("broken".into()) });
        let error = supervisor.run_until_stopped().await.unwrap_err();
        assert_eq!(error.to_string(), "failing failed: broken");
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_an_error() {
        let mut supervisor = Supervisor::new(CancellationToken::new(), Duration::from_secs(60));
        supervisor.spawn("short", async { Ok::<(), TaskError>(()) });
        assert!(matches!(
            supervisor.run_until_stopped().await,
            Err(SupervisorError::Ended("short"))
        ));
    }

    #[tokio::test]
    async fn stopping_on_request_is_no_error() {
        let token = CancellationToken::new();
        let mut supervisor = Supervisor::new(token.clone(), Duration::from_secs(60));
        supervisor.spawn("task", until(token.clone()));
        token.cancel();
        supervisor.run_until_stopped().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_drain_is_an_error() {
        let token = CancellationToken::new();
        let mut supervisor = Supervisor::new(token.clone(), Duration::from_secs(60));
        supervisor.spawn("stuck", std::future::pending::<Result<(), TaskError>>());
        token.cancel();
        let error = supervisor.run_until_stopped().await.unwrap_err();
        assert!(
            matches!(error, SupervisorError::DrainExceeded { tasks: 1, seconds: 60 }),
            "{error}"
        );
    }
}
