//! Errors as RFC 9457 problem details (<https://www.rfc-editor.org/rfc/rfc9457>).

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use http::Uri;
use problem_details::{JsonProblemDetails, ProblemDetails};
use serde::Serialize;
use serde_json::{Map, Value};

/// One problem, told to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem of the stable type `kind`, a path such as `/problems/not-found`, for programs to tell problems
    /// apart by; `detail` is for people and says what is wrong in this request.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self { status, kind, title, detail, members: Map::new(), retry_after_seconds: None }
    }

    /// The service cannot answer now: try again in a few seconds. Says nothing of what broke inside.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "/problems/unavailable", "The service cannot answer now", detail).retry_after(2)
    }

    /// The service failed: nothing that the client can mend.
    #[must_use]
    pub fn internal() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "/problems/internal", "The service failed", "The failure was logged.")
    }

    /// Names the field of the request that is wrong.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        self.member("field", field.into())
    }

    /// Adds a member of its own to the problem.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The response that tells it.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        response.content_type(JsonProblemDetails::<Map<String, Value>>::CONTENT_TYPE);
        if let Some(seconds) = self.retry_after_seconds {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        response.json(self)
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut details = ProblemDetails::new()
            .with_type(Uri::from_static(self.kind))
            .with_title(self.title)
            .with_detail(self.detail.clone());
        details.status = http::StatusCode::from_u16(self.status.as_u16()).ok();
        details.with_extensions(self.members.clone()).serialize(serializer)
    }
}

/// Answers a path that does not exist.
pub async fn not_found(request: HttpRequest) -> HttpResponse {
    let detail = format!("There is nothing at {}.", request.path());
    Problem::new(StatusCode::NOT_FOUND, "/problems/not-found", "Not found", detail).response()
}

/// Answers a method that a path does not have.
pub async fn method_not_allowed(request: HttpRequest) -> HttpResponse {
    let detail = format!("{} cannot be used on {}.", request.method(), request.path());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "/problems/method-not-allowed", "Method not allowed", detail).response()
}
