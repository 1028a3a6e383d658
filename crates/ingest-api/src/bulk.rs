//! Uploads of many rows as `application/x-ndjson`, of any length in constant memory.
//!
//! Good lines are committed in chunks while the upload is still arriving; bad lines are counted and
//! named. If the upload breaks off or the database goes away, the chunks committed so far stay.
//! Sending the whole upload again is harmless if its lines have ids.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::body::BodyError;
use crate::input::{Input, parse};
use crate::lines::{Line, Lines};
use crate::model::NewRow;
use crate::report::{LineCounts, UploadReport};
use crate::service::IngestService;
use crate::store::{DatabaseError, InsertOutcome, StoredRow};

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The maximum number of concurrent uploads is reached.
    #[error("too many uploads are in progress")]
    TooMany,
    /// The body could not be read to its end. The lines that are counted are done with.
    #[error("{error}")]
    Body { error: BodyError, counts: LineCounts },
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// Rows that wait to be committed, and the numbers of their lines.
struct Chunk<R> {
    rows: Vec<NewRow<R>>,
    lines: Vec<u64>,
    bytes: usize,
}

/// Reads an upload to its end and stores its rows.
///
/// # Errors
/// [`UploadError`]. The chunks committed before stay.
pub(crate) async fn upload<I>(
    service: &IngestService,
    mut body: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
) -> Result<UploadReport, UploadError>
where
    I: Input<Row: StoredRow>,
{
    let _permit = service.uploads.try_acquire().map_err(|_| UploadError::TooMany)?;
    let limits = &service.settings.bulk;
    let mut lines = Lines::new(limits.max_line_bytes);
    let mut report = UploadReport::default();
    let mut chunk = Chunk { rows: Vec::new(), lines: Vec::new(), bytes: 0 };
    let mut ended = false;
    while !ended {
        match body.next().await {
            Some(Ok(part)) => lines.add(&part),
            Some(Err(error)) => {
                return Err(UploadError::Body { error, counts: report.counts });
            }
            None => {
                lines.end();
                ended = true;
            }
        }
        while let Some(Line { number, text }) = lines.next_line() {
            // Idempotency-Key does not apply: it would be the id of every line.
            let context = service.context(None);
            let row = text.and_then(|text| {
                chunk.bytes += text.len();
                parse::<I>(text.as_bytes())?.into_row(context)
            });
            match row {
                Ok(row) => {
                    chunk.rows.push(row);
                    chunk.lines.push(number);
                }
                Err(rejection) => report.reject(number, &rejection, limits.max_reported_errors),
            }
            if chunk.rows.len() >= limits.max_chunk_lines.get()
                || chunk.bytes >= limits.chunk_bytes.get()
            {
                commit(service, &mut chunk, &mut report).await?;
            }
        }
    }
    commit(service, &mut chunk, &mut report).await?;
    Ok(report)
}

async fn commit<R: StoredRow>(
    service: &IngestService,
    chunk: &mut Chunk<R>,
    report: &mut UploadReport,
) -> Result<(), DatabaseError> {
    let limits = &service.settings.bulk;
    let Chunk { rows, lines, bytes } = chunk;
    if rows.is_empty() {
        return Ok(());
    }
    let outcomes = service.insert(limits.chunk_timeout.get(), rows).await?;
    for (outcome, line) in outcomes.iter().zip(lines.iter()) {
        match outcome {
            InsertOutcome::Created(_) => report.counts.accepted += 1,
            InsertOutcome::Repeated(_) => report.counts.repeated += 1,
            InsertOutcome::Rejected(rejection) => {
                report.reject(*line, rejection, limits.max_reported_errors);
            }
        }
    }
    rows.clear();
    lines.clear();
    *bytes = 0;
    Ok(())
}
