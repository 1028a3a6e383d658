//! All SQL of this service, on the one session that leads.
//!
//! Transaction ids and snapshots travel as text: the client library knows neither type.

use std::time::Duration;

use domain::{
    Bucket, BucketTime, Changes, Metric, OutOfRange, Retention, TimeUnit, Topic, UnknownMetric,
    UnknownTimeUnit,
};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};
use tokio_util::task::AbortOnDropHandle;

use crate::address::Session;
use crate::settings::LeaderSettings;
use crate::snapshot::{InvalidSnapshot, Snapshot};
use postgres_kit::database::DatabaseSettings;

/// The advisory locks: one constant for the class, one for each purpose. The triggers name the gate's, and
/// `migrate` has a third.
const LEAD: &str = "1315208537, 1";
const GATE: &str = "1315208537, 2";

/// How the leader's statements are planned: jit would compile a statement that takes a tenth of a millisecond, and a plan
/// that scans the whole log is never wanted here, whatever the planner believes of a table that is always nearly empty.
pub const PLANNING: &str = "-c jit=off -c enable_seqscan=off";

/// The statements that exactness rests on.
///
/// They are values so that a test can plant an error in one of them and see that the checks find it.
#[derive(Debug, Clone)]
pub struct Statements {
    /// `$1` a snapshot: the log rows visible now and not in it, and, in the same statement and so of the same
    /// MVCC snapshot, the snapshot of now.
    pub tick: String,
    /// `$1` the stored snapshot: folds the log past it into the rollups of each unit that keeps it.
    pub fold: String,
    /// `$1` a term: locks the cursor, where the term is still that one, and returns the stored snapshot.
    pub lock_cursor: String,
}

impl Default for Statements {
    fn default() -> Self {
        let [started_since, in_progress_then] = past("$1::text::pg_snapshot");
        let tick = format!(
            "SELECT pg_current_snapshot()::text, NULL::text, NULL::timestamptz, NULL::bigint \
             UNION ALL SELECT NULL, metric, bucket, delta FROM public.count_log WHERE {started_since} \
             UNION ALL SELECT NULL, metric, bucket, delta FROM public.count_log WHERE {in_progress_then}"
        );
        let fold = format!(
            "INSERT INTO public.rollup AS held (metric, unit, bucket, count) \
             SELECT metric, unit, date_trunc(unit, bucket, 'UTC'), sum(delta) \
             FROM public.count_log JOIN public.rollup_unit ON bucket >= kept_since \
             WHERE {started_since} OR {in_progress_then} GROUP BY 1, 2, 3 \
             ON CONFLICT (metric, unit, bucket) DO UPDATE SET count = held.count + excluded.count"
        );
        let lock_cursor = "SELECT snapshot::text FROM public.rollup_cursor WHERE term = $1 FOR UPDATE";
        Self { tick, fold, lock_cursor: lock_cursor.to_owned() }
    }
}

/// The log past `snapshot`, an expression: conditions of the rows that are visible now and were not in it, for their
/// transaction had not started then, or was in progress.
///
/// Both are ranges of the index, so rows that were counted cost nothing. Nor do those of a transaction in progress, of
/// which a long one may have written any number: what no row of can be visible now is not looked at.
pub(crate) fn past(snapshot: &str) -> [String; 2] {
    [
        format!(
            "(xact_id >= pg_snapshot_xmax({snapshot}) AND xact_id < pg_snapshot_xmax(pg_current_snapshot()))"
        ),
        format!(
            "xact_id = ANY (ARRAY(SELECT ended FROM pg_snapshot_xip({snapshot}) AS ended \
             WHERE pg_visible_in_snapshot(ended, pg_current_snapshot())))"
        ),
    ]
}

/// The session is of no more use, or what it returned makes no sense. Either ends the term.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres refused, or the connection is gone.
    #[error("Postgres: {}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A statement took longer than allowed.
    #[error("no answer from Postgres within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Another replica has begun a later term.
    #[error("another replica leads: term {0} is over")]
    Deposed(i64),
    /// The replica that leads does not give up the lead.
    #[error(
        "another replica has kept the lead, or its lock of the counts, for {} s: stop it, then try again",
        .0.as_secs()
    )]
    LeadHeld(Duration),
    /// A failover has left this session's server behind.
    #[error("the database's address leads to another server than that of this session")]
    LeftBehind,
    /// There is no count of this database yet.
    #[error(
        "nothing was ever counted in this database: start stats-notifier, which counts all events, first"
    )]
    NeverCounted,
    /// The schema is not the one that this release works on.
    #[error(transparent)]
    Schema(#[from] postgres_kit::schema::SchemaError),
    /// A tick returned no snapshot: the statement is not the one it should be.
    #[error("a tick returned no snapshot")]
    NoSnapshot,
    /// A value in the database is none that the schema allows.
    #[error("the database holds what its schema does not allow: {0}")]
    Corrupt(Box<dyn std::error::Error + Send + Sync>),
}

fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

macro_rules! corrupt {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Corrupt(Box::new(error))
            }
        }
    )*};
}
corrupt!(InvalidSnapshot, OutOfRange, UnknownMetric, UnknownTimeUnit);

/// What a tick found.
#[derive(Debug, Clone)]
pub struct Ticked {
    /// The snapshot that it read by: sees what was there before, and exactly these rows beyond it.
    pub now: Snapshot,
    /// How many log rows there were.
    pub rows: u64,
    /// What they add up to.
    pub changes: Changes,
}

/// The session of a leader, or of one that would lead.
#[derive(Debug)]
pub struct Store {
    pub(crate) client: Client,
    pub(crate) statements: Statements,
    pub(crate) session: Session,
    timeout: Duration,
    _connection: AbortOnDropHandle<()>,
}

impl Store {
    /// Opens the session, and refuses a schema that this release does not know.
    ///
    /// # Errors
    /// [`StoreError`] where Postgres does not answer in time, is read-only, or has another schema.
    pub async fn connect(
        database: &DatabaseSettings,
        leader: &LeaderSettings,
        statements: Statements,
    ) -> Result<Self, StoreError> {
        let session_timeout = leader.session_timeout.get();
        let mut config = database.connection("stats-notifier");
        // The timeouts end the session of a leader that is frozen or cut off, so that another can take over. Whatever
        // it was doing when it fell silent, the server then does one of these:
        // - It waits for the next statement, outside a transaction or inside: the idle timeouts.
        // - It waits for a lock: lock_timeout, then the idle timeout of the failed transaction. Together they are the
        //   longest that a silent leader keeps the lead.
        // - It waits for the leader to read, for the rows of an answer fill all buffers between them: Linux counts
        //   that, too, towards tcp_user_timeout.
        // - It works on a statement, which then ends in one of the above. Whoever took over would have the same work
        //   before it. Where the leader is not silent but gone, client_connection_check_interval ends the work.
        // It never waits between the messages of one statement, for they are sent in one piece.
        //
        let (idle, lock) = (session_timeout.as_millis(), leader.lock_timeout.get().as_millis());
        let attempts = leader.attempt_interval.get().as_millis();
        config.options(format!(
            "{PLANNING} -c TimeZone=UTC -c idle_session_timeout={idle} \
             -c idle_in_transaction_session_timeout={idle} -c tcp_user_timeout={idle} -c lock_timeout={lock} \
             -c client_connection_check_interval={attempts}"
        ));
        config.tcp_user_timeout(session_timeout);
        // A standby server's snapshots lack transactions in progress.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let connecting = config.connect(NoTls);
        let (client, connection) =
            within(database.connect_timeout.get(), async { Ok(connecting.await?) }).await?;
        let driven = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the leader's connection ended");
            }
        }));
        let timeout = leader.statement_timeout.get();
        within(timeout, async { Ok(postgres_kit::schema::check(&client).await?) }).await?;
        let session = within(timeout, Session::of(&client)).await?;
        Ok(Self { client, statements, session, timeout, _connection: driven })
    }

    /// Tries to take the lead: the lock is the session's, and ends with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_lead(&self) -> Result<bool, StoreError> {
        self.flag(&format!("SELECT pg_try_advisory_lock({LEAD})")).await
    }

    /// Lets the statements of this session wait so long for a lock, until [`Store::wait_for_lead`] has the lead.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait_for_locks(&self, timeout: Duration) -> Result<(), StoreError> {
        let timeout = timeout.as_millis();
        Ok(self.client.batch_execute(&format!("SET lock_timeout = {timeout}")).await?)
    }

    /// Waits for the lead for as long as for any lock; returns whether it was had in time. Who waits gets it before any
    /// that only try.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait_for_lead(&self) -> Result<bool, StoreError> {
        let wait = format!("SELECT pg_advisory_lock({LEAD}); RESET lock_timeout");
        match self.client.batch_execute(&wait).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tries to shut the gate; fails while a trigger is just looking.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_shut_gate(&self) -> Result<bool, StoreError> {
        self.flag(&format!("SELECT pg_try_advisory_lock({GATE})")).await
    }

    /// Opens the gate.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_gate(&self) -> Result<bool, StoreError> {
        self.flag(&format!("SELECT pg_advisory_unlock({GATE})")).await
    }

    /// Begins the next term, which ends all before it: whoever leads one of those may no longer write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_term(&self) -> Result<i64, StoreError> {
        let begin = "UPDATE public.rollup_cursor SET term = term + 1 RETURNING term";
        within(self.timeout, async { Ok(self.client.query_one(begin, &[]).await?.try_get(0)?) }).await
    }

    /// Makes sure that `term` is still the present one.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another has begun.
    pub async fn check_term(&self, term: i64) -> Result<(), StoreError> {
        let present = self.in_time(async {
            let find = "SELECT term FROM public.rollup_cursor";
            Ok(self.client.query_one(find, &[]).await?.try_get::<_, i64>(0)?)
        });
        if present.await? == term { Ok(()) } else { Err(StoreError::Deposed(term)) }
    }

    /// The size of the change log on disk, its index included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_bytes(&self) -> Result<i64, StoreError> {
        self.in_time(async {
            let size = "SELECT pg_total_relation_size('public.count_log')";
            Ok(self.client.query_one(size, &[]).await?.try_get(0)?)
        })
        .await
    }

    /// One tick: what was committed since `cursor`, and the snapshot that sees exactly that and all before.
    ///
    /// # Errors
    /// [`StoreError`]; nothing may then be published.
    pub async fn tick(&self, cursor: &Snapshot, retention: Retention) -> Result<Ticked, StoreError> {
        within(self.timeout, self.changes_since(cursor, retention)).await
    }

    /// [`Store::tick`] inside whatever transaction is open, without a deadline of its own.
    pub(crate) async fn changes_since(
        &self,
        cursor: &Snapshot,
        retention: Retention,
    ) -> Result<Ticked, StoreError> {
        let statement = self.client.prepare(&self.statements.tick).await?;
        let rows = self.client.query_raw(&statement, [cursor.to_string()]).await?;
        let mut rows = std::pin::pin!(rows);
        let (mut now, mut count, mut changes) = (None, 0, Changes::within(retention));
        while let Some(row) = rows.try_next().await? {
            match row.try_get::<_, Option<&str>>(0)? {
                Some(snapshot) => now = Some(snapshot.parse()?),
                None => {
                    count += 1;
                    changes.add(row.try_get::<_, &str>(1)?.parse()?, time(&row, 2)?, row.try_get(3)?);
                }
            }
        }
        Ok(Ticked { now: now.ok_or(StoreError::NoSnapshot)?, rows: count, changes })
    }

    /// Runs `work` in a REPEATABLE READ transaction: all of it sees one snapshot.
    pub(crate) async fn in_one_snapshot<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        match work.await {
            Ok(done) => {
                self.client.batch_execute("COMMIT").await?;
                Ok(done)
            }
            // What went wrong, even where the session is gone, so that there is nothing to roll back.
            Err(error) => {
                let _ended_with_it = self.client.batch_execute("ROLLBACK").await;
                Err(error)
            }
        }
    }

    /// Locks the cursor row for the transaction, and returns the stored snapshot.
    pub(crate) async fn lock_cursor(&self, term: i64) -> Result<Option<Snapshot>, StoreError> {
        match self.client.query_opt(&self.statements.lock_cursor, &[&term]).await {
            Ok(Some(row)) => Ok(row.try_get::<_, Option<&str>>(0)?.map(str::parse).transpose()?),
            Ok(None) => Err(StoreError::Deposed(term)),
            // Another leader changed the row after this transaction's snapshot: it has begun its term.
            Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                Err(StoreError::Deposed(term))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs `work` with the deadline for a statement.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(self.timeout, work).await
    }

    async fn flag(&self, sql: &str) -> Result<bool, StoreError> {
        within(self.timeout, async { Ok(self.client.query_one(sql, &[]).await?.try_get(0)?) }).await
    }
}

pub(crate) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, work).await.map_err(|_| StoreError::Timeout(timeout))?
}

/// The time in a column.
pub(crate) fn time(row: &Row, column: usize) -> Result<BucketTime, StoreError> {
    Ok(row.try_get::<_, OffsetDateTime>(column)?.try_into()?)
}

/// A row of a topic's name, a time and a count.
pub(crate) fn topic_bucket(row: &Row) -> Result<(Topic, Bucket), StoreError> {
    let metric: Metric = row.try_get::<_, &str>(0)?.parse()?;
    let unit: TimeUnit = row.try_get::<_, &str>(1)?.parse()?;
    Ok((Topic::new(metric, unit), Bucket { time: time(row, 2)?, count: row.try_get(3)? }))
}
