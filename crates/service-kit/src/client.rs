//! The HTTP client for requests between our own services.

use reqwest::{Client, ClientBuilder, redirect};

/// A client that connects to the address that a setting names, and to no other.
///
/// It uses no proxy, even if the environment names one (`HTTP_PROXY`): a proxy of the organisation
/// would see the traffic of the internal ports, and could often not reach them. It follows no
/// redirect: none of our services answers one, so something else listens at that address.
pub fn internal() -> ClientBuilder {
    Client::builder().no_proxy().redirect(redirect::Policy::none())
}
