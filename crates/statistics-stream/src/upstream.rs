//! Follows the statistics stream of an upstream into a hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ApplyError, Version};
use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use service_kit::address::UpstreamAddress;
use service_kit::client::{self, InternalClient};
use service_kit::failure::one_line;
use service_kit::internal::InternalSecrets;
use service_kit::settings::NonZeroDuration;
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use crate::decoder::{DecodeError, EventDecoder, StreamEvent};
use crate::hub::Hub;
use crate::settings::UpstreamSettings;
use crate::status::UpstreamStatus;

/// The path of the stream of all topics.
pub const PATH: &str = "/internal/v1/stream";

/// Why an upstream was given up. The next address is tried.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    #[error(transparent)]
    DoesNotFit(#[from] ApplyError),
    #[error("the stream ended")]
    Ended,
    #[error("no answer within {0}")]
    Silent(NonZeroDuration),
}

impl From<reqwest::Error> for UpstreamError {
    /// The URL is left out: it is logged as the address, without its credentials.
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

/// Follows one address after another into `hub`, until that is closed: a hub that drains goes on
/// publishing until its last stream has ended.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn follow(
    hub: Arc<Hub>,
    settings: UpstreamSettings,
    secrets: InternalSecrets,
) -> Result<(), reqwest::Error> {
    let builder = client::internal()
        .connect_timeout(settings.connect_timeout.get())
        .read_timeout(settings.read_timeout.get());
    let client = InternalClient::new(builder, secrets)?;
    let mut position = Position { version: None, last_event: Instant::now() };
    let mut delays = RetryDelays::new(settings.retry_delay.get());
    for (index, address) in settings.addresses.iter().enumerate().cycle() {
        let connected = Instant::now();
        let error = tokio::select! {
            Err(error) = follow_one(&hub, &client, address, &settings, &mut position) => error,
            () = hub.closed.cancelled() => return Ok(()),
        };
        if matches!(
            error,
            UpstreamError::DoesNotFit(_) | UpstreamError::Unreadable(DecodeError::Data(_))
        ) {
            // A snapshot fits any state.
            position.version = None;
        }
        // A handover to another leader within that time does not make the counts stale. (The hub's
        // own heartbeats may have marked them stale before.)
        if position.last_event.elapsed() >= settings.read_timeout.get() {
            hub.mark_stale();
        }
        tracing::warn!(upstream.address = %address, error = %one_line(&error), "lost the upstream; trying the next address");
        if position.last_event > connected {
            delays.reset();
        }
        let delay = delays.next(index + 1 == settings.addresses.len());
        let jittered = delay.mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = hub.closed.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// The delays before the next address is tried. They grow only between rounds: a new leader is at
/// one of the addresses, and each of them must not cost the delay of a long outage.
#[derive(Debug)]
struct RetryDelays {
    first: Duration,
    between_rounds: Duration,
}

impl RetryDelays {
    fn new(first: Duration) -> Self {
        Self { first, between_rounds: first }
    }

    /// The delay after an attempt, which may have been the last one of a round.
    fn next(&mut self, ends_round: bool) -> Duration {
        if !ends_round {
            return self.first;
        }
        let delay = self.between_rounds;
        self.between_rounds = (delay * 2).min(self.first * 8);
        delay
    }

    /// Begins again, after an upstream was followed.
    fn reset(&mut self) {
        *self = Self::new(self.first);
    }
}

/// How far the stream has been followed.
struct Position {
    version: Option<Version>,
    last_event: Instant,
}

async fn follow_one(
    hub: &Arc<Hub>,
    client: &InternalClient,
    address: &UpstreamAddress,
    settings: &UpstreamSettings,
    position: &mut Position,
) -> Result<std::convert::Infallible, UpstreamError> {
    let mut request =
        client.request(Method::GET, address, PATH).header(ACCEPT, "text/event-stream");
    if let Some(version) = position.version {
        request = request.header("last-event-id", version.to_string());
    }
    let timeout = settings.connect_timeout;
    let answer = tokio::time::timeout(timeout.get(), request.send()).await;
    let response = answer.map_err(|_| UpstreamError::Silent(timeout))??;
    if response.status() != StatusCode::OK {
        return Err(UpstreamError::Refused(response.status()));
    }
    let failed = |error: reqwest::Error| std::io::Error::other(error.without_url());
    let body = StreamReader::new(response.bytes_stream().map_err(failed));
    let mut events = FramedRead::new(body, EventDecoder::new(settings.max_event_bytes));
    loop {
        // The client's timeout is per read, not per event. A whole state takes long on a slow line,
        // and would never arrive if it were started again and again.
        let event = events.next().await.ok_or(UpstreamError::Ended)??;
        apply_event(hub, &event, &mut position.version)?;
        position.last_event = Instant::now();
    }
}

fn apply_event(
    hub: &Arc<Hub>,
    event: &StreamEvent,
    version: &mut Option<Version>,
) -> Result<(), ApplyError> {
    match event {
        StreamEvent::Frame(frame) => {
            hub.apply(frame)?;
            *version = Some(frame.version);
        }
        StreamEvent::Status(status) => {
            let age = status.age();
            hub.set_reported_age(age);
            match status.upstream {
                UpstreamStatus::Live => hub.mark_live_for(age.unwrap_or_default()),
                UpstreamStatus::Stale => {
                    hub.mark_stale_for(age.unwrap_or_default().max(status.duration()));
                }
            }
        }
        StreamEvent::Unknown => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_outage_makes_the_delay_longer_between_rounds_only() {
        let mut delays = RetryDelays::new(Duration::from_millis(250));
        let mut round = || [delays.next(false), delays.next(true)].map(|delay| delay.as_millis());
        let rounds = [(); 5].map(|()| round());
        assert_eq!(rounds, [[250, 250], [250, 500], [250, 1_000], [250, 2_000], [250, 2_000]]);
        delays.reset();
        assert_eq!(delays.next(true).as_millis(), 250);
    }
}
