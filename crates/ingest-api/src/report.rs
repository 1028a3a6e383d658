//! The answer to an upload of many rows.

use serde::Serialize;
use service_kit::problem::{DETAIL_CHARACTERS, FIELD_CHARACTERS, excerpt};
use utoipa::ToSchema;

use crate::rejection::Rejection;

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
    /// The first rejected lines.
    pub errors: Vec<LineError>,
}

impl UploadReport {
    /// Counts a rejected line, and describes it if it is one of the first.
    pub(crate) fn reject(&mut self, line: u64, rejection: &Rejection, max_errors: usize) {
        self.counts.rejected += 1;
        if self.errors.len() < max_errors {
            self.errors.push(LineError::new(line, rejection));
        }
    }
}
