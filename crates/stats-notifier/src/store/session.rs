//! The sessions of a leader, and of a standby that tries to lead.

use std::time::Duration;

use postgres_kit::database::{DatabaseSettings, Parameter};
use tokio::sync::OnceCell;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::connection::{ConnectionDriver, open, with_timeout};
use super::error::StoreError;
use super::row::column;
use super::statements::Statements;
use crate::settings::LeaderSettings;

/// The application names of the session that holds the lead, or tries to, and of the session
/// through which a leader writes.
const LEAD_NAME: &str = "stats-notifier";
pub(super) const UPKEEP_NAME: &str = "stats-notifier upkeep";

/// Identifies this session.
const READ_SESSION_ID: &str = "
    SELECT pid, backend_start::text
    FROM pg_stat_activity
    WHERE pid = pg_backend_pid()";

/// Finds a session on the server that runs the statement.
///
/// `$1` is the process id of the backend, `$2` the time of its start, as text.
const FIND_SESSION: &str = "
    SELECT
    FROM pg_stat_activity
    WHERE pid = $1 AND backend_start::text = $2";

/// Every statement until [`COMMIT`] or [`ROLLBACK`] reads by one snapshot.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";

/// How the leader's statements are planned.
///
/// JIT would compile a statement that runs for a tenth of a millisecond. A sequential scan of the
/// log is never wanted, but the planner may choose one, because the table is nearly empty whenever
/// it is analyzed.
///
/// A plan for any values is kept. A tick comes up to 200 times a second, and planning it would take
/// longer than running it. The conditions of all statements are ranges of an index, so no value
/// asks for another plan.
pub const PLANNING: &str = "-c jit=off -c enable_seqscan=off -c plan_cache_mode=force_generic_plan";

/// Distinguishes a session from every other session of any server.
#[derive(Debug, Clone)]
pub(crate) struct SessionId {
    process: i32,
    started: String,
}

impl SessionId {
    pub(crate) async fn read(client: &Client) -> Result<Self, StoreError> {
        let row = client.query_typed_one(READ_SESSION_ID, &[]).await?;
        Ok(Self { process: column(&row, 0)?, started: column(&row, 1)? })
    }

    /// Whether the server that `client` is connected to has this session.
    pub(crate) async fn is_known_to(&self, client: &Client) -> Result<bool, StoreError> {
        let session: [Parameter<'_>; 2] =
            [(&self.process, Type::INT4), (&self.started, Type::TEXT)];
        Ok(client.query_typed_opt(FIND_SESSION, &session).await?.is_some())
    }
}

/// A session of a leader, or of a standby that tries to lead.
///
/// A method that takes the number of a term fails with [`StoreError::Deposed`] if another term has
/// begun. It then has changed nothing.
#[derive(Debug)]
pub struct Store {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// The tick, once it is prepared.
    pub(super) tick: OnceCell<Statement>,
    id: SessionId,
    statement_timeout: Duration,
    _driver: ConnectionDriver,
}

impl Store {
    /// Opens the session of a replica that tries to lead, and checks that this release works
    /// on the schema.
    ///
    /// # Errors
    /// [`StoreError`] if Postgres does not answer in time, is read-only, or has a schema that
    /// this release does not work on.
    pub async fn connect(
        database: &DatabaseSettings,
        leader: &LeaderSettings,
        statements: Statements,
    ) -> Result<Self, StoreError> {
        let lock_timeout = leader.lock_timeout.get();
        Self::connect_as(LEAD_NAME, lock_timeout, database, leader, statements).await
    }

    /// Opens a second session to the server of this one, through which this leader writes. The next
    /// leader finds it by its application name. It waits for locks without a time limit, because
    /// live numbers do not wait for it, and a new term would have to wait for the same locks.
    ///
    /// # Errors
    /// Those of [`Store::connect`], and [`StoreError::ServerReplaced`] if the address leads to
    /// another server by now, whose log has nothing to do with what this leader has counted.
    pub async fn connect_for_upkeep(
        &self,
        database: &DatabaseSettings,
        leader: &LeaderSettings,
    ) -> Result<Self, StoreError> {
        let statements = self.statements.clone();
        let unlimited = Duration::ZERO;
        let store = Self::connect_as(UPKEEP_NAME, unlimited, database, leader, statements).await?;
        if !store.with_timeout(self.id.is_known_to(&store.client)).await? {
            return Err(StoreError::ServerReplaced);
        }
        Ok(store)
    }

    /// A `lock_timeout` of zero is none.
    async fn connect_as(
        name: &str,
        lock_timeout: Duration,
        database: &DatabaseSettings,
        leader: &LeaderSettings,
        statements: Statements,
    ) -> Result<Self, StoreError> {
        let session_timeout = leader.session_timeout.get();
        let mut config = database.connection(name);
        // The timeouts end the sessions of a leader that is frozen or cut off, so that another can
        // take over. When a leader falls silent, its backend is in one of these states:
        // - It waits for the next statement, inside or outside a transaction: the idle timeouts end
        //   it.
        // - It waits for a lock: first lock_timeout, then the idle timeout of the failed
        //   transaction. The session that writes waits as long as it takes, but the next leader
        //   ends it.
        // - It waits for the leader to read rows, because all buffers are full: tcp_user_timeout
        //   ends it, because Linux also counts the time in which the peer's window stays closed.
        // - It runs a statement, and is then in one of the states above. It never waits between the
        //   messages of one statement, because they are sent together. If the leader has closed the
        //   connection, client_connection_check_interval ends the statement. If the leader's host
        //   is gone, nothing closes the connection before the keepalives have got no answer.
        // On the session of the lead, the longest of these is how long a silent leader keeps the
        // lead. It runs no statement for long but the load of a term, a tick over many rows, and
        // those of a rebuild, one for each day: the next leader would have to do the same work.
        let idle = session_timeout.as_millis();
        let keepalives_idle = session_timeout.as_secs().max(1);
        let lock = lock_timeout.as_millis();
        let check = leader.attempt_interval.get().as_millis();
        config.options(format!(
            "{PLANNING} -c TimeZone=UTC -c idle_session_timeout={idle} \
             -c idle_in_transaction_session_timeout={idle} -c tcp_user_timeout={idle} \
             -c lock_timeout={lock} -c client_connection_check_interval={check} \
             -c tcp_keepalives_idle={keepalives_idle} -c tcp_keepalives_interval=1 \
             -c tcp_keepalives_count=3"
        ));
        // In the other direction, these find that the server's host is gone, also while the leader
        // waits for a statement without a time limit.
        config.tcp_user_timeout(session_timeout);
        config.keepalives_idle(session_timeout);
        config.keepalives_interval(session_timeout);
        let (client, driver) = open(database, &config).await?;
        let statement_timeout = leader.statement_timeout.get();
        with_timeout(statement_timeout, async { Ok(postgres_kit::schema::check(&client).await?) })
            .await?;
        let id = with_timeout(statement_timeout, SessionId::read(&client)).await?;
        let tick = OnceCell::new();
        Ok(Self { client, statements, tick, id, statement_timeout, _driver: driver })
    }

    /// Whether the server of this session also has another one.
    pub(crate) async fn has_session(&self, session: &SessionId) -> Result<bool, StoreError> {
        self.with_timeout(session.is_known_to(&self.client)).await
    }

    pub(crate) const fn session_id(&self) -> &SessionId {
        &self.id
    }

    /// Runs `work` within the time limit of one statement.
    pub(super) async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        with_timeout(self.statement_timeout, work).await
    }

    /// Runs `work` in a REPEATABLE READ transaction, so that all of it sees one snapshot.
    ///
    /// Its begin and a rollback have the time limit of one statement, because neither waits for a
    /// lock. A commit has none: it may wait for a synchronous standby.
    pub(super) async fn in_one_snapshot<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.with_timeout(async { Ok(self.client.batch_execute(BEGIN).await?) }).await?;
        match work.await {
            Ok(done) => {
                self.client.batch_execute(COMMIT).await?;
                Ok(done)
            }
            // Reports why the work failed. If the session is lost, the rollback fails as well.
            Err(error) => {
                let rollback = async { Ok(self.client.batch_execute(ROLLBACK).await?) };
                let _rolled_back = self.with_timeout(rollback).await;
                Err(error)
            }
        }
    }
}
