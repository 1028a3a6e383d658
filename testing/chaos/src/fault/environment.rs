//! Faults of what the services depend on: links, queues and clocks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_stack::link::{Link, LinkEffects, LinkMode};
use local_stack::stack::{Instance, ServiceKind};
use local_stack::test_database::client;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::effect::{EFFECT_TIMEOUT, FaultEffect, Violation, linger};
use crate::system::{MAX_CLIENTS, SERVICE_TIMEOUT, System};
use crate::wait::until;
use crate::world::TestWorld;

/// The number of clients that do not read their pages.
const SLOW_PAGES: usize = 30;

/// A fault of a link that goes on during another fault. It is shorter than any timeout that the
/// other fault waits for.
#[derive(Debug)]
pub(super) struct BackgroundFault {
    link: Arc<Link>,
    before: LinkEffects,
    lifted: AbortOnDropHandle<()>,
}

impl BackgroundFault {
    /// Begins on a random link.
    pub(super) fn begin(system: &System, random: &mut StdRng) -> anyhow::Result<Self> {
        let delay = Duration::from_millis(random.random_range(20..200));
        let modes = [LinkMode::Cut, LinkMode::Stalled, LinkMode::Slow(delay)];
        let mode = *modes.choose(random).unwrap_or(&LinkMode::Cut);
        let duration = Duration::from_millis(random.random_range(500..4_500));
        let link = Arc::clone(system.wiring.links.choose(random).context("there are no links")?);
        let before = link.effects();
        link.set(mode);
        let disturbed = Arc::clone(&link);
        let lifted = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            disturbed.set(LinkMode::Open);
        }));
        Ok(Self { link, before, lifted })
    }

    /// Waits for its end. Returns its effect in words, if it had one.
    pub(super) async fn end(self) -> anyhow::Result<Option<String>> {
        self.lifted.await.context("a fault of a link was not lifted")?;
        Ok(effect_since(&self.link, self.before))
    }
}

/// What a link's fault did since `before`, in words.
fn effect_since(link: &Link, before: LinkEffects) -> Option<String> {
    let now = link.effects();
    let broken = now.broken_connections - before.broken_connections;
    let delayed = now.delayed_bytes - before.delayed_bytes;
    let name = &link.name;
    (now != before).then(|| format!("{name}: {broken} connections broken, {delayed} bytes delayed"))
}

/// A link without an effect for this long is not in use, such as the one from a gateway to the
/// standby.
const IDLE: Duration = Duration::from_secs(2);

/// Puts one link that is in use into `mode` until that has had an effect, and for a while after
/// that.
pub(super) async fn disturb_link(
    system: &mut System,
    mode: LinkMode,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let mut open: Vec<_> = system.wiring.links.iter().filter(|link| link.is_open()).collect();
    open.shuffle(random);
    for link in open {
        let before = link.effects();
        link.set(mode);
        if !until(IDLE, async || Ok(link.effects() != before)).await? {
            link.set(LinkMode::Open);
            continue;
        }
        match mode {
            LinkMode::Reset(_) | LinkMode::Hung | LinkMode::HungFrom(_) | LinkMode::Open => {}
            // Sometimes longer than any service waits for its peer.
            LinkMode::Cut | LinkMode::Stalled | LinkMode::Slow(_) => {
                linger(random, 100..4_500).await;
            }
        }
        let whole = effect_since(link, before);
        link.set(LinkMode::Open);
        return Ok(whole.map(Into::into));
    }
    Ok(None)
}

/// Opens more uploads with zstd than ingest-api accepts. None of them ends before all have begun.
pub(super) async fn fill_uploads(
    system: &System,
    instance: Instance,
) -> anyhow::Result<Option<FaultEffect>> {
    let url = format!("{}/items", system.stack.url(instance));
    let end = CancellationToken::new();
    let mut uploads = JoinSet::new();
    for _ in 0..64 {
        let end = end.clone();
        // The beginning of a frame, and when all have begun, what ends the upload with a 400.
        let magic = b"\x28\xb5\x2f\xfd".as_slice();
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(magic)]);
        let rest = futures_util::stream::once(async move {
            end.cancelled().await;
            Ok(b"\n".as_slice())
        });
        let body = reqwest::Body::wrap_stream(futures_util::StreamExt::chain(first, rest));
        let request = client().post(&url).header("content-type", "application/x-ndjson");
        let request = request.header("content-encoding", "zstd");
        let request = request.body(body).timeout(Duration::from_secs(20));
        uploads.spawn(
            async move { request.send().await.map_or(0, |answer| answer.status().as_u16()) },
        );
    }
    // Refused uploads get their response while the others are still open.
    let first = tokio::time::timeout(EFFECT_TIMEOUT, uploads.join_next()).await;
    let refused = matches!(first, Ok(Some(Ok(503))));
    end.cancel();
    let statuses = uploads.join_all().await;
    let more = statuses.iter().filter(|status| **status == 503).count();
    Ok(refused.then(|| format!("{} uploads got a 503", more + 1).into()))
}

pub(super) async fn fill_clients(
    system: &System,
    instance: Instance,
) -> anyhow::Result<Option<FaultEffect>> {
    let url = format!("{}/statistics?topic=transfers/year", system.stack.url(instance));
    let mut streams = Vec::new();
    let mut refused = 0;
    for _ in 0..MAX_CLIENTS + 16 {
        // A gateway that does not listen yet has not refused a client.
        let request = client().get(&url).timeout(EFFECT_TIMEOUT);
        let Ok(stream) = request.send().await else { continue };
        refused += usize::from(stream.status() == 503);
        streams.push(stream);
    }
    Ok((refused > 0).then(|| format!("{refused} clients got a 503").into()))
}

/// Requests the largest pages of a gateway, and reads nothing but the heads of the answers.
pub(super) async fn slow_pages(
    system: &System,
    instance: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    let url = format!("{}/statistics/item-creation/second", system.stack.url(instance));
    let mut unread = Vec::new();
    for _ in 0..SLOW_PAGES {
        let request = client().get(&url).header("accept", "application/json");
        if let Ok(page) = request.timeout(EFFECT_TIMEOUT).send().await {
            unread.push(page);
        }
    }
    linger(random, 0..3_000).await;
    let clients = unread.len();
    Ok((clients > 0).then(|| format!("{clients} clients did not read their pages").into()))
}

pub(super) async fn step_clock(
    system: &mut System,
    world: &TestWorld,
    instance: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Option<FaultEffect>> {
    const DAY: i64 = 86_400;
    let seconds =
        random.random_range(3_600..3 * DAY) * if random.random_bool(0.5) { 1 } else { -1 };
    let is_off = |then: OffsetDateTime| {
        (then - OffsetDateTime::now_utc()).whole_seconds().abs() > seconds.abs() / 2
    };
    let clocks = system.clocks.as_ref().context("there are no clocks")?;
    clocks.step(instance, seconds)?;
    let stepped = if instance.service == ServiceKind::IngestApi {
        // ingest-api uses its clock for the time of an event.
        let item = world.probe(instance.number - 1, SERVICE_TIMEOUT).await;
        let item = item.map_err(|error| {
            Violation(format!("{instance} with its clock off by {seconds} s: {error:#}"))
        })?;
        is_off(system.database.created_at(item).await?.into())
    } else {
        let date_is_off = async || Ok(response_date(system, instance).await.is_some_and(is_off));
        until(EFFECT_TIMEOUT, date_is_off).await?
    };
    linger(random, 100..1_500).await;
    system.clocks.as_ref().context("there are no clocks")?.step(instance, 0)?;
    Ok(stepped.then(|| format!("{instance} was off by {seconds} s").into()))
}

/// The `Date` header of a service's responses, which comes from its clock.
async fn response_date(system: &System, instance: Instance) -> Option<OffsetDateTime> {
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let response = reqwest::Client::new().get(url).timeout(EFFECT_TIMEOUT).send().await.ok()?;
    OffsetDateTime::parse(response.headers().get("date")?.to_str().ok()?, &Rfc2822).ok()
}
