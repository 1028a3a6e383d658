//! The tasks that a service consists of live and die together.
//!
//! Invariant: a service of which a task has died does not go on half alive. Its siblings are cancelled, given
//! time to drain, and the process ends with an error.

use std::error::Error;
use std::time::Duration;

use actix_web::dev::Server;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// What a task may end with.
pub type TaskError = Box<dyn Error + Send + Sync>;

type Ended = (&'static str, Result<(), TaskError>);

/// Why a service ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A task failed.
    #[error("{task} failed: {source}")]
    Failed {
        /// The name of the task.
        task: &'static str,
        /// What it failed with.
        source: TaskError,
    },
    /// A task ended although nobody asked for it.
    #[error("{0} ended although nothing asked it to")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task panicked: {0}")]
    Panicked(JoinError),
    /// Tasks were still busy when the time to drain was over.
    #[error("{tasks} task(s) still busy after {seconds} s of draining")]
    DrainExceeded {
        /// How many.
        tasks: usize,
        /// The time they had.
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
    /// Tasks that `shutdown` asks to end, and that then have `drain` to do so.
    #[must_use]
    pub fn new(shutdown: CancellationToken, drain: Duration) -> Self {
        Self { tasks: JoinSet::new(), shutdown, drain }
    }

    /// Starts a task. It must end soon after the shutdown token is cancelled, and not before.
    pub fn spawn<E: Into<TaskError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Starts an HTTP server, which stops taking connections when the service is asked to end and then lets the
    /// open ones finish.
    pub fn serve(&mut self, name: &'static str, server: Server) {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            let handle = server.handle();
            let stop = async {
                shutdown.cancelled().await;
                handle.stop(true).await;
            };
            // A server that fails on its own must be seen at once, not when it is asked to stop.
            tokio::pin!(server);
            tokio::select! {
                ended = &mut server => ended,
                () = stop => server.await,
            }
        });
    }

    /// Runs until the service is asked to end or a task dies, then drains the rest.
    ///
    /// # Errors
    /// The first thing that went wrong; the service then exits with a failure.
    pub async fn run_until_stopped(mut self) -> Result<(), SupervisorError> {
        // The request to end comes first: a task that has obeyed it already did not end unasked.
        let first = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        let mut result = match first {
            None => Ok(()),
            Some(ended) => Err(died(ended)),
        };
        if let Err(error) = &result {
            tracing::error!(error = %error, "stopping, for a part of the service died");
        }
        self.shutdown.cancel();
        let drained = tokio::time::timeout(self.drain, async {
            while let Some(ended) = self.tasks.join_next().await {
                if !matches!(ended, Ok((_, Ok(())))) && result.is_ok() {
                    result = Err(died(ended));
                }
            }
        });
        if drained.await.is_err() && result.is_ok() {
            let (tasks, seconds) = (self.tasks.len(), self.drain.as_secs());
            result = Err(SupervisorError::DrainExceeded { tasks, seconds });
        }
        result
    }
}

fn died(ended: Result<Ended, JoinError>) -> SupervisorError {
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
    async fn a_dead_task_takes_its_siblings_along() {
        let token = CancellationToken::new();
        let mut supervisor = Supervisor::new(token.clone(), Duration::from_secs(60));
        supervisor.spawn("sibling", until(token.clone()));
        supervisor.spawn("dying", async { Err::<(), TaskError>("broken".into()) });
        let error = supervisor.run_until_stopped().await.unwrap_err();
        assert_eq!(error.to_string(), "dying failed: broken");
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_an_error() {
        let mut supervisor = Supervisor::new(CancellationToken::new(), Duration::from_secs(60));
        supervisor.spawn("short", async { Ok::<(), TaskError>(()) });
        assert!(matches!(supervisor.run_until_stopped().await, Err(SupervisorError::Ended("short"))));
    }

    #[tokio::test]
    async fn being_asked_to_end_is_no_error() {
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
        assert!(matches!(error, SupervisorError::DrainExceeded { tasks: 1, seconds: 60 }), "{error}");
    }
}
