//! What services depend on and share: links, queues and clocks.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use local_stack::stack::Part;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fault::{EFFECT, Effect, for_a_while, until_in_flight};
use crate::link::Mode;
use crate::system::{MAX_CLIENTS, PATIENCE, System};
use crate::wait::until;
use crate::writers::{self, World};

/// Makes trouble on one link until it has had an effect, and for a while.
pub(super) async fn trouble(
    system: &mut System,
    world: &World,
    mode: Mode,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let link = system.links.choose(random).context("there are no links")?;
    until_in_flight(&world.history).await?;
    let before = link.effects();
    link.set(mode);
    let effects = || {
        let (broken, held) = link.effects();
        (broken - before.0, held - before.1)
    };
    let effect = until(EFFECT, async || Ok(Some(effects()).filter(|effects| *effects != (0, 0)))).await?;
    match mode {
        Mode::Reset(_) | Mode::Open => {}
        // Longer than the silence that anybody bears, now and then.
        Mode::Cut | Mode::Stalled | Mode::Slow(_) => for_a_while(random, 100..4_500).await,
    }
    let (broken, held) = effects();
    link.set(Mode::Open);
    let name = &link.name;
    Ok(effect.map(|_| format!("{name}: {broken} connections broken, {held} bytes held back")))
}

/// More uploads than are taken at a time, none of which ends before all have begun.
pub(super) async fn fill_uploads(system: &System, world: &World, number: usize) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url = format!("{}/items", system.stack.url(Part::IngestApi.replica(number)));
    let end = CancellationToken::new();
    let mut uploads = JoinSet::new();
    for _ in 0..32 {
        let end = end.clone();
        // A first piece without a row, and no end yet.
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("\n")]);
        let rest = futures_util::stream::once(async move {
            end.cancelled().await;
            Ok("\n")
        });
        let body = reqwest::Body::wrap_stream(futures_util::StreamExt::chain(first, rest));
        let request = reqwest::Client::new().post(&url).header("content-type", "application/x-ndjson");
        let request = request.body(body).timeout(Duration::from_secs(20));
        uploads.spawn(async move { request.send().await.map_or(0, |answer| answer.status().as_u16()) });
    }
    // Those that are not taken are answered while the others wait.
    let first = tokio::time::timeout(EFFECT, uploads.join_next()).await;
    let refused = matches!(first, Ok(Some(Ok(503))));
    end.cancel();
    let statuses = uploads.join_all().await;
    let also = statuses.iter().filter(|status| **status == 503).count();
    Ok(refused.then(|| format!("{} uploads were answered 503", also + 1)))
}

pub(super) async fn fill_clients(system: &System, world: &World, number: usize) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url =
        format!("{}/statistics?topic=transfers/year", system.stack.url(Part::SseGateway.replica(number)));
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..MAX_CLIENTS + 16 {
        let stream = reqwest::Client::new().get(&url).timeout(EFFECT).send().await?;
        refused += usize::from(stream.status() == 503);
        streams.push(stream);
    }
    Ok((refused > 0).then(|| format!("{refused} clients were answered 503")))
}

pub(super) async fn step_clock(
    system: &mut System,
    world: &World,
    number: usize,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    const DAY: i64 = 86_400;
    let seconds = random.random_range(3_600..3 * DAY) * if random.random_bool(0.5) { 1 } else { -1 };
    let clocks = system.clocks.as_ref().context("there are no clocks")?;
    until_in_flight(&world.history).await?;
    clocks.step(number, seconds)?;
    let item = writers::probe(world, number - 1, PATIENCE).await;
    for_a_while(random, 100..1_500).await;
    clocks.step(number, 0)?;
    let item = item?;
    let created = system.database.created_at(item).await?;
    let now = SystemTime::now();
    let off = now.duration_since(created).or_else(|_| created.duration_since(now)).unwrap_or_default();
    let effect = off.as_secs() > seconds.unsigned_abs() / 2;
    Ok(effect.then(|| format!("ingest-api {number} was off by {seconds} s")))
}
