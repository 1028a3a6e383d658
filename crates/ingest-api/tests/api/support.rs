//! Runs the service with a database of its own, and sends it requests.

use std::time::Duration;

use access_kit::settings::AccessMode;
use ingest_api::settings::Settings;
use ingest_api::startup;
use local_stack::internal;
use local_stack::link::Link;
use local_stack::test_database::{TestDatabase, http_client};
use serde_json::{Value, json};
use service_kit::settings::ProgramSettings as _;
use time::macros::datetime;
use tokio_postgres::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Generous, for a test that waits for conditions while it holds a lock.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Polls until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, held).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The number of sessions that wait for a lock. By `pg_locks`: a session that waits and looks for a
/// deadlock has no `wait_event_type` meanwhile.
pub(crate) async fn waiting(client: &Client) -> i64 {
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE datname = current_database() AND NOT granted";
    client.query_one(waiting, &[]).await.unwrap().get(0)
}

/// An answer. The body is null if it is empty.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Sends a request. Apart from [`Api::send`] for requests in the background.
    pub(crate) async fn to(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Self { status, headers, body }
    }

    /// The numbers of accepted, repeated and rejected lines of an upload.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let count = |name| self.body[name].as_u64().unwrap_or_else(|| panic!("{}", self.body));
        ["accepted", "repeated", "rejected"].map(count)
    }

    /// The numbers of the rejected lines, with the field that is wrong.
    pub(crate) fn errors(&self) -> Vec<(u64, Option<&str>)> {
        let errors = self.body["errors"].as_array().unwrap().iter();
        errors.map(|error| (error["line"].as_u64().unwrap(), error["field"].as_str())).collect()
    }
}

/// Lets the one key of a test stand for many clients, of which each has a share of its own. Only
/// keys have shares.
pub(crate) const fn without_shares(settings: &mut Settings) {
    settings.access.mode = AccessMode::Open;
}

/// A running service. Its clock always shows 2026-11-23T09:37:00.123456Z.
pub(crate) struct Api {
    pub(crate) database: TestDatabase,
    pub(crate) url: String,
    internal_url: String,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(TestDatabase::create().await, change).await
    }

    /// As [`Api::start_with`], with a link between the service and its database.
    pub(crate) async fn start_through(
        link: &mut Option<Link>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let database = TestDatabase::create().await;
        let to = Link::to("ingest-api to Postgres".to_owned(), database.port()).await;
        let to = link.insert(to.unwrap());
        Self::start_on(database, |settings| {
            settings.database.port = to.port().into();
            change(settings);
        })
        .await
    }

    async fn start_on(database: TestDatabase, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::load().unwrap();
        settings.database = database.ingest();
        settings.http.port = 0;
        settings.internal.port = 0;
        settings.internal.secret_file = internal::secret_file();
        settings.cors.allowed_origins = vec!["http://dashboard.example".to_owned()];
        change(&mut settings);
        let stop = CancellationToken::new();
        let clock = || datetime!(2026-11-23 9:37:00.123456789 UTC);
        let application = startup::build(settings, clock, stop.clone()).unwrap();
        let url = format!("http://127.0.0.1:{}", application.port());
        let internal_url = format!("http://127.0.0.1:{}", application.internal_port());
        tokio::spawn(application.run_until_stopped());
        let client = http_client().timeout(Duration::from_secs(20)).build().unwrap();
        let api = Self { database, url, internal_url, client, _stop: stop.drop_guard() };
        until("the keyring is read", async || api.get("/access").await.status == 200).await;
        api
    }

    /// A request without headers or body.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::to(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    /// Sends a GET request to the internal port, which answers with JSON.
    pub(crate) async fn internal(&self, path: &str) -> Answer {
        let client = internal::client();
        self.send(client.get(format!("{}{path}", self.internal_url))).await
    }

    /// The metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        let answer = internal::get(format!("{}/metrics", self.internal_url)).await.unwrap();
        answer.text().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, JSON, &body.to_string()).await
    }

    /// Sends an upload of many rows.
    pub(crate) async fn upload(&self, path: &str, lines: &str) -> Answer {
        self.post_text(path, NDJSON, lines).await
    }

    pub(crate) async fn post_text(&self, path: &str, content_type: &str, body: &str) -> Answer {
        let request = self.request("POST", path).header("content-type", content_type);
        self.send(request.body(body.to_owned())).await
    }

    /// The ids of a new base item, a new user and a new item.
    pub(crate) async fn parents(&self) -> (String, String, String) {
        let id = |answer: Answer| {
            assert_eq!(answer.status, 201, "{}", answer.body);
            answer.body["id"].as_str().unwrap().to_owned()
        };
        let base_item = id(self.post("/base-items", &json!({ "description": "a thing" })).await);
        let user = id(self.post("/users", &json!({})).await);
        let item = id(self.post("/items", &json!({ "base_item_id": base_item })).await);
        (base_item, user, item)
    }

    /// The numbers of base items, users, items and transfers.
    pub(crate) async fn rows(&self) -> [i64; 4] {
        let count = "SELECT (SELECT count(*) FROM base_items), (SELECT count(*) FROM users), \
             (SELECT count(*) FROM items), (SELECT count(*) FROM transfers)";
        let row = self.database.connect().await.query_one(count, &[]).await.unwrap();
        [0, 1, 2, 3].map(|column| row.get(column))
    }
}
