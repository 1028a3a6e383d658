//! The roles: the owner of everything in the database, a role for each service, so that Postgres
//! enforces which service writes what, and groups for producers and readers by SQL.
//!
//! Roles belong to the whole cluster, but an advisory lock belongs to one database: two databases
//! of a cluster may be migrated at the same time, and then both runs create the same role. The run
//! that loses the race finds the role and continues.
//!
//! None of this needs a superuser. A role with CREATEROLE is enough, which managed Postgres has.
//! Before Postgres 16, such a role may change every role that is no superuser. Since then, it may
//! change only the roles that it has created, or that it has got WITH ADMIN OPTION.

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::MigrateError;
use crate::settings::RoleSettings;

/// Owns the tables, views and functions, and the database if `migrate` created it. No program logs
/// in as this role.
pub(crate) const OWNER: &str = "newcycle_owner";

/// What members get: writing events by SQL, and reading events and counts by SQL. Operators grant
/// the membership.
const GROUPS: [&str; 2] = ["newcycle_producer", "newcycle_reader"];

/// Ends what a session forgot: one of psql, or of a pooler that sets nothing else. No request
/// takes that long, and ingest-api and access set shorter timeouts when they connect.
///
/// `newcycle_notifier` has none. A statement of a rebuild may take any time, and so may a pause of
/// a verification within its transaction; stats-notifier limits the sessions of a leader itself.
const TIMEOUTS: [&str; 2] =
    ["statement_timeout = '60s'", "idle_in_transaction_session_timeout = '60s'"];

/// How often a collision with the run of another database is tolerated. Each time, one of the two
/// succeeds.
const ATTEMPTS: usize = 20;

/// The first version in which a membership has options.
const MEMBERSHIP_OPTIONS: i32 = 160_000;

/// The role of a service.
struct ServiceRole<'a> {
    name: &'static str,
    setting: &'static str,
    password: &'a SecretString,
    max_connections: u16,
    timeouts: &'static [&'static str],
}

impl RoleSettings {
    fn services(&self) -> [ServiceRole<'_>; 3] {
        [
            ServiceRole {
                name: "newcycle_ingest",
                setting: "roles.ingest_password",
                password: &self.ingest_password,
                max_connections: self.max_ingest_connections,
                timeouts: &TIMEOUTS,
            },
            ServiceRole {
                name: "newcycle_notifier",
                setting: "roles.notifier_password",
                password: &self.notifier_password,
                max_connections: self.max_notifier_connections,
                timeouts: &[],
            },
            ServiceRole {
                name: "newcycle_access",
                setting: "roles.access_password",
                password: &self.access_password,
                max_connections: self.max_access_connections,
                timeouts: &TIMEOUTS,
            },
        ]
    }

    /// Refuses an empty password.
    pub(crate) fn check(&self) -> Result<(), MigrateError> {
        match self.services().iter().find(|role| role.password.expose_secret().is_empty()) {
            Some(role) => Err(MigrateError::EmptyPassword(role.setting)),
            None => Ok(()),
        }
    }
}

impl ServiceRole<'_> {
    /// Sets what a run sets each time. It is one transaction, because it is sent as one message.
    fn alter(&self) -> String {
        let name = self.name;
        // The verifier instead of the password, so that a statement in the server's log reveals
        // nothing. It consists of base64, `$` and `:`.
        let password = self.password.expose_secret().as_bytes();
        let verifier = postgres_protocol::password::scram_sha_256(password);
        let limit = match self.max_connections {
            0 => -1,
            limit => i32::from(limit),
        };
        let mut statements =
            format!("ALTER ROLE {name} LOGIN CONNECTION LIMIT {limit} PASSWORD '{verifier}';");
        for timeout in self.timeouts {
            statements += &format!("ALTER ROLE {name} SET {timeout};");
        }
        statements
    }
}

/// Creates [`OWNER`] if it does not exist, and makes the role of this session a member, so that it
/// can act as the owner and give it a database.
///
/// # Errors
/// A statement fails.
pub(crate) async fn ensure_owner(client: &Client) -> Result<(), MigrateError> {
    create(client, OWNER, "NOLOGIN").await?;
    let version = "SELECT current_setting('is_superuser') = 'on', \
                          current_setting('server_version_num')::integer";
    let row = client.query_typed_one(version, &[]).await.map_err(failed)?;
    let (is_superuser, version): (bool, i32) = (row.get(0), row.get(1));
    if is_superuser {
        return Ok(());
    }
    let options = if version < MEMBERSHIP_OPTIONS { "" } else { "WITH INHERIT TRUE, SET TRUE" };
    let grant = format!("GRANT {OWNER} TO CURRENT_USER {options}");
    match repeated(client, &grant).await {
        // An operator may have granted the membership without the right to grant it. If there is
        // none, SET ROLE fails, and says so.
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        result => result.map_err(failed),
    }
}

/// Creates the roles of the services and the groups, unless they exist, and sets the passwords and
/// the limits of the services' roles.
///
/// # Errors
/// A statement fails.
pub(crate) async fn ensure(client: &Client, roles: &RoleSettings) -> Result<(), MigrateError> {
    for group in GROUPS {
        create(client, group, "NOLOGIN").await?;
    }
    for role in roles.services() {
        create(client, role.name, "LOGIN").await?;
        repeated(client, &role.alter()).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(source: tokio_postgres::Error) -> MigrateError {
    MigrateError::Statement { doing: "creating the roles", source }
}

async fn create(client: &Client, role: &str, login: &str) -> Result<(), MigrateError> {
    let exists = format!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')");
    if client.query_typed_one(&exists, &[]).await.map_err(failed)?.get(0) {
        return Ok(());
    }
    match client.batch_execute(&format!("CREATE ROLE {role} {login}")).await {
        // Another run created it just now. The error depends on whether that run had committed.
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)
            ) =>
        {
            Ok(())
        }
        result => result.map_err(failed),
    }
}

/// Runs statements that may be repeated, until they do not collide with those of another run.
async fn repeated(client: &Client, statements: &str) -> Result<(), tokio_postgres::Error> {
    for attempt in 1.. {
        match client.batch_execute(statements).await {
            Err(error) if attempt < ATTEMPTS && is_collision(&error) => {}
            result => return result,
        }
    }
    Ok(())
}

/// Whether two sessions wrote the same row of the catalog at once: both made a member, or both set
/// a password, which Postgres reports as an internal error ("tuple concurrently updated").
fn is_collision(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::UNIQUE_VIOLATION | &SqlState::INTERNAL_ERROR))
}

/// Quotes a name for SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
