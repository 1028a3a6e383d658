//! The paths of the service: [`endpoints`] has one entry for each.
//!
//! A handler parses the request, asks the store through
//! [`IngestService`](crate::service::IngestService), and answers. Its OpenAPI description stands
//! next to it.

mod ownership;
mod rows;

use actix_web::web::ServiceConfig;
use openapi_kit::Endpoint;

use crate::input::{NewBaseItem, NewItem, NewTransfer, NewUser};
use crate::model::{BaseItem, Item, Transfer, User};
use crate::settings::Settings;

/// All paths, with the handler and the description of each method.
pub(crate) fn endpoints(settings: &Settings) -> [Endpoint; 12] {
    [
        Endpoint::at("/base-items")
            .post(rows::create::<NewBaseItem>, rows::describe_create::<NewBaseItem>(settings))
            .get(rows::list::<BaseItem>, rows::describe_list::<BaseItem>(settings)),
        Endpoint::at("/base-items/{id}")
            .get(rows::get::<BaseItem>, rows::describe_get::<BaseItem>()),
        Endpoint::at("/users")
            .post(rows::create::<NewUser>, rows::describe_create::<NewUser>(settings))
            .get(rows::list::<User>, rows::describe_list::<User>(settings)),
        Endpoint::at("/users/{id}").get(rows::get::<User>, rows::describe_get::<User>()),
        Endpoint::at("/users/{id}/items")
            .get(ownership::list_items_of_user, ownership::describe_list_items_of_user(settings)),
        Endpoint::at("/items")
            .post(rows::create::<NewItem>, rows::describe_create::<NewItem>(settings))
            .get(rows::list::<Item>, rows::describe_list::<Item>(settings)),
        Endpoint::at("/items/{id}")
            .get(rows::get::<Item>, rows::describe_get::<Item>())
            .delete(rows::delete::<Item>, rows::describe_delete_item()),
        Endpoint::at("/items/{id}/owner")
            .get(ownership::get_owner, ownership::describe_get_owner()),
        Endpoint::at("/items/{id}/transfers").get(
            ownership::list_transfers_of_item,
            ownership::describe_list_transfers_of_item(settings),
        ),
        Endpoint::at("/items/{id}/ownership")
            .put(ownership::transfer_ownership, ownership::describe_transfer_ownership(settings)),
        Endpoint::at("/transfers")
            .post(rows::create::<NewTransfer>, rows::describe_create::<NewTransfer>(settings))
            .get(rows::list::<Transfer>, rows::describe_list::<Transfer>(settings)),
        Endpoint::at("/transfers/{id}")
            .get(rows::get::<Transfer>, rows::describe_get::<Transfer>())
            .delete(rows::delete::<Transfer>, rows::describe_delete::<Transfer>()),
    ]
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
