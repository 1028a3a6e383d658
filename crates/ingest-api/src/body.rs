//! Reads request bodies, bounded in length and in time.
//!
//! Every body passes through [`parts`], which bounds the wait for each part. The body of a single
//! row is then read [`whole`]: it has a maximum length and a deadline. An upload may be of any
//! length and take any time, so it has a minimum rate instead ([`with_minimum_rate`]).

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, timeout};

use crate::settings::Limits;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body of a single row is longer than this number of bytes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The connection failed, or the body is not encoded as its headers say.
    #[error("the body could not be read: {0}")]
    Broken(#[source] PayloadError),
    /// No part of the body arrived for this long.
    #[error("the body could not be read: no data arrived for {} ms", .0.as_millis())]
    Idle(Duration),
    /// The body of a single row was incomplete after this time.
    #[error("the body could not be read: it did not arrive within {} ms", .0.as_millis())]
    Late(Duration),
    /// An upload arrived more slowly than this number of bytes per second.
    #[error("the body could not be read: it arrives more slowly than {0} bytes/s")]
    TooSlow(u32),
}

impl BodyError {
    /// Whether the body was stopped on its way, so that the client may well send it again.
    pub(crate) const fn is_in_transit(&self) -> bool {
        match self {
            Self::Idle(_) | Self::Late(_) | Self::TooSlow(_) => true,
            Self::Broken(error) => {
                matches!(error, PayloadError::Incomplete(_) | PayloadError::Io(_))
            }
            Self::TooLong(_) => false,
        }
    }
}

/// The parts of a body as they arrive. Ends with an error if no part arrives within `idle_timeout`.
pub(crate) fn parts(
    body: Payload,
    idle_timeout: Duration,
) -> impl Stream<Item = Result<Bytes, BodyError>> {
    futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(idle_timeout, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(BodyError::Broken(error)), None)),
            Err(_) => Some((Err(BodyError::Idle(idle_timeout)), None)),
        }
    })
}

/// The same parts. Ends with an error if they arrive more slowly than `min_bytes_per_second`.
///
/// Only the time spent waiting for the client counts, not the time in which the service commits
/// rows.
pub(crate) fn with_minimum_rate(
    parts: impl Stream<Item = Result<Bytes, BodyError>>,
    min_bytes_per_second: u32,
    window: Duration,
) -> impl Stream<Item = Result<Bytes, BodyError>> {
    let start = (Box::pin(parts), MinimumRate::new(min_bytes_per_second, window));
    futures_util::stream::try_unfold(start, |(mut parts, mut rate)| async move {
        let since = Instant::now();
        let Some(part) = parts.next().await else { return Ok(None) };
        let part = part?;
        rate.record(part.len(), since.elapsed())?;
        Ok(Some((part, (parts, rate))))
    })
}

/// How fast a body arrives. Each `window` of waiting is measured on its own, because otherwise a
/// client could send much at first, and then hold one of the few upload slots for long.
struct MinimumRate {
    min_bytes_per_second: u32,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl MinimumRate {
    const fn new(min_bytes_per_second: u32, window: Duration) -> Self {
        Self { min_bytes_per_second, window, waited: Duration::ZERO, bytes: 0 }
    }

    fn record(&mut self, bytes: usize, waited: Duration) -> Result<(), BodyError> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.waited <= self.window {
            return Ok(());
        }
        let seconds = self.waited.as_secs();
        if self.bytes < u64::from(self.min_bytes_per_second).saturating_mul(seconds) {
            return Err(BodyError::TooSlow(self.min_bytes_per_second));
        }
        self.waited = Duration::ZERO;
        self.bytes = 0;
        Ok(())
    }
}

/// The whole body of a request for a single row.
///
/// # Errors
/// The body is too long, too late, or cannot be read.
pub(crate) async fn whole(body: Payload, limits: &Limits) -> Result<Vec<u8>, BodyError> {
    let max_bytes = limits.max_request_body_bytes;
    let deadline = limits.request_body_timeout.get();
    let read = async {
        let mut parts = Box::pin(parts(body, limits.body_idle_timeout.get()));
        let mut whole = Vec::new();
        while let Some(part) = parts.next().await {
            whole.extend_from_slice(&part?);
            if whole.len() > max_bytes {
                return Err(BodyError::TooLong(max_bytes));
            }
        }
        Ok(whole)
    };
    timeout(deadline, read).await.map_err(|_| BodyError::Late(deadline))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_body_is_refused_after_the_window_even_if_it_was_fast_before() {
        let mut rate = MinimumRate::new(100, Duration::from_secs(10));
        for _ in 0..10 {
            rate.record(0, Duration::from_secs(1)).unwrap();
        }
        rate.record(1_000_000, Duration::from_secs(1)).unwrap();
        for _ in 0..10 {
            rate.record(99, Duration::from_secs(1)).unwrap();
        }
        assert!(matches!(rate.record(99, Duration::from_secs(1)), Err(BodyError::TooSlow(100))));
    }
}
