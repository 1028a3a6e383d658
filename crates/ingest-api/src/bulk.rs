//! Uploads of many rows as `application/x-ndjson`, of any length in constant memory.
//!
//! Good lines are committed in chunks while the upload is still coming; a bad one is counted and named. Where the
//! upload breaks off or the database goes away, what was committed stays, and sending all of it again is harmless
//! where the lines have ids.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use service_kit::problem::{DETAIL_CHARACTERS, FIELD_CHARACTERS, excerpt};
use utoipa::ToSchema;

use crate::error::{ApiError, Rejection};
use crate::input::{Context, Input, parse};
use crate::lines::Lines;
use crate::model::New;
use crate::routes::Service;
use crate::store::{Outcome, Resource};

/// What became of the lines of an upload.
#[derive(Debug, Default, Clone, Copy, Serialize, ToSchema)]
pub struct Counts {
    /// Lines stored.
    pub accepted: u64,
    /// Lines that were stored already, with the same content.
    pub repeated: u64,
    /// Lines refused.
    pub rejected: u64,
}

/// A line that was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineError {
    /// Its number, from 1.
    #[schema(minimum = 1)]
    pub line: u64,
    /// The field that is wrong, where it is one.
    #[schema(required)]
    pub field: Option<String>,
    /// What is wrong.
    pub detail: String,
}

impl LineError {
    /// What a caller is told of a line. It quotes but a little of the line: an answer of many errors must not be as long
    /// as the upload.
    #[must_use]
    pub fn new(line: u64, rejection: &Rejection) -> Self {
        let field = rejection.field().map(|field| excerpt(field, FIELD_CHARACTERS));
        Self { line, field, detail: excerpt(&rejection.to_string(), DETAIL_CHARACTERS) }
    }
}

/// What became of the lines so far.
#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    /// The first of those that were rejected.
    errors: Vec<LineError>,
}

impl Tally {
    fn reject(&mut self, line: u64, rejection: &Rejection, reported: usize) {
        self.counts.rejected += 1;
        if self.errors.len() < reported {
            self.errors.push(LineError::new(line, rejection));
        }
    }
}

/// Lines that wait to be committed.
struct Chunk<R> {
    rows: Vec<New<R>>,
    lines: Vec<u64>,
    bytes: usize,
}

/// Takes an upload to its end, and returns the counts.
///
/// # Errors
/// [`ApiError::Lines`] where any line was bad; or what broke the upload off.
pub async fn upload<I>(
    service: &Service,
    mut body: impl Stream<Item = Result<Bytes, ApiError>> + Unpin,
) -> Result<Counts, ApiError>
where
    I: Input<Row: Resource>,
{
    let _permit = service.uploads.try_acquire().map_err(|_| ApiError::TooManyUploads)?;
    let limits = &service.settings.bulk;
    let mut lines = Lines::new(limits.line_bytes);
    let mut tally = Tally::default();
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
        while let Some((line, text)) = lines.next_line() {
            // An upload has no idempotency key: it would be the id of every line.
            let context = Context { key: None, ..service.context() };
            let row = text.and_then(|text| {
                chunk.bytes += text.len();
                parse::<I>(text.as_bytes())?.into_row(context)
            });
            match row {
                Ok(row) => {
                    chunk.rows.push(row);
                    chunk.lines.push(line);
                }
                Err(rejection) => tally.reject(line, &rejection, limits.reported_errors),
            }
            if chunk.rows.len() >= limits.chunk_lines.get() || chunk.bytes >= limits.chunk_bytes.get() {
                commit(service, &mut chunk, &mut tally).await?;
            }
        }
    }
    commit(service, &mut chunk, &mut tally).await?;
    let Tally { counts, errors } = tally;
    if counts.rejected > 0 { Err(ApiError::Lines { counts, errors }) } else { Ok(counts) }
}

async fn commit<R: Resource>(
    service: &Service,
    chunk: &mut Chunk<R>,
    tally: &mut Tally,
) -> Result<(), ApiError> {
    let Chunk { rows, lines, bytes } = chunk;
    if rows.is_empty() {
        return Ok(());
    }
    let outcomes = service.insert(service.settings.bulk.chunk_timeout.get(), rows).await?;
    for (outcome, line) in outcomes.iter().zip(lines.iter()) {
        match outcome {
            Outcome::Created(_) => tally.counts.accepted += 1,
            Outcome::Repeated(_) => tally.counts.repeated += 1,
            Outcome::Rejected(rejection) => {
                tally.reject(*line, rejection, service.settings.bulk.reported_errors);
            }
        }
    }
    rows.clear();
    lines.clear();
    *bytes = 0;
    Ok(())
}
