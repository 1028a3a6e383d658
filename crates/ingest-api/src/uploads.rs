//! The memory that all uploads share, so that none of them can take it from the others.
//!
//! - Memory for rows that wait to be committed. If it is used up, every upload commits what it has,
//!   also if it waits for its client. So chunks become smaller, but no upload waits for another.
//! - Memory for what a body needs apart from its rows, from its beginning to its end, however
//!   little of it arrives: a decoder, the beginning of a line, and the errors for the answer. If it
//!   is used up, further bodies are refused at once.
//! - Memory for zstd, which needs more of it than gzip, and keeps it until the upload ends.
//!
//! One key has at most a quarter of all uploads at the same time.
//!
//! The two memories are halves of `bulk.max_waiting_bytes`. If they were one, uploads that stand
//! still could leave none for the rows of others.

use std::sync::Arc;

use access_kit::principal::Principal;
use access_kit::shares::{Share, Shares};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::bulk::UploadError;
use crate::encoding::ContentCoding;
use crate::settings::BulkLimits;

/// The bounds of all uploads together.
pub(crate) struct Uploads {
    /// One permit for each byte of rows that may be held.
    memory: Semaphore,
    max_memory: usize,
    /// One permit for each byte that bodies may need apart from their rows.
    bodies: Semaphore,
    max_body_bytes: usize,
    bytes_per_upload: usize,
    /// So that one key cannot have all of it.
    shares: Arc<Shares>,
    /// Wakes the uploads that hold rows.
    shortage: Notify,
    /// One permit for each upload with zstd.
    zstd: Semaphore,
    /// A clone for each upload in progress.
    in_progress: Arc<()>,
}

/// Counts an upload as in progress, and holds its memory.
pub(crate) struct InProgress<'a> {
    _counted: Arc<()>,
    _memory: SemaphorePermit<'a>,
    _share: Share,
}

/// The memory of the rows of a chunk, given back when it is dropped.
pub(crate) struct ChunkMemory<'a> {
    uploads: &'a Uploads,
    held: Option<SemaphorePermit<'a>>,
}

impl Uploads {
    pub(crate) fn new(limits: &BulkLimits) -> Self {
        let max_body_bytes = limits.body_bytes();
        let max_memory = limits.max_waiting_bytes.get() - max_body_bytes;
        Self {
            memory: Semaphore::new(max_memory),
            max_memory,
            bodies: Semaphore::new(max_body_bytes),
            max_body_bytes,
            bytes_per_upload: limits.bytes_per_upload(),
            shares: Shares::of(limits.max_uploads(), "uploads"),
            shortage: Notify::new(),
            zstd: Semaphore::new(limits.max_zstd_uploads.get()),
            in_progress: Arc::new(()),
        }
    }

    /// Takes the memory that an upload needs apart from its rows and its decoder.
    ///
    /// # Errors
    /// [`UploadError::Access`] if its key has its share of all uploads already, and
    /// [`UploadError::TooMany`] if there is not enough memory.
    pub(crate) fn begin(&self, principal: &Principal) -> Result<InProgress<'_>, UploadError> {
        let share = self.shares.take(principal, None)?;
        let memory = self.reserve(self.bytes_per_upload).ok_or(UploadError::TooMany)?;
        let counted = Arc::clone(&self.in_progress);
        Ok(InProgress { _counted: counted, _memory: memory, _share: share })
    }

    /// Takes memory for a decoder. `None` if there is not enough.
    pub(crate) fn decoder(&self, coding: ContentCoding) -> Option<SemaphorePermit<'_>> {
        self.reserve(coding.decoder_bytes())
    }

    fn reserve(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.bodies.try_acquire_many(u32::try_from(bytes).ok()?).ok()
    }

    /// The memory that bodies have reserved, apart from their rows.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.max_body_bytes - self.bodies.available_permits()
    }

    /// The number of uploads in progress.
    pub(crate) fn in_progress(&self) -> usize {
        Arc::strong_count(&self.in_progress) - 1
    }

    /// The memory that rows use now.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.max_memory - self.memory.available_permits()
    }

    /// Memory to decode zstd. `None` if too many uploads have it.
    pub(crate) fn zstd(&self) -> Option<SemaphorePermit<'_>> {
        self.zstd.try_acquire().ok()
    }

    pub(crate) const fn chunk_memory(&self) -> ChunkMemory<'_> {
        ChunkMemory { uploads: self, held: None }
    }

    /// Waits until the memory for rows is used up: then commit what you have.
    pub(crate) async fn shortage(&self) {
        self.shortage.notified().await;
    }
}

impl ChunkMemory<'_> {
    /// Takes memory for a row. Returns whether there was enough; if not, commit the chunk now.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (self.uploads.memory.try_acquire_many(bytes), &mut self.held) {
            (Ok(more), Some(held)) => held.merge(more),
            (Ok(more), None) => self.held = Some(more),
            (Err(_), _) => {
                self.uploads.shortage.notify_waiters();
                return false;
            }
        }
        true
    }
}
