//! Splits an upload into lines. The parts of the upload may be cut anywhere.
//!
//! Invariants: the bytes that wait for the end of their line are at most one line of maximum length
//! plus the part that was added last; and the lines do not depend on where the parts were cut.

use std::num::NonZeroUsize;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

use crate::rejection::Rejection;

/// A byte order mark counts as white space: some programs put one before UTF-8, and files that were
/// joined have several.
fn is_blank(line: &str) -> bool {
    line.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}')
        .is_empty()
}

/// A line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The number of the line, from 1. Blank lines are counted.
    pub number: u64,
    /// The text without the end of the line, or why it cannot be read.
    pub text: Result<String, Rejection>,
}

/// The lines of an upload that is still arriving.
#[derive(Debug)]
pub struct Lines {
    codec: LinesCodec,
    waiting: BytesMut,
    max_bytes: NonZeroUsize,
    number: u64,
    ended: bool,
}

impl Lines {
    /// An upload of which no part has arrived. A line longer than `max_bytes` is rejected.
    pub fn new(max_bytes: NonZeroUsize) -> Self {
        let codec = LinesCodec::new_with_max_length(max_bytes.get());
        Self { codec, waiting: BytesMut::new(), max_bytes, number: 0, ended: false }
    }

    /// Adds the next part of the upload. Take all complete lines with [`Self::next_line`] first:
    /// they would be held in memory otherwise.
    pub fn add(&mut self, part: &[u8]) {
        self.waiting.extend_from_slice(part);
    }

    /// Marks the end of the upload: the bytes that are left are the last line.
    pub const fn end(&mut self) {
        self.ended = true;
    }

    /// The number of bytes that wait for the end of their line.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// The next complete line that is not blank. A line that cannot be read does not end the
    /// upload.
    pub fn next_line(&mut self) -> Option<Line> {
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
                    let detail = format!("is longer than {} bytes", self.max_bytes);
                    Err(Rejection::Field { field: "the line".to_owned(), detail })
                }
                Err(LinesCodecError::Io(error)) => Err(Rejection::Malformed(error.to_string())),
            };
            self.number += 1;
            if text.as_ref().is_ok_and(|text| is_blank(text)) {
                continue;
            }
            return Some(Line { number: self.number, text });
        }
    }
}
