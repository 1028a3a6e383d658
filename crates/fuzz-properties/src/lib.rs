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
pub mod settings;
pub mod stream;
pub mod variations;

/// A check of bytes.
pub type Check = fn(&[u8]);

/// Every check, by the name of its corpus.
pub const CHECKS: [(&str, Check); 5] = [
    ("ndjson", ndjson::check),
    ("queries", queries::check),
    ("resume", resume::check),
    ("stream", stream::check),
    ("settings", settings::check),
];

/// The ways in which bytes are cut into parts: not at all, everywhere, and at a few places that depend on the bytes.
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
    [vec![bytes], bytes.chunks(1).collect(), short, long]
}
