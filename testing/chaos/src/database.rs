//! A superuser's access to the database: the audit, and the queries of the checks.

use std::collections::HashSet;
use std::time::SystemTime;

use anyhow::Context;
use domain::{BucketTime, TimeUnit};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::checker::Change;
use crate::history::{Parents, Table};

/// The audit of every event row that is written: its transaction, and when. The last trigger makes
/// the last write of a flush, before its commit, wait as long as a session [holds](HOLD_FLUSHES) it
/// there.
const AUDIT: &str = "
    CREATE TABLE audit (
        place bigserial, xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(), made timestamptz DEFAULT clock_timestamp(),
        metric text, id uuid, time timestamptz, delta bigint
    );
    CREATE INDEX ON audit (place);
    CREATE INDEX ON audit (id);
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO public.audit (metric, id, time, delta)
            VALUES (TG_ARGV[0], OLD.id, (to_jsonb(OLD) ->> TG_ARGV[1])::timestamptz, -1);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO public.audit (metric, id, time, delta)
            VALUES (TG_ARGV[0], NEW.id, (to_jsonb(NEW) ->> TG_ARGV[1])::timestamptz, 1);
        END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit('item-creation', 'created_at');
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION audit('transfers', 'timestamp');
    CREATE FUNCTION wait_in_a_flush() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        WHILE NOT pg_try_advisory_xact_lock_shared(77) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$;
    CREATE TRIGGER wait BEFORE UPDATE OF snapshot ON rollup_cursor FOR EACH ROW EXECUTE FUNCTION wait_in_a_flush()";

/// Keeps flushes from being committed, until the session releases them or ends.
pub(crate) const HOLD_FLUSHES: &str = "SELECT pg_advisory_lock(77)";
/// Lets flushes commit again.
pub(crate) const RELEASE_FLUSHES: &str = "SELECT pg_advisory_unlock(77)";

/// A superuser's connection. It is opened again if the server has closed it.
pub(crate) struct Database {
    config: Config,
    client: Client,
    /// The `place` of the last audit row that was read.
    read: i64,
}

impl Database {
    /// Connects to a database.
    pub(crate) async fn connect(config: Config) -> anyhow::Result<Self> {
        let client = open(&config).await?;
        Ok(Self { config, client, read: 0 })
    }

    /// Creates the audit, and the rows that events refer to.
    pub(crate) async fn prepare(&self, parents: Parents) -> anyhow::Result<()> {
        let Parents { base_item, user, item } = parents;
        let events = format!(
            "INSERT INTO base_items VALUES ('{base_item}', 'a thing'); INSERT INTO users VALUES ('{user}'); \
             INSERT INTO items VALUES ('{item}', '{base_item}', now());"
        );
        Ok(self.client.batch_execute(&format!("{AUDIT}; {events}")).await?)
    }

    /// The connection. It works, as far as that can be known.
    pub(crate) async fn client(&mut self) -> anyhow::Result<&Client> {
        if self.client.is_closed() || self.client.simple_query("").await.is_err() {
            self.client = open(&self.config).await?;
        }
        Ok(&self.client)
    }

    /// Opens another connection that is opened again if the server closes it.
    pub(crate) async fn reconnecting_session(&self) -> anyhow::Result<Self> {
        Self::connect(self.config.clone()).await
    }

    /// Opens another session.
    pub(crate) async fn open_session(&self) -> anyhow::Result<Client> {
        open(&self.config).await
    }

    /// The number that a query returns.
    pub(crate) async fn number(&mut self, query: &str) -> anyhow::Result<i64> {
        Ok(self.client().await?.query_one(query, &[]).await?.get(0))
    }

    /// The backend of the session through which the newest leader writes, if there is one.
    pub(crate) async fn upkeep_backend(&mut self) -> anyhow::Result<Option<i32>> {
        let find = "SELECT pid FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'stats-notifier upkeep' \
             ORDER BY backend_start DESC LIMIT 1";
        let found = self.client().await?.query_opt(find, &[]).await?;
        Ok(found.map(|row| row.get(0)))
    }

    /// Whether a backend is in a state, such as `wait_event = 'ClientRead'`.
    pub(crate) async fn backend_is(&mut self, backend: i32, state: &str) -> anyhow::Result<bool> {
        let find = format!("SELECT FROM pg_stat_activity WHERE pid = {backend} AND {state}");
        Ok(self.client().await?.query_opt(&find, &[]).await?.is_some())
    }

    /// Whether a transaction other than this session's may still write events. Two-phase
    /// transactions that wait for their second phase are rolled back, because other transactions
    /// may wait for their locks.
    pub(crate) async fn is_written(&mut self) -> anyhow::Result<bool> {
        // Checked first: a transaction that is prepared only after this is found the next time.
        let busy = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND usename <> 'newcycle_notifier' AND backend_type = 'client backend' AND state <> 'idle' LIMIT 1";
        let client = self.client().await?;
        let mut written = client.query_opt(busy, &[]).await?.is_some();
        for row in client.query("SELECT gid FROM pg_prepared_xacts", &[]).await? {
            let name: String = row.get(0);
            // Fails if the second phase runs at this moment.
            written |= client.batch_execute(&format!("ROLLBACK PREPARED '{name}'")).await.is_err();
        }
        Ok(written)
    }

    /// The id of the transaction that inserted an item, and the time. `None` if there is no such
    /// item.
    pub(crate) async fn transaction_of(
        &mut self,
        item: Uuid,
    ) -> anyhow::Result<Option<(u64, SystemTime)>> {
        let find = "SELECT xact_id::text, made FROM audit WHERE id = $1 ORDER BY place LIMIT 1";
        let row = self.client().await?.query_opt(find, &[&item]).await?;
        row.map(|row| Ok((row.get::<_, &str>(0).parse()?, row.get(1)))).transpose()
    }

    /// The item's `created_at`.
    pub(crate) async fn created_at(&mut self, item: Uuid) -> anyhow::Result<SystemTime> {
        let find = "SELECT created_at FROM items WHERE id = $1";
        Ok(self.client().await?.query_one(find, &[&item]).await?.get(0))
    }

    /// All changes since the last call. No producer may write meanwhile.
    pub(crate) async fn changes(&mut self) -> anyhow::Result<Vec<Change>> {
        let read = self.read;
        let query = "SELECT xact_id::text, made, metric, time, delta, place FROM audit WHERE place > $1 ORDER BY place";
        let rows = self.client().await?.query(query, &[&read]).await?;
        if let Some(last) = rows.last() {
            self.read = last.get(5);
        }
        let change = |row: &tokio_postgres::Row| {
            Ok(Change {
                transaction: row.get::<_, &str>(0).parse()?,
                made: row.get(1),
                metric: row.get::<_, &str>(2).parse()?,
                time: row.get::<_, time::OffsetDateTime>(3).try_into()?,
                delta: row.get(4),
            })
        };
        rows.iter().map(change).collect()
    }

    /// The `place` of the last audit row that [`changes`](Self::changes) has read.
    pub(crate) const fn read(&self) -> i64 {
        self.read
    }

    /// All rows of a table, with the time of the event.
    pub(crate) async fn rows(&mut self, table: Table) -> anyhow::Result<Vec<(Uuid, SystemTime)>> {
        let client = self.client().await?;
        let rows = client
            .query(&format!("SELECT id, {} FROM {}", table.time_column(), table.name()), &[])
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The id of a row that exists but was not inserted exactly once more than it was deleted, or
    /// that does not exist but was not deleted as often as it was inserted.
    pub(crate) async fn unbalanced(&mut self, table: Table) -> anyhow::Result<Option<String>> {
        let client = self.client().await?;
        let unbalanced = format!(
            "SELECT id::text FROM {} FULL JOIN (SELECT id, sum(delta) AS times FROM audit WHERE metric = '{}' GROUP BY id) \
             AS audited USING (id) WHERE coalesce(times, 0) <> ({}.id IS NOT NULL)::int LIMIT 1",
            table.name(),
            match table {
                Table::Items => "item-creation",
                Table::Transfers => "transfers",
            },
            table.name(),
        );
        Ok(client.query_opt(&unbalanced, &[]).await?.map(|row| row.get(0)))
    }

    /// Every bucket of every unit with its count, by SQL from the events.
    pub(crate) async fn recount(&mut self) -> anyhow::Result<HashSet<(String, BucketTime, i64)>> {
        let query = format!("{RECOUNT} ORDER BY 1, 2, 3");
        let units = TimeUnit::ALL.map(TimeUnit::as_str);
        let rows = self.client().await?.query(&query, &[&units.as_slice()]).await?;
        let bucket = |row: &tokio_postgres::Row| {
            let topic = format!("{}/{}", row.get::<_, &str>(0), row.get::<_, &str>(1));
            Ok((topic, row.get::<_, time::OffsetDateTime>(2).try_into()?, row.get(3)))
        };
        rows.iter().map(bucket).collect()
    }

    /// The number of rollups that differ from the events.
    pub(crate) async fn wrong_rollups(&mut self) -> anyhow::Result<i64> {
        let query = format!(
            "SELECT count(*) FROM ({RECOUNT}) AS counted FULL JOIN rollup USING (metric, unit, bucket) \
             WHERE coalesce(counted.count, 0) <> coalesce(rollup.count, 0)"
        );
        let units = TimeUnit::ALL.map(TimeUnit::as_str);
        let units: Vec<&str> = units.into_iter().filter(|unit| *unit != "millisecond").collect();
        Ok(self.client().await?.query_one(&query, &[&units]).await?.get(0))
    }
}

/// The count of each bucket. $1 is the array of units.
const RECOUNT: &str = "SELECT metric, unit, date_trunc(unit, time, 'UTC') AS bucket, count(*) AS count FROM \
     (SELECT 'item-creation' AS metric, created_at AS time FROM items \
     UNION ALL SELECT 'transfers', \"timestamp\" FROM transfers) AS events, unnest($1::text[]) AS unit GROUP BY 1, 2, 3";

async fn open(config: &Config) -> anyhow::Result<Client> {
    let (client, connection) = config.connect(NoTls).await.context("connecting to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}
