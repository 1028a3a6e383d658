//! Uploads of many rows, as lines (`application/x-ndjson`) or as a JSON array, of any length in
//! constant memory.
//!
//! Good lines are committed in chunks while the upload is still arriving; bad lines are counted and
//! named. If the upload breaks off or the database goes away, the chunks committed so far stay.
//! Sending the whole upload again is harmless if its lines have ids. The elements of an array are
//! handled as lines, and their numbers are line numbers.
//!
//! While the next chunk is read, up to `bulk.max_chunks_in_flight` chunks of an upload are being
//! committed, each with a connection of its own and in any order.
//!
//! Invariants:
//! - A full chunk waits until another one has ended, and nothing is read from the body meanwhile.
//!   So a client cannot send faster than the database commits.
//! - Two chunks that are being committed at the same time have no id in common: of several lines
//!   with the same id, the first one is stored.
//! - An upload ends after all of its chunks have, and its counts are those of all committed chunks.

use std::cmp::Ordering;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::array::{BrokenArray, Elements};
use crate::body::{Body, BodyError};
use crate::encoding::ContentCoding;
use crate::input::{Input, parse};
use crate::lines::{Line, Lines};
use crate::model::NewRow;
use crate::rejection::Rejection;
use crate::report::{LineCounts, UploadReport};
use crate::service::IngestService;
use crate::store::{DatabaseError, Expectation, InsertOutcome, StoredRow};
use crate::uploads::ChunkMemory;
use access_kit::principal::Principal;
use access_kit::refusal::Refusal;

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Other uploads have all memory, or had all places to commit until the time limit of the
    /// chunk.
    #[error("too many uploads are in progress")]
    TooMany,
    /// The maximum number of uploads with zstd is reached.
    #[error("too many uploads with zstd are in progress")]
    TooManyZstd,
    /// The key has its share of all uploads already, or has ended meanwhile.
    #[error(transparent)]
    Access(#[from] Refusal),
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
    mut body: Body<'_>,
    principal: &Principal,
) -> Result<UploadReport, UploadError>
where
    I: Input<Row: StoredRow>,
{
    let _in_progress = service.uploads.begin(principal)?;
    let _zstd = match body.coding() {
        ContentCoding::Zstd => Some(service.uploads.zstd().ok_or(UploadError::TooManyZstd)?),
        ContentCoding::Gzip | ContentCoding::Identity => None,
    };
    body.require_rate(service.settings.bulk.min_bytes_per_second);
    let mut upload = Upload::new(service, principal);
    let read = upload.read::<I>(form, body).await;
    // Also after an error: the counts are those of all committed chunks.
    let settled = upload.settle().await;
    let mut report = upload.report;
    match read {
        Err(Interruption::Commit(error)) => Err(error),
        Ok(()) => settled.map(|()| report),
        Err(Interruption::Body(error)) => {
            settled?;
            Err(UploadError::Body { error, counts: report.counts })
        }
        Err(Interruption::Array(error)) => {
            settled?;
            let rejection = Rejection::Malformed(error.detail.to_owned());
            report.reject(error.element, &rejection, service.settings.bulk.max_reported_errors);
            Err(UploadError::Array { error, report })
        }
    }
}

/// Why an upload was not read to its end.
enum Interruption {
    Body(BodyError),
    Array(BrokenArray),
    /// A chunk could not be committed.
    Commit(UploadError),
}

impl From<UploadError> for Interruption {
    fn from(error: UploadError) -> Self {
        Self::Commit(error)
    }
}

/// An upload in progress.
struct Upload<'a, R> {
    service: &'a IngestService,
    /// Who sends it.
    principal: &'a Principal,
    /// The chunk that is being filled.
    chunk: Chunk<'a, R>,
    /// The chunks that are being committed.
    commits: FuturesUnordered<Commit<'a>>,
    /// Shared by its chunks.
    expectation: Rc<Expectation>,
    /// The outcomes of the lines that are done with.
    report: UploadReport,
}

impl<'a, R: StoredRow> Upload<'a, R> {
    fn new(service: &'a IngestService, principal: &'a Principal) -> Self {
        Self {
            service,
            principal,
            chunk: Chunk::new(service),
            commits: FuturesUnordered::new(),
            expectation: Rc::default(),
            report: UploadReport::default(),
        }
    }

    /// Reads the body to its end. Some chunks may still be being committed then.
    async fn read<I: Input<Row = R>>(
        &mut self,
        form: UploadForm,
        mut body: Body<'_>,
    ) -> Result<(), Interruption> {
        let limits = &self.service.settings.bulk;
        let mut lines = Splitter::new(form, limits.max_line_bytes);
        let mut ended = false;
        while !ended {
            let part = tokio::select! {
                biased;
                Some(committed) = self.commits.next() => {
                    self.count(committed)?;
                    continue;
                }
                part = body.next() => part,
                () = self.service.uploads.shortage(), if !self.chunk.rows.is_empty() => {
                    self.commit().await?;
                    continue;
                }
            };
            match part.map_err(Interruption::Body)? {
                Some(part) => lines.add(&part),
                None => {
                    lines.end();
                    ended = true;
                }
            }
            // Idempotency-Key does not apply: it would be the id of every line.
            let context = self.service.context(None, self.principal.number());
            loop {
                match lines.next() {
                    Ok(None) => break,
                    Ok(Some(Line { number, text })) => {
                        body.check_lines(number).map_err(Interruption::Body)?;
                        let row = text.and_then(|text| {
                            Ok((parse::<I>(text.as_bytes())?.into_row(context)?, text.len()))
                        });
                        match row {
                            Ok((row, bytes)) => self.add(number, row, bytes).await?,
                            Err(rejection) => {
                                let max_errors = limits.max_reported_errors;
                                self.report.reject(number, &rejection, max_errors);
                            }
                        }
                    }
                    Err(error) => {
                        self.commit().await?;
                        return Err(Interruption::Array(error));
                    }
                }
            }
        }
        Ok(self.commit().await?)
    }

    /// Adds the row of a line of this length, and begins to commit the chunk if it is full.
    async fn add(&mut self, line: u64, row: NewRow<R>, bytes: usize) -> Result<(), UploadError> {
        let fits = self.chunk.add(line, row, bytes);
        if !fits {
            // The row is held without memory of its own. There may only be one such row.
            self.commit().await?;
            self.settle().await?;
        } else if self.chunk.is_full() {
            self.commit().await?;
        }
        Ok(())
    }

    /// Begins to commit the chunk, as soon as it may.
    async fn commit(&mut self) -> Result<(), UploadError> {
        if self.chunk.rows.is_empty() {
            return Ok(());
        }
        // An upload may take hours, and its key may end meanwhile.
        self.service.access.check_again(self.principal)?;
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new(self.service));
        let ids = chunk.given_ids();
        let max = self.service.settings.bulk.max_chunks_in_flight.get();
        while self.commits.len() >= max
            || self.commits.iter().any(|other| have_common_id(&other.ids, &ids))
        {
            let Some(committed) = self.commits.next().await else { break };
            self.count(committed)?;
        }
        let outcome = chunk.commit(Rc::clone(&self.expectation)).boxed_local();
        self.commits.push(Commit { ids, outcome });
        Ok(())
    }

    /// Waits until no chunk is being committed.
    ///
    /// # Errors
    /// The first one, after all chunks have ended.
    async fn settle(&mut self) -> Result<(), UploadError> {
        let mut result = Ok(());
        while let Some(committed) = self.commits.next().await {
            let counted = self.count(committed);
            result = result.and(counted);
        }
        result
    }

    fn count(&mut self, committed: Result<UploadReport, UploadError>) -> Result<(), UploadError> {
        self.report.add(committed?, self.service.settings.bulk.max_reported_errors);
        Ok(())
    }
}

/// A chunk that is being committed.
struct Commit<'a> {
    /// The ids that the client gave, sorted.
    ids: Vec<Uuid>,
    outcome: LocalBoxFuture<'a, Result<UploadReport, UploadError>>,
}

impl Future for Commit<'_> {
    type Output = Result<UploadReport, UploadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome.poll_unpin(context)
    }
}

/// Whether two sorted lists have an id in common.
fn have_common_id(left: &[Uuid], right: &[Uuid]) -> bool {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        match one.cmp(other) {
            Ordering::Equal => return true,
            Ordering::Less => left.next(),
            Ordering::Greater => right.next(),
        };
    }
    false
}

/// Rows that are committed together.
struct Chunk<'a, R> {
    service: &'a IngestService,
    rows: Vec<NewRow<R>>,
    /// The numbers of the rows' lines.
    lines: Vec<u64>,
    /// The length of these lines.
    bytes: usize,
    /// Held until the chunk is committed.
    memory: ChunkMemory<'a>,
}

impl<'a, R: StoredRow> Chunk<'a, R> {
    /// A chunk without rows, which holds no memory: the upload may wait for its client for long.
    fn new(service: &'a IngestService) -> Self {
        let memory = service.uploads.chunk_memory();
        Self { service, rows: Vec::new(), lines: Vec::new(), bytes: 0, memory }
    }

    /// Adds the row of a line of this length. Returns whether there was memory for it; if not,
    /// commit the chunk now.
    fn add(&mut self, line: u64, row: NewRow<R>, bytes: usize) -> bool {
        self.rows.push(row);
        self.lines.push(line);
        self.bytes += bytes;
        // A row has no more text than its line.
        self.memory.grow(bytes + size_of::<NewRow<R>>() + size_of::<u64>() + size_of::<Uuid>())
    }

    fn is_full(&self) -> bool {
        let limits = &self.service.settings.bulk;
        self.rows.len() >= limits.max_chunk_lines.get() || self.bytes >= limits.chunk_bytes.get()
    }

    /// The ids that the client gave, sorted. Generated ids are unique.
    fn given_ids(&self) -> Vec<Uuid> {
        let given = self.rows.iter().filter(|new| new.id_given);
        let mut ids: Vec<Uuid> = given.map(|new| new.row.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// Commits the rows and returns the outcomes of their lines.
    async fn commit(self, expectation: Rc<Expectation>) -> Result<UploadReport, UploadError> {
        let Self { service, rows, lines, bytes: _, memory: _held } = self;
        let limits = &service.settings.bulk;
        let deadline = Instant::now() + limits.chunk_timeout.get();
        let place = timeout_at(deadline, service.commits.acquire()).await.ok().and_then(Result::ok);
        let _place = place.ok_or(UploadError::TooMany)?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let outcomes = service.insert(timeout, &rows, &expectation).await?;
        let mut report = UploadReport::default();
        for (outcome, line) in outcomes.iter().zip(lines) {
            match outcome {
                InsertOutcome::Created(_) => report.counts.accepted += 1,
                InsertOutcome::Repeated(_) => report.counts.repeated += 1,
                InsertOutcome::Rejected(rejection) => {
                    report.reject(line, rejection, limits.max_reported_errors);
                }
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_common_are_found_in_any_place() {
        let ids = |numbers: &[u128]| -> Vec<Uuid> {
            numbers.iter().copied().map(Uuid::from_u128).collect()
        };
        for (left, right, common) in [
            (&[][..], &[1][..], false),
            (&[1, 3, 5], &[2, 4, 6], false),
            (&[1, 3, 6], &[2, 4, 6], true),
            (&[1, 2], &[1], true),
            (&[2, 2], &[1, 2], true),
        ] {
            assert_eq!(have_common_id(&ids(left), &ids(right)), common, "{left:?} {right:?}");
            assert_eq!(have_common_id(&ids(right), &ids(left)), common, "{right:?} {left:?}");
        }
    }
}
