//! Reads columns. A value that cannot be read is [`StoreError::Corrupt`], and not an error of the
//! connection: the same query would fail again.

use domain::{Bucket, BucketTime};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::error::StoreError;

pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| StoreError::Corrupt(Box::new(error)))
}

pub(super) fn parsed<T>(row: &Row, index: usize) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    StoreError: From<T::Err>,
{
    Ok(column::<&str>(row, index)?.parse()?)
}

pub(super) fn time(row: &Row, index: usize) -> Result<BucketTime, StoreError> {
    Ok(column::<OffsetDateTime>(row, index)?.try_into()?)
}

/// A row that begins with the time and the count of a bucket.
pub(super) fn bucket(row: &Row) -> Result<Bucket, StoreError> {
    Ok(Bucket { time: time(row, 0)?, count: column(row, 1)? })
}
