//! What operators run and look at: subcommands, metrics, logs and settings of the real programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use local_stack::internal;
use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::{
    TestDatabase, client, http_client, installation, service_programs,
};
use parking_lot::Mutex;
use postgres_kit::database::DatabaseSettings;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use crate::flights::{self, until_exact};
use crate::monitoring::OF_VERIFICATION;
use crate::own_postgres::OwnPostgres;
use crate::support::{DEADLINE, settings, start, until};

/// Runs stats-notifier on a database, and waits until it ends.
fn run(database: &TestDatabase, arguments: &[&str]) -> Output {
    let settings = database.notifier();
    Command::new(service_programs().join("stats-notifier"))
        .args(arguments)
        .env("PGHOST", settings.host.to_string())
        .env("PGPORT", settings.port.to_string())
        .env("PGDATABASE", &settings.name)
        .env("NEWCYCLE__DATABASE__PASSWORD", settings.password.expose_secret())
        .output()
        .unwrap()
}

pub(crate) fn operations_page() -> String {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    std::fs::read_to_string(page).unwrap()
}

/// The blocks of commands under a heading of `docs/operations.md`, without the indentation of a
/// list.
pub(crate) fn commands(heading: &str) -> Vec<String> {
    let page = operations_page();
    let section =
        page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = |block: &str| {
        let lines = block.lines().map(|line| line.strip_prefix("   ").unwrap_or(line));
        lines.map(|line| format!("{line}\n")).collect()
    };
    blocks.map(lines).collect()
}

/// A shell that runs commands in a folder, as a superuser of a database. It finds the project's
/// programs, and those of these folders.
pub(crate) fn shell(
    folder: &Path,
    programs: &[&Path],
    database: &DatabaseSettings,
    commands: &str,
) -> Command {
    let services = service_programs();
    let system = ["/usr/bin", "/bin"].map(Path::new);
    let path = programs.iter().copied().chain([services.as_path()]).chain(system);
    let mut shell = Command::new("sh");
    shell
        .args(["-eu", "-c", commands])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("PGHOST", database.host.to_string())
        .env("PGPORT", database.port.to_string())
        .env("PGUSER", &database.user)
        .env("PGPASSWORD", database.password.expose_secret())
        .env("PGDATABASE", &database.name);
    shell
}

/// The exit code of `stats-notifier verify --json`, and its output.
fn verify(database: &TestDatabase) -> (Option<i32>, Value) {
    let output = run(database, &["verify", "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// The whole history of a topic, read in pages of 100 buckets.
async fn pages(stack: &Stack, topic: &str) -> Vec<Value> {
    let base = stack.url(ServiceKind::SseGateway);
    let first = format!("{base}/statistics/{topic}?from=2001-01-01T00:00:00Z&limit=100");
    let mut url: reqwest::Url = first.parse().unwrap();
    let mut buckets = Vec::new();
    loop {
        let answer = client().get(url.clone()).send().await.unwrap();
        let next = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        buckets.extend(page["buckets"].as_array().unwrap().iter().cloned());
        let Some(next) = next else { return buckets };
        url = url.join(next.split(['<', '>']).nth(1).unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_verify_and_rebuild_of_real_input() {
    let database = TestDatabase::create().await;
    let stack = start(&database).await;
    let expected = flights::post(&stack).await;
    until_exact(&stack, &expected, "live").await;
    for metric in ["item-creation", "transfers"] {
        for unit in ["hour", "day", "week", "month", "quarter", "year"] {
            let buckets = pages(&stack, &format!("{metric}/{unit}")).await;
            // The first week and quarter of 2001 begin with the year.
            assert_eq!(Value::Array(buckets), expected[metric][unit], "{metric}/{unit}");
        }
    }
    let too_old = format!(
        "{}/statistics/transfers/second?from=2001-01-01T00:00:00Z",
        stack.url(ServiceKind::SseGateway)
    );
    let refused = client().get(&too_old).send().await.unwrap();
    assert_eq!(refused.status(), 410, "seconds of 2001 are not kept");

    let (code, report) = verify(&database);
    assert_eq!((code, &report["mismatches"]), (Some(0), &json!(0)), "{report}");
    assert_eq!(report["events"], 22_977);
    let client = database.connect().await;
    client
        .batch_execute(
            "UPDATE rollup SET count = count + 1 WHERE unit = 'day' AND bucket = '2001-02-03Z'",
        )
        .await
        .unwrap();
    let (code, report) = verify(&database);
    assert_eq!(code, Some(1));
    let named = |metric| {
        report["first_mismatches"].as_array().unwrap().iter().any(|one| one["topic"] == metric)
    };
    assert!(
        named("transfers/day") && named("transfers/week") && named("item-creation/day"),
        "{report}"
    );

    let output = run(&database, &["rebuild", "--json"]);
    let rebuilt: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &rebuilt["events"]), (Some(0), &json!(22_977)), "{rebuilt}");
    assert_eq!(verify(&database).0, Some(0));
    until_exact(&stack, &expected, "after a rebuild").await;
    // The commands of docs/operations.md, word for word.
    let blocks = commands("Checking the counts");
    let commands = blocks[0].lines().filter_map(|line| line.strip_prefix("stats-notifier "));
    let commands: Vec<&str> = commands.map(|line| line.split('#').next().unwrap().trim()).collect();
    assert_eq!(commands, ["verify", "rebuild"]);
    for command in commands {
        let output = run(&database, &[command]);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && printed.contains("22977 events"),
            "{command}: {printed}"
        );
    }

    // Nothing is known about the counts.
    for (variable, value) in [("PGPORT", "9"), ("NEWCYCLE_CONFIG", "/no/such/file.toml")] {
        let mut verify = Command::new(service_programs().join("stats-notifier"));
        let failed = verify.arg("verify").env(variable, value).output().unwrap();
        let reason = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(2), "{reason}");
        assert!(reason.contains("could not be verified"), "{reason}");
    }
}

/// The table of metrics in `docs/operations.md` equals the help texts of the services.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_in_the_docs_and_every_one_in_the_docs_exists() {
    let database = TestDatabase::create().await;
    let stack = start(&database).await;
    // Some metrics exist only after an event, a history request, a client or a refusal.
    flights::post(&stack).await;
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let refused = reqwest::get(format!("{}/access", stack.url(service))).await.unwrap();
        assert_eq!(refused.status(), 401, "{service} needs a key");
    }
    let history = format!(
        "{}/statistics/transfers/day?to=2002-01-01T00:00:00Z",
        stack.url(ServiceKind::SseGateway)
    );
    assert_eq!(client().get(history).send().await.unwrap().status(), 200);
    let mut actual = BTreeMap::new();
    for instance in stack.instances() {
        let metrics =
            internal::get(format!("{}/metrics", stack.internal_url(instance))).await.unwrap();
        for line in metrics.text().await.unwrap().lines() {
            if let Some((name, help)) =
                line.strip_prefix("# HELP ").and_then(|line| line.split_once(' '))
            {
                actual.insert(name.to_owned(), help.to_owned());
            }
        }
    }
    let page = operations_page();
    let rows = page.split("| metric | service | meaning |").nth(1).unwrap();
    let documented: BTreeMap<String, String> = rows
        .lines()
        .filter_map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            let [name, _, meaning] = cells.as_slice() else { return None };
            let name = name.trim_matches(['|', ' ', '`']);
            let meaning = meaning.trim_matches(['|', ' ']);
            // The daily verification has not run in this test.
            (!name.contains("_verify_")).then(|| (name.to_owned(), meaning.to_owned()))
        })
        .collect();
    assert_eq!(documented, actual);
}

/// Starts a single service, and waits until it responds. Its log lines go to a list.
async fn start_one(
    database: DatabaseSettings,
    service: ServiceKind,
    variables: &[(&'static str, &str)],
) -> (Stack, Arc<Mutex<Vec<String>>>) {
    let mut wanted = Replicas::NONE;
    match service {
        ServiceKind::IngestApi => wanted.ingest_api = 1,
        _ => wanted.stats_notifier = 1,
    }
    let mut settings = settings(database, wanted);
    for (variable, value) in variables {
        settings.set(&[(service, variable, value)]);
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let keep = Arc::new(move |_, line: &str| lines.lock().push(line.to_owned()));
    let stack = Stack::start(settings, keep).unwrap();
    let live = format!("{}/livez", stack.internal_url(service));
    until("the service must respond", async || reqwest::get(&live).await.ok()).await;
    (stack, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daily_verification_reports_its_result() {
    let database = TestDatabase::create().await;
    // Only a leader verifies, and the service must have become one by then, also on a busy machine.
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(20);
    let soon = soon.format(format_description!("[hour]:[minute]:[second]")).unwrap();
    let variables = [("NEWCYCLE__VERIFY__AT_UTC", soon.as_str())];
    let (stack, _) = start_one(database.superuser(), ServiceKind::StatsNotifier, &variables).await;
    let url = stack.internal_url(ServiceKind::StatsNotifier);
    let get = async |path: &str| {
        internal::get(format!("{url}{path}")).await.unwrap().text().await.unwrap()
    };
    let last = until("the verification must have run", async || {
        let ready: Value = serde_json::from_str(&get("/readyz").await).unwrap();
        Some(ready["detail"]["last_verify"].clone()).filter(|last| !last.is_null())
    })
    .await;
    assert_eq!(last["verified"]["mismatches"], 0, "{last}");
    let metrics = get("/metrics").await;
    assert!(metrics.contains("notifier_verify_runs_total{result=\"equal\"} 1"), "{metrics}");
    assert!(metrics.contains("notifier_verify_mismatched_buckets 0"), "{metrics}");
    for (name, _) in OF_VERIFICATION {
        assert!(metrics.contains(&format!("\n# TYPE {name} ")), "{name}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_the_request_id_and_the_metrics_have_the_route() {
    let postgres = OwnPostgres::new(installation(), "stopped");
    let mut cluster = postgres.start_migrated().await;
    let variables = [("NEWCYCLE__LOG__FORMAT", "json")];
    let (mut stack, log) = start_one(postgres.database(), ServiceKind::IngestApi, &variables).await;
    // It has then read the list of keys.
    stack.until_ready(ServiceKind::IngestApi, DEADLINE).await.unwrap();
    cluster.stop();
    let client = http_client().build().unwrap();
    let item = format!("{}/items/{}", stack.url(ServiceKind::IngestApi), Uuid::now_v7());
    let answer = client.get(&item).header("x-request-id", "order-4711").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-request-id"]),
        (503, &"order-4711".parse().unwrap())
    );
    let expected = std::fmt::from_fn(|message| {
        write!(message, "the request must be logged with its id and route: {:?}", log.lock())
    });
    let logged = until(expected, async || {
        let lines = log.lock().clone();
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|line| {
            line["span"]["request.id"] == "order-4711"
                && line["span"]["http.route"] == "/items/{id}"
        })
    })
    .await;
    assert_eq!(logged["level"], "WARN");
    // An unknown method does not create a time series.
    let unknown = client.request("BREW".parse().unwrap(), &item).send().await.unwrap();
    assert_eq!(unknown.status(), 405);
    // A request id that could break a log line is replaced.
    let answer = client.get(&item).header("x-request-id", "a b").send().await.unwrap();
    assert!(Uuid::try_parse(answer.headers()["x-request-id"].to_str().unwrap()).is_ok());

    let internal = stack.internal_url(ServiceKind::IngestApi);
    let get = async |path: &str| internal::get(format!("{internal}{path}")).await.unwrap();
    let metrics = get("/metrics").await.text().await.unwrap();
    let counted =
        "http_server_requests_total{method=\"GET\",route=\"/items/{id}\",status=\"503\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    let other =
        "http_server_requests_total{method=\"other\",route=\"/items/{id}\",status=\"405\"} 1";
    assert!(metrics.contains(other) && !metrics.contains("BREW"), "{metrics}");
    assert!(metrics.contains("ingest_database_errors_total{kind=\"away\"} 2"), "{metrics}");
    let version: Value =
        serde_json::from_str(&get("/version").await.text().await.unwrap()).unwrap();
    assert_eq!(version["service"], "ingest-api");
    assert_eq!(get("/readyz").await.status(), 503);
    let healthcheck = |port: u16| {
        let mut command = Command::new(service_programs().join("ingest-api"));
        command.arg("healthcheck").env("NEWCYCLE__INTERNAL__PORT", port.to_string());
        command.env("NEWCYCLE__INTERNAL__SECRET_FILE", internal::secret_file());
        command.output().unwrap()
    };
    let unready = healthcheck(reqwest::Url::parse(&internal).unwrap().port().unwrap());
    let absent = healthcheck(9);
    assert_eq!((unready.status.code(), absent.status.code()), (Some(1), Some(1)));
    assert!(String::from_utf8_lossy(&unready.stderr).contains("does not answer"), "{unready:?}");
}

#[test]
fn print_settings_names_each_source_and_unknown_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "[stream]\npace = \"100ms\"\nmax_subscribers = 7\n").unwrap();
    let gateway = |variables: &[(&str, &str)]| {
        let mut command = Command::new(service_programs().join("sse-gateway"));
        command.arg("print-settings").env("NEWCYCLE_CONFIG", &file).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (printed, text) = gateway(&[
        ("NEWCYCLE__HTTP__PORT", "8001"),
        ("NEWCYCLE__STREAM__MAX_SUBSCRIBERS", "9"),
        ("NEWCYCLE__HTTP__WORKERS", "3"),
    ]);
    assert!(printed, "{text}");
    for line in [
        "http.port = 8001  # NEWCYCLE__HTTP__PORT".to_owned(),
        "stream.max_subscribers = 9  # NEWCYCLE__STREAM__MAX_SUBSCRIBERS".to_owned(),
        "http.workers = 3  # NEWCYCLE__HTTP__WORKERS".to_owned(),
        format!("stream.pace = \"100ms\"  # {}", file.display()),
        "stream.heartbeat = \"15s\"  # default".to_owned(),
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} must be in {text}");
    }
    let (printed, text) = gateway(&[("NEWCYCLE__STREAM__PACE_SECONDS", "1")]);
    assert!(
        !printed && text.contains("NEWCYCLE__STREAM__PACE_SECONDS sets stream.pace_seconds"),
        "{text}"
    );
    assert!(text.contains("did you mean stream.pace (NEWCYCLE__STREAM__PACE)?"), "{text}");
}
