//! The keyring as services send it to each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::keyring::KeyRecord;

/// The keyring as JSON, and a tag that is another one for every other keyring.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) json: Bytes,
    /// A strong entity tag, with its quotes (RFC 9110, section 8.8.3).
    pub(crate) tag: String,
    pub(crate) version: i64,
}

/// The JSON of a [`Document`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keys<T> {
    /// Raised by each change in the database.
    pub(crate) version: i64,
    pub(crate) keys: T,
}

impl Document {
    pub(crate) fn new(version: i64, records: &[KeyRecord]) -> Self {
        // Numbers, texts and times can always be written.
        let json = serde_json::to_vec(&Keys { version, keys: records }).unwrap_or_default();
        let hash = Sha256::digest(&json);
        let tag = format!("\"{}\"", hex::encode(&hash[..16]));
        Self { json: json.into(), tag, version }
    }
}
