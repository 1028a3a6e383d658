//! Comparing what is counted with the events themselves. It writes nothing.
//!
//! Each day is compared in one statement, and so in one snapshot: its events against its rollups and what of the
//! log is not in these yet. Units longer than a day are compared with the days that they consist of. So a check
//! of everything needs one transaction only where nothing may change in between, and a gentle one need not keep the
//! server from cleaning up for as long as it takes.

use std::time::{Duration, Instant};

use domain::{BucketTime, Metric, Topic};
use postgres_kit::database::DatabaseSettings;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use tokio_postgres::{Client, NoTls, Row};
use tokio_util::task::AbortOnDropHandle;

use crate::address::Session;
use crate::days::{self, Days, Report};
use crate::rollups::CURSOR_IS_OF_HERE;
use crate::store::{StoreError, past, time, within};

/// How many mismatches are named; all are counted.
const NAMED: usize = 100;

/// A bucket whose count is not that of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// What is counted, by which unit.
    #[serde(serialize_with = "as_text")]
    pub topic: Topic,
    /// The start of the bucket.
    pub time: BucketTime,
    /// What is counted: of a unit up to the day, in the rollups and the log past them; of a longer one, in the
    /// rollups.
    pub counted: i64,
    /// What should be: the events, or of a longer unit what its days add up to.
    pub expected: i64,
}

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Events.
    pub events: u64,
    /// Days, once for each metric.
    pub days: u64,
    /// Buckets of all units.
    pub buckets: u64,
    /// Buckets whose count is wrong.
    pub mismatches: u64,
    /// The first of these.
    pub first_mismatches: Vec<Mismatch>,
}

/// How a check goes about it.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// In one transaction, at once.
    OneSnapshot,
    /// One day after another, busy for at most this share of the time, in percent from 1 to 100.
    DayByDay {
        /// The share.
        load_percent: u32,
    },
}

/// A session for a check.
#[derive(Debug)]
pub struct Verifier {
    client: Client,
    session: Session,
    _connection: AbortOnDropHandle<()>,
}

impl Verifier {
    /// Opens the session, and refuses a schema that this release does not know.
    ///
    /// # Errors
    /// [`StoreError`], where all of it takes longer than a connection may, too.
    pub async fn connect(database: &DatabaseSettings) -> Result<Self, StoreError> {
        within(database.connect_timeout.get(), Self::connect_at_leisure(database)).await
    }

    async fn connect_at_leisure(database: &DatabaseSettings) -> Result<Self, StoreError> {
        let mut config = database.connection("stats-notifier verify");
        config.options("-c TimeZone=UTC -c jit=off -c default_transaction_read_only=on");
        let (client, connection) = config.connect(NoTls).await?;
        let driven = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the connection of a check ended");
            }
        }));
        postgres_kit::schema::check(&client).await?;
        let session = Session::of(&client).await?;
        Ok(Self { client, session, _connection: driven })
    }

    /// [`Verifier::verify`], which ends where the database's address, looked at so often, leads to another server: this one
    /// may never answer, or check a history that nobody else has.
    ///
    /// # Errors
    /// [`StoreError`], also [`StoreError::LeftBehind`].
    pub async fn verify_here(
        &self,
        way: Way,
        database: &DatabaseSettings,
        interval: Duration,
        report: Report<'_>,
    ) -> Result<Verified, StoreError> {
        tokio::select! {
            verified = self.verify(way, report) => verified,
            () = self.session.until_left_behind(database, interval) => Err(StoreError::LeftBehind),
        }
    }

    /// Compares everything.
    ///
    /// # Errors
    /// [`StoreError`] where Postgres fails, or nothing was ever counted in this database.
    pub async fn verify(&self, way: Way, report: Report<'_>) -> Result<Verified, StoreError> {
        if let Way::OneSnapshot = way {
            self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        }
        let counted = format!("SELECT {CURSOR_IS_OF_HERE} FROM public.rollup_cursor");
        if self.client.query_one(&counted, &[]).await?.try_get::<_, Option<bool>>(0)? != Some(true) {
            return Err(StoreError::NeverCounted);
        }
        let mut verified = Verified::default();
        for metric in Metric::ALL {
            self.compare_days(metric, way, &mut verified, report).await?;
            self.compare_longer(metric, &mut verified).await?;
        }
        if let Way::OneSnapshot = way {
            self.client.batch_execute("COMMIT").await?;
        }
        Ok(verified)
    }

    async fn compare_days(
        &self,
        metric: Metric,
        way: Way,
        verified: &mut Verified,
        report: Report<'_>,
    ) -> Result<(), StoreError> {
        let (table, column) = days::events(metric);
        let [started_since, in_progress_then] = past("(SELECT snapshot FROM public.rollup_cursor)");
        let compare = compared(&format!(
            "counted AS (SELECT unit, bucket, sum(count) AS count FROM (\
             SELECT rollup.unit, bucket, count FROM public.rollup JOIN public.rollup_unit \
             ON rollup.unit = rollup_unit.unit AND bucket >= kept_since \
             WHERE metric = '{metric}' AND rollup.unit IN ('second', 'minute', 'hour', 'day') \
             AND bucket >= $1 AND bucket < $1 + interval '1 day' UNION ALL \
             SELECT unit, date_trunc(unit, bucket, 'UTC'), delta FROM public.count_log JOIN public.rollup_unit \
             ON bucket >= kept_since AND unit IN ('second', 'minute', 'hour', 'day') \
             WHERE metric = '{metric}' AND bucket >= $1 AND bucket < $1 + interval '1 day' \
             AND ({started_since} OR {in_progress_then})\
             ) AS both_parts GROUP BY 1, 2), \
             expected AS (SELECT unit, date_trunc(unit, second, 'UTC') AS bucket, sum(events) AS count FROM (\
             SELECT date_trunc('second', {column}, 'UTC') AS second, count(*) AS events FROM {table} \
             WHERE {column} >= $1 AND {column} < $1 + interval '1 day' GROUP BY 1) AS of_day \
             JOIN public.rollup_unit ON second >= kept_since AND unit IN ('second', 'minute', 'hour', 'day') \
             GROUP BY 1, 2)"
        ));
        let compare = self.client.prepare(&compare).await?;
        let mut days = Days::with_events_or_rollups(metric);
        while let Some(day) = days.next(&self.client).await? {
            let started = Instant::now();
            verified.add(metric, &self.client.query(&compare, &[&OffsetDateTime::from(day)]).await?)?;
            rest(way, started.elapsed()).await;
            report(days.progress(day, verified.events));
        }
        verified.days += days.count;
        Ok(())
    }

    /// Units longer than a day against the days that they consist of: rollups alone, for what is only in the log
    /// is in neither.
    async fn compare_longer(&self, metric: Metric, verified: &mut Verified) -> Result<(), StoreError> {
        let compare = compared(&format!(
            "counted AS (SELECT unit, bucket, count FROM public.rollup \
             WHERE metric = '{metric}' AND unit IN ('week', 'month', 'quarter', 'year')), \
             expected AS (SELECT longer AS unit, date_trunc(longer, bucket, 'UTC') AS bucket, sum(count) AS count \
             FROM public.rollup, unnest(ARRAY['week', 'month', 'quarter', 'year']) AS longer \
             WHERE metric = '{metric}' AND unit = 'day' GROUP BY 1, 2)"
        ));
        verified.add(metric, &self.client.query(&compare, &[]).await?)?;
        Ok(())
    }
}

/// A statement that compares `counted` with `expected`, two lists of unit, bucket and count: first the numbers of
/// buckets, of mismatches and of events, then the first mismatches.
fn compared(lists: &str) -> String {
    format!(
        "WITH {lists}, compared AS MATERIALIZED (SELECT unit, bucket, \
         coalesce(counted.count, 0)::bigint AS counted, coalesce(expected.count, 0)::bigint AS expected \
         FROM counted FULL JOIN expected USING (unit, bucket)) \
         SELECT NULL::text, NULL::timestamptz, count(*), count(*) FILTER (WHERE counted <> expected), \
         (sum(expected) FILTER (WHERE unit = 'day'))::bigint FROM compared UNION ALL \
         (SELECT unit, bucket, counted, expected, NULL FROM compared WHERE counted <> expected \
         ORDER BY bucket, unit LIMIT {NAMED})"
    )
}

impl Verified {
    /// Adds the rows of a statement of [`compared`].
    fn add(&mut self, metric: Metric, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            let Some(unit) = row.try_get::<_, Option<&str>>(0)? else {
                self.buckets += unsigned(row.try_get(2)?);
                self.mismatches += unsigned(row.try_get(3)?);
                self.events += row.try_get::<_, Option<i64>>(4)?.map_or(0, unsigned);
                continue;
            };
            if self.first_mismatches.len() < NAMED {
                let topic = Topic::new(metric, unit.parse()?);
                let (counted, expected) = (row.try_get(2)?, row.try_get(3)?);
                self.first_mismatches.push(Mismatch { topic, time: time(row, 1)?, counted, expected });
            }
        }
        Ok(())
    }
}

/// A count of rows, which is never below zero.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Leaves the server to others for as long as it takes to keep to the share.
async fn rest(way: Way, busy: Duration) {
    if let Way::DayByDay { load_percent } = way {
        let load = load_percent.clamp(1, 100);
        tokio::time::sleep(busy * (100 - load) / load).await;
    }
}

fn as_text<S: Serializer>(topic: &Topic, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(topic)
}
