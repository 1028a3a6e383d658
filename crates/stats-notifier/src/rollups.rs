//! What is kept beyond a term: the rollups and the cursor that says how far the log is in them.
//!
//! Invariant: exactly what the stored snapshot sees is in the rollups. Each writer changes both in one
//! transaction, after it has locked the cursor row and found its own term there; so two leaders at once cannot
//! both fold the same rows, and a deposed one folds nothing.

use domain::{
    ApplyError, Bucket, Frame, FrameKind, Retention, Statistics, TimeUnit, Topic, TopicFrame, Version,
};

use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError, time, topic_bucket};

/// Holds of the row of `rollup_cursor` where its snapshot means something here: it is of this cluster and database, and
/// not of a future that this cluster never had. Elsewhere the events were restored, and nobody has recounted them yet.
pub(crate) const CURSOR_IS_OF_HERE: &str = "rollup_cursor.snapshot IS NOT NULL \
     AND rollup_cursor.system_identifier = (SELECT system_identifier FROM pg_control_system()) \
     AND rollup_cursor.database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND pg_snapshot_xmax(rollup_cursor.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())";

/// What a term begins with.
#[derive(Debug)]
pub struct Loaded {
    /// The state of all topics.
    pub statistics: Statistics,
    /// The snapshot that it was read in.
    pub cursor: Snapshot,
    /// What the units keep. Whatever comes later for a time that is not kept is not counted by that unit for as
    /// long as this state lives: its count so far was not loaded.
    pub retention: Retention,
}

impl Store {
    /// Folds the log past the stored cursor into the rollups, all in SQL, and moves the cursor to this
    /// transaction's snapshot, which it returns.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then written.
    pub async fn flush(&self, term: i64) -> Result<Snapshot, StoreError> {
        self.in_time(self.catch_up(term)).await
    }

    /// [`Store::flush`] without a deadline, for the beginning of a term: however long the log has grown while nobody led,
    /// it must be folded once before anything that has a deadline can read it.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then written.
    pub async fn catch_up(&self, term: i64) -> Result<Snapshot, StoreError> {
        let work = async {
            let stored = self.lock_cursor(term).await?.ok_or(StoreError::Deposed(term))?;
            let fold = self.client.prepare(&self.statements.fold).await?;
            self.client.execute(&fold, &[&stored.to_string()]).await?;
            // REPEATABLE READ: the snapshot that the fold read by, so exactly what it saw.
            let set =
                "UPDATE public.rollup_cursor SET snapshot = pg_current_snapshot() RETURNING snapshot::text";
            Ok(self.client.query_one(set, &[]).await?.try_get::<_, &str>(0)?.parse()?)
        };
        self.in_one_snapshot(work).await
    }

    /// Deletes log rows of transactions from `from` up to, not including, `to`, at most `limit` of them, and
    /// returns where to go on, or `to` where none are left.
    ///
    /// `to` must be below the xmin of both the stored cursor and the memory's: such transactions had all ended
    /// in either snapshot, so their rows are in both the rollups and the memory.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then deleted.
    pub async fn purge(&self, term: i64, from: u64, to: u64, limit: u32) -> Result<u64, StoreError> {
        let delete = "WITH batch AS (SELECT ctid FROM public.count_log \
             WHERE xact_id >= $1::text::xid8 AND xact_id < $2::text::xid8 ORDER BY xact_id LIMIT $3), \
             deleted AS (DELETE FROM public.count_log WHERE ctid IN (SELECT ctid FROM batch) \
             RETURNING xact_id) SELECT count(*), max(xact_id::text::numeric)::text FROM deleted";
        let work = async {
            self.lock_cursor(term).await?;
            let delete = self.client.prepare(delete).await?;
            let limits = (from.to_string(), to.to_string());
            let row = self.client.query_one(&delete, &[&limits.0, &limits.1, &i64::from(limit)]).await?;
            let highest = row.try_get::<_, Option<&str>>(1)?.and_then(|text| text.parse().ok());
            let full = row.try_get::<_, i64>(0)? >= i64::from(limit);
            // The last transaction may have more rows than fitted.
            Ok(if full { highest.unwrap_or(to) } else { to })
        };
        self.in_time(self.in_one_snapshot(work)).await
    }

    /// The stored cursor, unless it belongs to another database or to a future that this cluster never had: the
    /// events were then restored from elsewhere, and must be recounted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_cursor(&self) -> Result<Option<Snapshot>, StoreError> {
        let find = format!("SELECT snapshot::text FROM public.rollup_cursor WHERE {CURSOR_IS_OF_HERE}");
        let work = async {
            let row = self.client.query_opt(&find, &[]).await?;
            match row {
                Some(row) => Ok(Some(row.try_get::<_, &str>(0)?.parse()?)),
                None => Ok(None),
            }
        };
        self.in_time(work).await
    }

    /// Gives up the buckets of fine units that are older than their retention, in days: from then on they are
    /// neither counted nor shown. Returns whether there are any new ones.
    ///
    /// A term goes on to count those that it has loaded, as exactly as before; the next one no longer loads them.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then given up.
    pub async fn give_up(&self, term: i64, unit: TimeUnit, days: i32) -> Result<bool, StoreError> {
        let work = async {
            self.lock_cursor(term).await?;
            self.raise_kept_since(unit, days).await
        };
        self.in_time(self.in_one_snapshot(work)).await
    }

    /// [`Store::give_up`] inside the transaction that is open, with the cursor locked.
    pub(crate) async fn raise_kept_since(&self, unit: TimeUnit, days: i32) -> Result<bool, StoreError> {
        let raise = "UPDATE public.rollup_unit \
             SET kept_since = date_trunc('day', now() - make_interval(days => $2), 'UTC') \
             WHERE unit = $1 AND kept_since < date_trunc('day', now() - make_interval(days => $2), 'UTC')";
        let raise = self.client.prepare(raise).await?;
        Ok(self.client.execute(&raise, &[&unit.as_str(), &days]).await? > 0)
    }

    /// Deletes at most `limit` rollups that were given up. Returns whether more may be left.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another term has begun; nothing was then deleted.
    pub async fn delete_given_up(&self, term: i64, limit: u32) -> Result<bool, StoreError> {
        let delete = "DELETE FROM public.rollup WHERE ctid = ANY (ARRAY(\
             SELECT rollup.ctid FROM public.rollup_unit \
             CROSS JOIN unnest(ARRAY['item-creation', 'transfers']) AS of_metric \
             JOIN public.rollup ON metric = of_metric AND rollup.unit = rollup_unit.unit AND bucket < kept_since \
             LIMIT $1))";
        let work = async {
            self.lock_cursor(term).await?;
            let delete = self.client.prepare(delete).await?;
            Ok(self.client.execute(&delete, &[&i64::from(limit)]).await? >= u64::from(limit))
        };
        self.in_time(self.in_one_snapshot(work)).await
    }

    /// Since when each unit keeps its buckets.
    pub(crate) async fn retention(&self) -> Result<Retention, StoreError> {
        let mut retention = Retention::default();
        for row in self.client.query("SELECT unit, kept_since FROM public.rollup_unit", &[]).await? {
            retention = retention.since(row.try_get::<_, &str>(0)?.parse()?, time(&row, 1)?);
        }
        Ok(retention)
    }

    /// The state of all topics in one snapshot: the newest rollups, the log past their cursor, and milliseconds
    /// counted from the events themselves.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(&self, version: Version) -> Result<Loaded, StoreError> {
        self.in_time(self.in_one_snapshot(self.load_here(version))).await
    }

    async fn load_here(&self, version: Version) -> Result<Loaded, StoreError> {
        let retention = self.retention().await?;
        let stored = "SELECT snapshot::text FROM public.rollup_cursor WHERE snapshot IS NOT NULL";
        let stored: Snapshot = self.client.query_one(stored, &[]).await?.try_get::<_, &str>(0)?.parse()?;
        let mut statistics = Statistics::new(version);
        let mut topics = Vec::new();
        let newest = self
            .client
            .prepare(
                "SELECT metric, unit, bucket, count FROM public.rollup WHERE metric = $1 AND unit = $2 \
                 AND bucket >= (SELECT kept_since FROM public.rollup_unit WHERE rollup_unit.unit = $2) \
                 ORDER BY bucket DESC LIMIT $3",
            )
            .await?;
        for topic in Topic::all().filter(|topic| topic.unit != TimeUnit::Millisecond) {
            let window = topic.unit.window();
            let limit = i64::try_from(window).unwrap_or(i64::MAX);
            let names = (topic.metric.as_str(), topic.unit.as_str());
            let rows = self.client.query(&newest, &[&names.0, &names.1, &limit]).await?;
            let buckets = rows.iter().rev().map(|row| Ok(topic_bucket(row)?.1));
            topics.push(TopicFrame { topic, window, buckets: buckets.collect::<Result<_, StoreError>>()? });
        }
        let misfit = |error: ApplyError| StoreError::Corrupt(Box::new(error));
        statistics.apply(&Frame { kind: FrameKind::Snapshot, version, topics }).map_err(misfit)?;
        let ticked = self.changes_since(&stored, retention).await?;
        statistics.advance(&ticked.changes);
        // The events of this snapshot include what the log says, so their milliseconds replace those just counted.
        let topics = vec![
            self.milliseconds("item-creation/millisecond", "public.items", "created_at").await?,
            self.milliseconds("transfers/millisecond", "public.transfers", "\"timestamp\"").await?,
        ];
        let version = statistics.version();
        statistics.apply(&Frame { kind: FrameKind::Snapshot, version, topics }).map_err(misfit)?;
        Ok(Loaded { statistics, cursor: ticked.now, retention })
    }

    /// The newest milliseconds in which events happened: each found by one probe of the index below the last.
    async fn milliseconds(&self, topic: &str, table: &str, column: &str) -> Result<TopicFrame, StoreError> {
        let topic: Topic = topic.parse().map_err(|error| StoreError::Corrupt(Box::new(error)))?;
        let window = topic.unit.window();
        let bucket = |time: &str| format!("date_bin('1 millisecond', {time}, '0001-01-01 00:00:00+00')");
        let (first, next) = (bucket(&format!("max({column})")), bucket("below.newest"));
        let newest = format!(
            "WITH RECURSIVE buckets (bucket) AS (SELECT {first} FROM {table} \
             UNION ALL SELECT {next} FROM buckets, LATERAL (SELECT max({column}) AS newest FROM {table} \
             WHERE {column} < buckets.bucket) AS below WHERE below.newest IS NOT NULL) \
             SELECT bucket, (SELECT count(*) FROM {table} WHERE {column} >= bucket \
             AND {column} < bucket + interval '1 millisecond') FROM buckets WHERE bucket IS NOT NULL LIMIT {window}"
        );
        let rows = self.client.query(&newest, &[]).await?;
        let bucket = |row| Ok(Bucket { time: time(row, 0)?, count: row.try_get(1)? });
        let buckets = rows.iter().rev().map(bucket).collect::<Result<_, StoreError>>()?;
        Ok(TopicFrame { topic, window, buckets })
    }
}
