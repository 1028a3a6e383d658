//! The OpenAPI description of the service.
//!
//! Invariant: the paths come from `routes::endpoints`, so they are exactly the paths that are
//! served; schemas come from the types that bodies are parsed into and answers are written from;
//! limits come from the settings. `cargo xtask ci` tests the service against the description.

use openapi_kit::{PROBLEM, components, schema_of};
use utoipa::openapi::schema::Components;
use utoipa::openapi::{AllOfBuilder, InfoBuilder, OpenApi, Ref};
use utoipa::{PartialSchema, ToSchema};

use crate::input::{NewBaseItem, NewItem, NewOwner, NewTransfer, NewUser};
use crate::model::{
    BaseItem, BaseItemId, Description, EventTime, Item, ItemId, Owner, Transfer, TransferId, User,
    UserId,
};
use crate::operation::{UPLOAD_PROBLEM, with_max_items};
use crate::report::{LineCounts, LineError, UploadReport};
use crate::routes::endpoints;
use crate::settings::Settings;

const DESCRIPTION: &str = "\
Receives events and commits them to Postgres. An answer of 2xx is sent after the commit.

Every request may be repeated. Send an `id` of your own, or an `Idempotency-Key`. If you post the \
same content again, the answer is 200 with the stored row; if you post other content with the same \
`id`, the answer is 409. Fields that are left out are not compared, and times are compared in \
microseconds.

Bodies may be compressed by gzip or zstd, with windows of at most 8 MiB (`Content-Encoding`). \
Limits count decompressed bytes.

Errors are RFC 9457 problem details. A method that a path does not have is answered with 405, and \
`Allow` lists the methods that it has. Every answer has an `X-Request-Id`: the one of the request \
if that has at most 128 visible ASCII characters, otherwise a new one.";

/// The description of all paths, with the limits of these settings.
#[must_use]
pub fn document(settings: &Settings) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Newcycle ingest-api")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION));
    openapi_kit::describe(info, endpoints(settings), schemas(settings))
}

fn schemas(settings: &Settings) -> Components {
    let report =
        with_max_items(UploadReport::schema(), "errors", Some(settings.bulk.max_reported_errors));
    let upload_problem = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM))
        .item(schema_of::<UploadReport>())
        .description(Some(
            "Some lines of an upload were rejected; the other lines are committed. Or: an array \
             does not end where the body does; the elements before are committed.",
        ));
    components()
        .schema_from::<openapi_kit::access::Access>()
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
        .schema_from::<LineCounts>()
        .schema_from::<LineError>()
        .schema(UploadReport::name(), report)
        .schema(UPLOAD_PROBLEM, upload_problem)
        .build()
}
