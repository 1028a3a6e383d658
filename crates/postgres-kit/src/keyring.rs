//! Reads the keyring from Postgres, for the services that have a database.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use access_kit::control::AccessControl;
use access_kit::key::InvalidKeyId;
use access_kit::keyring::{KeyRecord, MAX_KEYS};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::database::{Connections, Session, Unavailable, describe};

/// How often to look for a change. A revoked key must be refused within two seconds, also by
/// services that are a few hops away from this one.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long one look may take, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often the last uses of keys are stored.
const USES_INTERVAL: Duration = Duration::from_secs(60);

/// How many keys are read: all that are valid, and the newest of those that have ended.
const MAX_ROWS: i64 = 2 * MAX_KEYS as i64;

const VERSION: &str = "SELECT version FROM public.access_keyring";

/// The left join makes a row of an empty table, too: it has the version.
const KEYS: &str = "
SELECT access_keyring.version, key.number, key.id, key.name, key.hash, key.scopes,
       key.expires_at, key.ended_at, key.requests_per_second, key.streams
FROM public.access_keyring
LEFT JOIN public.access_key AS key ON true
ORDER BY COALESCE(LEAST(key.expires_at, key.ended_at), 'infinity') DESC
LIMIT $1";

const USED: &str = "
UPDATE public.access_key
SET last_used_at = now()
WHERE number = ANY ($1)";

/// Why the keyring could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Away(#[from] Unavailable),
    #[error("{}", describe(.0))]
    Refused(#[from] tokio_postgres::Error),
    #[error("a key in the database has an invalid id or hash")]
    Invalid,
}

impl From<InvalidKeyId> for ReadError {
    fn from(_: InvalidKeyId) -> Self {
        Self::Invalid
    }
}

/// Keeps the keyring of a service up to date until shutdown, and stores when keys were used. An
/// outage of the database is no error: `access` decides how long it uses the last keyring.
///
/// # Errors
/// Never.
pub async fn follow(
    connections: Connections,
    access: Arc<AccessControl>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut known = None;
    let mut is_away = false;
    let mut uses_stored = Instant::now();
    loop {
        match refresh(&connections, &access, known).await {
            Ok(version) => {
                if std::mem::take(&mut is_away) {
                    tracing::info!("the list of keys is up to date again");
                }
                known = Some(version);
                if uses_stored.elapsed() >= USES_INTERVAL {
                    uses_stored = Instant::now();
                    store_uses(&connections, &access).await;
                }
            }
            Err(error) if !std::mem::replace(&mut is_away, true) => {
                tracing::warn!(error = %error, "the list of keys cannot be read; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Reads the keyring if its version is another one than `known`, and returns its version.
async fn refresh(
    connections: &Connections,
    access: &AccessControl,
    known: Option<i64>,
) -> Result<i64, ReadError> {
    // Before the statement, whose snapshot is later.
    let moment = Instant::now();
    let version = connections.run(TIMEOUT, async |session| read_version(session).await).await?;
    if known == Some(version) {
        access.confirm(moment);
        return Ok(version);
    }
    let (version, keys) =
        connections.run(TIMEOUT, async |session| read_keys(session).await).await?;
    tracing::info!(access.version = version, access.keys = keys.len(), "read the list of keys");
    access.replace(version, keys, moment);
    Ok(version)
}

async fn read_version(session: &Session) -> Result<i64, ReadError> {
    let rows = session.query(VERSION, &[]).await?;
    Ok(rows.first().ok_or(ReadError::Invalid)?.try_get(0)?)
}

async fn read_keys(session: &Session) -> Result<(i64, Vec<KeyRecord>), ReadError> {
    let rows = session.query(KEYS, &[(&MAX_ROWS, Type::INT8)]).await?;
    let version = rows.first().ok_or(ReadError::Invalid)?.try_get("version")?;
    let keys = rows.iter().filter_map(|row| record(row).transpose());
    Ok((version, keys.collect::<Result<_, _>>()?))
}

/// The key of a row; `None` if the table is empty.
fn record(row: &Row) -> Result<Option<KeyRecord>, ReadError> {
    let Some(number) = row.try_get("number")? else { return Ok(None) };
    let hash: &[u8] = row.try_get("hash")?;
    let hash: [u8; 32] = hash.try_into().map_err(|_| ReadError::Invalid)?;
    Ok(Some(KeyRecord {
        number,
        id: row.try_get::<_, &str>("id")?.parse()?,
        name: row.try_get("name")?,
        hash: hash.into(),
        scopes: row.try_get("scopes")?,
        expires_at: row.try_get("expires_at")?,
        ended_at: row.try_get("ended_at")?,
        requests_per_second: limit(row, "requests_per_second")?,
        streams: limit(row, "streams")?,
    }))
}

/// A limit, which a constraint of the table keeps above zero.
fn limit(row: &Row, column: &str) -> Result<Option<NonZeroU32>, tokio_postgres::Error> {
    let limit: Option<i32> = row.try_get(column)?;
    Ok(limit.and_then(|limit| u32::try_from(limit).ok()).and_then(NonZeroU32::new))
}

async fn store_uses(connections: &Connections, access: &AccessControl) {
    let used = access.take_used();
    if used.is_empty() {
        return;
    }
    let store = async |session: &Session| {
        session.execute(USED, &[(&used, Type::INT4_ARRAY)]).await.map_err(ReadError::from)
    };
    if let Err(error) = connections.run(TIMEOUT, store).await {
        tracing::warn!(error = %error, "the last uses of keys could not be stored");
        access.mark_used(&used);
    }
}
