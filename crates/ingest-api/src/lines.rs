//! The lines of an upload, from parts that may be cut anywhere.
//!
//! Invariant: what waits for the end of its line is no longer than a line may be, beside the part that came last; and
//! which lines there are does not depend on where the parts were cut.

use std::num::NonZeroUsize;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

use crate::error::Rejection;

/// Lines that are still coming.
#[derive(Debug)]
pub struct Lines {
    codec: LinesCodec,
    waiting: BytesMut,
    longest: NonZeroUsize,
    number: u64,
    ended: bool,
}

impl Lines {
    /// None yet, and none longer than so many bytes.
    #[must_use]
    pub fn new(longest: NonZeroUsize) -> Self {
        let codec = LinesCodec::new_with_max_length(longest.get());
        Self { codec, waiting: BytesMut::new(), longest, number: 0, ended: false }
    }

    /// Takes the next part of the upload. The lines that were complete before are to be taken first.
    pub fn add(&mut self, part: &[u8]) {
        self.waiting.extend_from_slice(part);
    }

    /// No part follows: what is left is the last line.
    pub const fn end(&mut self) {
        self.ended = true;
    }

    /// How many bytes wait for the end of their line.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// The next complete line that is not blank, with its number, from 1; or why it cannot be read, after which the
    /// lines go on.
    pub fn next_line(&mut self) -> Option<(u64, Result<String, Rejection>)> {
        loop {
            let decoded = if self.ended {
                self.codec.decode_eof(&mut self.waiting)
            } else {
                self.codec.decode(&mut self.waiting)
            };
            let text = match decoded {
                Ok(None) => return None,
                Ok(Some(text)) => Ok(text),
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    let detail = format!("is longer than {} bytes", self.longest);
                    Err(Rejection::Field { field: "the line".to_owned(), detail })
                }
                Err(LinesCodecError::Io(error)) => Err(Rejection::Malformed(error.to_string())),
            };
            self.number += 1;
            if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                continue;
            }
            return Some((self.number, text));
        }
    }
}
