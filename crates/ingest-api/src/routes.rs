//! The paths of the service: [`endpoints`] has one entry for each.
//!
//! A handler parses the request, asks the store through
//! [`IngestService`](crate::service::IngestService), and answers. Its OpenAPI description stands
//! next to it.

mod ownership;
mod rows;

use access_kit::guard::{Need, Needs};
use access_kit::scope::Permission;
use actix_web::web::ServiceConfig;
use openapi_kit::Endpoint;

use crate::input::{NewBaseItem, NewItem, NewTransfer, NewUser};
use crate::model::{BaseItem, Item, Transfer, User};
use crate::settings::Settings;

const WRITE: Need = Need::Permission(Permission::IngestWrite);
const DELETE: Need = Need::Permission(Permission::IngestDelete);
const READ: Need = Need::Permission(Permission::IngestRead);

/// All paths, with the handler and the description of each method.
pub(crate) fn endpoints(settings: &Settings) -> [Endpoint; 13] {
    [
        openapi_kit::access::endpoint(),
        Endpoint::at("/base-items")
            .post(
                WRITE,
                rows::create::<NewBaseItem>,
                rows::describe_create::<NewBaseItem>(settings),
            )
            .get(READ, rows::list::<BaseItem>, rows::describe_list::<BaseItem>(settings)),
        Endpoint::at("/base-items/{id}").get(
            READ,
            rows::get::<BaseItem>,
            rows::describe_get::<BaseItem>(),
        ),
        Endpoint::at("/users")
            .post(WRITE, rows::create::<NewUser>, rows::describe_create::<NewUser>(settings))
            .get(READ, rows::list::<User>, rows::describe_list::<User>(settings)),
        Endpoint::at("/users/{id}").get(READ, rows::get::<User>, rows::describe_get::<User>()),
        Endpoint::at("/users/{id}/items").get(
            READ,
            ownership::list_items_of_user,
            ownership::describe_list_items_of_user(settings),
        ),
        Endpoint::at("/items")
            .post(WRITE, rows::create::<NewItem>, rows::describe_create::<NewItem>(settings))
            .get(READ, rows::list::<Item>, rows::describe_list::<Item>(settings)),
        Endpoint::at("/items/{id}")
            .get(READ, rows::get::<Item>, rows::describe_get::<Item>())
            .delete(DELETE, rows::delete::<Item>, rows::describe_delete_item()),
        Endpoint::at("/items/{id}/owner").get(
            READ,
            ownership::get_owner,
            ownership::describe_get_owner(),
        ),
        Endpoint::at("/items/{id}/transfers").get(
            READ,
            ownership::list_transfers_of_item,
            ownership::describe_list_transfers_of_item(settings),
        ),
        Endpoint::at("/items/{id}/ownership").put(
            WRITE,
            ownership::transfer_ownership,
            ownership::describe_transfer_ownership(settings),
        ),
        Endpoint::at("/transfers")
            .post(
                WRITE,
                rows::create::<NewTransfer>,
                rows::describe_create::<NewTransfer>(settings),
            )
            .get(READ, rows::list::<Transfer>, rows::describe_list::<Transfer>(settings)),
        Endpoint::at("/transfers/{id}")
            .get(READ, rows::get::<Transfer>, rows::describe_get::<Transfer>())
            .delete(DELETE, rows::delete::<Transfer>, rows::describe_delete::<Transfer>()),
    ]
}

/// What each path needs.
pub(crate) fn needs(settings: &Settings) -> Needs {
    openapi_kit::needs(&endpoints(settings))
}

/// Adds all paths to an application.
pub(crate) fn configure(routes: &mut ServiceConfig, settings: &Settings) {
    let mut endpoints = endpoints(settings);
    // A request is compared with one path after the other. Those without a parameter are compared
    // fastest, and most events arrive at them.
    endpoints.sort_by_key(Endpoint::has_parameter);
    for endpoint in endpoints {
        routes.service(endpoint.resource());
    }
}
