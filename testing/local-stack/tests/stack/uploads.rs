//! The memory of ingest-api during a large upload.

use bytes::Bytes;
use local_stack::ports::reserve_port;
use local_stack::process::ServiceProcess;
use local_stack::stack::built_programs;
use local_stack::test_database::{TestDatabase, http_client};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::until;

/// What the memory may grow by, however long an upload is.
const MAX_GROWTH: u64 = 64 << 20;

/// The most memory that a process ever had, in bytes.
fn peak(process_id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

/// Uploads base items of this many bytes, with the longest descriptions, and checks the memory.
pub(crate) async fn upload_in_constant_memory(bytes: usize) {
    let database = TestDatabase::create().await;
    let to = database.ingest();
    let [port, internal_port] = [(); 2].map(|()| reserve_port().unwrap());
    let variables = [
        ("NEWCYCLE__HTTP__PORT", port.to_string()),
        ("NEWCYCLE__INTERNAL__PORT", internal_port.to_string()),
        ("NEWCYCLE__DATABASE__HOST", to.host.to_string()),
        ("NEWCYCLE__DATABASE__PORT", to.port.to_string()),
        ("NEWCYCLE__DATABASE__NAME", to.name),
        ("NEWCYCLE__DATABASE__PASSWORD", to.password.expose_secret().to_owned()),
    ];
    let programs = built_programs().unwrap();
    let process = ServiceProcess::start(&programs, "ingest-api", &variables, |_| ()).unwrap();
    let process_id = process.process_id().unwrap();
    let client = http_client().build().unwrap();
    let ready = format!("http://127.0.0.1:{internal_port}/readyz");
    until("ingest-api must become ready", async || {
        client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200).then_some(())
    })
    .await;
    let line = Bytes::from(format!("{{\"description\":\"{}\"}}\n", "\u{1f6b2}".repeat(1_000)));
    let upload = async |lines: usize| {
        let parts = std::iter::repeat_n(line.clone(), lines).map(Ok::<_, std::io::Error>);
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
        let request = client.post(format!("http://127.0.0.1:{port}/base-items"));
        let request = request.header("content-type", "application/x-ndjson").body(body);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["accepted"], lines, "{answer}");
    };
    upload(1).await;
    let before = peak(process_id);
    upload(bytes / line.len()).await;
    let grown = peak(process_id) - before;
    assert!(grown < MAX_GROWTH, "{before} bytes, and {grown} more for an upload of {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_any_length_takes_constant_memory() {
    upload_in_constant_memory(160 << 20).await;
}
