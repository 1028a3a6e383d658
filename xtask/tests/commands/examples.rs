//! The examples of the documentation work with real services, and through errors.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use local_stack::link::{Link, LinkMode};
use local_stack::stack::built_programs;
use local_stack::test_database::TestDatabase;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, timeout, timeout_at};

use crate::proxy::{Fault, FaultyProxy, RETRY_AFTER};
use crate::support::{TestStack, node, output, root, row, signal};

/// The longest time for the client to show what is expected.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time for a producer to end. It is less than the time after which it gives up by
/// itself, and far less than the long `Retry-After` of a test.
const PRODUCER_TIMEOUT: Duration = Duration::from_secs(240);

/// The time after which a producer stops waiting for an answer, in seconds. A service on a busy
/// machine may take longer: the producer then sends the same once more, as it should.
const ANSWER_TIMEOUT_SECONDS: &str = "4";

/// The requests of a producer, if none of them has to be repeated.
const REQUESTS: usize = 5;

/// The faults of the attempts with these numbers. After at most four of them, the next attempt
/// succeeds, so that the waits stay short.
const FAULTS: [(u32, Fault); 14] = [
    // The base item. The wait after the first fault is measured.
    (0, Fault::Unavailable),
    (1, Fault::Unanswered),
    (2, Fault::Html(408)),
    // The user.
    (4, Fault::Html(425)),
    (5, Fault::Html(429)),
    (6, Fault::Html(520)),
    // The item.
    (8, Fault::CutOff),
    (9, Fault::Html(200)),
    (10, Fault::Body(200, b"{\"name\": \"\xe4\"}")),
    // The transfer.
    (12, Fault::Body(200, b"null")),
    (13, Fault::Body(200, b"")),
    // The upload.
    (15, Fault::Hanging),
    (16, Fault::Html(200)),
    (17, Fault::Body(200, b"{\"status\": \"ok\"}")),
];

fn example(name: &str) -> PathBuf {
    root().join("docs/examples").join(name)
}

/// Compiles the TypeScript examples, which checks their types, and returns the output folder.
fn compiled(stack: &TestStack) -> PathBuf {
    let compiler = example("node_modules/typescript/bin/tsc");
    assert!(
        compiler.exists(),
        "there is no TypeScript compiler: run the tests with `cargo xtask test`"
    );
    let folder = stack.folder.join("javascript");
    let mut command = Command::new(node());
    command.arg(compiler).arg("-p").arg(example("tsconfig.json")).arg("--outDir").arg(&folder);
    let (succeeded, text) = output(&mut command);
    assert!(succeeded, "{text}");
    // It declares these files as modules.
    std::fs::copy(example("package.json"), folder.join("package.json")).unwrap();
    folder
}

/// The producers in each language, with their interpreters.
fn producers(stack: &TestStack) -> [(PathBuf, PathBuf); 4] {
    let program = built_programs().unwrap().join("examples/producer");
    assert!(program.exists(), "the examples are not built: run the tests with `cargo xtask test`");
    [
        ("bash".into(), example("producer.sh")),
        ("python3".into(), example("producer.py")),
        (node(), compiled(stack).join("producer.js")),
        // A program that runs its arguments.
        ("env".into(), program),
    ]
}

/// Runs a producer, which must end. Returns whether it succeeded, and its output and errors.
async fn run((interpreter, producer): &(PathBuf, PathBuf), url: &str, key: &str) -> (bool, String) {
    let mut command = tokio::process::Command::new(interpreter);
    command
        .arg(producer)
        .arg(url)
        .env("TIMEOUT_SECONDS", ANSWER_TIMEOUT_SECONDS)
        .env("NEWCYCLE_KEY", key);
    let output = timeout(PRODUCER_TIMEOUT, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{} must end", producer.display())).unwrap();
    let text =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned());
    (output.status.success(), text.concat())
}

fn post(stack: &TestStack, url: &str, body: &Value) {
    let mut curl = stack.curl();
    curl.args(["-H", "content-type: application/json"]);
    let (succeeded, text) = output(curl.args(["-d", &body.to_string(), url]));
    assert!(succeeded, "{text}");
}

#[tokio::test]
async fn every_producer_stores_its_events_exactly_once() {
    let stack = TestStack::started("producers");
    for (number, producer) in (1..).zip(producers(&stack)) {
        let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), &FAULTS);
        let (succeeded, text) = run(&producer, &proxy.url, stack.key()).await;
        let interpreter = producer.0.display();
        assert!(succeeded, "{interpreter} {}: {text}", producer.1.display());

        let mut requests: Vec<_> = proxy.requests.try_iter().collect();
        assert!(requests.len() >= REQUESTS + FAULTS.len(), "{interpreter}: {}", requests.len());
        let waited = requests[1].0 - requests[0].0;
        assert!(waited >= Duration::from_secs(RETRY_AFTER), "{interpreter} waited {waited:?}");
        requests.dedup_by(|(_, next), (_, body)| next == body);
        assert_eq!(requests.len(), REQUESTS, "{interpreter}: repetitions must be equal: {text}");

        let id = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}: {text}")).trim().to_owned()
        };
        let [base_item, user, item, transfer] =
            ["base item ", "user ", "item ", "transfer "].map(id);
        for id in [&base_item, &user, &item, &transfer] {
            assert_eq!(
                (&id[14..15], id.len()),
                ("7", 36),
                "{interpreter}: {id} must be of version 7"
            );
            assert!(
                "89ab".contains(&id[19..20]),
                "{interpreter}: {id} must be of the variant of RFC 9562"
            );
        }
        let url = stack.url("INGEST_PORT");
        assert_eq!(stack.get(&format!("{url}/items/{item}"))["base_item_id"], base_item.as_str());
        let owner = stack.get(&format!("{url}/items/{item}/owner"));
        assert_eq!((&owner["owner_id"], &owner["transfer_id"]), (&user.into(), &transfer.into()));
        assert!(text.contains("rejected") && text.contains("there is no such row"), "{text}");
        // One item by itself, and the two good lines.
        stack.until_counted(3 * number, number);
    }
}

#[tokio::test]
async fn a_producer_prints_what_was_refused() {
    type Faults = &'static [(u32, Fault)];
    // A proxy's refusal is final, too, although it is no problem of ingest-api. The last request is
    // the upload.
    const REFUSALS: [(Faults, [&str; 2]); 5] = [
        (&[(0, Fault::Html(403))], ["403", "Not now"]),
        (&[(0, Fault::Body(403, b"null"))], ["403", "null"]),
        (&[(0, Fault::Body(403, b"[\"\xe4\"]"))], ["403", "["]),
        (&[(0, Fault::Redirect)], ["301", "POST /base-items"]),
        (&[(4, Fault::Body(403, b"{\"errors\": [{\"code\": 1000}]}"))], ["403", "1000"]),
    ];
    let stack = TestStack::started("refused-producers");
    for producer in producers(&stack) {
        for (faults, words) in REFUSALS {
            let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), faults);
            let (succeeded, text) = run(&producer, &proxy.url, stack.key()).await;
            let printed = words.iter().all(|word| text.contains(word));
            assert!(!succeeded && printed, "{faults:?}: {producer:?}: {text}");
        }
        // The gateway accepts no events.
        let (succeeded, text) = run(&producer, &stack.url("GATEWAY_PORT"), stack.key()).await;
        assert!(
            !succeeded && text.contains("404") && text.contains("There is nothing at"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_producer_gives_up_at_once_if_it_would_have_to_wait_too_long() {
    const A_DAY: [(u32, Fault); 1] = [(0, Fault::UnavailableFor(86_400))];
    const FOR_EVER: [(u32, Fault); 1] = [(0, Fault::UnavailableFor(u64::MAX))];
    let stack = TestStack::new("waiting-producers");
    for producer in producers(&stack) {
        for faults in [&A_DAY, &FOR_EVER] {
            let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), faults);
            let (succeeded, text) = run(&producer, &proxy.url, "unread").await;
            assert!(!succeeded && text.contains("503"), "{faults:?}: {producer:?}: {text}");
            assert_eq!(proxy.requests.try_iter().count(), 1, "{faults:?}: {producer:?}: {text}");
        }
    }
}

/// The client, which prints its requests, the events that it receives, and its state.
struct Client {
    /// Killed when this is dropped.
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(script: &Path, url: &str, key: &str) -> Self {
        let mut command = tokio::process::Command::new(node());
        command.arg(script).arg(url).env("NEWCYCLE_KEY", key);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, lines }
    }

    /// The lines up to and including the first one that meets a condition.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen: Vec<Value> = Vec::new();
        let deadline = Instant::now() + CLIENT_TIMEOUT;
        while !seen.last().is_some_and(&wanted) {
            let line = timeout_at(deadline, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|error| panic!("{error} after {seen:#?}")).unwrap();
            seen.push(serde_json::from_str(&line.expect("the client must run")).unwrap());
        }
        seen
    }
}

/// The window of the client: smaller than the number of buckets, so that the oldest are dropped.
const LAST: usize = 20;

/// The state of a topic as the gateway shows it, in the client's format and order.
fn answered(stack: &TestStack, topic: &str) -> Value {
    let window =
        stack.get(&format!("{}/statistics/{topic}?last={LAST}", stack.url("GATEWAY_PORT")));
    let buckets = window["buckets"].as_array().unwrap().iter();
    buckets.map(|bucket| json!([bucket["time"], bucket["count"]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_follows_through_lost_connections_and_a_frozen_notifier() {
    let stack = TestStack::started("client");
    let gateway = stack.value("GATEWAY_PORT").parse().unwrap();
    let link = Link::to("client to sse-gateway".to_owned(), gateway).await.unwrap();
    let url = format!(
        "{}/statistics?topic=item-creation/millisecond&topic=transfers/minute&last={LAST}",
        link.url()
    );
    let mut client =
        Client::start(&compiled(&stack).join("live-counts.check.js"), &url, stack.key());
    let seen = client.until(|line| line["upstream"] == "live").await;
    assert_eq!((&seen[0]["request"], &seen[1]["event"]), (&"".into(), &"snapshot".into()));

    let (mut items, mut transfers) = (0, 0);
    let send = |items: &mut u64, transfers: &mut u64| {
        let text = stack.run(&["demo", "--rate", "1000", "--events", "50"]);
        *items += row(&text, "items")[0];
        *transfers += row(&text, "transfers")[0];
        stack.until_counted(*items, *transfers);
        (answered(&stack, "item-creation/millisecond"), answered(&stack, "transfers/minute"))
    };
    let shows = |line: &Value, (items, transfers): &(Value, Value)| {
        let topics = &line["topics"];
        line["upstream"] == "live"
            && (&topics["item-creation/millisecond"], &topics["transfers/minute"])
                == (items, transfers)
    };
    let expected = send(&mut items, &mut transfers);
    client.until(|line| shows(line, &expected)).await;

    // The half second comes after the whole one, though not in text order. A minute ahead, so that
    // they stay the newest.
    let second = (OffsetDateTime::now_utc() + Duration::from_secs(60)).truncate_to_second();
    let url = stack.url("INGEST_PORT");
    let base_item = stack.get(&format!("{url}/base-items?limit=1"))["data"][0]["id"].clone();
    for time in [second, second + Duration::from_millis(500)] {
        let time = time.format(&Rfc3339).unwrap();
        post(
            &stack,
            &format!("{url}/items"),
            &json!({ "base_item_id": base_item, "created_at": time }),
        );
        items += 1;
    }

    // While the connection is lost, the counts stay and are marked stale. Then a patch brings what
    // was missed.
    link.set(LinkMode::Reset(1));
    let seen = client.until(|line| line["upstream"] == "stale").await;
    assert_eq!(seen.last().unwrap()["topics"]["transfers/minute"], expected.1);
    let expected = send(&mut items, &mut transfers);
    let seen = client.until(|line| shows(line, &expected)).await;
    assert!(seen[0]["request"].as_str().is_some_and(|id| !id.is_empty()), "{seen:?}");
    assert!(!seen.iter().any(|line| line["event"] == "snapshot"), "{seen:?}");

    // The gateway detects a frozen notifier and marks the counts stale; the connection stays open.
    let notifier = stack.process_id("stats-notifier");
    signal("-STOP", &notifier);
    client.until(|line| line["upstream"] == "stale").await;
    signal("-CONT", &notifier);
    let seen = client.until(|line| line["upstream"] == "live").await;
    assert!(!seen.iter().any(|line| line.get("request").is_some()), "{seen:?}");
    let expected = send(&mut items, &mut transfers);
    client.until(|line| shows(line, &expected)).await;
    assert_eq!(expected.0.as_array().unwrap().len(), LAST, "the window must have been full");
}

#[tokio::test]
async fn the_outbox_separates_sent_rows_from_refused_ones() {
    let test_database = TestDatabase::create().await;
    let database = test_database.connect().await;
    database.batch_execute(&std::fs::read_to_string(example("outbox.sql")).unwrap()).await.unwrap();
    let outbox =
        database.query("SELECT sent_at IS NOT NULL, refused FROM outbox ORDER BY id", &[]).await;
    let rows: Vec<(bool, Option<String>)> =
        outbox.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        rows,
        [(true, None), (false, Some("base_item_id: there is no such row".to_owned()))]
    );
}

#[tokio::test]
async fn rows_that_another_role_writes_by_sql_are_logged() {
    let test_database = TestDatabase::create().await;
    let database = test_database.connect().await;
    let script = std::fs::read_to_string(example("by-sql.sql")).unwrap();
    // Roles belong to the whole cluster, so this one is rolled back.
    database.batch_execute(&format!("BEGIN; {script} RESET ROLE")).await.unwrap();
    let log =
        database.query("SELECT metric::text, delta FROM count_log ORDER BY metric", &[]).await;
    let log: Vec<(String, i64)> = log.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(log, [("item-creation".to_owned(), 1), ("transfers".to_owned(), 1)]);
    database.batch_execute("ROLLBACK").await.unwrap();
}
