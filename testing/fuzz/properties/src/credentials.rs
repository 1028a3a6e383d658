//! What a request presents to the guard: its query, and the headers that have or qualify a
//! credential.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use access_kit::control::AccessControl;
use access_kit::credential::Pages;
use access_kit::guard::{AccessGuard, Needs};
use access_kit::key::Key;
use access_kit::keyring::KeyRecord;
use access_kit::principal::Admitted;
use access_kit::scope::Scope;
use access_kit::settings::{AccessMode, AccessSettings};
use actix_web::HttpMessage as _;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use service_kit::guard::Guard as _;
use service_kit::metrics::Metrics;
use service_kit::settings::sections::CorsSettings;
use time::OffsetDateTime;

/// A valid key, and one that has ended.
const KEYS: [(&str, Option<OffsetDateTime>); 2] = [
    ("nc_fuzz00000000_ThisIsNoSecretItIsInTheFuzzTargetOnly0000000qTJcb", None),
    (
        "nc_fuzz00000001_ThisIsNoSecretItIsInTheFuzzTargetOnly0000014ab2dL",
        Some(OffsetDateTime::UNIX_EPOCH),
    ),
];

const PAGE: &str = "http://127.0.0.1:4711";

/// The headers of the lines after the first one, which is the query.
const HEADERS: [&str; 6] =
    ["authorization", "authorization", "cookie", "cookie", "origin", "sec-fetch-site"];

static GUARD: LazyLock<AccessGuard> = LazyLock::new(guard);

#[expect(clippy::expect_used, reason = "the values are constants")]
fn guard() -> AccessGuard {
    let settings = AccessSettings {
        mode: AccessMode::Keys,
        anonymous_scopes: vec!["statistics:read".parse().expect("it is a scope")],
        offline_seconds: u32::MAX,
        refusals_per_minute: NonZeroU32::MAX,
    };
    let cors = CorsSettings { allowed_origins: vec![PAGE.to_owned()] };
    let access = Arc::new(AccessControl::new(&settings, Pages::of_cors(&cors)));
    let records = (1..).zip(KEYS).map(|(number, (text, ended_at))| {
        let key: Key = text.parse().expect("it is a key");
        KeyRecord {
            number,
            id: key.id(),
            name: format!("key-{number}"),
            hash: key.hash(),
            scopes: vec!["ingest:read".to_owned()],
            expires_at: None,
            ended_at,
            requests_per_second: None,
            streams: None,
        }
    });
    access.replace(1, records.collect(), std::time::Instant::now().into());
    AccessGuard::new(access, Needs::default(), &Metrics::new().expect("metrics can be made"))
}

/// A request gets in only by the whole text of the valid key in one of its headers, and then as its
/// owner. A key or a scope that is read is written in the same way.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default());
    // Other characters are refused by the server before.
    let query: String = query.chars().filter(char::is_ascii_graphic).collect();
    let Ok(uri) = format!("/items?{query}").parse::<actix_web::http::Uri>() else { return };
    let mut request = TestRequest::default().uri(&uri.to_string());
    let mut is_presented = false;
    for (name, line) in HEADERS.into_iter().zip(lines) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        let text = String::from_utf8_lossy(line);
        is_presented |= text.contains(KEYS[0].0);
        check_texts(&text);
        if !line.is_empty() {
            request = request.append_header((HeaderName::from_static(name), value));
        }
    }
    let request = request.to_srv_request();
    let refused = GUARD.refuse(&request);
    match (refused, request.extensions().get::<Admitted>()) {
        (None, Some(Admitted(principal))) => {
            assert!(is_presented, "the request presents no valid key");
            assert_eq!(principal.number(), Some(1));
        }
        (None, None) => panic!("the request got in as no one"),
        (Some(answer), _) => {
            let status = answer.status().as_u16();
            assert!([400, 401, 403].contains(&status), "{status}");
        }
    }
}

fn check_texts(text: &str) {
    for word in text.split([' ', '=', ';', ',']) {
        if let Ok(key) = word.parse::<Key>() {
            assert_eq!(key.expose(), word);
        }
        if let Ok(scope) = word.parse::<Scope>() {
            assert_eq!(scope.to_string().parse::<Scope>().ok(), Some(scope));
        }
    }
}
