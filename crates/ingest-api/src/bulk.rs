//! Uploads of many rows as `application/x-ndjson`, of any length in constant memory.
//!
//! Good lines are committed in chunks while the upload is still arriving; bad lines are counted and
//! named. If the upload breaks off or the database goes away, the chunks committed so far stay.
//! Sending the whole upload again is harmless if its lines have ids.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use service_kit::problem::{DETAIL_CHARACTERS, FIELD_CHARACTERS, excerpt};
use utoipa::ToSchema;

use crate::body::BodyError;
use crate::input::{Input, parse};
use crate::lines::{Line, Lines};
use crate::model::NewRow;
use crate::rejection::Rejection;
use crate::service::IngestService;
use crate::store::{InsertOutcome, StoreError, StoredRow};

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The maximum number of concurrent uploads is reached.
    #[error("too many uploads are in progress")]
    TooMany,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the lines of an upload.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineCounts {
    /// Lines that are stored now.
    pub accepted: u64,
    /// Lines that were stored before, with the same content.
    pub repeated: u64,
    /// Lines that are not stored.
    pub rejected: u64,
}

/// A line that was rejected.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineError {
    /// The number of the line, from 1.
    #[schema(minimum = 1)]
    pub line: u64,
    /// The field that is wrong, if one field is.
    #[schema(required)]
    pub field: Option<String>,
    /// What is wrong.
    pub detail: String,
}

impl LineError {
    /// Describes a rejected line. Quotes only a little of it: an answer with many errors must not
    /// be as long as the upload.
    #[must_use]
    pub fn new(line: u64, rejection: &Rejection) -> Self {
        let field = rejection.field().map(|field| excerpt(field, FIELD_CHARACTERS));
        Self { line, field, detail: excerpt(&rejection.to_string(), DETAIL_CHARACTERS) }
    }
}

/// What became of an upload that arrived completely.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UploadReport {
    /// The numbers of lines.
    #[serde(flatten)]
    pub counts: LineCounts,
    /// The first rejected lines.
    pub errors: Vec<LineError>,
}

impl UploadReport {
    fn reject(&mut self, line: u64, rejection: &Rejection, max_errors: usize) {
        self.counts.rejected += 1;
        if self.errors.len() < max_errors {
            self.errors.push(LineError::new(line, rejection));
        }
    }
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
    let mut lines = Lines::new(limits.line_bytes);
    let mut report = UploadReport::default();
    let mut chunk = Chunk { rows: Vec::new(), lines: Vec::new(), bytes: 0 };
    let mut ended = false;
    while !ended {
        match body.next().await {
            Some(part) => lines.add(&part?),
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
                Err(rejection) => report.reject(number, &rejection, limits.reported_errors),
            }
            if chunk.rows.len() >= limits.chunk_lines.get()
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
) -> Result<(), StoreError> {
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
                report.reject(*line, rejection, limits.reported_errors);
            }
        }
    }
    rows.clear();
    lines.clear();
    *bytes = 0;
    Ok(())
}
