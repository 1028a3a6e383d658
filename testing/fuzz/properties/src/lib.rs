//! What must hold for every input, however malformed.
//!
//! Each module has one function `check`. It passes bytes to the code that reads such bytes from
//! outside, and panics if a property does not hold. There are two callers: the fuzz targets in
//! `testing/fuzz/targets`, which look for new inputs, and the test `corpora`, which replays the
//! kept inputs and variations of them.
//!
//! Invariant: a check depends only on its bytes, so that every finding can be reproduced.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub mod array;
pub mod credentials;
pub mod ndjson;
pub mod queries;
pub mod resume;
pub mod stream;
pub mod variations;

/// Panics if a property does not hold for these bytes.
pub type Check = fn(&[u8]);

/// Every check, with the name of its target and corpus.
pub const CHECKS: [(&str, Check); 6] = [
    ("array", array::check),
    ("credentials", credentials::check),
    ("ndjson", ndjson::check),
    ("queries", queries::check),
    ("resume", resume::check),
    ("stream", stream::check),
];

/// The longest input that is split into single bytes. Longer ones would be slow, because a parser
/// that waits for the end of a line or event reads all waiting bytes again when one arrives.
const CUT_EVERYWHERE: usize = 256;

/// Splits bytes into parts in four ways: not at all; into single bytes, or around each line end if
/// the input is long; and at places that depend on the bytes, every few bytes or at larger
/// distances.
pub(crate) fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 4] {
    let seed = bytes.iter().fold(bytes.len() as u64, |sum, byte| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte))
    });
    let mut random = StdRng::seed_from_u64(seed);
    let mut some = |longest: usize| {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = random.random_range(1..=longest).min(rest.len());
            let (part, after) = rest.split_at(length);
            parts.push(part);
            rest = after;
        }
        parts
    };
    let short = some(4);
    let long = some(100);
    let every =
        if bytes.len() <= CUT_EVERYWHERE { bytes.chunks(1).collect() } else { around_ends(bytes) };
    [vec![bytes], every, short, long]
}

/// Splits off each byte that ends a line and its neighbours, and keeps the bytes in between
/// together.
fn around_ends(bytes: &[u8]) -> Vec<&[u8]> {
    let end = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'\r' | b'\n'));
    let near = |at: usize| end(at) || end(at + 1) || at.checked_sub(1).is_some_and(end);
    let mut parts = Vec::new();
    let mut start = 0;
    for at in 1..=bytes.len() {
        if at == bytes.len() || near(at) || near(at - 1) {
            parts.push(&bytes[start..at]);
            start = at;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_split_around_line_ends() {
        assert_eq!(
            around_ends(b"abcd\nef\r\n"),
            [&b"abc"[..], b"d", b"\n", b"e", b"f", b"\r", b"\n"]
        );
        for parts in cuts(&b"abcde\nfghij\r\n\n".repeat(30)) {
            assert_eq!(parts.concat(), b"abcde\nfghij\r\n\n".repeat(30));
            assert!(parts.iter().all(|part| !part.is_empty()));
        }
    }
}
