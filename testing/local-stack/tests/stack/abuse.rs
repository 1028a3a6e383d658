//! Clients that send something other than HTTP, send slowly, do not read, or never disconnect.
//!
//! In all these cases, a service must keep running: it does not panic, does not report a client's
//! mistake as its own error, releases the connection's files and memory, and stores only complete
//! requests.

mod cases;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use local_stack::internal;
use local_stack::stack::{Instance, Replicas, ServiceKind, Stack};
use local_stack::test_database::{TEST_KEY, TestDatabase, client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::abuse::cases::{bodies, get, head, malformed};
use crate::support::{DEADLINE, settings, until, until_ready};
use crate::wire::{Exchange, connect, exchange};

/// Short limits, so that no test takes minutes.
const INTERNAL_LIMITS: [(&str, &str); 2] =
    [("NEWCYCLE__INTERNAL__IDLE_TIMEOUT", "1s"), ("NEWCYCLE__INTERNAL__MAX_CONNECTIONS", "500")];
const PUBLIC_LIMITS: [(&str, &str); 3] = [
    ("NEWCYCLE__HTTP__IDLE_TIMEOUT", "1s"),
    ("NEWCYCLE__HTTP__HEAD_TIMEOUT", "1s"),
    ("NEWCYCLE__HTTP__UNREAD_TIMEOUT", "2s"),
];
const UPLOAD_LIMITS: [(&str, &str); 2] = [
    ("NEWCYCLE__LIMITS__BODY_IDLE_TIMEOUT", "1s"),
    ("NEWCYCLE__LIMITS__REQUEST_BODY_TIMEOUT", "2s"),
];

/// How much later than its limit something may happen while other tests keep the machine busy.
const BUSY_TOLERANCE: Duration = Duration::from_secs(10);

/// The same while this test does nothing else. It is shorter than the default limits, so the test
/// fails without its own ones.
const QUIET_TOLERANCE: Duration = Duration::from_secs(3);

/// Bytes of memory that a process may keep, such as buffers of its allocator.
const MEMORY_TOLERANCE: usize = 16_000_000;

/// Files that a process may keep open, such as the connections of its pools.
const FILES_TOLERANCE: usize = 32;

/// A stream that begins with a large snapshot.
const PATH: &str = "/statistics/item-creation/millisecond";

/// A port of a service.
#[derive(Clone, Copy)]
struct Port {
    name: &'static str,
    number: u16,
}

/// What a process uses.
struct Usage {
    open_files: usize,
    memory_bytes: usize,
}

/// The services, and their logs.
struct Abused {
    stack: Stack,
    log: Arc<Mutex<Vec<String>>>,
    client: Client,
    ports: Vec<Port>,
    _secrets: tempfile::NamedTempFile,
    _database: TestDatabase,
}

impl Abused {
    async fn start() -> Self {
        service_kit::limits::raise_open_files();
        let database = TestDatabase::create().await;
        let wanted = Replicas { dashboard: 1, ..Replicas::ONE };
        let mut settings = settings(database.superuser(), wanted);
        for service in ServiceKind::ALL {
            let mut limits = INTERNAL_LIMITS.to_vec();
            if service != ServiceKind::StatsNotifier {
                limits.extend(PUBLIC_LIMITS);
            }
            if service == ServiceKind::IngestApi {
                limits.extend(UPLOAD_LIMITS);
            }
            for (variable, value) in limits {
                settings.set(&[(service, variable, value)]);
            }
        }
        // So that the same bytes can be sent to every port.
        let secrets = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&secrets, format!("{}\n{TEST_KEY}\n", internal::SECRET)).unwrap();
        settings.internal_secret = secrets.path().to_owned();
        let ports = settings.ports[0];
        let ports = [
            ("ingest-api", ports.ingest_api),
            ("sse-gateway", ports.sse_gateway),
            ("dashboard", ports.dashboard),
            ("stats-notifier", ports.stats_notifier),
            ("ingest-api, internal", ports.ingest_api_internal),
            ("sse-gateway, internal", ports.sse_gateway_internal),
            ("dashboard, internal", ports.dashboard_internal),
        ];
        let ports = ports.map(|(name, number)| Port { name, number }).to_vec();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let note =
            move |instance: Instance, line: &str| lines.lock().push(format!("{instance}: {line}"));
        let mut stack = Stack::start(settings, Arc::new(note)).unwrap();
        until_ready(&mut stack).await;
        let client = database.connect().await;
        Self { client, stack, log, ports, _secrets: secrets, _database: database }
    }

    fn port(&self, name: &str) -> Port {
        *self.ports.iter().find(|port| port.name == name).unwrap()
    }

    /// What each process uses, in the order of the services.
    fn usage(&self) -> Vec<Usage> {
        let usage = |(_, process): (Instance, u32)| {
            let open_files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            Usage { open_files, memory_bytes: kilobytes * 1_024 }
        };
        self.stack.process_ids().map(usage).collect()
    }

    /// Waits until every service is ready and has released the files and memory of the connections.
    /// Checks that none has logged a panic or an error.
    async fn until_recovered(&mut self, before: &[Usage]) {
        until_ready(&mut self.stack).await;
        until("every service must release files and memory", async || {
            let now = self.usage();
            assert_eq!(now.len(), before.len(), "every process must live");
            let near = |(before, now): (&Usage, &Usage)| {
                now.open_files <= before.open_files + FILES_TOLERANCE
                    && now.memory_bytes <= before.memory_bytes + MEMORY_TOLERANCE
            };
            before.iter().zip(&now).all(near).then_some(())
        })
        .await;
        let log = self.log.lock();
        let is_error = |line: &&String| line.contains("panicked") || line.contains(" ERROR ");
        let errors: Vec<_> = log.iter().filter(is_error).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    async fn rows(&self) -> [i64; 3] {
        let count = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM base_items), (SELECT count(*) FROM items)";
        let row = self.client.query_one(count, &[]).await.unwrap();
        [row.get(0), row.get(1), row.get(2)]
    }

    /// The number of streams of sse-gateway.
    async fn subscribers(&self) -> u32 {
        let url = format!("{}/metrics", self.stack.internal_url(ServiceKind::SseGateway));
        let metrics = internal::get(url).await.unwrap().text().await.unwrap();
        let line =
            metrics.lines().find(|line| line.starts_with("gateway_stream_subscribers ")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    async fn until_subscribers(&self, wanted: u32, timeout: Duration) {
        let what = format!("the gateway must have {wanted} streams");
        let look = until(&what, async || (self.subscribers().await == wanted).then_some(()));
        tokio::time::timeout(timeout, look).await.expect("the gateway must notice in time");
    }
}

/// A client that sends slowly, and what it must get.
struct SlowClient {
    name: &'static str,
    /// What it sends first.
    bytes: Vec<u8>,
    /// What it sends every 100 ms after that.
    repeated: &'static [u8],
    /// The time after which the connection must end.
    limit: Duration,
    status: u16,
}

/// Waits until all exchanges have ended. None may return an error.
async fn all_met(exchanges: impl Iterator<Item = impl Future<Output = Option<String>>>) {
    let wrong: Vec<_> = join_all(exchanges).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_leave_nothing_behind() {
    let mut abused = Abused::start().await;
    let malformed = malformed();
    let bodies = bodies();
    let stored = bodies.iter().filter(|(name, ..)| name.starts_with("stored")).count();
    let ingest = abused.port("ingest-api");
    let mut before = Vec::new();
    for round in 1..=3 {
        let everywhere =
            abused.ports.iter().flat_map(|port| malformed.iter().map(move |case| (*port, case)));
        let cases = everywhere.chain(bodies.iter().map(|case| (ingest, case)));
        all_met(cases.map(async |(port, (name, bytes, expected))| {
            let exchange = exchange(port.number, bytes, b"").await;
            let met = exchange.as_ref().is_ok_and(|exchange| expected.is_met(&exchange.statuses));
            (!met)
                .then(|| format!("{}, {name}: expected {expected:?}, but {exchange:?}", port.name))
        }))
        .await;
        // In the first round the services allocate what they then keep.
        if round == 1 {
            before = abused.usage();
        }
        let users = i64::try_from(round * stored).unwrap();
        assert_eq!(abused.rows().await, [users, 0, 0], "only complete requests may be stored");
    }
    abused.until_recovered(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_cut_off_in_time() {
    let mut abused = Abused::start().await;
    let before = abused.usage();
    let early = get("/none", &["transfer-encoding: chunked"]);
    let idle = Duration::from_secs(1);
    // Few at a time, so that a limit which is not applied is noticed.
    let second_head = (get("/none", &[]), b"G".as_slice(), 404);
    let few = [(Vec::new(), b"".as_slice(), 408), second_head];
    let alone = abused.ports.iter().flat_map(|port| few.iter().map(move |case| (*port, case)));
    all_met(alone.map(async |(port, (bytes, repeated, status))| {
        let exchange = exchange(port.number, bytes, repeated).await;
        let met = exchange.as_ref().is_ok_and(|exchange| {
            exchange.statuses == [*status] && exchange.lasted < idle + QUIET_TOLERANCE
        });
        (!met).then(|| format!("{}: {exchange:?}", port.name))
    }))
    .await;
    // A name, the first bytes, the bytes every 100 ms after them, and the status.
    let second_byte = [get("/none", &[]), b"G".to_vec()].concat();
    let extension = [early.clone(), b"1;".to_vec()].concat();
    let everywhere: [(_, _, &'static [u8], _); 8] = [
        ("silence", Vec::new(), b"", 408),
        ("a slow head", b"GET /none HTTP/1.1\r\n".to_vec(), b"x: y\r\n", 408),
        ("silence after an answer", get("/none", &[]), b"", 404),
        ("a byte of a second head", second_byte, b"", 404),
        ("a slow second head", get("/none", &[]), b"G", 404),
        ("a slow rest of what was answered", early.clone(), b"1\r\nx\r\n", 404),
        ("a rest that does not come", early, b"", 404),
        ("a rest with an endless extension", extension, b"xxx", 404),
    ];
    let everywhere = everywhere.map(|(name, bytes, repeated, status)| SlowClient {
        name,
        bytes,
        repeated,
        limit: idle,
        status,
    });
    let post = |kind: &str, more: &str| {
        let kind = format!("content-type: application/{kind}");
        head("POST /users HTTP/1.1", &["host: localhost", &kind, more])
    };
    let length = "content-length: 60000";
    let chunks = "transfer-encoding: chunked";
    let whole = Duration::from_secs(2);
    let extension = [post("json", chunks), b"1;".to_vec()].concat();
    let much = [b"f4240\r\n".to_vec(), b"\n".repeat(1_000_000), b"\r\n".to_vec()].concat();
    let becomes_slow = [post("x-ndjson", chunks), much].concat();
    // The same with the limit instead of the status, which is 408.
    let bodies: [(_, _, &'static [u8], _); 6] = [
        ("a body that does not come", post("json", length), b"", idle),
        ("a slow body", post("json", length), b" ", whole),
        ("an endless extension", extension, b"xxx", 2 * idle),
        ("an upload that does not come", post("x-ndjson", length), b"", idle),
        ("a slow upload", post("x-ndjson", length), b"\n", whole),
        // An average rate would allow hours of single bytes after the fast first part.
        ("an upload that becomes slow", becomes_slow, b"1\r\n\n\r\n", whole),
    ];
    let bodies = bodies.map(|(name, bytes, repeated, limit)| SlowClient {
        name,
        bytes,
        repeated,
        limit,
        status: 408,
    });
    let ingest = abused.port("ingest-api");
    let slow =
        abused.ports.iter().flat_map(|port| everywhere.iter().map(move |client| (*port, client)));
    let slow = slow.chain(bodies.iter().map(|client| (ingest, client)));
    all_met(slow.map(async |(port, client)| {
        let SlowClient { name, bytes, repeated, limit, status } = client;
        let exchange = exchange(port.number, bytes, repeated).await;
        let met = exchange.as_ref().is_ok_and(|Exchange { statuses, lasted }| {
            // actix's clock is up to half a second behind.
            let in_time = *lasted * 4 > *limit && *lasted < *limit + BUSY_TOLERANCE;
            in_time && *statuses == [*status]
        });
        (!met).then(|| format!("{}, {name}: {exchange:?}", port.name))
    }))
    .await;
    assert_eq!(abused.rows().await, [0; 3]);
    abused.until_recovered(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_idle_connections_keep_other_clients_out_only_briefly() {
    let mut abused = Abused::start().await;
    let before = abused.usage();
    // More than the 500 connections that an internal port accepts.
    let idle = abused.ports.iter().flat_map(|port| std::iter::repeat_n(port.number, 600));
    let idle: Vec<TcpStream> = join_all(idle.map(connect)).await;
    for Port { name, number } in &abused.ports {
        let served = exchange(*number, &get("/none", &["connection: close"]), b"").await;
        let met = served.as_ref().is_ok_and(|exchange| exchange.statuses == [404]);
        assert!(met, "{name}: {served:?}");
    }
    let closed = idle.into_iter().map(async |mut connection| {
        let mut answer = Vec::new();
        tokio::time::timeout(DEADLINE, connection.read_to_end(&mut answer))
            .await
            .expect("an idle connection must be closed")
            .unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    });
    join_all(closed).await;
    abused.until_recovered(&before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_client_is_gone() {
    let mut abused = Abused::start().await;
    // The snapshot is large enough to fill the smallest buffers of a client.
    let ingest = abused.stack.url(ServiceKind::IngestApi);
    let base_item = Uuid::now_v7();
    let items = (0..1_000).map(|milliseconds| {
        let time = format!("2026-01-01T00:00:00.{milliseconds:03}Z");
        json!({ "base_item_id": base_item, "created_at": time }).to_string()
    });
    let items: Vec<String> = items.collect();
    for (path, body) in [
        ("base-items", json!({ "id": base_item, "description": "a thing" }).to_string()),
        ("items", items.join("\n")),
    ] {
        let request = client().post(format!("{ingest}/{path}")).body(body);
        let answer = request.header("content-type", "application/x-ndjson").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let gateway = abused.stack.url(ServiceKind::SseGateway);
    until("the gateway must show the items", async || {
        let url = format!("{gateway}{PATH}");
        let request = client().get(url).header("accept", "application/json");
        let text = request.send().await.ok()?.text().await.ok()?;
        text.contains("2026-01-01T00:00:00.999Z").then_some(())
    })
    .await;
    let before = abused.usage();
    let port = abused.port("sse-gateway").number;
    // Sooner than a heartbeat, which is sent every 15 s, would reveal it.
    let soon = Duration::from_secs(12);

    let mut half_closed = follow(port, PATH, 65_536).await;
    abused.until_subscribers(1, DEADLINE).await;
    half_closed.shutdown().await.unwrap();
    abused.until_subscribers(0, soon).await;

    let gone = follow(port, PATH, 65_536).await;
    abused.until_subscribers(1, DEADLINE).await;
    drop(gone);
    abused.until_subscribers(0, soon).await;

    let _reads_nothing = follow(port, PATH, 1).await;
    abused.until_subscribers(1, DEADLINE).await;
    abused.until_subscribers(0, soon).await;

    // A client that reads stays connected for longer than the limits.
    let mut reads = follow(port, &format!("{PATH}?heartbeat=1"), 65_536).await;
    let mut text = Vec::new();
    let beats = async {
        while String::from_utf8_lossy(&text).matches("event: status").count() < 6 {
            assert_ne!(reads.read_buf(&mut text).await.unwrap(), 0, "the stream must go on");
        }
    };
    tokio::time::timeout(DEADLINE, beats)
        .await
        .expect("the stream must receive a status every second");
    drop(reads);
    abused.until_recovered(&before).await;
}

/// Opens a stream with a receive buffer of about `buffer` bytes, and reads its first bytes.
async fn follow(port: u16, path: &str, buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(buffer).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    stream.write_all(&get(path, &[])).await.unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    stream
}
