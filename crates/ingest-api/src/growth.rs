//! Bounds how much a compressed body may grow, because its sender pays only for what is sent.
//!
//! A body of 40 kB can decompress to gigabytes, or to millions of lines. The service would go on
//! with them for minutes, also after the client has gone: a connection that the client closed looks
//! like one on which a client waits for its answer.
//!
//! Invariant: the work for a body is in proportion to what was received of it. Bytes that are
//! skipped cost little, and each line costs a row or an error, so both are bounded.
//!
//! The bounds are not settings, because senders rely on them. Lines with random ids do not reach
//! them, even if they differ in nothing else: each needs some 10 bytes, however it is compressed.
//! So gzip makes them up to 300 times as short, and zstd some 1,000 times, if each has the longest
//! description. If the ids are consecutive numbers, zstd needs a byte for 2.5 lines.

/// The bytes that any body may have, decompressed.
const FREE_BYTES: u64 = 1 << 20;
/// The further bytes for each byte that is received. gzip cannot reach this.
const MAX_BYTES_PER_BYTE: u64 = 2_000;
/// The lines that any body may have.
const FREE_LINES: u64 = 10_000;
/// The further lines for each byte that is received. A body that is not compressed has at most 1.
const MAX_LINES_PER_BYTE: u64 = 4;

/// Which part of a body grows too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrowthError {
    /// Its length.
    #[error(
        "it may decompress to {} MiB, and {} bytes more for each byte that is sent",
        FREE_BYTES >> 20,
        MAX_BYTES_PER_BYTE
    )]
    Bytes,
    /// The number of its lines.
    #[error(
        "it may have {} lines, and {} more for each byte that is sent. Give the rows ids, or send \
         them uncompressed",
        FREE_LINES,
        MAX_LINES_PER_BYTE
    )]
    Lines,
}

/// How much a body has grown.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    received: u64,
    decoded: u64,
}

impl Growth {
    /// Counts bytes that have arrived.
    pub(crate) fn receive(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Counts bytes that were decoded.
    ///
    /// # Errors
    /// They are too many for what has arrived.
    pub(crate) fn decode(&mut self, bytes: usize) -> Result<(), GrowthError> {
        self.decoded = self.decoded.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.allows(self.decoded, FREE_BYTES, MAX_BYTES_PER_BYTE, GrowthError::Bytes)
    }

    /// Checks the number of lines up to now.
    ///
    /// # Errors
    /// They are too many for what has arrived.
    pub(crate) fn check_lines(&self, lines: u64) -> Result<(), GrowthError> {
        self.allows(lines, FREE_LINES, MAX_LINES_PER_BYTE, GrowthError::Lines)
    }

    fn allows(
        &self,
        number: u64,
        free: u64,
        per_byte: u64,
        error: GrowthError,
    ) -> Result<(), GrowthError> {
        let max = self.received.saturating_mul(per_byte).saturating_add(free);
        if number <= max { Ok(()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::Compression;
    use flate2::read::GzEncoder;
    use uuid::Uuid;

    use super::*;

    /// Checks the lines of a body, compressed by gzip and by zstd.
    fn check(lines: u32, line: impl Fn(u32) -> String) {
        let body: String = (0..lines).map(line).collect();
        let mut gzip = Vec::new();
        GzEncoder::new(body.as_bytes(), Compression::best()).read_to_end(&mut gzip).unwrap();
        // A higher level makes consecutive numbers longer.
        for sent in [gzip, zstd::bulk::compress(body.as_bytes(), 12).unwrap()] {
            let mut growth = Growth::default();
            growth.receive(sent.len());
            growth.decode(body.len()).unwrap();
            growth.check_lines(lines.into()).unwrap();
        }
    }

    #[test]
    fn lines_that_differ_only_in_their_ids_may_be_compressed_as_well_as_possible() {
        check(100_000, |_| format!("{{\"id\":\"{}\"}}\n", Uuid::now_v7()));
        check(100_000, |id| format!("{{\"id\":\"{}\"}}\n", Uuid::from_u128(id.into())));
        // The longest description, as it is written by programs that send only ASCII.
        let description = "\\ud83d\\udeb2".repeat(1_000);
        check(2_000, |_| {
            format!("{{\"id\":\"{}\",\"description\":\"{description}\"}}\n", Uuid::now_v7())
        });
    }

    #[test]
    fn what_decompresses_to_thousands_of_times_as_much_or_to_many_equal_lines_is_refused() {
        let mut growth = Growth::default();
        growth.receive(40_000);
        assert_eq!(growth.decode(81_000_000), Ok(()));
        assert_eq!(growth.decode(100_000), Err(GrowthError::Bytes));
        assert_eq!(growth.check_lines(170_000), Ok(()));
        assert_eq!(growth.check_lines(170_001), Err(GrowthError::Lines));
    }
}
