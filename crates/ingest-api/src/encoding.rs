//! Decompresses request bodies (`Content-Encoding`, RFC 9110, section 8.4), in small steps.
//!
//! Invariant: the memory of a decoder does not depend on what is sent. A step returns at most two
//! times [`STEP_BYTES`], however well they were compressed. gzip remembers 32 KiB of what it has
//! decoded, and up to 192 KiB of names and comments in its header; zstd up to
//! [`ZSTD_WINDOW_BYTES`].
//!
//! A step takes some ten microseconds, so it runs on the worker's own thread. [`crate::body`] lets
//! the other connections of that thread go on between two steps.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

/// How much one step decodes. gzip has a buffer of this size; a step of it returns up to two.
const STEP_BYTES: usize = 32 * 1_024;

/// The maximum length of a part of a body that is handled at once.
pub(crate) const PART_BYTES: usize = 2 * STEP_BYTES;

/// The maximum window of a zstd body: what a decoder of this coding must accept, and no more (RFC
/// 9659). It is not a setting, because senders rely on it.
pub(crate) const ZSTD_WINDOW_BYTES: usize = 1 << ZSTD_WINDOW_LOG;
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentCoding {
    Identity,
    Gzip,
    Zstd,
}

impl ContentCoding {
    /// The codings to name in `Accept-Encoding`.
    pub(crate) const ACCEPTED: &str = "gzip, zstd";

    /// The maximum memory of a decoder, apart from zstd's window.
    pub(crate) const fn decoder_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip => 288 * 1_024,
            Self::Zstd => 384 * 1_024,
        }
    }

    /// Parses the values of `Content-Encoding`. `None` if this coding, or several codings one after
    /// another, are not supported.
    pub(crate) fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let codings = values.into_iter().flat_map(|value| value.split(',')).map(str::trim);
        let mut codings =
            codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"));
        let Some(coding) = codings.next() else { return Some(Self::Identity) };
        if codings.next().is_some() {
            return None;
        }
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is not gzip.
    #[error("not gzip: {0}")]
    Gzip(#[source] std::io::Error),
    /// The body is not zstd.
    #[error("not zstd: {0}")]
    Zstd(#[source] std::io::Error),
    /// The zstd window is larger than RFC 9659 allows.
    #[error("the zstd window is larger than {} MiB", ZSTD_WINDOW_BYTES >> 20)]
    ZstdWindow,
}

impl DecodeError {
    fn zstd(error: std::io::Error) -> Self {
        // The library has no type for its errors. A test compares its words.
        if error.to_string().contains("requires too much memory") {
            Self::ZstdWindow
        } else {
            Self::Zstd(error)
        }
    }
}

/// Decodes a body part by part.
pub(crate) enum Decoder {
    Identity,
    /// Takes members one after another, as RFC 1952 allows.
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(ZstdDecoder),
}

pub(crate) struct ZstdDecoder {
    inner: zstd::stream::raw::Decoder<'static>,
    /// The last frame is complete. A body without a frame is not.
    is_complete: bool,
    /// The last step had no room for all that it could decode.
    is_full: bool,
}

impl Decoder {
    /// # Errors
    /// zstd cannot get memory.
    pub(crate) fn new(coding: ContentCoding) -> Result<Self, DecodeError> {
        Ok(match coding {
            ContentCoding::Identity => Self::Identity,
            ContentCoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            ContentCoding::Zstd => {
                let mut inner = zstd::stream::raw::Decoder::new().map_err(DecodeError::zstd)?;
                inner
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(DecodeError::zstd)?;
                Self::Zstd(ZstdDecoder { inner, is_complete: false, is_full: false })
            }
        })
    }

    /// Decodes a little of `received`, and removes what it has read. The result may be empty.
    /// `None` if it needs more of the body.
    ///
    /// # Errors
    /// The bytes are not of this coding.
    pub(crate) fn step(&mut self, received: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
        match self {
            Self::Identity if received.is_empty() => Ok(None),
            Self::Identity => Ok(Some(received.split_to(received.len().min(PART_BYTES)))),
            Self::Gzip(_) if received.is_empty() => Ok(None),
            Self::Gzip(decoder) => {
                let read = decoder.write(received).map_err(DecodeError::Gzip)?;
                received.advance(read);
                if received.is_empty() {
                    decoder.flush().map_err(DecodeError::Gzip)?;
                }
                Ok(Some(std::mem::take(decoder.get_mut()).into()))
            }
            Self::Zstd(decoder) if received.is_empty() && !decoder.is_full => Ok(None),
            Self::Zstd(decoder) => decoder.step(received).map(Some).map_err(DecodeError::zstd),
        }
    }

    /// The last part, after the body has ended.
    ///
    /// # Errors
    /// The body ended too early.
    pub(crate) fn finish(&mut self) -> Result<Bytes, DecodeError> {
        match self {
            Self::Identity => Ok(Bytes::new()),
            Self::Gzip(decoder) => {
                decoder.try_finish().map_err(DecodeError::Gzip)?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zstd(ZstdDecoder { is_complete: true, .. }) => Ok(Bytes::new()),
            Self::Zstd(_) => Err(DecodeError::Zstd(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl ZstdDecoder {
    fn step(&mut self, received: &mut Bytes) -> std::io::Result<Bytes> {
        let mut decoded = vec![0; STEP_BYTES];
        let mut input = InBuffer::around(received);
        let mut output = OutBuffer::around(decoded.as_mut_slice());
        let missing = self.inner.run(&mut input, &mut output)?;
        let (read, written) = (input.pos(), output.pos());
        received.advance(read);
        decoded.truncate(written);
        self.is_complete = missing == 0;
        self.is_full = written == STEP_BYTES && !self.is_complete;
        Ok(decoded.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::Compression;
    use flate2::read::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        GzEncoder::new(bytes, Compression::best()).read_to_end(&mut encoded).unwrap();
        encoded
    }

    /// Decodes a body that arrives in parts of this size. Returns the longest step as well.
    fn decode(
        coding: ContentCoding,
        body: &[u8],
        part_bytes: usize,
    ) -> Result<(Vec<u8>, usize), DecodeError> {
        let mut decoder = Decoder::new(coding)?;
        let (mut decoded, mut longest) = (Vec::new(), 0);
        for part in body.chunks(part_bytes) {
            let mut received = Bytes::copy_from_slice(part);
            while let Some(step) = decoder.step(&mut received)? {
                longest = longest.max(step.len());
                decoded.extend_from_slice(&step);
            }
        }
        let step = decoder.finish()?;
        decoded.extend_from_slice(&step);
        Ok((decoded, longest.max(step.len())))
    }

    #[test]
    fn a_step_is_short_however_much_a_body_grows() {
        let zeros = vec![0; 20_000_000];
        let zstd = zstd::bulk::compress(&zeros, 3).unwrap();
        for (coding, body, growth) in [
            (ContentCoding::Identity, zeros.clone(), 1),
            (ContentCoding::Gzip, gzip(&zeros), 900),
            (ContentCoding::Zstd, zstd, 900),
        ] {
            assert!(body.len() * growth <= zeros.len(), "{coding:?}: {} bytes", body.len());
            for part_bytes in [1, 1_000, usize::MAX] {
                let (decoded, longest) = decode(coding, &body, part_bytes).unwrap();
                assert!(decoded == zeros, "{coding:?} in parts of {part_bytes} bytes");
                assert!(longest <= PART_BYTES, "{coding:?}: a step of {longest} bytes");
            }
        }
    }

    #[test]
    fn members_and_frames_may_follow_each_other_and_no_part_is_held_back() {
        let zstd = |text: &str| zstd::bulk::compress(text.as_bytes(), 3).unwrap();
        let gzip = |text: &str| gzip(text.as_bytes());
        for (coding, body) in [
            (ContentCoding::Gzip, [gzip("one, "), gzip(""), gzip("two")]),
            (ContentCoding::Zstd, [zstd("one, "), zstd(""), zstd("two")]),
        ] {
            for part_bytes in [1, 3, usize::MAX] {
                assert_eq!(decode(coding, &body.concat(), part_bytes).unwrap().0, b"one, two");
            }
            let mut decoder = Decoder::new(coding).unwrap();
            let mut received = Bytes::from(body[0].clone());
            let mut decoded = Vec::new();
            while let Some(step) = decoder.step(&mut received).unwrap() {
                decoded.extend_from_slice(&step);
            }
            assert_eq!(decoded, b"one, ", "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_off_changed_or_continued_is_refused() {
        let text = b"some text, and some more text";
        let zstd = zstd::bulk::compress(text, 3).unwrap();
        for (coding, body) in [(ContentCoding::Gzip, gzip(text)), (ContentCoding::Zstd, zstd)] {
            for length in 0..body.len() {
                decode(coding, &body[..length], usize::MAX).unwrap_err();
            }
            for rest in ["x", "more than the head of a member"] {
                let body = [&body, rest.as_bytes()].concat();
                decode(coding, &body, usize::MAX).unwrap_err();
            }
            decode(coding, text, usize::MAX).unwrap_err();
        }
        let mut changed = gzip(text);
        *changed.iter_mut().rev().nth(5).unwrap() ^= 1;
        decode(ContentCoding::Gzip, &changed, usize::MAX).unwrap_err();
    }

    #[test]
    fn a_zstd_window_may_have_8_mib() {
        let zeros = vec![0; 20_000_000];
        let with_window = |log| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(log)).unwrap();
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        };
        let (decoded, _) = decode(ContentCoding::Zstd, &with_window(23), 1_000).unwrap();
        assert!(decoded == zeros);
        let refused = decode(ContentCoding::Zstd, &with_window(24), 1_000).unwrap_err();
        assert_eq!(refused.to_string(), "the zstd window is larger than 8 MiB");
    }

    #[test]
    fn codings_are_parsed_in_any_case_and_at_most_one() {
        let parse = |value: &str| ContentCoding::parse([value]);
        for identity in ["", "identity", "Identity, "] {
            assert_eq!(parse(identity), Some(ContentCoding::Identity));
        }
        for gzip in ["gzip", "X-GZIP", "identity, GZip"] {
            assert_eq!(parse(gzip), Some(ContentCoding::Gzip));
        }
        assert_eq!(parse(" zstd "), Some(ContentCoding::Zstd));
        for other in ["br", "deflate", "gzip, gzip", "gzip, zstd", "gzip; q=1"] {
            assert_eq!(parse(other), None);
        }
        assert_eq!(ContentCoding::parse(["gzip", "gzip"]), None);
    }
}
