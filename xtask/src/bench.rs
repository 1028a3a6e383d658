//! `cargo xtask bench`: figures as ratios within one run, because machines differ and are noisy.
//!
//! Invariant: what is compared takes turns on the same Postgres, which keeps commits as in
//! production (`fsync` and `synchronous_commit` on). No figure is judged here: a bench prints, a
//! reader decides. docs/performance.md says what the figures mean.

mod access;
mod backfill;
mod fanout;
mod figures;
mod fsync;
mod ingest;
mod load;
mod triggers;
mod usage;
mod wait;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use local_stack::postgres::{Cluster, ClusterSettings, Installation};
use local_stack::stack::{Replicas, ServiceKind, Stack, Variable, built_programs};
use local_stack::test_database::http_client;
use postgres_kit::locks::GATE;
use serde::Serialize;
use tokio_postgres::{Client, NoTls};

use self::figures::Spread;
use crate::command::target_folder;
use crate::install::Installer;
use crate::{ephemeral_stack, postgres, programs};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Measure {
    /// Compare the throughput of POST /items between the build that `up` runs and a release build.
    Profile(ProfileOptions),
    /// Measure what clients notice of one statement on very many events of past times.
    Backfill(backfill::BackfillOptions),
    /// Compare what ingest-api and the triggers store in a second with plain SQL and COPY.
    Ingest(ingest::IngestOptions),
    /// Measure what one delivery to one of many clients costs sse-gateway.
    Fanout(fanout::FanoutOptions),
    /// Measure what keys cost, next to open services, and what a flood of wrong keys does.
    Access(access::AccessOptions),
    /// Measure what the trigger for INSERT and its parts cost a producer.
    Triggers(triggers::TriggersOptions),
}

/// How long to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct ProfileOptions {
    /// Rounds; each measures both builds once.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load for each build in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Keep-alive connections of the load generator.
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

/// A build of the services, its running stack, and what was measured.
struct MeasuredBuild {
    name: &'static str,
    stack: Stack,
    requests_per_second: Vec<f64>,
}

/// The cluster and the programs to measure with.
struct Bench<'a> {
    installation: &'a Installation,
    cluster: &'a Cluster,
    settings: &'a ClusterSettings,
    /// The folder of the services' programs.
    programs: PathBuf,
}

/// Runs a bench.
pub(crate) async fn run(what: Measure, installer: Installer) -> anyhow::Result<()> {
    let is_json = match &what {
        Measure::Ingest(options) => options.json,
        Measure::Fanout(options) => options.json,
        Measure::Access(options) => options.json,
        Measure::Profile(_) | Measure::Backfill(_) | Measure::Triggers(_) => false,
    };
    if !is_json {
        return measure(&what, installer).await.map(drop);
    }
    // What is printed on the way goes to the standard error, so that the document is alone.
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    let document = measure(&what, installer).await?;
    writeln!(std::fs::File::from(output), "{document}")?;
    Ok(())
}

/// Runs the benches for a moment with the build that `up` uses. Judges no times: shows that they
/// work.
pub(crate) async fn test(installer: Installer) -> anyhow::Result<()> {
    println!("== short benches");
    measure(&Measure::Ingest(ingest::IngestOptions::short()), installer).await?;
    measure(&Measure::Fanout(fanout::FanoutOptions::short()), installer).await?;
    measure(&Measure::Access(access::AccessOptions::short()), installer).await?;
    Ok(())
}

/// Prints what was measured, and returns it as JSON.
async fn measure(what: &Measure, installer: Installer) -> anyhow::Result<String> {
    let (needed, is_release): (&[(&str, &'static str)], _) = match what {
        Measure::Profile(_) => (&[("wrk", "wrk")], true),
        Measure::Backfill(_) | Measure::Triggers(_) => (&[], false),
        Measure::Ingest(options) => (&[("wrk", "wrk"), ("curl", "curl")], !options.short),
        Measure::Fanout(options) => (&[], !options.short),
        Measure::Access(options) if options.short => (&[("wrk", "wrk")], false),
        Measure::Access(_) => (&[("wrk", "wrk"), ("valgrind", "valgrind")], true),
    };
    installer.programs(needed)?;
    if is_release {
        programs::services_for_release().await?;
    }
    let needs_debug = !is_release && !matches!(what, Measure::Triggers(_));
    if needs_debug || matches!(what, Measure::Profile(_)) {
        programs::services().await?;
    }
    let programs = if is_release { target_folder()?.join("release") } else { built_programs()? };
    let installation = postgres::ensure(installer)?;
    let settings = ClusterSettings { durable: true, ..postgres::temporary_cluster("bench")? };
    postgres::with_cluster(&installation, &settings, async |cluster| {
        let bench = Bench { installation: &installation, cluster, settings: &settings, programs };
        match what {
            Measure::Profile(options) => compare(&bench, options).await.map(|()| String::new()),
            Measure::Backfill(options) => {
                backfill::run(&bench, options).await.map(|()| String::new())
            }
            Measure::Triggers(options) => {
                triggers::run(&bench, options).await.map(|()| String::new())
            }
            Measure::Ingest(options) => json(&ingest::run(&bench, options).await?),
            Measure::Fanout(options) => json(&fanout::run(&bench, options).await?),
            Measure::Access(options) => json(&access::run(&bench, options).await?),
        }
    })
    .await
}

fn json(report: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)?)
}

impl Bench<'_> {
    /// Starts the services on a new database.
    async fn start(&self, database: &str, variables: &[Variable<'_>]) -> anyhow::Result<Stack> {
        let stack = ephemeral_stack::start_with(
            self.settings,
            database,
            Replicas::ONE,
            &self.programs,
            variables,
        )
        .await?;
        ephemeral_stack::store_rows(&stack.url(ServiceKind::IngestApi)).await?;
        Ok(stack)
    }

    /// Connects to a database as the superuser.
    async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.settings.port).dbname(database);
        config.user(&self.settings.user).password(&self.settings.password);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// CPU seconds that Postgres needs before pgbench's load is steady: for the logins of its
    /// clients, and for the first run of the statement in each session.
    async fn start_cpu(
        &self,
        database: &str,
        statement: &str,
        clients: u32,
    ) -> anyhow::Result<f64> {
        let before = usage::postgres_cpu(self.cluster)?;
        load::pgbench_once(self.installation, self.settings, database, statement, clients).await?;
        Ok(usage::postgres_cpu(self.cluster)? - before)
    }
}

/// Holds the gate with this session, as a leader does under load: the triggers do not notify.
async fn shut_gate(client: &Client) -> anyhow::Result<()> {
    let shut = format!("SELECT pg_advisory_lock({}, {})", GATE.class, GATE.purpose);
    Ok(client.batch_execute(&shut).await?)
}

/// Posts items, one after another, with a pause after each.
async fn post(ingest_api: String, pause: Duration) -> anyhow::Result<()> {
    let client = http_client().no_proxy().build()?;
    let body = format!("{{\"base_item_id\":\"{}\"}}", ephemeral_stack::BASE_ITEM);
    loop {
        let request = client.post(format!("{ingest_api}/items")).body(body.clone());
        let request = request.header("content-type", "application/json");
        request.send().await?.error_for_status()?;
        tokio::time::sleep(pause).await;
    }
}

async fn compare(bench: &Bench<'_>, options: &ProfileOptions) -> anyhow::Result<()> {
    let script = bench.settings.folder.join("post-items.lua");
    load::write_script(&script)?;
    let mut builds = Vec::new();
    for (name, programs) in [("up", built_programs()?), ("release", bench.programs.clone())] {
        let stack =
            Bench { programs, ..*bench }.start(&format!("newcycle_bench_{name}"), &[]).await?;
        builds.push(MeasuredBuild { name, stack, requests_per_second: Vec::new() });
    }
    for round in 1..=options.rounds {
        println!("== round {round} of {}", options.rounds);
        for build in &mut builds {
            let url = build.stack.url(ServiceKind::IngestApi);
            let load = load::wrk(&script, &url, options.connections, options.seconds).await?;
            println!("{:>8}: {:.0} requests/s", build.name, load.rate);
            build.requests_per_second.push(load.rate);
        }
    }
    println!(
        "== POST /items, {} connections, medians of {} rounds",
        options.connections, options.rounds
    );
    let mut medians = Vec::new();
    for build in builds {
        let Spread { median, lowest, highest } =
            Spread::of(&build.requests_per_second).context("there must be at least one round")?;
        println!(
            "{:>8}: {median:.0} requests/s (lowest {lowest:.0}, highest {highest:.0})",
            build.name
        );
        medians.push(median);
        ephemeral_stack::stop(build.stack).await?;
    }
    if let [up, release] = medians[..] {
        println!("up ÷ release: {:.2}", up / release);
    }
    Ok(())
}
