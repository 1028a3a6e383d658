//! Why one row of a request is refused.
//!
//! Parsing ([`crate::input`]) and the database (`store`) both refuse rows with these reasons. A
//! request for one row is then answered with 400, 409 or 422 ([`crate::error`]); an upload names
//! the line and goes on ([`crate::bulk`]).

/// Why one row cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The text is not JSON, or has a number that cannot be represented, such as 1e999.
    #[error("invalid JSON: {0}")]
    Malformed(String),
    /// A field is missing, repeated, unknown, of the wrong type or out of range.
    #[error("{field}: {detail}")]
    Field {
        /// The name of the field, or "the body", "the line" or "the element" if the error concerns
        /// all of it.
        field: String,
        /// What is wrong, in words that follow the name of the field.
        detail: String,
    },
    /// A field refers to a row that does not exist.
    #[error("{field}: there is no such row")]
    UnknownReference {
        /// The name of the field.
        field: &'static str,
    },
    /// The id belongs to a stored row with other content.
    #[error("id: there is already a row with this id, with other content")]
    Conflict,
}

impl Rejection {
    /// The field that is wrong, if one field is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Malformed(_) => None,
            Self::Field { field, .. } => Some(field),
            Self::UnknownReference { field } => Some(field),
            Self::Conflict => Some("id"),
        }
    }
}
