//! Real input, through the services as processes of their own: every bucket is what was counted elsewhere.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use local_stack::postgres::free_port;
use local_stack::services::Service;
use local_stack::test_database::TestDatabase;
use secrecy::ExposeSecret;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);

/// The services of one database.
struct Stack {
    variables: Vec<(&'static str, String)>,
    ports: [u16; 3],
    services: Vec<Service>,
}

const NAMES: [&str; 3] = ["ingest-api", "stats-notifier", "sse-gateway"];

/// The folder that the programs were built into, beside that of the tests.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

impl Stack {
    async fn start(database: &TestDatabase) -> Self {
        let ports = [free_port().unwrap(), free_port().unwrap(), free_port().unwrap()];
        let (ingest, notifier) = (database.ingest(), database.notifier());
        let variables = vec![
            ("PGHOST", ingest.host.clone()),
            ("PGPORT", ingest.port.to_string()),
            ("PGDATABASE", ingest.name.clone()),
            ("INGEST_DATABASE_PASSWORD", ingest.password.expose_secret().to_owned()),
            ("NOTIFIER_DATABASE_PASSWORD", notifier.password.expose_secret().to_owned()),
            ("INGEST_PORT", ports[0].to_string()),
            ("NOTIFIER_PORT", ports[1].to_string()),
            ("GATEWAY_PORT", ports[2].to_string()),
            ("NEWCYCLE_UPSTREAMS", format!("http://127.0.0.1:{}", ports[1])),
        ];
        let mut stack = Self { variables, ports, services: Vec::new() };
        for place in 0..NAMES.len() {
            let service = stack.launch(place);
            stack.services.push(service);
        }
        for place in 0..NAMES.len() {
            stack.until_ready(place).await;
        }
        stack
    }

    fn launch(&self, place: usize) -> Service {
        Service::start(&programs(), NAMES[place], &self.variables, |_| ()).unwrap()
    }

    async fn restart(&mut self, place: usize) {
        let ended_well = self.services[place].stop(DEADLINE).await;
        assert!(ended_well, "{} must end without an error when asked to", NAMES[place]);
        self.services[place] = self.launch(place);
        self.until_ready(place).await;
    }

    async fn until_ready(&self, place: usize) {
        let url = format!("http://127.0.0.1:{}/readyz", self.ports[place]);
        let started = Instant::now();
        while !reqwest::get(&url).await.is_ok_and(|response| response.status().is_success()) {
            assert!(started.elapsed() < DEADLINE, "{} must become ready", NAMES[place]);
        }
    }

    /// The gateway's buckets of a topic.
    async fn buckets(&self, topic: &str) -> Value {
        let url = format!("http://127.0.0.1:{}/statistics/{topic}", self.ports[2]);
        let request = reqwest::Client::new().get(url).header("accept", "application/json");
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["buckets"].take()
    }

    /// Waits until every bucket of every unit is the true one.
    async fn until_exact(&self, expected: &Value, when: &str) {
        for metric in ["item-creation", "transfers"] {
            for (unit, buckets) in expected[metric].as_object().unwrap() {
                let started = Instant::now();
                while self.buckets(&format!("{metric}/{unit}")).await != *buckets {
                    assert!(started.elapsed() < DEADLINE, "{metric} by {unit} is wrong {when}");
                }
            }
        }
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flights")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_is_exact_live_and_after_each_restart() {
    let database = TestDatabase::create().await;
    let mut stack = Stack::start(&database).await;
    let expected: Value =
        serde_json::from_slice(&std::fs::read(data().join("expected.json")).unwrap()).unwrap();
    for name in ["base-items", "users", "items", "transfers"] {
        let file = std::fs::File::open(data().join(format!("{name}.ndjson.gz"))).unwrap();
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut body).unwrap();
        let url = format!("http://127.0.0.1:{}/{name}", stack.ports[0]);
        let request = reqwest::Client::new().post(url).header("content-type", "application/x-ndjson");
        let answer = request.body(body).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let rows = &expected["rows"][name.replace('-', "_")];
        assert_eq!((&answer["accepted"], &answer["rejected"]), (rows, &Value::from(0)), "{name}: {answer}");
    }
    stack.until_exact(&expected, "live").await;
    for (place, name) in NAMES.iter().enumerate() {
        stack.restart(place).await;
        stack.until_exact(&expected, &format!("after a restart of {name}")).await;
    }
}
