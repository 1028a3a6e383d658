//! Uploads of many rows, as lines (`application/x-ndjson`) or as a JSON array, of any length in
//! constant memory.
//!
//! Good lines are committed in chunks while the upload is still arriving; bad lines are counted and
//! named. If the upload breaks off or the database goes away, the chunks committed so far stay.
//! Sending the whole upload again is harmless if its lines have ids. The elements of an array are
//! handled as lines, and their numbers are line numbers.

use std::num::NonZeroUsize;

use tokio::time::{Instant, timeout_at};

use crate::array::{BrokenArray, Elements};
use crate::body::{Body, BodyError};
use crate::encoding::ContentCoding;
use crate::input::{Input, parse};
use crate::lines::{Line, Lines};
use crate::model::NewRow;
use crate::rejection::Rejection;
use crate::report::{LineCounts, UploadReport};
use crate::service::IngestService;
use crate::store::{DatabaseError, InsertOutcome, StoredRow};
use crate::uploads::ChunkMemory;

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Other uploads had all places to commit until the time limit of the chunk.
    #[error("too many uploads are in progress")]
    TooMany,
    /// The maximum number of uploads with zstd is reached.
    #[error("too many uploads with zstd are in progress")]
    TooManyZstd,
    /// The body could not be read to its end. The lines that are counted are done with.
    #[error("{error}")]
    Body { error: BodyError, counts: LineCounts },
    /// The body is an array that does not end where the body does. The elements before are done
    /// with.
    #[error("{error}")]
    Array { error: BrokenArray, report: UploadReport },
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// How the rows of an upload are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UploadForm {
    /// One row per line.
    Lines,
    /// A JSON array, of which the opening bracket has been read.
    Array,
}

/// Splits an upload of either form.
enum Splitter {
    Lines(Lines),
    Array(Elements),
}

impl Splitter {
    fn new(form: UploadForm, max_bytes: NonZeroUsize) -> Self {
        match form {
            UploadForm::Lines => Self::Lines(Lines::new(max_bytes)),
            UploadForm::Array => Self::Array(Elements::new(max_bytes)),
        }
    }

    fn add(&mut self, part: &[u8]) {
        match self {
            Self::Lines(lines) => lines.add(part),
            Self::Array(elements) => elements.add(part),
        }
    }

    const fn end(&mut self) {
        match self {
            Self::Lines(lines) => lines.end(),
            Self::Array(elements) => elements.end(),
        }
    }

    fn next(&mut self) -> Result<Option<Line>, BrokenArray> {
        match self {
            Self::Lines(lines) => Ok(lines.next_line()),
            Self::Array(elements) => elements.next_element(),
        }
    }
}

/// Reads an upload to its end and stores its rows.
///
/// # Errors
/// [`UploadError`]. The chunks committed before stay.
pub(crate) async fn upload<I>(
    service: &IngestService,
    form: UploadForm,
    mut body: Body,
) -> Result<UploadReport, UploadError>
where
    I: Input<Row: StoredRow>,
{
    let _in_progress = service.uploads.begin();
    let _zstd = match body.coding() {
        ContentCoding::Zstd => Some(service.uploads.zstd().ok_or(UploadError::TooManyZstd)?),
        ContentCoding::Gzip | ContentCoding::Identity => None,
    };
    let limits = &service.settings.bulk;
    body.require_rate(limits.min_bytes_per_second);
    let mut lines = Splitter::new(form, limits.max_line_bytes);
    let mut chunk = Chunk::new(service);
    let mut ended = false;
    while !ended {
        let part = tokio::select! {
            biased;
            part = body.next() => part,
            () = service.uploads.shortage(), if !chunk.rows.is_empty() => {
                chunk.commit().await?;
                continue;
            }
        };
        match part {
            Ok(Some(part)) => lines.add(&part),
            Ok(None) => {
                lines.end();
                ended = true;
            }
            Err(error) => {
                return Err(UploadError::Body { error, counts: chunk.report.counts });
            }
        }
        loop {
            match lines.next() {
                Ok(None) => break,
                Ok(Some(Line { number, text })) => {
                    // Idempotency-Key does not apply: it would be the id of every line.
                    let context = service.context(None);
                    let row = text.and_then(|text| {
                        Ok((parse::<I>(text.as_bytes())?.into_row(context)?, text.len()))
                    });
                    match row {
                        Ok((row, bytes)) => chunk.add(number, row, bytes).await?,
                        Err(rejection) => chunk.reject(number, &rejection),
                    }
                }
                Err(error) => {
                    chunk.commit().await?;
                    chunk.reject(error.element, &Rejection::Malformed(error.detail.to_owned()));
                    return Err(UploadError::Array { error, report: chunk.report });
                }
            }
        }
    }
    chunk.commit().await?;
    Ok(chunk.report)
}

/// Rows that wait to be committed, and the outcomes of the lines before.
struct Chunk<'a, R> {
    service: &'a IngestService,
    rows: Vec<NewRow<R>>,
    /// The numbers of the rows' lines.
    lines: Vec<u64>,
    /// The length of these lines.
    bytes: usize,
    memory: ChunkMemory<'a>,
    report: UploadReport,
}

impl<'a, R: StoredRow> Chunk<'a, R> {
    fn new(service: &'a IngestService) -> Self {
        Self {
            service,
            rows: Vec::new(),
            lines: Vec::new(),
            bytes: 0,
            memory: service.uploads.chunk_memory(),
            report: UploadReport::default(),
        }
    }

    fn reject(&mut self, line: u64, rejection: &Rejection) {
        self.report.reject(line, rejection, self.service.settings.bulk.max_reported_errors);
    }

    /// Adds the row of a line of this length. Commits the chunk if it is full.
    async fn add(&mut self, line: u64, row: NewRow<R>, bytes: usize) -> Result<(), UploadError> {
        let limits = &self.service.settings.bulk;
        self.rows.push(row);
        self.lines.push(line);
        self.bytes += bytes;
        // A row has no more text than its line.
        let fits = self.memory.grow(bytes + size_of::<NewRow<R>>() + size_of::<u64>());
        if !fits
            || self.rows.len() >= limits.max_chunk_lines.get()
            || self.bytes >= limits.chunk_bytes.get()
        {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), UploadError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.service.settings.bulk.chunk_timeout.get();
        let place = timeout_at(deadline, self.service.uploads.place()).await.ok().flatten();
        let place = place.ok_or(UploadError::TooMany)?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let outcomes = self.service.insert(timeout, &self.rows).await?;
        drop(place);
        for (outcome, line) in outcomes.iter().zip(std::mem::take(&mut self.lines)) {
            match outcome {
                InsertOutcome::Created(_) => self.report.counts.accepted += 1,
                InsertOutcome::Repeated(_) => self.report.counts.repeated += 1,
                InsertOutcome::Rejected(rejection) => self.reject(line, rejection),
            }
        }
        // New vectors, because the chunks of an upload that waits for its client hold no memory.
        self.rows = Vec::new();
        self.bytes = 0;
        self.memory.release();
        Ok(())
    }
}
