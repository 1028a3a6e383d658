//! Errors as RFC 9457 problem details (<https://www.rfc-editor.org/rfc/rfc9457>).

use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Route, web};
use http::Uri;
use problem_details::{JsonProblemDetails, ProblemDetails};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of problems.
pub const CONTENT_TYPE: &str = JsonProblemDetails::<Map<String, Value>>::CONTENT_TYPE;

/// A problem that is reported to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    retry_after_seconds: Option<u64>,
}

/// The maximum length of a problem's detail in characters, because it may quote what the client
/// sent.
pub const DETAIL_CHARACTERS: usize = 500;

/// The maximum length of a field's name in characters, because the client may have made it up.
pub const FIELD_CHARACTERS: usize = 100;

/// The text, or its beginning and end if it is longer than `characters`. Quoted input is in the
/// middle of messages, so the middle is cut.
#[must_use]
pub fn excerpt(text: &str, characters: usize) -> String {
    let all = text.chars().count();
    if all <= characters {
        return text.to_owned();
    }
    let end = characters / 4;
    let beginning = text.chars().take(characters.saturating_sub(end + 1));
    beginning.chain(['…']).chain(text.chars().skip(all - end)).collect()
}

impl Problem {
    /// A problem. `kind` is its stable type for programs, a path such as `/problems/not-found`.
    /// `detail` is for people, and explains what is wrong in this request.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = excerpt(&detail.into(), DETAIL_CHARACTERS);
        Self { status, kind, title, detail, members: Map::new(), retry_after_seconds: None }
    }

    /// The service cannot answer now, and the client should try again in a few seconds. The answer
    /// does not reveal what failed inside.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "/problems/unavailable", "The service cannot answer now", detail)
            .retry_after(2)
    }

    /// The service failed, and the client cannot fix it.
    #[must_use]
    pub fn internal() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "/problems/internal", "The service failed", "The failure was logged.")
    }

    /// Names the invalid field of the request.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        self.member("field", excerpt(&field.into(), FIELD_CHARACTERS))
    }

    /// Adds a further member.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Sets `Retry-After`.
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

    /// The response that reports it.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        response.content_type(CONTENT_TYPE);
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

/// Answers methods that a path does not have with 405, and lists those that it has.
#[must_use]
pub fn method_not_allowed(methods: &[Method]) -> Route {
    let allowed = methods.iter().map(|method| match *method {
        // The server answers HEAD as GET.
        Method::GET => "GET, HEAD",
        _ => method.as_str(),
    });
    let allowed = allowed.collect::<Vec<_>>().join(", ");
    // Methods are tokens, so this cannot fail.
    let allowed = HeaderValue::from_str(&allowed).unwrap_or_else(|_| HeaderValue::from_static(""));
    web::to(move |request: HttpRequest| {
        let detail = format!("{} cannot be used on {}.", request.method(), request.path());
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let problem =
            Problem::new(status, "/problems/method-not-allowed", "Method not allowed", detail);
        let mut response = problem.response();
        response.headers_mut().insert(ALLOW, allowed.clone());
        std::future::ready(response)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_in_the_middle() {
        assert_eq!(excerpt("ünïque", 6), "ünïque");
        assert_eq!(excerpt("unknown field ééééééé, expected id", 20), "unknown field …ed id");
        assert_eq!(excerpt("ééé", 1), "…");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "/problems/x", "x", "é".repeat(9_999));
        let text = serde_json::to_string(&problem.field("é".repeat(9_999))).unwrap();
        assert_eq!(text.matches('é').count(), DETAIL_CHARACTERS + FIELD_CHARACTERS - 2);
    }
}
