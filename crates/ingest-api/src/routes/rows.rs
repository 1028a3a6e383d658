//! Creates, reads, lists and deletes the rows of each table.

use access_kit::principal::Admitted;
use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use openapi_kit::{PROBLEM, answer, content, header, refusal, schema_of, text, unavailable};
use service_kit::problem;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder};
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, Ref, RefOr, Required, ResponseBuilder, Schema, SchemaFormat,
};

use crate::body::Body;
use crate::bulk::{self, UploadForm};
use crate::error::ApiError;
use crate::groups::GroupedRow;
use crate::input::{Input, parse};
use crate::model::{Item, Resource};
use crate::operation::{
    UPLOAD_PROBLEM, idempotency_key as describe_idempotency_key, operation, operation_id,
    unsupported_media_type, with_answer, with_page, with_path_id,
};
use crate::page::{PageQuery, RowPage};
use crate::report::LineCounts;
use crate::request::{
    JSON, NDJSON, content_coding, idempotency_key, media_type, path_id, request_id,
};
use crate::service::IngestService;
use crate::settings::Settings;
use crate::store::{self, DeletableRow, DeletedBy, InsertOutcome, StoredRow};

/// Stores one row, or the rows of an upload.
pub(crate) async fn create<I>(
    request: HttpRequest,
    body: Payload,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError>
where
    I: Input<Row: GroupedRow>,
{
    // Uploads ignore the key, but a malformed one is always an error.
    let key = idempotency_key(&request)?;
    let writer = principal.number();
    let limits = &service.settings.limits;
    let mut body = Body::new(body, content_coding(&request)?, limits, &service.uploads)?;
    let form = match media_type(&request).as_deref() {
        Some(JSON) if body.is_array(limits).await? => UploadForm::Array,
        Some(JSON) => {
            let row =
                parse::<I>(&body.whole(limits).await?)?.into_row(service.context(key, writer))?;
            return match service.insert_one(row).await? {
                InsertOutcome::Created(row) => {
                    Ok(HttpResponse::Created().insert_header((LOCATION, location(&row))).json(row))
                }
                InsertOutcome::Repeated(row) => Ok(HttpResponse::Ok().json(row)),
                InsertOutcome::Rejected(rejection) => Err(rejection.into()),
            };
        }
        Some(NDJSON) => UploadForm::Lines,
        _ => {
            let expected = "application/json, or application/x-ndjson for many rows";
            return Err(ApiError::MediaType(expected));
        }
    };
    let report = bulk::upload::<I>(&service, form, body, &principal).await?;
    if report.counts.rejected > 0 {
        return Err(ApiError::RejectedLines(report));
    }
    Ok(HttpResponse::Ok().json(report.counts))
}

fn location<R: Resource>(row: &R) -> String {
    format!("{}/{}", R::PATH, row.id())
}

pub(crate) fn describe_create<I: Input<Row: Resource>>(settings: &Settings) -> OperationBuilder {
    let path = text().format(Some(SchemaFormat::Custom("uri-reference".to_owned())));
    let get = LinkBuilder::new()
        .operation_id(operation_id::<I::Row>("get"))
        .parameter("id", "$response.body#/id");
    let created = answer("The row is committed.")
        .header("Location", header(path, "The path of the new row."))
        .content(JSON, content(schema_of::<I::Row>()))
        .link("get", RefOr::T(get.build()));
    let stored = answer(
        "The row was stored before, with the same content. Or: all lines of the upload are \
         committed.",
    )
    .content(JSON, content(either(schema_of::<I::Row>(), schema_of::<LineCounts>())));
    let any_problem =
        || either(Ref::from_schema_name(PROBLEM), Ref::from_schema_name(UPLOAD_PROBLEM));
    let rejected = answer(
        "A field is wrong, or refers to a row that does not exist. Or: some lines of the upload \
         were rejected, and the other lines are committed.",
    )
    .content(problem::CONTENT_TYPE, content(any_problem()));
    let key = "Becomes the id of the row if the body has none. The UUID may be in quotation \
               marks. Uploads ignore this header: their lines bring their own ids.";
    let unavailable = unavailable(
        "The database does not answer, or there are too many uploads, compressed bodies, or rows \
         that wait to be written.",
    );
    let unreadable = answer(
        "The body cannot be read, or a header is wrong. Of an array that does not end where the \
         body does, the elements before are committed.",
    )
    .content(problem::CONTENT_TYPE, content(any_problem()));
    let summary = format!("Stores one {}, or many", I::Row::NAME);
    operation::<I::Row>(operation_id::<I::Row>("create"), summary)
        .parameter(describe_idempotency_key(key))
        .request_body(Some(one_or_many::<I>(settings)))
        .response("201", created)
        .response("200", stored)
        .response("400", unreadable)
        .response("408", not_arrived())
        .response("409", refusal("The id is taken by a row with other content."))
        .response("413", too_large(settings))
        .response("415", unsupported_media_type())
        .response("422", rejected)
        .response("503", unavailable)
}

fn not_arrived() -> ResponseBuilder {
    answer(
        "The body stopped on its way, its chunks are framed wrongly, or it arrived too slowly: \
         send it again. Nothing of a single row is stored. Of an upload, the lines that are \
         counted are done with.",
    )
    .content(problem::CONTENT_TYPE, content(problem_with_counts()))
}

fn too_large(settings: &Settings) -> ResponseBuilder {
    let max = settings.limits.max_request_body_bytes;
    let description = format!(
        "The body of a single row is longer than {max} bytes, decompressed. Or: an upload is \
         compressed too much; the lines that are counted are done with."
    );
    answer(&description).content(problem::CONTENT_TYPE, content(problem_with_counts()))
}

/// A problem that has the counts if the body is an upload.
fn problem_with_counts() -> AnyOfBuilder {
    let of_upload =
        AllOfBuilder::new().item(Ref::from_schema_name(PROBLEM)).item(schema_of::<LineCounts>());
    either(Ref::from_schema_name(PROBLEM), of_upload)
}

fn one_or_many<I: Input>(settings: &Settings) -> RequestBody {
    let limits = &settings.bulk;
    let lines = format!(
        "One JSON object per line, any number of lines. A line has at most {} bytes. Lines are \
         committed in chunks of {} while more arrive. An upload that broke off can be sent again: \
         this is harmless if its lines have ids.",
        limits.max_line_bytes, limits.max_chunk_lines
    );
    let rows = || ArrayBuilder::new().items(schema_of::<I>());
    let lines = ContentBuilder::new()
        .description(Some(lines))
        .schema(Some(rows()))
        .item_schema(Some(schema_of::<I>()));
    let array = "One row. Or: an array of any number of rows, which is an upload, as lines are. \
                 The numbers of its lines are the numbers of the elements.";
    let row_or_array = ContentBuilder::new()
        .description(Some(array))
        .schema(Some(either(schema_of::<I>(), rows())));
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(JSON, row_or_array)
        .content(NDJSON, lines)
        .build()
}

fn either(one: impl Into<RefOr<Schema>>, other: impl Into<RefOr<Schema>>) -> AnyOfBuilder {
    AnyOfBuilder::new().item(one).item(other)
}

/// Answers with one row.
pub(crate) async fn get<R: StoredRow>(
    id: Path<String>,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let read = async |session: &_| store::find_row(session, id).await;
    let row: R = service.read(&principal, read).await?;
    Ok(HttpResponse::Ok().json(row))
}

pub(crate) fn describe_get<R: Resource>() -> OperationBuilder {
    let summary = format!("Shows one {}", R::NAME);
    let operation = with_path_id::<R>(operation::<R>(operation_id::<R>("get"), summary));
    with_answer::<R>(operation, "The row.")
}

/// Answers with a page of all rows.
pub(crate) async fn list<R: StoredRow>(
    request: HttpRequest,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let page = PageQuery::parse(request.query_string(), &service.settings.limits)?;
    let rows =
        async |session: &_| store::list_rows::<R>(session, page.after, page.rows_to_read()).await;
    Ok(HttpResponse::Ok().json(RowPage::new(page, service.read(&principal, rows).await?)))
}

pub(crate) fn describe_list<R: Resource>(settings: &Settings) -> OperationBuilder {
    let summary = format!("Lists every {}, in the order of their ids", R::NAME);
    let operation = operation::<R>(operation_id::<R>("list"), summary);
    with_page::<R>(operation, &settings.limits)
        .response("400", refusal("A query parameter is wrong."))
}

/// Deletes a row.
pub(crate) async fn delete<R: DeletableRow>(
    request: HttpRequest,
    id: Path<String>,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let by = DeletedBy { principal: principal.number(), request: request_id(&request) };
    service.delete(async |session| store::delete::<R>(session, id, &by).await).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(crate) fn describe_delete<R: Resource>() -> OperationBuilder {
    let summary = format!("Deletes one {}, as a correction: it is no longer counted", R::NAME);
    let operation = operation::<R>(operation_id::<R>("delete"), summary);
    with_path_id::<R>(operation).response("204", answer("The row is deleted."))
}

pub(crate) fn describe_delete_item() -> OperationBuilder {
    describe_delete::<Item>().response("409", refusal("The item has transfers: delete them first."))
}
