//! A cluster with the template of the test databases, and how tests find it.

use std::ffi::OsString;

use local_stack::postgres::{ClusterSettings, Installation};
use local_stack::test_database::{CLUSTER_VARIABLE, INSTALLATIONS_VARIABLE, prepare_template};
use tokio::process::Command;

/// A cluster with the template of the test databases.
pub(crate) struct TestCluster {
    connection: String,
    installations: OsString,
}

impl TestCluster {
    /// Makes the template. `installations` are the versions that tests may use, the cluster's
    /// first.
    ///
    /// # Errors
    /// A migration fails.
    pub(crate) async fn prepare(
        settings: &ClusterSettings,
        installations: &[&Installation],
    ) -> anyhow::Result<Self> {
        let ClusterSettings { port, user, password, .. } = settings;
        let connection = format!("host=127.0.0.1 port={port} user={user} password={password}");
        prepare_template(&connection).await?;
        let installations =
            std::env::join_paths(installations.iter().map(|installation| installation.programs()))?;
        Ok(Self { connection, installations })
    }

    /// The address, for a superuser.
    pub(crate) fn connection(&self) -> &str {
        &self.connection
    }

    /// Passes the cluster to tests.
    pub(crate) fn pass_to(&self, tests: &mut Command) {
        tests
            .env(CLUSTER_VARIABLE, &self.connection)
            .env(INSTALLATIONS_VARIABLE, &self.installations);
    }
}
