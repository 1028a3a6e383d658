//! What is said of each path, beside the handler that answers it in [`crate::routes`].
//!
//! Invariant: schemas come from the types that bodies are parsed into and answers are written from, and limits from
//! the settings. The words and statuses that remain are put to the test by `cargo xtask test`, as its API contract.

use openapi_kit::{
    PROBLEM, answer, components, content, header, parameter, refusal, schema_of, text, unavailable,
};
use service_kit::problem;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Components, SchemaType};
use utoipa::openapi::{
    AllOfBuilder, ArrayBuilder, ContentBuilder, InfoBuilder, KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr,
    Required, Response, Schema, SchemaFormat, Type,
};

use crate::bulk::{Counts, LineError};
use crate::input::{Input, NewBaseItem, NewItem, NewOwner, NewTransfer, NewUser};
use crate::model::{
    BaseItem, BaseItemId, Description, EventTime, Item, ItemId, Owner, Transfer, TransferId, User, UserId,
};
use crate::routes::{JSON, NDJSON, endpoints};
use crate::settings::Settings;
use crate::store::Resource;

/// The name of the schema of an upload some of whose lines were rejected.
const UPLOAD_PROBLEM: &str = "UploadProblem";

const DESCRIPTION: &str = "\
Takes events, and commits them to Postgres: an answer of 2xx is sent after the commit.

Every request may be repeated. Bring your own `id`, or an `Idempotency-Key`: posting the same again is answered with \
200 and the stored row, posting other content under the same `id` with 409. Fields that are left out are not \
compared; times are compared at microseconds.

Errors are RFC 9457 problem details. Methods that a path does not have are answered with 405, and `Allow` names those \
that it has. A request's `X-Request-Id` of up to 128 visible ASCII characters is taken over, and every answer has one.";

/// The description of all paths, under these settings.
#[must_use]
pub fn document(settings: &Settings) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Newcycle ingest-api")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION));
    openapi_kit::describe(info, endpoints(settings), schemas(settings))
}

fn schemas(settings: &Settings) -> Components {
    let errors = ArrayBuilder::new()
        .items(schema_of::<LineError>())
        .max_items(Some(settings.bulk.reported_errors))
        .description(Some("The first of the lines that were rejected."));
    let upload_problem = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM))
        .item(schema_of::<Counts>())
        .item(ObjectBuilder::new().property("errors", errors).required("errors"))
        .description(Some("An upload some of whose lines were rejected; the others are committed."));
    components()
        .schema_from::<BaseItemId>()
        .schema_from::<UserId>()
        .schema_from::<ItemId>()
        .schema_from::<TransferId>()
        .schema_from::<Description>()
        .schema_from::<EventTime>()
        .schema_from::<BaseItem>()
        .schema_from::<User>()
        .schema_from::<Item>()
        .schema_from::<Transfer>()
        .schema_from::<Owner>()
        .schema_from::<NewBaseItem>()
        .schema_from::<NewUser>()
        .schema_from::<NewItem>()
        .schema_from::<NewTransfer>()
        .schema_from::<NewOwner>()
        .schema_from::<Counts>()
        .schema_from::<LineError>()
        .schema(UPLOAD_PROBLEM, upload_problem)
        .build()
}

/// Stores one row, or many.
pub(crate) fn create<I: Input<Row: Resource>>(settings: &Settings) -> OperationBuilder {
    let path = text().format(Some(SchemaFormat::Custom("uri-reference".to_owned())));
    let get = LinkBuilder::new().operation_id(id_of::<I::Row>("get")).parameter("id", "$response.body#/id");
    let created = answer("The row is committed.")
        .header("Location", header(path, "The path of the new row."))
        .content(JSON, content(schema_of::<I::Row>()))
        .link("get", RefOr::T(get.build()));
    let stored =
        "The row was stored already, with the same content; or all lines of the upload are committed.";
    let stored = answer(stored).content(JSON, content(either(schema_of::<I::Row>(), schema_of::<Counts>())));
    let wrong = "A field is wrong, or names a row that does not exist. Of an upload: some lines are so, or of a taken \
                 id; the others are committed.";
    let problems = either(Ref::from_schema_name(PROBLEM), Ref::from_schema_name(UPLOAD_PROBLEM));
    let wrong = answer(wrong).content(problem::CONTENT_TYPE, content(problems));
    operation::<I::Row>("create", format!("Stores one {}, or many", I::Row::NAME))
        .parameter(idempotency_key())
        .request_body(Some(one_or_many::<I>(settings)))
        .response("201", created)
        .response("200", stored)
        .response("400", refusal("The body cannot be read, or a header is wrong."))
        .response("409", refusal("The id is taken by a row of other content."))
        .response("413", too_large(settings))
        .response("415", refusal("The body is of another media type."))
        .response("422", wrong)
        .response("503", unavailable("The database does not answer, or too many uploads are under way."))
}

/// A page of all rows.
pub(crate) fn list<R: Resource>(settings: &Settings) -> OperationBuilder {
    let operation = operation::<R>("list", format!("Lists every {}, in the order of their ids", R::NAME));
    page::<R>(operation, settings).response("400", refusal("A query parameter is wrong."))
}

/// One row.
pub(crate) fn get<R: Resource>() -> OperationBuilder {
    let found = answer("The row.").content(JSON, content(schema_of::<R>()));
    of_id::<R>(operation::<R>("get", format!("Shows one {}", R::NAME))).response("200", found)
}

/// Deletes an item.
pub(crate) fn delete_item() -> OperationBuilder {
    delete::<Item>().response("409", refusal("The item has transfers: delete those first."))
}

/// Deletes a row.
pub(crate) fn delete<R: Resource>() -> OperationBuilder {
    let summary = format!("Deletes one {}, as a correction: it is counted no more", R::NAME);
    of_id::<R>(operation::<R>("delete", summary)).response("204", answer("The row is deleted."))
}

/// The items that a user owns.
pub(crate) fn owned(settings: &Settings) -> OperationBuilder {
    let operation = operation::<User>("list_items_of", "Lists the items that a user owns now".to_owned());
    of_id::<User>(page::<Item>(operation, settings))
}

/// The transfers of an item.
pub(crate) fn history(settings: &Settings) -> OperationBuilder {
    let summary = "Lists an item's transfers, in the order they happened".to_owned();
    of_id::<Item>(page::<Transfer>(operation::<Item>("list_transfers_of", summary), settings))
}

/// The owner of an item.
pub(crate) fn owner() -> OperationBuilder {
    let owner = answer("The owner, and the transfer that made them so; nobody, where there was no transfer.");
    of_id::<Item>(operation::<Item>("get_owner_of", "Shows who owns an item now".to_owned()))
        .response("200", owner.content(JSON, content(schema_of::<Owner>())))
}

/// Gives an item to a user.
pub(crate) fn give(settings: &Settings) -> OperationBuilder {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(JSON, content(schema_of::<NewOwner>()));
    let summary = "Gives an item to a user: each time it is a transfer, also to the present owner".to_owned();
    of_id::<Item>(operation::<Item>("give", summary))
        .parameter(idempotency_key())
        .request_body(Some(body.build()))
        .response("204", answer("The transfer is committed."))
        .response("409", refusal("The idempotency key is the id of another transfer."))
        .response("413", too_large(settings))
        .response("415", refusal("The body is of another media type."))
        .response("422", refusal("A field is wrong, or names a user that does not exist."))
}

/// What all operations have in common. `verb` and the resource's name make the operation's id.
fn operation<R: Resource>(verb: &str, summary: String) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id_of::<R>(verb)))
        .tag(R::PATH.trim_start_matches('/'))
        .summary(Some(summary))
        .response("500", refusal("The service failed."))
        .response("503", unavailable("The database does not answer."))
}

fn id_of<R: Resource>(verb: &str) -> String {
    format!("{verb}_{}", R::NAME.replace(' ', "_"))
}

/// An operation on the row that the path names.
fn of_id<R: Resource>(operation: OperationBuilder) -> OperationBuilder {
    let id = parameter(ParameterIn::Path, "id", uuid(), "Identifies the row.");
    operation
        .parameter(id)
        .response("400", refusal("The path has no UUID, or the query, a header or the body is wrong."))
        .response("404", refusal(&format!("There is no {} of this id.", R::NAME)))
}

/// An operation that answers with a page.
fn page<R: Resource>(operation: OperationBuilder, settings: &Settings) -> OperationBuilder {
    let limits = &settings.limits;
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(limits.page_rows_max.get()))
        .default(Some(limits.page_rows_default.get().into()));
    let rows = ArrayBuilder::new()
        .items(schema_of::<R>())
        .max_items(usize::try_from(limits.page_rows_max.get()).ok());
    let next = uuid()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("What to send as `after` for the next page; null on the last."));
    let page =
        ObjectBuilder::new().property("data", rows).required("data").property("next", next).required("next");
    operation
        .parameter(parameter(ParameterIn::Query, "after", uuid(), "The page begins past the row of this id."))
        .parameter(parameter(ParameterIn::Query, "limit", limit, "Rows of the page, at most."))
        .response("200", answer("A page.").content(JSON, content(page)))
}

fn one_or_many<I: Input>(settings: &Settings) -> RequestBody {
    let limits = &settings.bulk;
    let lines = format!(
        "One JSON object a line, of at most {} bytes; any number of lines. They are committed in chunks of {} while \
         more are coming. An upload that broke off may be sent again: harmless where lines have ids.",
        limits.line_bytes, limits.chunk_lines
    );
    let lines = ContentBuilder::new()
        .description(Some(lines))
        .schema(Some(ArrayBuilder::new().items(schema_of::<I>())))
        .item_schema(Some(schema_of::<I>()));
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(JSON, content(schema_of::<I>()))
        .content(NDJSON, lines)
        .build()
}

fn idempotency_key() -> Parameter {
    let description = "Becomes the id of a row that brings none; may stand between quotation marks. It means nothing \
                       to an upload, whose lines bring their own.";
    parameter(ParameterIn::Header, "Idempotency-Key", uuid(), description)
}

fn too_large(settings: &Settings) -> Response {
    refusal(&format!("The body of one row is longer than {} bytes.", settings.limits.request_body_bytes))
        .build()
}

fn uuid() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}

fn either(one: impl Into<RefOr<Schema>>, other: impl Into<RefOr<Schema>>) -> AnyOfBuilder {
    AnyOfBuilder::new().item(one).item(other)
}
