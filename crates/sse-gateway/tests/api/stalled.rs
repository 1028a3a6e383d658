//! A client that does not read costs constant memory, and later gets one frame instead of
//! thousands.
//!
//! The gateway is a separate process here, so that its memory can be measured.

use std::time::{Duration, Instant};

use domain::{BucketTime, Changes, Metric};
use tokio::io::AsyncReadExt;

use crate::process::GatewayProcess;
use crate::support::{Client, Publisher, all_topics};

/// Long enough for the head of a request to arrive before it, also on a busy machine.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// A figure of the memory of a process, in bytes: `VmRSS:` is the resident memory now, and `VmHWM:`
/// the most that it ever was.
pub(crate) fn memory(process_id: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

/// Publishes versions of 200 new milliseconds each. After each, waits until a client has it.
async fn publish(publisher: &Publisher, reader: &mut Client, versions: std::ops::Range<i64>) {
    for version in versions {
        let start = 1_700_000_000_000 + version * 200;
        let times =
            (start..start + 200).map(|time| BucketTime::from_unix_milliseconds(time).unwrap());
        let changes: Changes = times.map(|time| (Metric::Transfers, time, 1)).collect();
        publisher.hub.mark_live();
        reader.until(publisher.hub.advance(&changes).unwrap()).await;
    }
}

/// A gateway that follows a publisher.
async fn gateway(publisher: &Publisher) -> GatewayProcess {
    let idle_timeout = format!("{}ms", IDLE_TIMEOUT.as_millis());
    let variables = [("NEWCYCLE__HTTP__IDLE_TIMEOUT", idle_timeout.as_str())];
    GatewayProcess::start(&publisher.url, &variables).await
}

/// A connection with a slow response is not idle, even after the idle timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_gets_its_whole_response() {
    let publisher = Publisher::start(1);
    let gateway = gateway(&publisher).await;
    let path = all_topics();
    let mut reader = Client::connect(&gateway.url(&path), None).await;
    publish(&publisher, &mut reader, 0..50).await;
    let headers = "accept: application/json\r\nconnection: close\r\n";
    let (mut slow, status) = gateway.stall(&path, headers).await;
    assert_eq!(status, 200);
    let mut read = Vec::new();
    let started = Instant::now();
    let mut between_bytes = tokio::time::interval(Duration::from_millis(50));
    while started.elapsed() < 2 * IDLE_TIMEOUT {
        between_bytes.tick().await;
        read.push(slow.read_u8().await.unwrap());
    }
    slow.read_to_end(&mut read).await.unwrap();
    let text = String::from_utf8(read).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = body.len();
    assert!(head.contains(&format!("content-length: {length}")), "{head}, {length} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_costs_constant_memory() {
    let publisher = Publisher::start(1);
    let gateway = gateway(&publisher).await;
    let process_id = gateway.process.process_id().unwrap();
    let path = all_topics();
    let mut reader = Client::connect(&gateway.url(&path), None).await;
    publish(&publisher, &mut reader, 0..50).await;

    let (mut stalled, status) = gateway.stall(&path, "").await;
    assert_eq!(status, 200);
    // Each version is about ten kilobytes, so the sockets are full by now, and the write is
    // blocked.
    publish(&publisher, &mut reader, 50..500).await;
    let before = memory(process_id, "VmRSS:");
    publish(&publisher, &mut reader, 500..1_500).await;
    let grown = memory(process_id, "VmRSS:").saturating_sub(before);
    // A queue of these 1,000 versions would take more than 10 MB.
    assert!(grown < 5_000_000, "1,000 versions for a client that does not read took {grown} bytes");

    // When it reads again, it gets the data in transit, and then the rest in one frame.
    let last = publisher.hub.with_state(|statistics| statistics.version().to_string()).unwrap();
    let mut text = String::new();
    let mut buffer = vec![0; 65_536];
    while !text.contains(&last) {
        let count = stalled.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the stream must not end");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let events = text.matches("event: patch").count();
    assert!(events < 50, "{events} patches for 1,450 versions, which must be conflated");
}
