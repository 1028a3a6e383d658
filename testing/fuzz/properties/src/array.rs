//! The uploads of ingest-api that are a JSON array: how it is split into elements.

use std::num::NonZeroUsize;

use ingest_api::array::{BrokenArray, Elements};
use ingest_api::lines::Line;
use ingest_api::rejection::Rejection;
use serde::de::IgnoredAny;

use crate::cuts;
use crate::ndjson::check_report;

/// The longest element, in bytes. It is short, so that the fuzzer soon finds longer ones.
const LONGEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(99);

/// What a body has after its opening bracket: elements, and perhaps what ends it too early or late.
type Split = (Vec<Line>, Option<BrokenArray>);

/// The elements do not depend on how an upload is split, and never more than one element is
/// buffered. If the array is valid JSON, they are the elements that `serde_json` finds. If not, an
/// element or the end of the array is refused.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let split = split(&[bytes]);
    for parts in cuts(bytes) {
        assert_eq!(self::split(&parts), split, "elements of an upload in {} parts", parts.len());
    }
    let (lines, broken) = split;
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line.number, number);
        if let Err(rejection) = &line.text {
            check_report(number, rejection);
        }
    }
    let array = [b"[", bytes].concat();
    if serde_json::from_slice::<Vec<IgnoredAny>>(&array).is_ok() {
        assert_eq!(broken, None, "a valid array is refused");
        assert_eq!(lines, reference_elements(bytes));
    } else {
        let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
        let refused = lines.iter().any(|line| !line.text.as_ref().is_ok_and(|text| is_json(text)));
        assert!(refused || broken.is_some(), "an invalid array is accepted: {lines:?}");
    }
}

fn split(parts: &[&[u8]]) -> Split {
    let mut elements = Elements::new(LONGEST);
    let mut lines = Vec::new();
    for part in parts {
        elements.add(part);
        if let Err(broken) = read(&mut elements, &mut lines) {
            return (lines, Some(broken));
        }
        let waiting = elements.waiting_bytes();
        assert!(waiting <= LONGEST.get(), "{waiting} bytes wait");
    }
    elements.end();
    let broken = read(&mut elements, &mut lines).err();
    (lines, broken)
}

fn read(elements: &mut Elements, lines: &mut Vec<Line>) -> Result<(), BrokenArray> {
    while let Some(line) = elements.next_element()? {
        lines.push(line);
    }
    Ok(())
}

/// The elements of a valid array, by a parser that has all bytes at once.
fn reference_elements(bytes: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = bytes.trim_ascii_start();
    while !rest.starts_with(b"]") {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        assert!(matches!(values.next(), Some(Ok(_))), "a valid array has valid elements");
        let (element, after) = rest.split_at(values.byte_offset());
        let text = if element.len() > LONGEST.get() {
            let detail = format!("is longer than {LONGEST} bytes");
            Err(Rejection::Field { field: "the element".to_owned(), detail })
        } else {
            String::from_utf8(element.to_vec())
                .map_err(|error| Rejection::Malformed(error.to_string()))
        };
        lines.push(Line { number: lines.len() as u64 + 1, text });
        let after = after.trim_ascii_start();
        rest = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
    }
    lines
}
