//! `cargo xtask bench triggers`: what the trigger for INSERT costs a producer, and what its parts
//! cost, one by one.
//!
//! Each variant is a table like `items` with a trigger and a log of its own. The variant `ours` is
//! the text of the migration itself; the others differ from it in what their names say. The
//! logs are not read, and another session holds the gate, as a leader does under load: so the
//! figures are those of the triggers alone.

use anyhow::Context;
use local_stack::test_database::TestDatabase;
use tokio_postgres::Client;

use super::figures::Spread;
use super::{Bench, load, usage};
use crate::ephemeral_stack::BASE_ITEM;

/// How long to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct TriggersOptions {
    /// Rounds; each measures every variant once with one client and once with many.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
}

/// The number of clients in the second measurement of a variant.
const MANY_CLIENTS: u32 = 64;

const DATABASE: &str = "newcycle_bench_triggers";

/// The migration that has the trigger.
const MIGRATION: &str = include_str!("../../../migrations/V2__counts.sql");

/// How the functions for UPDATE and DELETE are declared.
const FIXED_PATH: &str = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp";

/// The log with the name of the metric as a text, and checks of what is written.
const CHECKED_LOG: &str = "CREATE TABLE public.count_log (
    xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    metric text NOT NULL CHECK (metric IN ('item-creation', 'transfers')),
    \"time\" timestamptz NOT NULL,
    delta bigint NOT NULL CHECK (delta <> 0)
)";

const GROUPED: &str = "BEGIN
    INSERT INTO public.count_log (\"time\", delta, metric)
    SELECT pg_catalog.date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'),
           pg_catalog.count(*),
           'item-creation'
    FROM added
    GROUP BY 1;
    GET DIAGNOSTICS logged = ROW_COUNT;
";

const ROW: &str = "BEGIN
    INSERT INTO public.count_log (\"time\", delta, metric)
    VALUES (NEW.created_at, 1, 'item-creation');
    logged = 1;
";

/// A table with a trigger, and what was measured.
struct Variant {
    name: &'static str,
    /// The name of its table.
    table: String,
    /// What creates the trigger, and the log.
    sql: String,
    one: Vec<Measurement>,
    many: Vec<Measurement>,
}

/// Inserts of one row.
#[derive(Debug, Clone, Copy)]
struct Measurement {
    per_second: f64,
    /// CPU time of the server's processes for each insert but the first of a client, in
    /// microseconds.
    cpu_microseconds: f64,
}

/// The parts of the migration that variants are made of.
struct Shipped {
    log: String,
    index: String,
    function: String,
}

impl Shipped {
    fn read() -> anyhow::Result<Self> {
        Ok(Self {
            log: part("CREATE TABLE public.count_log (", ")\n")? + ")",
            index: part("CREATE INDEX count_log_xact_id_idx", ";")?,
            function: part("CREATE FUNCTION public.log_new_items()", "$$;")? + "$$",
        })
    }

    /// The function with another beginning, up to where the notification is decided.
    fn beginning_with(&self, beginning: &str) -> anyhow::Result<String> {
        let head = cut(&self.function, "AS $$", true)?;
        let notify = self.function.find("    IF logged OPERATOR(pg_catalog.>) 0 THEN");
        let notify = &self.function[notify.context("the function notifies in another way")?..];
        Ok(format!("{head}\nDECLARE\n    logged bigint;\n{beginning}{notify}"))
    }

    fn variants(&self) -> anyhow::Result<Vec<Variant>> {
        let Self { log, index, function } = self;
        let declared = "LANGUAGE plpgsql VOLATILE SECURITY DEFINER";
        anyhow::ensure!(function.contains(declared), "the function is declared in another way");
        let with_path = |function: &str| function.replace("SECURITY DEFINER", FIXED_PATH);
        let empty = cut(function, "AS $$", true)? + "\nBEGIN\n    RETURN NULL;\nEND;\n$$";
        let grouped = self.beginning_with(GROUPED)?;
        let silent = cut(function, "    IF logged OPERATOR(pg_catalog.>) 0 THEN", false)?
            + "    RETURN NULL;\nEND;\n$$";
        let notify = "CREATE FUNCTION public.log_new_items() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_notify('bench', ''); RETURN NULL; END; $$";
        let ours = [log, index, function].map(String::as_str);
        Ok([
            ("no trigger", String::new()),
            ("NOTIFY for each row", with_trigger(&[log, index, notify], "FOR EACH ROW")),
            ("a trigger that does nothing", with_trigger(&[log, index, &empty], STATEMENT)),
            ("ours", with_trigger(&ours, STATEMENT)),
            (
                "ours for each row",
                with_trigger(&[log, index, &self.beginning_with(ROW)?], "FOR EACH ROW"),
            ),
            ("ours without the gate's lock", with_trigger(&[log, index, &silent], STATEMENT)),
            ("ours without the index", with_trigger(&[log, function], STATEMENT)),
            (
                "ours with SET search_path",
                with_trigger(&[log, index, &with_path(function)], STATEMENT),
            ),
            ("ours with GROUP BY for any number", with_trigger(&[log, index, &grouped], STATEMENT)),
            (
                "ours with a text and checks in the log",
                with_trigger(&[CHECKED_LOG, index, function], STATEMENT),
            ),
            (
                "all of the last three",
                with_trigger(&[CHECKED_LOG, index, &with_path(&grouped)], STATEMENT),
            ),
        ]
        .into_iter()
        .enumerate()
        .map(|(number, (name, sql))| Variant {
            name,
            table: format!("items_{number}"),
            sql: sql
                .replace("count_log", &format!("log_{number}"))
                .replace("log_new_items", &format!("function_{number}"))
                .replace("ON public.items", &format!("ON public.items_{number}")),
            one: Vec::new(),
            many: Vec::new(),
        })
        .collect())
    }
}

/// How the trigger of the migration fires.
const STATEMENT: &str = "REFERENCING NEW TABLE AS added FOR EACH STATEMENT";

fn with_trigger(statements: &[&str], fires: &str) -> String {
    let statements = statements.join(";\n");
    format!(
        "{statements};
        CREATE TRIGGER log AFTER INSERT ON public.items {fires}
        EXECUTE FUNCTION public.log_new_items()"
    )
}

/// The text of the migration from `from` to the next `to`.
fn part(from: &str, to: &str) -> anyhow::Result<String> {
    let text = &MIGRATION[MIGRATION.find(from).with_context(|| format!("no {from:?}"))?..];
    cut(text, to, false)
}

/// The beginning of a text, up to the first `end`.
fn cut(text: &str, end: &str, inclusive: bool) -> anyhow::Result<String> {
    let position = text.find(end).with_context(|| format!("the migration has no {end:?}"))?;
    Ok(text[..position + if inclusive { end.len() } else { 0 }].to_owned())
}

pub(super) async fn run(bench: &Bench<'_>, options: &TriggersOptions) -> anyhow::Result<()> {
    migrate::migrate(&bench.settings.database(DATABASE), &TestDatabase::roles()).await?;
    let client = bench.connect(DATABASE).await?;
    let base_item = format!("INSERT INTO base_items VALUES ('{BASE_ITEM}', 'a thing')");
    client.batch_execute(&base_item).await?;
    let mut variants = Shipped::read()?.variants()?;
    for Variant { name, table, sql, .. } in &variants {
        let create = format!(
            "CREATE TABLE public.{table} (LIKE public.items INCLUDING ALL,
                FOREIGN KEY (base_item_id) REFERENCES public.base_items (id));
            {sql}"
        );
        client.batch_execute(&create).await.with_context(|| format!("creating {name:?}"))?;
    }
    super::shut_gate(&client).await?;
    for round in 1..=options.rounds {
        println!("== round {round} of {}", options.rounds);
        for variant in &mut variants {
            for clients in [1, MANY_CLIENTS] {
                let measured = measure(bench, &variant.table, clients, options.seconds).await;
                let measured = measured.with_context(|| format!("measuring {:?}", variant.name))?;
                let list = if clients == 1 { &mut variant.one } else { &mut variant.many };
                list.push(measured);
                empty(&client, &variant.table).await?;
            }
        }
    }
    print(&variants)
}

fn insert(table: &str) -> String {
    format!("INSERT INTO public.{table} VALUES (gen_random_uuid(), '{BASE_ITEM}', now());\n")
}

/// Removes the rows of a table and of its log, so that every measurement begins with none.
async fn empty(client: &Client, table: &str) -> anyhow::Result<()> {
    let log = table.replace("items", "log");
    let truncate = format!(
        "TRUNCATE public.{table};
        DO $$ BEGIN IF to_regclass('public.{log}') IS NOT NULL THEN TRUNCATE public.{log}; END IF; END $$"
    );
    Ok(client.batch_execute(&truncate).await?)
}

/// Inserts rows for a while.
async fn measure(
    bench: &Bench<'_>,
    table: &str,
    clients: u32,
    seconds: u32,
) -> anyhow::Result<Measurement> {
    let Bench { installation, cluster, settings, .. } = bench;
    let statement = insert(table);
    let start = bench.start_cpu(DATABASE, &statement, clients).await?;
    let before = usage::postgres_cpu(cluster)?;
    let load =
        load::pgbench(installation, settings, DATABASE, &statement, clients, seconds).await?;
    let used = usage::postgres_cpu(cluster)? - before - start;
    // The first insert of each client is a part of `start`.
    let inserts = load.answers - f64::from(clients);
    Ok(Measurement { per_second: load.rate, cpu_microseconds: used * 1e6 / inserts })
}

fn print(variants: &[Variant]) -> anyhow::Result<()> {
    let middle = |list: &[Measurement], value: fn(&Measurement) -> f64| {
        let values: Vec<f64> = list.iter().map(value).collect();
        let spread = Spread::of(&values).context("there must be at least one round")?;
        anyhow::Ok(spread.median)
    };
    println!("== INSERT of one row, medians; ÷ is the rate divided by that without a trigger");
    println!(
        "{:<38} {:>9} {:>5} {:>9} {:>9} {:>5} {:>9}",
        "trigger", "1 client", "÷", "CPU, µs", "64", "÷", "CPU, µs"
    );
    let mut base = None;
    for Variant { name, one, many, .. } in variants {
        let rates = [middle(one, |m| m.per_second)?, middle(many, |m| m.per_second)?];
        let [base_one, base_many] = *base.get_or_insert(rates);
        println!(
            "{name:<38} {:>9.0} {:>5.2} {:>9.1} {:>9.0} {:>5.2} {:>9.1}",
            rates[0],
            rates[0] / base_one,
            middle(one, |m| m.cpu_microseconds)?,
            rates[1],
            rates[1] / base_many,
            middle(many, |m| m.cpu_microseconds)?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the migration must not go unnoticed here.
    #[test]
    fn variants_are_made_of_the_migration() {
        let variants = Shipped::read().unwrap().variants().unwrap();
        // Without the number that each has in its names.
        let text = |variant: &Variant| {
            variant.sql.replace(variant.table.strip_prefix("items").unwrap(), "")
        };
        for variant in &variants {
            let same = variants.iter().filter(|other| text(other) == text(variant));
            assert_eq!(same.count(), 1, "{} is another variant, too", variant.name);
        }
    }
}
