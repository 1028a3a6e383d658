//! The NDJSON uploads of ingest-api: the lines, and the row of each line.

use std::fmt::Debug;
use std::num::NonZeroUsize;

use domain::BucketTime;
use ingest_api::input::{Context, Input, NewBaseItem, NewItem, NewTransfer, NewUser, parse};
use ingest_api::lines::{Line, Lines};
use ingest_api::model::DESCRIPTION_CHARACTERS;
use ingest_api::rejection::Rejection;
use ingest_api::report::LineError;
use serde::Serialize;
use serde_json::Value;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::cuts;

/// The longest line, in bytes. It is short, so that the fuzzer soon finds longer ones.
const LONGEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(299);

/// The most bytes of the error of a line, whatever the line.
const REPORT_BYTES: usize = 8_192;

/// The time of ingest-api's clock.
const NOW: OffsetDateTime = datetime!(2026-11-23 9:37 UTC);

/// How far ahead of that clock an event may be.
const AHEAD: Duration = Duration::minutes(5);

/// The lines do not depend on how an upload is split, equal those of a simple parser, and never
/// more than one line is buffered. Each line is a row that is the same after it was written and
/// read again, or its error names the field.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let expected = reference_lines(bytes);
    for parts in cuts(bytes) {
        assert_eq!(lines(&parts), expected, "lines of an upload in {} parts", parts.len());
    }
    for Line { number, text } in expected {
        match text {
            Err(rejection) => check_report(number, &rejection),
            Ok(text) => {
                check_row::<NewItem>(number, &text, &["base_item_id"], |row| {
                    check_time(row.created_at.utc());
                });
                check_row::<NewTransfer>(number, &text, &["item_id", "owner_id"], |row| {
                    check_time(row.timestamp.utc());
                });
                check_row::<NewBaseItem>(number, &text, &["description"], |row| {
                    let text = row.description.as_str();
                    assert!(!text.contains('\0') && text.chars().count() <= DESCRIPTION_CHARACTERS);
                });
                check_row::<NewUser>(number, &text, &[], |_| ());
            }
        }
    }
}

fn lines(parts: &[&[u8]]) -> Vec<Line> {
    let mut lines = Lines::new(LONGEST);
    let mut read = Vec::new();
    for part in parts {
        lines.add(part);
        read.extend(std::iter::from_fn(|| lines.next_line()));
        assert!(lines.waiting_bytes() <= LONGEST.get(), "{} bytes wait", lines.waiting_bytes());
    }
    lines.end();
    read.extend(std::iter::from_fn(|| lines.next_line()));
    read
}

/// The lines, by a simple parser that has all bytes at once.
fn reference_lines(bytes: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, raw) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let text = raw.strip_suffix(b"\r").unwrap_or(raw);
        let text = if raw.len() > LONGEST.get() {
            let detail = format!("is longer than {LONGEST} bytes");
            Err(Rejection::Field { field: "the line".to_owned(), detail })
        } else {
            match std::str::from_utf8(text) {
                Ok(text) if text.replace('\u{feff}', " ").trim().is_empty() => continue,
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(Rejection::Malformed("Unable to decode input as UTF8".to_owned())),
            }
        };
        lines.push(Line { number, text });
    }
    lines
}

fn check_row<I>(number: u64, text: &str, required: &[&str], check_own: impl Fn(&I::Row))
where
    I: Input<Row: Debug + PartialEq + Serialize>,
{
    let context = Context { now: NOW, ahead: AHEAD, key: None, writer: None };
    let json = serde_json::from_str::<Value>(text.strip_prefix('\u{feff}').unwrap_or(text));
    let input = match parse::<I>(text.as_bytes()) {
        Ok(input) => input,
        Err(rejection) => {
            check_report(number, &rejection);
            if let Ok(json) = json {
                check_named_field(&json, required, &rejection);
            }
            return;
        }
    };
    assert!(json.is_ok_and(|json| json.is_object()), "a row that is not a JSON object: {text:?}");
    match input.into_row(context) {
        Ok(new) => {
            let written = serde_json::to_vec(&new.row).map_err(|error| error.to_string());
            let again = written.and_then(|written| {
                let input = parse::<I>(&written).map_err(|error| error.to_string())?;
                input.into_row(context).map_err(|error| error.to_string())
            });
            match again {
                Ok(again) => assert_eq!(new.row, again.row),
                Err(error) => panic!("{:?} cannot be read again: {error}", new.row),
            }
            check_own(&new.row);
        }
        Err(rejection) => {
            check_report(number, &rejection);
            let field = rejection.field();
            assert!(
                matches!(field, Some("created_at" | "timestamp")),
                "{rejection} does not name the time"
            );
        }
    }
}

/// The error of valid JSON names a field that it has, or a required field that it does not have.
fn check_named_field(json: &Value, required: &[&str], rejection: &Rejection) {
    let Some(field) = rejection.field() else { panic!("{json} is refused as {rejection}") };
    match json {
        Value::Object(members) => {
            let missing = required.contains(&field) && !members.contains_key(field);
            assert!(
                members.contains_key(field) || missing,
                "{json} is refused for {field:?}: {rejection}"
            );
        }
        _ => assert_eq!(field, "the body", "{json} is refused: {rejection}"),
    }
}

/// The error of a line is short, whatever the line.
pub(crate) fn check_report(number: u64, rejection: &Rejection) {
    let report = LineError::new(number, rejection);
    assert!(!report.detail.is_empty());
    let bytes = serde_json::to_vec(&report).map(|report| report.len());
    assert!(bytes.is_ok_and(|bytes| bytes <= REPORT_BYTES), "a long error: {report:?}");
}

/// The time can be represented by Postgres and by every later hop.
fn check_time(time: OffsetDateTime) {
    assert!(time <= NOW + AHEAD, "{time} is too far ahead");
    assert!(BucketTime::try_from(time).is_ok(), "{time} is in no bucket");
    assert_eq!(time.nanosecond() % 1_000, 0, "{time} is finer than Postgres stores");
}
