//! What the producers of a test share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_stack::test_database::client;
use reqwest::Client;
use serde_json::json;
use tokio_postgres::Config;
use uuid::Uuid;

use crate::database::Database;
use crate::history::{ExpectedState, Parents, Table, WriteHistory};

/// How long a producer waits for a response. It is short, so that the outcome of many writes stays
/// unknown.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one attempt of [`TestWorld::probe`] waits for a response.
const PROBE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// What all producers share.
#[derive(Debug, Clone)]
pub(crate) struct TestWorld {
    /// The base URLs of the ingest-apis.
    pub(crate) ingest: Vec<String>,
    /// How a superuser connects to the database.
    pub(crate) database: Config,
    pub(crate) parents: Parents,
    pub(crate) history: Arc<WriteHistory>,
}

impl TestWorld {
    /// Inserts the rows that events refer to. Producers write to these ingest-apis and, by SQL, as
    /// `producers` says.
    pub(crate) async fn create(
        database: &Database,
        ingest: Vec<String>,
        producers: Config,
    ) -> anyhow::Result<Self> {
        let parents =
            Parents { base_item: Uuid::now_v7(), user: Uuid::now_v7(), item: Uuid::now_v7() };
        database.prepare(parents).await?;
        let history = Arc::new(WriteHistory::default());
        history.note(Table::Items, parents.item, ExpectedState::Stored);
        Ok(Self { ingest, database: producers, parents, history })
    }

    /// Posts one item to the ingest-api of this index, and repeats that until it is acknowledged.
    /// Returns the item's id.
    pub(crate) async fn probe(&self, ingest: usize, timeout: Duration) -> anyhow::Result<Uuid> {
        let id = Uuid::now_v7();
        let client = client();
        let posted = async {
            while !self.attempt(&client, ingest, id, PROBE_ATTEMPT_TIMEOUT).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(timeout, posted)
            .await
            .context("an item was not acknowledged in time")?;
        Ok(id)
    }

    /// Posts one item to the ingest-api of this index once. Returns whether it was acknowledged.
    pub(crate) async fn post(&self, client: &Client, ingest: usize) -> bool {
        self.attempt(client, ingest, Uuid::now_v7(), RESPONSE_TIMEOUT).await
    }

    /// Posts an item once, or once more, and notes whether it was acknowledged.
    async fn attempt(&self, client: &Client, ingest: usize, id: Uuid, timeout: Duration) -> bool {
        let body = json!({ "id": id, "base_item_id": self.parents.base_item });
        let request = client.post(format!("{}/items", self.ingest[ingest])).timeout(timeout);
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.history.note(Table::Items, id, ExpectedState::Unknown);
        let response = request.send().await;
        let acknowledged = response.is_ok_and(|response| response.status().is_success());
        if acknowledged {
            self.history.note(Table::Items, id, ExpectedState::Stored);
        }
        acknowledged
    }
}
