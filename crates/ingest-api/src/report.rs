//! The answer to an upload of many rows.

use serde::Serialize;
use service_kit::problem::{FIELD_CHARACTERS, excerpt};
use utoipa::ToSchema;

use crate::rejection::Rejection;

/// The maximum length of the detail of a line in characters. The detail of a problem may be
/// longer, because an answer has only one.
const DETAIL_CHARACTERS: usize = 200;

/// The maximum memory of a [`LineError`]. A character has up to 4 bytes.
pub(crate) const LINE_ERROR_BYTES: usize =
    4 * (FIELD_CHARACTERS + DETAIL_CHARACTERS) + size_of::<LineError>();

/// The outcomes of the lines of an upload, or of the elements of an array.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineCounts {
    /// Lines that are stored now.
    pub accepted: u64,
    /// Lines that were stored before, with the same content.
    pub repeated: u64,
    /// Lines that are not stored.
    pub rejected: u64,
}

/// A line that was rejected.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineError {
    /// The number of the line, or of the element of an array, from 1.
    #[schema(minimum = 1)]
    pub line: u64,
    /// The field that is wrong, if one field is.
    #[schema(required)]
    pub field: Option<String>,
    /// What is wrong.
    pub detail: String,
}

impl LineError {
    /// Describes a rejected line. Quotes only a little of it: an answer with many errors must not
    /// be as long as the upload.
    pub fn new(line: u64, rejection: &Rejection) -> Self {
        let field = rejection.field().map(|field| excerpt(field, FIELD_CHARACTERS));
        Self { line, field, detail: excerpt(&rejection.to_string(), DETAIL_CHARACTERS) }
    }
}

/// The outcome of an upload that arrived completely.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct UploadReport {
    /// The numbers of lines.
    #[serde(flatten)]
    pub counts: LineCounts,
    /// The first rejected lines, in their order.
    pub errors: Vec<LineError>,
}

impl UploadReport {
    /// Counts a rejected line, and describes it if it is one of the first. The lines may come in
    /// any order.
    pub(crate) fn reject(&mut self, line: u64, rejection: &Rejection, max_errors: usize) {
        self.counts.rejected += 1;
        let place = self.errors.partition_point(|other| other.line < line);
        if place < max_errors {
            self.errors.insert(place, LineError::new(line, rejection));
            self.errors.truncate(max_errors);
        }
    }

    /// Adds the outcomes of other lines.
    pub(crate) fn add(&mut self, other: Self, max_errors: usize) {
        self.counts.accepted += other.counts.accepted;
        self.counts.repeated += other.counts.repeated;
        self.counts.rejected += other.counts.rejected;
        if !other.errors.is_empty() {
            self.errors.extend(other.errors);
            self.errors.sort_unstable_by_key(|error| error.line);
            self.errors.truncate(max_errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_are_kept_in_the_order_of_their_lines() {
        let report = |lines: &[u64]| {
            let mut report = UploadReport::default();
            for line in lines {
                report.reject(*line, &Rejection::Conflict, 3);
            }
            report
        };
        let lines =
            |report: &UploadReport| report.errors.iter().map(|e| e.line).collect::<Vec<_>>();
        let mut all = report(&[9, 2, 7, 8]);
        assert_eq!((lines(&all), all.counts.rejected), (vec![2, 7, 8], 4));
        all.add(report(&[6, 1]), 3);
        assert_eq!((lines(&all), all.counts.rejected), (vec![1, 2, 6], 6));
    }
}
