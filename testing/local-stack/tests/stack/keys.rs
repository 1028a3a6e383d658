//! The keys of a test, and what services answer to them.

use std::time::Duration;

use access::store::{KeyLimits, KeyStore};
use access_kit::key::Key;
use local_stack::stack::{Instance, Stack};
use local_stack::test_database::TestDatabase;
use reqwest::Client;

use crate::support::{DEADLINE, until};

/// A client without a key.
pub(crate) fn client() -> Client {
    Client::builder().timeout(DEADLINE).build().unwrap()
}

/// The list of keys.
pub(crate) async fn keys(database: &TestDatabase) -> KeyStore {
    KeyStore::connect(&database.access(), "a test".to_owned()).await.unwrap()
}

/// Makes a valid key.
pub(crate) async fn new_key(store: &KeyStore, name: &str, scopes: &[&str]) -> Key {
    new_limited_key(store, name, scopes, KeyLimits::default()).await
}

/// Makes a valid key with limits.
pub(crate) async fn new_limited_key(
    store: &KeyStore,
    name: &str,
    scopes: &[&str],
    limits: KeyLimits,
) -> Key {
    let key = Key::generate();
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    store.create(&key, name, &scopes, Some(Duration::from_secs(86_400)), limits).await.unwrap();
    key
}

/// The status of `GET /access`.
pub(crate) async fn standing(stack: &Stack, service: impl Into<Instance>, key: &Key) -> u16 {
    let request = client().get(format!("{}/access", stack.url(service)));
    request.bearer_auth(key.expose()).send().await.unwrap().status().as_u16()
}

pub(crate) async fn until_admitted(stack: &Stack, service: impl Into<Instance>, key: &Key) {
    until_answers(stack, service, key, 200).await;
}

pub(crate) async fn until_answers(
    stack: &Stack,
    service: impl Into<Instance>,
    key: &Key,
    status: u16,
) {
    let instance = service.into();
    let what = format!("{instance} must answer the key with {status}");
    until(what, async || (standing(stack, instance, key).await == status).then_some(())).await;
}
