//! Follows a stream of statistics into a hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ApplyError, Version};
use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode};
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

use crate::decoder::{DecodeError, EventDecoder, Told};
use crate::hub::Hub;
use crate::status::Upstream;

/// The path of the stream of all topics.
pub const PATH: &str = "/internal/v1/stream";

/// Whom to follow, and how patiently.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// The addresses that may have the stream, such as `http://127.0.0.1:8083`, tried in turn.
    pub addresses: Vec<String>,
    /// After how long without a byte the upstream is given up, and the numbers are stale.
    pub silence: Duration,
    /// How long it may take until an upstream answers: one that is frozen accepts connections, but says nothing.
    pub connect_timeout: Duration,
    /// The wait before the next address is tried; doubled, up to eight times this, each time that all have been
    /// tried and none has the stream.
    pub retry: Duration,
    /// The largest event taken, in bytes.
    pub max_event_bytes: usize,
}

/// Why an upstream was given up.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    #[error(transparent)]
    Misfit(#[from] ApplyError),
    #[error("the stream ended")]
    Ended,
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

/// Follows one of the addresses after another into `hub`, until asked to stop.
///
/// # Errors
/// The HTTP client cannot be made.
pub async fn follow(
    hub: Arc<Hub>,
    settings: UpstreamSettings,
    shutdown: CancellationToken,
) -> Result<(), reqwest::Error> {
    let client =
        Client::builder().connect_timeout(settings.connect_timeout).read_timeout(settings.silence).build()?;
    let mut position = Position { version: None, heard: Instant::now() };
    let mut wait = settings.retry;
    for (place, address) in settings.addresses.iter().enumerate().cycle() {
        let connected = Instant::now();
        let error = tokio::select! {
            Err(error) = follow_one(&hub, &client, address, &settings, &mut position) => error,
            () = shutdown.cancelled() => return Ok(()),
        };
        if matches!(error, UpstreamError::Misfit(_) | UpstreamError::Unreadable(DecodeError::Data(_))) {
            // Whatever the reason, the whole state will fit.
            position.version = None;
        }
        // A leader that hands over within that time is no reason to alarm anybody. The hub's own beats may have said so
        // sooner.
        if position.heard.elapsed() >= settings.silence {
            hub.stale();
        }
        tracing::warn!(upstream.address = address, error = %error, "lost the upstream; trying the next address");
        if position.heard > connected {
            wait = settings.retry;
        } else if place + 1 == settings.addresses.len() {
            wait = (wait * 2).min(settings.retry * 8);
        }
        let jittered = wait.mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// How far the stream was followed.
struct Position {
    version: Option<Version>,
    /// When the last event came.
    heard: Instant,
}

async fn follow_one(
    hub: &Arc<Hub>,
    client: &Client,
    address: &str,
    settings: &UpstreamSettings,
    position: &mut Position,
) -> Result<std::convert::Infallible, UpstreamError> {
    let mut request = client.get(format!("{address}{PATH}")).header(ACCEPT, "text/event-stream");
    if let Some(version) = position.version {
        request = request.header("last-event-id", version.to_string());
    }
    let answer = tokio::time::timeout(settings.connect_timeout, request.send()).await;
    let response = answer.map_err(|_| UpstreamError::Silent(settings.connect_timeout))??;
    if response.status() != StatusCode::OK {
        return Err(UpstreamError::Refused(response.status()));
    }
    let body = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
    let mut events = FramedRead::new(body, EventDecoder::new(settings.max_event_bytes));
    loop {
        // The client's own timeout is for each read, not for an event: a whole state takes its time on a slow line, and
        // would never arrive where it is begun again and again.
        let told = events.next().await.ok_or(UpstreamError::Ended)??;
        take(hub, &told, &mut position.version)?;
        position.heard = Instant::now();
    }
}

fn take(hub: &Arc<Hub>, told: &Told, version: &mut Option<Version>) -> Result<(), ApplyError> {
    match told {
        Told::Frame(frame) => {
            hub.apply(frame)?;
            *version = Some(frame.version);
        }
        Told::Status(Upstream::Live) => hub.live(),
        Told::Status(Upstream::Stale) => hub.stale(),
        Told::Unknown => {}
    }
    Ok(())
}
