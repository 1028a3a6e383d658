//! A publisher, gateways and clients for the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use access_kit::settings::AccessMode;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use domain::{
    Bucket, BucketTime, Changes, Frame, FrameKind, Metric, Nonce, Statistics, TimeUnit, Topic,
    TopicFrame, Version,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use local_stack::internal;
use russe::reqwest_0_13::ReqwestExt;
use russe::{Event, Message};
use service_kit::problem::Problem;
use service_kit::settings::{NonZeroDuration, ProgramSettings as _};
use sse_gateway::settings::Settings;
use sse_gateway::startup;
use statistics_stream::{
    EventId, Hub, HubSettings, Selection, history, internal_stream_response, upstream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for any condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The origin of the page that may read.
pub(crate) const ORIGIN: &str = "https://example.org";

/// A stand-in for stats-notifier.
pub(crate) struct Publisher {
    pub(crate) hub: Arc<Hub>,
    pub(crate) url: String,
    server: actix_web::dev::ServerHandle,
}

impl Publisher {
    /// Begins the term `nonce`. Sends heartbeats ten times a second.
    pub(crate) fn start(nonce: u64) -> Self {
        let internal_heartbeat = NonZeroDuration::from_millis(100);
        let hub = Hub::new(HubSettings { internal_heartbeat, ..HubSettings::default() });
        hub.start(Statistics::new(Version { nonce: Nonce::new(nonce), tick: 0 }));
        hub.mark_live();
        let served = web::Data::new(Arc::clone(&hub));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(served.clone())
                .route(upstream::PATH, web::get().to(stream))
                .route(history::PATTERN, web::get().to(page))
        });
        let server =
            server.workers(1).disable_signals().shutdown_timeout(1).bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { hub, url, server: handle }
    }

    /// Counts one event, and returns the version that includes it.
    pub(crate) fn count(&self, metric: Metric, time: &str) -> Version {
        let time: BucketTime = time.parse().unwrap();
        self.hub.mark_live();
        self.hub.advance(&Changes::from_iter([(metric, time, 1)])).unwrap()
    }

    /// Stops immediately.
    pub(crate) async fn stop(&self) {
        self.server.stop(false).await;
    }
}

async fn stream(request: HttpRequest, hub: web::Data<Arc<Hub>>) -> HttpResponse {
    internal_stream_response(&hub, statistics_stream::last_event_id(&request)).unwrap()
}

/// The history of a publisher: three transfers on each of the first 25 days of November. Seconds
/// are kept since the tenth. A query for minutes fails. A query for milliseconds gets as many as it
/// allows.
async fn page(request: HttpRequest) -> HttpResponse {
    let query = history::HistoryQuery::from_request(&request).unwrap();
    let since: BucketTime = "2026-11-10T00:00:00Z".parse().unwrap();
    match query.topic.unit {
        TimeUnit::Second if query.from.is_none_or(|from| from < since) => {
            let gone =
                Problem::new(StatusCode::GONE, history::NOT_KEPT, "Not kept any more", "too old");
            return gone.member("kept_since", since.to_string()).response();
        }
        TimeUnit::Minute => return HttpResponse::InternalServerError().finish(),
        _ => {}
    }
    if let (TimeUnit::Millisecond, Some(from)) = (query.topic.unit, query.from) {
        let times = (from.unix_milliseconds()..).take(query.limit);
        let times = times.map(|time| BucketTime::from_unix_milliseconds(time).unwrap());
        let buckets = times.map(|time| Bucket { time, count: 3 }).collect();
        let history::HistoryQuery { topic, to, .. } = query;
        return HttpResponse::Ok().json(history::HistoryPage {
            topic,
            from,
            to,
            buckets,
            next: None,
        });
    }
    let days = (1..=25).map(|day| format!("2026-11-{day:02}T00:00:00Z").parse().unwrap());
    let asked = |day: &BucketTime| {
        query.from.is_none_or(|from| *day >= from) && query.to.is_none_or(|to| *day < to)
    };
    let mut buckets: Vec<_> = days.filter(asked).map(|time| Bucket { time, count: 3 }).collect();
    let next = buckets.get(query.limit).map(|bucket| bucket.time);
    buckets.truncate(query.limit);
    let history::HistoryQuery { topic, from, to, .. } = query;
    let from = from.unwrap_or(BucketTime::MIN);
    HttpResponse::Ok().json(history::HistoryPage { topic, from, to, buckets, next })
}

/// A gateway in the test process.
pub(crate) struct Gateway {
    pub(crate) url: String,
    /// The address for other gateways.
    pub(crate) internal_url: String,
    pub(crate) hub: Arc<Hub>,
    pub(crate) running:
        tokio::task::JoinHandle<Result<(), service_kit::supervisor::SupervisorError>>,
    pub(crate) stop: Option<DropGuard>,
}

impl Gateway {
    /// Follows `upstream`, with the default settings.
    pub(crate) fn start(upstream: &str) -> Self {
        Self::start_with(upstream, |_| ())
    }

    /// Follows `upstream`, which may be several addresses with commas, with changed settings.
    pub(crate) fn start_with(upstream: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::load().unwrap();
        settings.http.port = 0;
        settings.internal.port = 0;
        settings.internal.secret_file = internal::secret_file();
        settings.upstream.addresses =
            upstream.split(',').map(|address| address.parse().unwrap()).collect();
        settings.stream.pace = Duration::from_millis(1);
        // `access.rs` tests who may read.
        settings.access.mode = AccessMode::Open;
        settings.cors.allowed_origins = vec![ORIGIN.to_owned()];
        change(&mut settings);
        let stop = CancellationToken::new();
        let hub = Hub::new(settings.stream.clone());
        let application = startup::build(&settings, Arc::clone(&hub), stop.clone()).unwrap();
        let url = format!("http://127.0.0.1:{}", application.port());
        let internal_url = format!("http://127.0.0.1:{}", application.internal_port());
        let running = tokio::spawn(application.run_until_stopped());
        Self { url, internal_url, hub, running, stop: Some(stop.drop_guard()) }
    }

    /// The URL of the stream of all topics.
    pub(crate) fn all_topics(&self) -> String {
        format!("{}{}", self.url, all_topics())
    }

    /// Connects a client that has no state.
    pub(crate) async fn follow(&self, path: &str) -> Client {
        Client::connect(&format!("{}{path}", self.url), None).await
    }

    /// Waits until the gateway has a version.
    pub(crate) async fn until(&self, version: Version) {
        until("the gateway must have the version", || {
            self.hub.with_state(Statistics::version).is_some_and(|held| held == version)
        })
        .await;
    }

    pub(crate) async fn get(&self, path: &str, accept: &str) -> reqwest::Response {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url));
        request.header("accept", accept).send().await.unwrap()
    }
}

/// The path of the stream of all topics.
pub(crate) fn all_topics() -> String {
    let topics: Vec<String> = Topic::all().map(|topic| format!("topic={topic}")).collect();
    format!("/statistics?{}", topics.join("&"))
}

/// The body of a response.
pub(crate) async fn json(response: reqwest::Response) -> serde_json::Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "{what}");
        tokio::task::yield_now().await;
    }
}

/// A client of a stream of several topics.
pub(crate) struct Client {
    events: BoxStream<'static, Result<Event, russe::Error>>,
    pub(crate) state: Option<Statistics>,
}

impl Client {
    /// Connects, and resumes from `state` if there is one.
    pub(crate) async fn connect(url: &str, state: Option<Statistics>) -> Self {
        let mut request = reqwest::Client::new().get(url);
        if let Some(state) = &state {
            request = request.header("last-event-id", event_id(url, state.version()));
        }
        Self { state, ..Self::from(request.send().await.unwrap()) }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let event = tokio::time::timeout(DEADLINE, self.events.next())
                .await
                .expect("an event must come");
            if let Event::Message(message) = event.expect("the stream must not end").unwrap() {
                return message;
            }
        }
    }

    /// Applies all messages until the next status, and returns their kinds.
    pub(crate) async fn until_status(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        loop {
            let message = self.next().await;
            if message.event.as_deref() == Some("status") {
                return kinds;
            }
            kinds.push(message.event.clone().unwrap().to_string());
            apply(&mut self.state, &message);
        }
    }

    /// Applies messages until the state has a version.
    pub(crate) async fn until(&mut self, version: Version) {
        while self.state.as_ref().map(Statistics::version) != Some(version) {
            let message = self.next().await;
            apply(&mut self.state, &message);
        }
    }
}

impl From<reqwest::Response> for Client {
    fn from(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { events: response.sse_stream(), state: None }
    }
}

/// The id of a version's frame at an address that names topics.
pub(crate) fn event_id(url: &str, version: Version) -> String {
    let topics = url.split(['?', '&']).filter_map(|part| part.strip_prefix("topic="));
    let selection = Selection::many(topics.map(|topic| topic.parse().unwrap()).collect()).unwrap();
    EventId::new(version, &selection).to_string()
}

/// Applies a message to the state of a client.
pub(crate) fn apply(state: &mut Option<Statistics>, message: &Message) {
    let kind = match message.event.as_deref() {
        Some("snapshot") => FrameKind::Snapshot,
        Some("patch") => FrameKind::Patch,
        _ => return,
    };
    let topics: Vec<TopicFrame> = serde_json::from_str(&message.data).unwrap();
    let EventId { version, .. } = message.id.as_ref().unwrap().parse().unwrap();
    let state = state.get_or_insert_with(|| Statistics::new(version));
    state.apply(&Frame { kind, version, topics }).unwrap();
}

/// All windows of a state.
pub(crate) fn content(state: &Statistics) -> Vec<TopicFrame> {
    Topic::all().map(|topic| state.snapshot(topic, usize::MAX)).collect()
}
