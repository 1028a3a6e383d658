//! Who owns an item: the current owner, the transfers of an item, the items of a user, and a new
//! transfer.

use access_kit::principal::Admitted;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use openapi_kit::{answer, content, refusal, schema_of};
use utoipa::openapi::Required;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::request_body::RequestBodyBuilder;

use crate::body::Body;
use crate::error::ApiError;
use crate::input::{Input, NewOwner, NewTransfer, parse};
use crate::model::{Item, ItemId, Owner, Resource, Transfer, User};
use crate::operation::{
    idempotency_key as describe_idempotency_key, operation, too_long, unsupported_media_type,
    with_answer, with_page, with_path_id,
};
use crate::page::{PageQuery, RowPage};
use crate::rejection::Rejection;
use crate::request::{JSON, content_coding, idempotency_key, media_type, path_id};
use crate::service::IngestService;
use crate::settings::Settings;
use crate::store::{self, DatabaseError, InsertOutcome, OwnedItems};

/// Answers with the current owner of an item.
pub(crate) async fn get_owner(
    id: Path<String>,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let read = async |session: &_| store::find_owner(session, id).await;
    let owner = service.read(&principal, read).await?;
    Ok(HttpResponse::Ok().json(owner))
}

pub(crate) fn describe_get_owner() -> OperationBuilder {
    let operation = operation::<Item>("get_owner_of_item", "Shows the current owner of an item");
    with_answer::<Owner>(
        with_path_id::<Item>(operation),
        "The owner and the latest transfer of the item. Both are null if it was never transferred.",
    )
}

/// Answers with a page of the transfers of an item.
pub(crate) async fn list_transfers_of_item(
    request: HttpRequest,
    id: Path<String>,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let page = PageQuery::parse(request.query_string(), &service.settings.limits)?;
    let transfers = async |session: &_| {
        store::list_transfers_of_item(session, id, page.after, page.rows_to_read()).await
    };
    Ok(HttpResponse::Ok().json(RowPage::new(page, service.read(&principal, transfers).await?)))
}

pub(crate) fn describe_list_transfers_of_item(settings: &Settings) -> OperationBuilder {
    let summary = "Lists the transfers of an item, in the order in which they happened";
    let operation = operation::<Item>("list_transfers_of_item", summary);
    with_path_id::<Item>(with_page::<Transfer>(operation, &settings.limits))
}

/// Answers with a page of the items that a user owns now.
pub(crate) async fn list_items_of_user(
    request: HttpRequest,
    id: Path<String>,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let id = path_id(&id)?;
    let page = PageQuery::parse(request.query_string(), &service.settings.limits)?;
    let max_examined = service.settings.limits.max_page_rows.get().into();
    let read = async |session: &_| {
        store::list_items_of_user(session, id, page.after, page.rows_to_read(), max_examined).await
    };
    let OwnedItems { items, ended_at } = service.read(&principal, read).await?;
    Ok(HttpResponse::Ok().json(RowPage::ended_at(page, items, ended_at)))
}

pub(crate) fn describe_list_items_of_user(settings: &Settings) -> OperationBuilder {
    let description = format!(
        "A page examines at most {} of the items that the user ever received. So it may have fewer \
         items than its limit, or none, although `next` is not null: go on until it is.",
        settings.limits.max_page_rows
    );
    let operation = operation::<User>("list_items_of_user", "Lists the items that a user owns now")
        .description(Some(description));
    with_path_id::<User>(with_page::<Item>(operation, &settings.limits))
}

/// Transfers an item to a user. Every PUT is a transfer, even if the user owns the item already.
pub(crate) async fn transfer_ownership(
    request: HttpRequest,
    id: Path<String>,
    body: Payload,
    service: Data<IngestService>,
    Admitted(principal): Admitted,
) -> Result<HttpResponse, ApiError> {
    let item = path_id(&id)?;
    if media_type(&request).as_deref() != Some(JSON) {
        return Err(ApiError::MediaType(JSON));
    }
    let limits = &service.settings.limits;
    let mut body = Body::new(body, content_coding(&request)?, limits, &service.uploads)?;
    let NewOwner { to } = parse(&body.whole(limits).await?)?;
    let context = service.context(idempotency_key(&request)?, principal.number());
    let transfer = NewTransfer::to(ItemId(item), to).into_row(context)?;
    match service.insert_one(transfer).await? {
        InsertOutcome::Created(_) | InsertOutcome::Repeated(_) => {
            Ok(HttpResponse::NoContent().finish())
        }
        // The request has other names for these two fields: the item is in the path, the user is
        // `to`.
        InsertOutcome::Rejected(Rejection::UnknownReference { field: "item_id" }) => {
            Err(DatabaseError::NotFound(Item::NAME).into())
        }
        InsertOutcome::Rejected(Rejection::UnknownReference { .. }) => {
            Err(Rejection::UnknownReference { field: "to" }.into())
        }
        InsertOutcome::Rejected(rejection) => Err(rejection.into()),
    }
}

pub(crate) fn describe_transfer_ownership(settings: &Settings) -> OperationBuilder {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(JSON, content(schema_of::<NewOwner>()));
    let summary = "Transfers an item to a user. Every request is a transfer, even if the user owns \
                   the item already";
    let key = "Becomes the id of the transfer, so that the request can be repeated. The UUID may \
               be in quotation marks.";
    let not_arrived = "The body stopped on its way, its chunks are framed wrongly, or it arrived \
                       too slowly: send it again. Nothing is stored.";
    with_path_id::<Item>(operation::<Item>("transfer_ownership", summary))
        .parameter(describe_idempotency_key(key))
        .request_body(Some(body.build()))
        .response("204", answer("The transfer is committed."))
        .response("408", refusal(not_arrived))
        .response("409", refusal("The idempotency key is the id of another transfer."))
        .response("413", too_long(settings))
        .response("415", unsupported_media_type())
        .response("422", refusal("A field is wrong, or refers to a user that does not exist."))
}
