//! The memory that all uploads share, so that none of them can take it from the others.
//!
//! - Memory for rows that wait to be committed. If it is used up, every upload commits what it has,
//!   also if it waits for its client. So chunks become smaller, but no upload waits for another.
//! - Memory for zstd, which needs more of it than gzip, and keeps it until the upload ends.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::settings::BulkLimits;

/// The bounds of all uploads together.
pub(crate) struct Uploads {
    /// One permit for each byte of rows that may be held.
    memory: Semaphore,
    max_memory: usize,
    /// Wakes the uploads that hold rows.
    shortage: Notify,
    /// One permit for each upload with zstd.
    zstd: Semaphore,
    /// A clone for each upload in progress.
    in_progress: Arc<()>,
}

/// Counts an upload as in progress.
pub(crate) struct InProgress(#[expect(dead_code, reason = "it counts")] Arc<()>);

/// The memory of the rows of a chunk, given back when it is dropped.
pub(crate) struct ChunkMemory<'a> {
    uploads: &'a Uploads,
    held: Option<SemaphorePermit<'a>>,
}

impl Uploads {
    pub(crate) fn new(limits: &BulkLimits) -> Self {
        Self {
            memory: Semaphore::new(limits.max_waiting_bytes.get()),
            max_memory: limits.max_waiting_bytes.get(),
            shortage: Notify::new(),
            zstd: Semaphore::new(limits.max_zstd_uploads.get()),
            in_progress: Arc::new(()),
        }
    }

    pub(crate) fn begin(&self) -> InProgress {
        InProgress(Arc::clone(&self.in_progress))
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
