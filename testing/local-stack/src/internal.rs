//! The secret of internal ports in tests.
//!
//! Everything here panics on failure, because a test without it proves nothing.

#![expect(clippy::expect_used, reason = "a test without the secret proves nothing")]

use std::path::PathBuf;
use std::sync::OnceLock;

use reqwest::{Client, ClientBuilder, Response};

use crate::test_database::presenting;

/// The secret of all services that tests start.
pub const SECRET: &str = "this-is-no-secret-it-is-in-every-test-only";

/// A file with [`SECRET`], for the setting `internal.secret_file`.
///
/// # Panics
/// The folder for temporary files cannot be written to.
pub fn secret_file() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let folder = std::env::temp_dir();
        let file = folder.join("newcycle-tests-internal-secret");
        // Test processes share the file, so it is complete at every moment.
        let next = tempfile::NamedTempFile::new_in(&folder).expect("a temporary file can be made");
        std::fs::write(&next, SECRET).expect("a temporary file can be written");
        next.persist(&file).expect("a temporary file can be renamed");
        file
    };
    FILE.get_or_init(make).clone()
}

/// The builder of a client of internal ports.
///
/// # Panics
/// [`SECRET`] is not ASCII.
pub fn http_client() -> ClientBuilder {
    presenting(Client::builder(), SECRET).expect("the secret is ASCII")
}

/// A client of internal ports.
///
/// # Panics
/// The client cannot be built.
#[must_use]
pub fn client() -> Client {
    http_client().build().expect("a client can be built")
}

/// Requests a URL of an internal port.
///
/// # Errors
/// The service does not answer.
pub async fn get(url: impl AsRef<str>) -> reqwest::Result<Response> {
    client().get(url.as_ref()).send().await
}
