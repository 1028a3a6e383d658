//! The headers that limit what a browser does with an answer.
//!
//! Invariant: every answer has them, errors included. A handler may set its own values, as a page
//! must for its scripts.
//!
//! `Strict-Transport-Security` is not among them: only the proxy that adds TLS can promise it.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use actix_web::middleware::Next;

/// What an answer has that is data and not a page:
/// - it loads and runs nothing, and no page may show it in a frame;
/// - its media type is the one it names;
/// - its address is passed to no other website;
/// - only pages of its own origin, and those that CORS allows, may load it.
fn headers() -> [(HeaderName, HeaderValue); 5] {
    let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
    [
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (resource_policy, "same-origin"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

/// Middleware for [`actix_web::middleware::from_fn`].
///
/// # Errors
/// The errors of the wrapped service.
pub(crate) async fn add(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut answer = next.call(request).await?;
    let given = answer.headers_mut();
    for (name, value) in headers() {
        if !given.contains_key(&name) {
            given.insert(name, value);
        }
    }
    Ok(answer)
}
