//! The place of the guard of a port: inside of CORS, and outside of all routes.
//!
//! Invariant: what the guard refuses reaches no handler, and its body is not read.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, web};

use crate::problem::Problem;

/// Decides which requests reach the routes of a port.
pub trait Guard: Send + Sync {
    /// The answer to a request that is refused; `None` admits it.
    fn refuse(&self, request: &ServiceRequest) -> Option<HttpResponse>;

    /// Adds headers to the answer to an admitted request.
    fn finish(&self, request: &HttpRequest, headers: &mut HeaderMap);
}

/// Middleware for [`actix_web::middleware::from_fn`]. The application's data contains a [`Guard`].
///
/// # Errors
/// The errors of the wrapped service.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(guard) = request.app_data::<web::Data<dyn Guard>>().cloned() else {
        tracing::error!("the port has no guard, so it is closed");
        return Ok(request.into_response(Problem::internal().response()));
    };
    if let Some(refused) = guard.refuse(&request) {
        return Ok(request.into_response(refused));
    }
    let mut answer = next.call(request).await?.map_into_boxed_body();
    let (request, response) = (answer.request().clone(), answer.response_mut());
    guard.finish(&request, response.headers_mut());
    Ok(answer)
}
