//! What must hold of every input, however bad.
//!
//! Each module has one function `check`, which takes bytes, gives them to the code that takes such bytes from outside,
//! and panics where what must hold does not. Two callers share them: the fuzzer of the folder `fuzz`, which looks for
//! bytes that panic without end, and a test that replays the bytes that it has kept, and variations of these.
//!
//! Invariant: a check depends on its bytes alone, so that what was found once is found again.

pub mod ndjson;
pub mod queries;
pub mod resume;
pub mod stream;
pub mod variations;

/// A check of bytes.
pub type Check = fn(&[u8]);

/// Every check, by the name of its corpus.
pub const CHECKS: [(&str, Check); 4] = [
    ("ndjson", ndjson::check),
    ("queries", queries::check),
    ("resume", resume::check),
    ("stream", stream::check),
];

/// Bytes up to so many are cut everywhere. More would be slow, for whoever waits for the end of a line or of an event looks at
/// all that waits each time that something comes.
const CUT_EVERYWHERE: usize = 256;

/// The ways in which bytes are cut into parts: not at all; everywhere, or around the end of each line where they are many;
/// and at places that depend on the bytes, either few or every few bytes.
pub(crate) fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 4] {
    let mut state = bytes.iter().fold(bytes.len() as u64, |sum, byte| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte))
    });
    let mut some = |longest: u64| {
        let (mut parts, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = usize::try_from(1 + (state >> 33) % longest).unwrap_or(1).min(rest.len());
            let (part, after) = rest.split_at(length);
            parts.push(part);
            rest = after;
        }
        parts
    };
    let (short, long) = (some(4), some(100));
    let every = if bytes.len() <= CUT_EVERYWHERE { bytes.chunks(1).collect() } else { around_ends(bytes) };
    [vec![bytes], every, short, long]
}

/// Each of the bytes that end lines, and those beside them, by itself; and what is between.
fn around_ends(bytes: &[u8]) -> Vec<&[u8]> {
    let end = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'\r' | b'\n'));
    let near = |at: usize| end(at) || end(at + 1) || at.checked_sub(1).is_some_and(end);
    let (mut parts, mut start) = (Vec::new(), 0);
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
    fn bytes_are_cut_around_the_ends_of_lines() {
        assert_eq!(around_ends(b"abcd\nef\r\n"), [&b"abc"[..], b"d", b"\n", b"e", b"f", b"\r", b"\n"]);
        for parts in cuts(&b"abcde\nfghij\r\n\n".repeat(30)) {
            assert_eq!(parts.concat(), b"abcde\nfghij\r\n\n".repeat(30));
            assert!(parts.iter().all(|part| !part.is_empty()));
        }
    }
}
