//! The HTTP client for requests between our own services.

use reqwest::{Client, ClientBuilder, Method, RequestBuilder, redirect};

use crate::address::UpstreamAddress;
use crate::internal::InternalSecrets;

/// A client that connects to the address that a setting names, and to no other.
///
/// It uses no proxy, even if the environment names one (`HTTP_PROXY`): a proxy of the organisation
/// would see the traffic of the internal ports, and could often not reach them. It follows no
/// redirect: none of our services answers one, so something else listens at that address.
pub fn internal() -> ClientBuilder {
    Client::builder().no_proxy().redirect(redirect::Policy::none())
}

/// A client of the internal ports of other services, which ask for a secret.
#[derive(Debug, Clone)]
pub struct InternalClient {
    client: Client,
    secrets: InternalSecrets,
}

impl InternalClient {
    /// Presents the first of the secrets with each request.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(builder: ClientBuilder, secrets: InternalSecrets) -> Result<Self, reqwest::Error> {
        Ok(Self { client: builder.build()?, secrets })
    }

    /// A request to a path of an upstream. The credentials of an address are for a proxy in front
    /// of the upstream, which then has to present the secret itself.
    pub fn request(&self, method: Method, address: &UpstreamAddress, path: &str) -> RequestBuilder {
        let request = self.client.request(method, address.with_path(path));
        match self.secrets.authorization().filter(|_| !address.has_credentials()) {
            Some(value) => request.header(reqwest::header::AUTHORIZATION, value),
            None => request,
        }
    }
}
