//! The SQL of this program.

use std::time::Duration;

use access_kit::key::Key;
use access_kit::keyring::MAX_KEYS;
use access_kit::scope::Scope;
use postgres_kit::connect::ConnectError;
use postgres_kit::database::{DatabaseSettings, describe};
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

/// The name has the format that the constraint `access_key_name_format` demands.
const NAME_RULE: &str = "a name has 1 to 64 letters, digits, dots, hyphens, underscores and @, and \
                         begins with a letter or a digit";

/// Why a key was not made, listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A valid key has the name.
    #[error(
        "there is a key named {0} already: replace it (access roll {0}), revoke it, or choose \
         another name"
    )]
    NameTaken(String),
    /// The name has a wrong format.
    #[error("{0:?} is not a name for a key: {NAME_RULE}")]
    Name(String),
    /// No key has the name or id.
    #[error("no valid key has the name or id {0:?}: `access list` shows them")]
    NotFound(String),
    /// No row has the id.
    #[error("no row has the id {0}, and none that was deleted through ingest-api had it")]
    NoRow(Uuid),
    /// There are too many keys.
    #[error("there are {MAX_KEYS} valid keys already: revoke those that are not needed any more")]
    Full,
    /// No connection to the database could be made.
    #[error("no connection to Postgres: {0}")]
    Connect(#[from] ConnectError),
    /// Postgres does not answer, or refuses.
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// A key as it is listed.
#[derive(Debug)]
pub struct ListedKey {
    /// Names the key in rows and records.
    pub number: i32,
    /// The id in the key's text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was or will be revoked.
    pub ended_at: Option<OffsetDateTime>,
    /// When it was last used.
    pub last_used_at: Option<OffsetDateTime>,
    /// The limits of its own.
    pub limits: KeyLimits,
}

/// What a key has instead of the limits that all keys have.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyLimits {
    /// How many requests it may send to each service in a second; at least one.
    pub requests_per_second: Option<i32>,
    /// How many streams it may hold at each gateway; at least one.
    pub streams: Option<i32>,
}

/// A key to store, apart from the key itself.
struct NewRow<'a> {
    name: &'a str,
    scopes: Vec<String>,
    /// In seconds.
    lifetime: Option<f64>,
    limits: KeyLimits,
}

const INSERT: &str = "
INSERT INTO public.access_key (id, name, hash, scopes, created_by, expires_at, requests_per_second,
                               streams)
SELECT $1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7, $8
WHERE (SELECT count(*)
       FROM public.access_key
       WHERE COALESCE(LEAST(expires_at, ended_at), 'infinity') > now()) < $9
RETURNING expires_at";

const LIST: &str = "
SELECT number, id, name, scopes, created_by, created_at, expires_at, ended_at, last_used_at,
       requests_per_second, streams
FROM public.access_key
WHERE $1 OR COALESCE(LEAST(expires_at, ended_at), 'infinity') > now()
ORDER BY name, number";

/// Ends the key that has not been replaced yet, after a time.
const REPLACE: &str = "
UPDATE public.access_key
SET ended_at = now() + make_interval(secs => $2)
WHERE name = $1 AND ended_at IS NULL
RETURNING scopes, extract(epoch FROM expires_at - created_at)::float8 AS lifetime,
          requests_per_second, streams";

const REVOKE: &str = "
UPDATE public.access_key
SET ended_at = now()
WHERE (name = $1 OR id = $1) AND COALESCE(LEAST(expires_at, ended_at), 'infinity') > now()
RETURNING name, id";

/// Who wrote the rows with the id `$1`, and who deleted them. One id is in one table, unless a
/// producer chose it twice.
const WHO: &str = "
SELECT what.done, what.at, what.number, access_key.name, what.request_id
FROM (SELECT 'wrote the base item' AS done, NULL::timestamptz AS at, written_by AS number,
             NULL AS request_id
      FROM   public.base_items WHERE id = $1
      UNION ALL
      SELECT 'wrote the user', NULL, written_by, NULL FROM public.users WHERE id = $1
      UNION ALL
      SELECT 'wrote the item', NULL, written_by, NULL FROM public.items WHERE id = $1
      UNION ALL
      SELECT 'wrote the transfer', NULL, written_by, NULL FROM public.transfers WHERE id = $1
      UNION ALL
      SELECT 'wrote the row that was in ' || table_name, NULL, (content ->> 'written_by')::integer,
             NULL
      FROM   public.deletion WHERE row_id = $1
      UNION ALL
      SELECT 'deleted it from ' || table_name, deleted_at, deleted_by, request_id
      FROM   public.deletion WHERE row_id = $1) AS what
LEFT JOIN public.access_key USING (number)
ORDER BY what.at NULLS FIRST";

/// What a key did with a row.
#[derive(Debug)]
pub struct Deed {
    /// Such as `wrote the item`.
    pub done: String,
    /// When, if that is recorded.
    pub at: Option<OffsetDateTime>,
    /// The number of the key; `None` if it was done by SQL, or while access was open.
    pub number: Option<i32>,
    /// The name of the key.
    pub name: Option<String>,
    /// The id of the request, if that is recorded.
    pub request_id: Option<String>,
}

/// The keys in the database.
pub struct KeyStore {
    client: Client,
    /// Who makes keys, as the caller says.
    user: String,
}

impl KeyStore {
    /// Connects. `user` is who makes the keys, for the list.
    ///
    /// # Errors
    /// Postgres does not answer, or refuses.
    pub async fn connect(database: &DatabaseSettings, user: String) -> Result<Self, StoreError> {
        let (client, connection) = database.connect(&database.connection("access")).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "the connection to Postgres ended");
            }
        });
        Ok(Self { client, user })
    }

    /// Stores a new key, and returns when it ends by itself: after `lifetime`, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(
        &self,
        key: &Key,
        name: &str,
        scopes: &[Scope],
        lifetime: Option<Duration>,
        limits: KeyLimits,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        let lifetime = lifetime.map(|time| time.as_secs_f64());
        insert(&self.client, key, NewRow { name, scopes, lifetime, limits }, &self.user).await
    }

    /// The valid keys, or all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list(&self, all: bool) -> Result<Vec<ListedKey>, StoreError> {
        let rows = self.client.query(LIST, &[&all]).await?;
        Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
    }

    /// Stores a key that replaces another one, with the same scopes and limits, and the same
    /// lifetime from now.
    /// The other one stays valid for `overlap`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roll(
        &mut self,
        key: &Key,
        name: &str,
        overlap: Duration,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let transaction = self.client.transaction().await?;
        let replaced = transaction.query_opt(REPLACE, &[&name, &overlap.as_secs_f64()]).await?;
        let replaced = replaced.ok_or_else(|| StoreError::NotFound(name.to_owned()))?;
        let (scopes, lifetime) = (replaced.try_get("scopes")?, replaced.try_get("lifetime")?);
        let new = NewRow { name, scopes, lifetime, limits: limits(&replaced)? };
        let ends = insert(transaction.client(), key, new, &self.user).await?;
        transaction.commit().await?;
        Ok(ends)
    }

    /// Who wrote and deleted the row with this id.
    ///
    /// # Errors
    /// [`StoreError::NoRow`] if there is and was none.
    pub async fn who(&self, row: Uuid) -> Result<Vec<Deed>, StoreError> {
        let rows = self.client.query(WHO, &[&row]).await?;
        if rows.is_empty() {
            return Err(StoreError::NoRow(row));
        }
        let deed = |row: &Row| {
            Ok(Deed {
                done: row.try_get("done")?,
                at: row.try_get("at")?,
                number: row.try_get("number")?,
                name: row.try_get("name")?,
                request_id: row.try_get("request_id")?,
            })
        };
        Ok(rows.iter().map(deed).collect::<Result<_, tokio_postgres::Error>>()?)
    }

    /// Ends all keys that have this name or id, and returns the ids.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if none has.
    pub async fn revoke(&self, name_or_id: &str) -> Result<Vec<String>, StoreError> {
        let rows = self.client.query(REVOKE, &[&name_or_id]).await?;
        if rows.is_empty() {
            return Err(StoreError::NotFound(name_or_id.to_owned()));
        }
        Ok(rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?)
    }
}

async fn insert(
    client: &Client,
    key: &Key,
    NewRow { name, scopes, lifetime, limits }: NewRow<'_>,
    user: &str,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let (id, hash) = (key.id().to_string(), key.hash());
    let hash: &[u8] = hash.bytes();
    let most = i64::try_from(MAX_KEYS).unwrap_or(i64::MAX);
    let KeyLimits { requests_per_second: rate, streams } = limits;
    let inserted = client
        .query_opt(INSERT, &[&id, &name, &hash, &scopes, &user, &lifetime, &rate, &streams, &most])
        .await;
    match inserted {
        Ok(Some(row)) => Ok(row.try_get(0)?),
        Ok(None) => Err(StoreError::Full),
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(StoreError::NameTaken(name.to_owned()))
        }
        Err(error) if error.code() == Some(&SqlState::CHECK_VIOLATION) => {
            Err(StoreError::Name(name.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

fn limits(row: &Row) -> Result<KeyLimits, tokio_postgres::Error> {
    let requests_per_second = row.try_get("requests_per_second")?;
    Ok(KeyLimits { requests_per_second, streams: row.try_get("streams")? })
}

fn listed(row: &Row) -> Result<ListedKey, tokio_postgres::Error> {
    Ok(ListedKey {
        number: row.try_get("number")?,
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        scopes: row.try_get("scopes")?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        ended_at: row.try_get("ended_at")?,
        last_used_at: row.try_get("last_used_at")?,
        limits: limits(row)?,
    })
}
