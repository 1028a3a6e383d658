//! What the OpenAPI descriptions of several operations have in common.
//!
//! The schemas come from the types that bodies are parsed into and answers are written from. Only
//! limits that are settings are added here.

use openapi_kit::{answer, content, header, parameter, refusal, schema_of, text, unavailable};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterIn};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Response, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::model::Resource;
use crate::page::RowPage;
use crate::request::JSON;
use crate::settings::{Limits, Settings};

/// The name of the schema of the answer to an upload of which some lines were rejected.
pub(crate) const UPLOAD_PROBLEM: &str = "UploadProblem";

/// An operation on the rows of one kind, with the failures that all operations share.
pub(crate) fn operation<R: Resource>(
    id: impl Into<String>,
    summary: impl Into<String>,
) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .tag(R::PATH.trim_start_matches('/'))
        .summary(Some(summary))
        .response("500", refusal("The service failed."))
        .response("503", unavailable("The database does not answer."))
}

/// The id of an operation: a verb and the name of the rows, such as `create_base_item`.
pub(crate) fn operation_id<R: Resource>(verb: &str) -> String {
    format!("{verb}_{}", R::NAME.replace(' ', "_"))
}

/// Adds the id in the path, and the answers if it is wrong.
pub(crate) fn with_path_id<R: Resource>(operation: OperationBuilder) -> OperationBuilder {
    operation
        .parameter(parameter(
            ParameterIn::Path,
            "id",
            uuid(),
            &format!("The id of the {}.", R::NAME),
        ))
        .response(
            "400",
            refusal(
                "The id in the path is not a UUID, or the query, a header or the body is wrong.",
            ),
        )
        .response("404", refusal(&format!("There is no {} with this id.", R::NAME)))
}

/// Adds the query parameters that select a page of rows, and the page.
pub(crate) fn with_page<R: Resource>(
    operation: OperationBuilder,
    limits: &Limits,
) -> OperationBuilder {
    let max = limits.max_page_rows.get();
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(max))
        .default(Some(limits.default_page_rows.get().into()));
    let page = with_max_items(RowPage::<R>::schema(), "data", usize::try_from(max).ok());
    operation
        .parameter(parameter(
            ParameterIn::Query,
            "after",
            uuid(),
            "The page starts after the row with this id.",
        ))
        .parameter(parameter(ParameterIn::Query, "limit", limit, "The maximum number of rows."))
        .response("200", answer("A page of rows.").content(JSON, content(page)))
}

/// Adds the answer with one object.
pub(crate) fn with_answer<T: ToSchema>(
    operation: OperationBuilder,
    description: &str,
) -> OperationBuilder {
    operation.response("200", answer(description).content(JSON, content(schema_of::<T>())))
}

/// The header that gives a new row its id.
pub(crate) fn idempotency_key(description: &str) -> Parameter {
    parameter(ParameterIn::Header, "Idempotency-Key", uuid(), description)
}

/// The answer to the body of a single row that is too long.
pub(crate) fn too_long(settings: &Settings) -> Response {
    let max = settings.limits.max_request_body_bytes;
    refusal(&format!("The body of a single row is longer than {max} bytes, decompressed.")).build()
}

/// The answer to a body of another media type, or compressed in another way.
pub(crate) fn unsupported_media_type() -> Response {
    refusal(
        "The media type or the content coding of the body is not supported. Bodies may be \
         compressed by gzip or zstd.",
    )
    .header("Accept-Encoding", header(text(), "The content codings that are supported."))
    .build()
}

/// Sets the maximum length of an array. The array is a property of an object, or of a part of it.
pub(crate) fn with_max_items(
    mut schema: RefOr<Schema>,
    property: &str,
    max: Option<usize>,
) -> RefOr<Schema> {
    match &mut schema {
        RefOr::T(Schema::Object(object)) => {
            if let Some(RefOr::T(Schema::Array(array))) = object.properties.get_mut(property) {
                array.max_items = max;
            }
        }
        RefOr::T(Schema::AllOf(all)) => {
            for part in &mut all.items {
                *part = with_max_items(std::mem::take(part), property, max);
            }
        }
        _ => {}
    }
    schema
}

fn uuid() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}
