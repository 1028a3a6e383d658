//! What services depend on and share: links, queues and clocks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_stack::stack::{Instance, Part};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::fault::{EFFECT, Effect, Violation, for_a_while, until_in_flight};
use crate::link::{Link, Mode};
use crate::system::{MAX_CLIENTS, PATIENCE, System};
use crate::wait::until;
use crate::writers::{self, World};

/// Trouble on a link that comes with other faults and lasts for a while, whatever they do. A fault must bear it, so it is
/// shorter than what anything waits for.
#[derive(Debug)]
pub(super) struct Companion {
    link: Arc<Link>,
    before: (u64, u64),
    lifted: AbortOnDropHandle<()>,
}

impl Companion {
    /// Begins, on any link.
    ///
    /// # Errors
    /// There are no links.
    pub(super) fn begin(system: &System, random: &mut StdRng) -> anyhow::Result<Self> {
        let slow = Duration::from_millis(random.random_range(20..200));
        let mode = *[Mode::Cut, Mode::Stalled, Mode::Slow(slow)].choose(random).unwrap_or(&Mode::Cut);
        let time = Duration::from_millis(random.random_range(500..4_500));
        let link = Arc::clone(system.links.choose(random).context("there are no links")?);
        let before = link.effects();
        link.set(mode);
        let troubled = Arc::clone(&link);
        let lifted = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(time).await;
            troubled.set(Mode::Open);
        }));
        Ok(Self { link, before, lifted })
    }

    /// Waits for its end. Says what it did, like any fault.
    ///
    /// # Errors
    /// None does.
    pub(super) async fn end(self) -> anyhow::Result<Option<String>> {
        self.lifted.await.context("a link is still in trouble")?;
        Ok(effect(&self.link, self.before))
    }
}

/// What trouble did to a link since `before`.
fn effect(link: &Link, before: (u64, u64)) -> Option<String> {
    let (broken, held) = link.effects();
    let (broken, held) = (broken - before.0, held - before.1);
    let name = &link.name;
    ((broken, held) != (0, 0)).then(|| format!("{name}: {broken} connections broken, {held} bytes held back"))
}

/// For how long a link must have been silent to be one that nobody uses, as that from a gateway to the standby.
const IDLE: Duration = Duration::from_secs(2);

/// Makes trouble on one link that is in use until it has had an effect, and for a while.
pub(super) async fn trouble(
    system: &mut System,
    world: &World,
    mode: Mode,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    let mut open: Vec<_> = system.links.iter().filter(|link| link.is_open()).collect();
    open.shuffle(random);
    until_in_flight(&world.history).await?;
    for link in open {
        let before = link.effects();
        link.set(mode);
        if until(IDLE, async || Ok(effect(link, before))).await?.is_none() {
            link.set(Mode::Open);
            continue;
        }
        match mode {
            Mode::Reset(_) | Mode::Open => {}
            // Longer than the silence that anybody bears, now and then.
            Mode::Cut | Mode::Stalled | Mode::Slow(_) => for_a_while(random, 100..4_500).await,
        }
        let whole = effect(link, before);
        link.set(Mode::Open);
        return Ok(whole.map(Into::into));
    }
    Ok(None)
}

/// More uploads than are taken at a time, none of which ends before all have begun.
pub(super) async fn fill_uploads(
    system: &System,
    world: &World,
    instance: Instance,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url = format!("{}/items", system.stack.url(instance));
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
    Ok(refused.then(|| format!("{} uploads were answered 503", also + 1).into()))
}

pub(super) async fn fill_clients(
    system: &System,
    world: &World,
    instance: Instance,
) -> anyhow::Result<Effect> {
    until_in_flight(&world.history).await?;
    let url = format!("{}/statistics?topic=transfers/year", system.stack.url(instance));
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..MAX_CLIENTS + 16 {
        // A gateway that does not listen yet has not refused anybody.
        let Ok(stream) = reqwest::Client::new().get(&url).timeout(EFFECT).send().await else { continue };
        refused += usize::from(stream.status() == 503);
        streams.push(stream);
    }
    Ok((refused > 0).then(|| format!("{refused} clients were answered 503").into()))
}

pub(super) async fn step_clock(
    system: &mut System,
    world: &World,
    instance: Instance,
    random: &mut StdRng,
) -> anyhow::Result<Effect> {
    const DAY: i64 = 86_400;
    let seconds = random.random_range(3_600..3 * DAY) * if random.random_bool(0.5) { 1 } else { -1 };
    let off =
        |then: OffsetDateTime| (then - OffsetDateTime::now_utc()).whole_seconds().abs() > seconds.abs() / 2;
    let clocks = system.clocks.as_ref().context("there are no clocks")?;
    until_in_flight(&world.history).await?;
    clocks.step(instance, seconds)?;
    let stepped = if instance.part == Part::IngestApi {
        // What it reads the date for.
        let item = writers::probe(world, instance.number - 1, PATIENCE).await;
        let item =
            item.map_err(|error| Violation(format!("{instance}, whose clock was stepped: {error:#}")))?;
        off(system.database.created_at(item).await?.into())
    } else {
        until(EFFECT, async || Ok(date(system, instance).await.filter(|date| off(*date)))).await?.is_some()
    };
    for_a_while(random, 100..1_500).await;
    system.clocks.as_ref().context("there are no clocks")?.step(instance, 0)?;
    Ok(stepped.then(|| format!("{instance} was off by {seconds} s").into()))
}

/// The date as a service knows it, by which it dates its answers.
async fn date(system: &System, instance: Instance) -> Option<OffsetDateTime> {
    let url = format!("{}/livez", system.stack.internal_url(instance));
    let answer = reqwest::Client::new().get(url).timeout(EFFECT).send().await.ok()?;
    OffsetDateTime::parse(answer.headers().get("date")?.to_str().ok()?, &Rfc2822).ok()
}
