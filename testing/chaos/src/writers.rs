//! Producers of every kind, which note what became of each write.

mod rest;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Config;
use uuid::Uuid;

use crate::history::{Fate, History, Table};
use crate::system::System;
use crate::writers::rest::{Kind, Rest};
use crate::writers::sql::Sql;

/// How long a producer waits for an answer. Short, so that many outcomes are unknown.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a producer repeats a write of which it does not know the outcome.
const ATTEMPTS: usize = 4;

/// What every writer may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Parents {
    /// A base item.
    pub base_item: Uuid,
    /// A user.
    pub user: Uuid,
    /// An item that is never deleted.
    pub item: Uuid,
}

/// What all writers share.
#[derive(Debug, Clone)]
pub struct World {
    /// Where each ingest-api is.
    pub ingest: Vec<String>,
    /// How a superuser reaches the database.
    pub database: Config,
    /// What there is.
    pub parents: Parents,
    /// What becomes of it all.
    pub history: Arc<History>,
}

impl World {
    /// Adds to a system what its writers refer to.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn of(system: &System) -> anyhow::Result<Self> {
        let parents = Parents { base_item: Uuid::now_v7(), user: Uuid::now_v7(), item: Uuid::now_v7() };
        system.database.prepare(parents.base_item, parents.user, parents.item).await?;
        let history = Arc::new(History::default());
        history.note(Table::Items, [parents.item], Fate::Stored);
        Ok(Self { ingest: system.ingest.clone(), database: system.sql.clone(), parents, history })
    }
}

/// The kinds of writers, and how many there are of each.
const BY_REST: [(Kind, u64); 5] =
    [(Kind::Single, 3), (Kind::Bulk, 2), (Kind::Keyed, 1), (Kind::Deleting, 1), (Kind::Refused, 1)];
const BY_SQL: u64 = 3;

/// Starts all writers, which write until the set is dropped.
#[must_use]
pub fn start(world: &World, seed: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut random = StdRng::seed_from_u64(seed);
    for (kind, number) in BY_REST {
        for _ in 0..number {
            let mut writer = Rest { world: world.clone(), client: Client::new(), random: random.fork() };
            tasks.spawn(async move {
                loop {
                    writer.write(kind).await;
                    writer.rest().await;
                }
            });
        }
    }
    for _ in 0..BY_SQL {
        let mut writer = Sql { world: world.clone(), random: random.fork(), prepared: None };
        tasks.spawn(async move {
            loop {
                // Without a connection there is nothing to write.
                let _server_away = writer.write().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    tasks
}

/// Posts one item with an id of its own until it is acknowledged.
///
/// # Errors
/// It is not, within `patience`.
pub async fn probe(world: &World, ingest: usize, patience: Duration) -> anyhow::Result<Uuid> {
    let id = Uuid::now_v7();
    let body = json!({ "id": id, "base_item_id": world.parents.base_item });
    let request = Client::new().post(format!("{}/items", world.ingest[ingest]));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let posted = async {
        loop {
            let again = request.try_clone().context("a body is cloneable")?.timeout(Duration::from_secs(2));
            if again.send().await.is_ok_and(|answer| answer.status().is_success()) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    world.history.note(Table::Items, [id], Fate::Unknown);
    tokio::time::timeout(patience, posted).await.context("an item was not acknowledged in time")??;
    world.history.note(Table::Items, [id], Fate::Stored);
    Ok(id)
}
