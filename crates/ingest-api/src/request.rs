//! What handlers read from a request apart from its body: the id in the path and the headers.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use actix_web::web::Path;
use actix_web::{HttpMessage, HttpRequest};
use service_kit::observe::RequestId;
use uuid::Uuid;

use crate::encoding::ContentCoding;
use crate::error::ApiError;

/// The media type of a body with one row.
pub(crate) const JSON: &str = "application/json";

/// The media type of a body with many rows. It is not registered, so there are three names for it.
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const NDJSON_TOO: [&str; 2] = ["application/ndjson", "application/jsonl"];

/// The id in the path.
pub(crate) fn path_id(id: &Path<String>) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::PathId(id.to_string()))
}

/// The media type of the body, without its parameters, in lower case, and with one name for each.
pub(crate) fn media_type(request: &HttpRequest) -> Option<String> {
    let header = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let name = header.split(';').next()?.trim().to_ascii_lowercase();
    Some(if NDJSON_TOO.contains(&name.as_str()) { NDJSON.to_owned() } else { name })
}

/// How the body is compressed.
pub(crate) fn content_coding(request: &HttpRequest) -> Result<ContentCoding, ApiError> {
    let values = request.headers().get_all(CONTENT_ENCODING);
    // A value that is not text is the name of no coding.
    ContentCoding::parse(values.map(|value| value.to_str().unwrap_or("?")))
        .ok_or(ApiError::ContentCoding)
}

/// The id of the request, as in the log and in the answer.
pub(crate) fn request_id(request: &HttpRequest) -> String {
    let id = request.extensions().get::<RequestId>().cloned();
    id.and_then(|RequestId(id)| Some(id.to_str().ok()?.to_owned())).unwrap_or_default()
}

/// The value of `Idempotency-Key`, if the request has this header.
pub(crate) fn idempotency_key(request: &HttpRequest) -> Result<Option<Uuid>, ApiError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    // The draft standard puts the key between quotation marks; many clients send it without.
    let key = header.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
    key.map(Some).ok_or(ApiError::Header { name: "Idempotency-Key", detail: "must be a UUID" })
}
