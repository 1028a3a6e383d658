//! Who may do what in the database, apart from the tables, whose rights are in `migrations/`.
//!
//! - Only named roles may connect: CONNECT and TEMPORARY are revoked from PUBLIC.
//! - Only the owner and stats-notifier may take the locks of the lead and of the gate, if a
//!   superuser migrates. The lock functions belong to Postgres, and for any other role, Postgres
//!   answers a REVOKE with a warning and changes nothing.
//!
//! Invariant: what could not be limited is reported, because it was looked at afterwards.

use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::MigrateError;
use crate::roles::identifier;

/// A right that every role has, because the role that migrated may not revoke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Every role of the cluster may connect to the database.
    Connect,
    /// Every role that is connected may create tables and functions in the schema `public`.
    Create,
    /// Every role that is connected may take the locks of the lead and of the gate.
    Locks,
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => {
                "every role of the cluster may connect to the database, or create temporary tables in it, \
                 because only its owner can revoke that: as the owner or a superuser, \
                 REVOKE CONNECT, TEMPORARY ON DATABASE … FROM PUBLIC"
            }
            Self::Create => {
                "every role that is connected may create tables and functions in the schema public, \
                 because only its owner can revoke that: as the owner or a superuser, \
                 REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            }
            Self::Locks => {
                "every role that is connected may hold the lock of the lead and so stop the counting, \
                 or hold the lock of the gate and so delay it, because only a superuser can revoke \
                 pg_advisory_lock(integer, integer) and the functions like it: \
                 if there is a superuser, run `migrate` once as one"
            }
        })
    }
}

/// The owner creates its tables in the schema public. The owner of the database may do so, and may
/// grant it.
const GRANT_SCHEMA: &str = "GRANT USAGE, CREATE ON SCHEMA public TO newcycle_owner";

const OWNER_MAY_CREATE: &str = "SELECT has_schema_privilege('newcycle_owner', 'public', 'CREATE')";

/// What follows acts as the owner, so everything that is created belongs to it. Names without a
/// schema, such as those of refinery, are of the schema public.
const BECOME_OWNER: &str = "SET ROLE newcycle_owner; SET search_path = public";
const RESET_ROLE: &str = "RESET search_path; RESET ROLE";

/// Grants before it revokes, in one transaction. The groups connect for their members.
const LIMIT_DATABASE: &str = "
    GRANT CONNECT ON DATABASE {database}
        TO newcycle_owner, newcycle_ingest, newcycle_notifier, newcycle_access,
           newcycle_producer, newcycle_reader;
    REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC";

/// The functions of locks that have two numbers. Locks of a single bigint are other locks, and stay
/// for all.
const LOCK_FUNCTIONS: &str = "
        pg_catalog.pg_advisory_lock(integer, integer),
        pg_catalog.pg_advisory_lock_shared(integer, integer),
        pg_catalog.pg_advisory_unlock(integer, integer),
        pg_catalog.pg_advisory_unlock_shared(integer, integer),
        pg_catalog.pg_advisory_xact_lock(integer, integer),
        pg_catalog.pg_advisory_xact_lock_shared(integer, integer),
        pg_catalog.pg_try_advisory_lock(integer, integer),
        pg_catalog.pg_try_advisory_lock_shared(integer, integer),
        pg_catalog.pg_try_advisory_xact_lock(integer, integer),
        pg_catalog.pg_try_advisory_xact_lock_shared(integer, integer)";

/// The triggers take the lock of the gate as the owner, and `migrate` its own lock as a member of
/// the owner.
const LIMIT_LOCKS: &str = "
    GRANT EXECUTE ON FUNCTION {functions} TO newcycle_owner, newcycle_notifier;
    REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC";

const IS_SUPERUSER: &str = "SELECT current_setting('is_superuser') = 'on'";

/// The functions have two parameters, and those of other locks one.
const READ_RIGHTS: &str = "
    SELECT has_database_privilege('public', current_database(), 'CONNECT, TEMPORARY'),
           has_schema_privilege('public', 'public', 'CREATE'),
           bool_or(has_function_privilege('public', oid, 'EXECUTE')),
           bool_and(has_function_privilege('newcycle_owner', oid, 'EXECUTE')
                    AND has_function_privilege('newcycle_notifier', oid, 'EXECUTE'))
    FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND proname ~ '^pg_(try_)?advisory_'
      AND pronargs = 2";

/// Lets the owner create tables.
///
/// # Errors
/// [`MigrateError::SchemaClosed`], or a statement fails.
pub(crate) async fn open_schema(client: &Client) -> Result<(), MigrateError> {
    let failed = statement_error("granting the schema to the owner");
    let may_create = async || {
        let row = client.query_typed_one(OWNER_MAY_CREATE, &[]).await.map_err(failed)?;
        Ok::<bool, MigrateError>(row.get(0))
    };
    if may_create().await? {
        return Ok(());
    }
    unless_refused(client.batch_execute(GRANT_SCHEMA).await).map_err(failed)?;
    if may_create().await? { Ok(()) } else { Err(MigrateError::SchemaClosed) }
}

/// Makes this session act as the owner.
///
/// # Errors
/// The role of the session is not a member of the owner.
pub(crate) async fn become_owner(client: &Client) -> Result<(), MigrateError> {
    client.batch_execute(BECOME_OWNER).await.map_err(statement_error("acting as newcycle_owner"))
}

/// Makes this session act as its own role again.
///
/// # Errors
/// The statement fails.
pub(crate) async fn reset_role(client: &Client) -> Result<(), MigrateError> {
    client.batch_execute(RESET_ROLE).await.map_err(statement_error("acting as migrate's own role"))
}

/// Limits who may connect to the database, and who may take locks. Returns what could not be
/// limited.
///
/// # Errors
/// [`MigrateError::LocksRefused`], or a statement fails.
pub(crate) async fn limit(client: &Client, database: &str) -> Result<Vec<Gap>, MigrateError> {
    let failed = statement_error("limiting the rights in the database");
    let limit_database = LIMIT_DATABASE.replace("{database}", &identifier(database));
    unless_refused(client.batch_execute(&limit_database).await).map_err(failed)?;
    if client.query_typed_one(IS_SUPERUSER, &[]).await.map_err(failed)?.get(0) {
        let limit_locks = LIMIT_LOCKS.replace("{functions}", LOCK_FUNCTIONS);
        client.batch_execute(&limit_locks).await.map_err(failed)?;
    }
    let row = client.query_typed_one(READ_RIGHTS, &[]).await.map_err(failed)?;
    if !row.get::<_, bool>(3) {
        return Err(MigrateError::LocksRefused);
    }
    let gaps = [Gap::Connect, Gap::Create, Gap::Locks].into_iter().enumerate();
    Ok(gaps.filter(|(column, _)| row.get(*column)).map(|(_, gap)| gap).collect())
}

/// Ignores that Postgres refused a statement, which it does only if the role has no right at all to
/// grant. Otherwise it warns. What comes of it is looked at afterwards.
fn unless_refused(result: Result<(), tokio_postgres::Error>) -> Result<(), tokio_postgres::Error> {
    match result {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        result => result,
    }
}

fn statement_error(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> MigrateError + Copy {
    move |source| MigrateError::Statement { doing, source }
}
