//! `GET /access`: what the client that asks may do.

use access_kit::guard::Need;
use access_kit::principal::{Admitted, Identity};
use actix_web::HttpResponse;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::path::OperationBuilder;

use crate::{Endpoint, answer, content, schema_of};

/// The path.
pub const PATH: &str = "/access";

/// What a client may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Access {
    /// The name of the key.
    name: String,
    /// `key`, `anonymous`, or `everyone` if requests need no key.
    kind: &'static str,
    /// What it may do.
    scopes: Vec<String>,
    /// After how many seconds it ends by itself; null if it does not.
    #[schema(required = true, minimum = 0)]
    expires_in: Option<i64>,
}

/// Answers what the client may do.
#[must_use]
pub fn endpoint() -> Endpoint {
    let description = answer("What the key may do.")
        .content("application/json", content(schema_of::<Access>()))
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some("getAccess"))
        .tag("access")
        .summary(Some("What the key of the request may do"))
        .response("200", description);
    Endpoint::at(PATH).get(Need::AnyKey, access, operation)
}

async fn access(Admitted(principal): Admitted) -> HttpResponse {
    let left = principal.until().map(|until| until - OffsetDateTime::now_utc());
    let kind = match principal.identity() {
        Identity::Key { .. } => "key",
        Identity::Anonymous => "anonymous",
        Identity::Everyone => "everyone",
    };
    HttpResponse::Ok().json(Access {
        name: principal.name().to_owned(),
        kind,
        scopes: principal.scopes().iter().map(ToString::to_string).collect(),
        expires_in: left.map(|left| left.whole_seconds().max(0)),
    })
}
