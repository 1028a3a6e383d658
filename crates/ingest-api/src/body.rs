//! Reads request bodies, bounded in length and in time, and decompresses them.
//!
//! Every wait for a part of a body is bounded. The body of a single row is read [`Body::whole`]: it
//! has a maximum length and a deadline. An upload may be of any length and take any time, so it has
//! a minimum rate instead ([`Body::require_rate`]). Lengths are of what is decoded; the rate is of
//! what arrives. The memory of all decoders together is bounded as well.

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::array::is_space;
use crate::encoding::{ContentCoding, DecodeError, Decoder};
use crate::growth::{Growth, GrowthError};
use crate::settings::Limits;
use crate::uploads::Uploads;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body of a single row is longer than this number of bytes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The connection failed, or the body is not framed as its headers say.
    #[error("the body could not be read: {}", describe(.0))]
    Broken(#[source] PayloadError),
    /// The body is not compressed as its headers say.
    #[error("the body could not be decompressed: {0}")]
    Encoded(#[source] DecodeError),
    /// The body is compressed so well that it would take too much work.
    #[error("the body is compressed too much: {0}")]
    TooCompressed(#[source] GrowthError),
    /// Other bodies have all memory for decoders.
    #[error("too many uploads and compressed bodies are arriving")]
    NoDecoder,
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

/// What was wrong with a body, in words for its sender. The server reports a body that was cut off
/// and one whose chunks are wrong as the same error.
fn describe(error: &PayloadError) -> String {
    match error {
        PayloadError::Incomplete(_) | PayloadError::Io(_) => {
            "it ended too early, or its chunks are not as transfer-encoding: chunked requires"
                .to_owned()
        }
        other => other.to_string(),
    }
}

impl BodyError {
    /// Whether the body was stopped on its way, so that the client may well send it again. A body
    /// with wrong chunks looks the same. To send it again is harmless.
    pub(crate) const fn is_in_transit(&self) -> bool {
        match self {
            Self::Idle(_) | Self::Late(_) | Self::TooSlow(_) => true,
            Self::Broken(error) => {
                matches!(error, PayloadError::Incomplete(_) | PayloadError::Io(_))
            }
            Self::TooLong(_) | Self::Encoded(_) | Self::TooCompressed(_) | Self::NoDecoder => false,
        }
    }
}

/// A body that is still arriving.
pub(crate) struct Body<'a> {
    payload: Payload,
    coding: ContentCoding,
    decoder: Decoder,
    _decoder_memory: SemaphorePermit<'a>,
    began: Instant,
    idle_timeout: Duration,
    /// How long the next part has been waited for.
    waited: Duration,
    min_rate: Option<MinimumRate>,
    growth: Growth,
    /// What has arrived and is not decoded.
    received: Bytes,
    /// What was decoded and then put back.
    put_back: Bytes,
    has_ended: bool,
    /// Other connections have not had their turn since the last part was decoded.
    has_decoded: bool,
}

impl<'a> Body<'a> {
    /// # Errors
    /// There is no memory for a decoder.
    pub(crate) fn new(
        payload: Payload,
        coding: ContentCoding,
        limits: &Limits,
        uploads: &'a Uploads,
    ) -> Result<Self, BodyError> {
        let decoder_memory = uploads.decoder(coding).ok_or(BodyError::NoDecoder)?;
        Ok(Self {
            payload,
            coding,
            decoder: Decoder::new(coding).map_err(BodyError::Encoded)?,
            _decoder_memory: decoder_memory,
            began: Instant::now(),
            idle_timeout: limits.body_idle_timeout.get(),
            waited: Duration::ZERO,
            min_rate: None,
            growth: Growth::default(),
            received: Bytes::new(),
            put_back: Bytes::new(),
            has_ended: false,
            has_decoded: false,
        })
    }

    pub(crate) const fn coding(&self) -> ContentCoding {
        self.coding
    }

    /// From now on, [`Self::next`] fails if the body arrives more slowly.
    ///
    /// Only the time spent waiting for the client counts, not the time in which the service commits
    /// rows.
    pub(crate) const fn require_rate(&mut self, min_bytes_per_second: u32) {
        self.min_rate = Some(MinimumRate::new(min_bytes_per_second, self.idle_timeout));
    }

    /// The next part, decoded. `None` after the last one.
    ///
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The body cannot be read, or does not arrive in time.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if !self.put_back.is_empty() {
            return Ok(Some(std::mem::take(&mut self.put_back)));
        }
        loop {
            // What arrived at once may be many lines, and become a thousand times as long. The
            // worker has other connections, and this may be the only place where their turn comes.
            if self.has_decoded {
                tokio::task::yield_now().await;
                self.has_decoded = false;
            }
            let part = if let Some(part) =
                self.decoder.step(&mut self.received).map_err(BodyError::Encoded)?
            {
                // A short body takes no detour.
                self.has_decoded =
                    self.coding != ContentCoding::Identity || !self.received.is_empty();
                part
            } else if self.has_ended {
                return Ok(None);
            } else if let Some(received) = self.receive().await? {
                self.growth.receive(received.len());
                self.received = received;
                continue;
            } else {
                self.has_ended = true;
                self.decoder.finish().map_err(BodyError::Encoded)?
            };
            if !part.is_empty() {
                self.growth.decode(part.len()).map_err(BodyError::TooCompressed)?;
                return Ok(Some(part));
            }
        }
    }

    /// Checks the number of lines that the body has had up to now.
    ///
    /// # Errors
    /// They are too many for what has arrived.
    pub(crate) fn check_lines(&self, lines: u64) -> Result<(), BodyError> {
        self.growth.check_lines(lines).map_err(BodyError::TooCompressed)
    }

    /// The next part as it arrives.
    async fn receive(&mut self) -> Result<Option<Bytes>, BodyError> {
        let left = self.idle_timeout.saturating_sub(self.waited);
        let received = {
            let _wait = Wait { total: &mut self.waited, since: Instant::now() };
            timeout(left, self.payload.next()).await
        };
        let part = match received {
            Ok(None) => return Ok(None),
            Ok(Some(part)) => part.map_err(BodyError::Broken)?,
            Err(_) => return Err(BodyError::Idle(self.idle_timeout)),
        };
        let waited = std::mem::take(&mut self.waited);
        if let Some(rate) = &mut self.min_rate {
            rate.record(part.len(), waited)?;
        }
        Ok(Some(part))
    }

    /// Whether the body is an array. If so, the next part begins after the opening bracket. If not,
    /// it begins where the body does.
    ///
    /// # Errors
    /// Up to the first byte that is no white space, the limits of a single row apply.
    pub(crate) async fn is_array(&mut self, limits: &Limits) -> Result<bool, BodyError> {
        self.before_deadline(limits, async |body| {
            let mut read = Vec::new();
            let mut position = 0;
            while let Some(part) = body.next().await? {
                read.extend_from_slice(&part);
                if read.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&read) {
                    continue;
                }
                if position == 0 && read.starts_with(BYTE_ORDER_MARK) {
                    position = BYTE_ORDER_MARK.len();
                }
                let blank = read[position..].iter().take_while(|byte| is_space(**byte));
                position += blank.count();
                if position < read.len() {
                    break;
                }
                if read.len() > limits.max_request_body_bytes {
                    return Err(BodyError::TooLong(limits.max_request_body_bytes));
                }
            }
            body.put_back = read.into();
            let is_array = body.put_back.get(position) == Some(&b'[');
            if is_array {
                body.put_back = body.put_back.slice(position + 1..);
            }
            Ok(is_array)
        })
        .await
    }

    /// The whole body of a request for a single row.
    ///
    /// # Errors
    /// The body is too long, too late, or cannot be read.
    pub(crate) async fn whole(&mut self, limits: &Limits) -> Result<Vec<u8>, BodyError> {
        self.before_deadline(limits, async |body| {
            let mut whole = Vec::new();
            while let Some(part) = body.next().await? {
                whole.extend_from_slice(&part);
                if whole.len() > limits.max_request_body_bytes {
                    return Err(BodyError::TooLong(limits.max_request_body_bytes));
                }
            }
            Ok(whole)
        })
        .await
    }

    async fn before_deadline<T>(
        &mut self,
        limits: &Limits,
        read: impl AsyncFnOnce(&mut Self) -> Result<T, BodyError>,
    ) -> Result<T, BodyError> {
        let time = limits.request_body_timeout.get();
        timeout_at(self.began + time, read(self)).await.map_err(|_| BodyError::Late(time))?
    }
}

/// A wait for the client. It ends when it is dropped, because the service may stop waiting in order
/// to commit rows: that time is not the client's.
struct Wait<'a> {
    total: &'a mut Duration,
    since: Instant,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        *self.total += self.since.elapsed();
    }
}

/// How fast a body arrives. Each `window` of waiting is measured on its own, because otherwise a
/// client could send much at first, and then hold its memory for long.
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
