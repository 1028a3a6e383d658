//! A client that does not read costs nothing that grows, and then gets one frame instead of thousands.

use domain::{Metric, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{Gateway, Publisher, until};

/// The memory of this process that is in use, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

/// Publishes versions of 200 new milliseconds each, and waits until the gateway has the last one.
async fn publish(publisher: &Publisher, gateway: &Gateway, versions: std::ops::Range<i64>) {
    for version in versions {
        let start = 1_700_000_000_000 + version * 200;
        let times =
            (start..start + 200).map(|time| domain::BucketTime::from_unix_milliseconds(time).unwrap());
        let version = publisher.hub.advance(times.map(|time| (Metric::Transfers, time, 1))).unwrap();
        publisher.hub.live();
        gateway.until(version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_costs_nothing_that_grows() {
    let publisher = Publisher::start(1);
    let gateway = Gateway::start(&publisher.url);
    publish(&publisher, &gateway, 0..50).await;
    let address = gateway.url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // The smallest that the system gives.
    socket.set_recv_buffer_size(1).unwrap();
    let mut stalled = socket.connect(address).await.unwrap();
    let topics: Vec<String> = Topic::all().map(|topic| format!("topic={topic}")).collect();
    let request = format!("GET /statistics?{} HTTP/1.1\r\nhost: x\r\n\r\n", topics.join("&"));
    stalled.write_all(request.as_bytes()).await.unwrap();
    until("it must be a subscriber", || gateway.hub.subscribers() == 1).await;
    // Each version is some ten kilobytes for it: by now its sockets are full and the write is blocked.
    publish(&publisher, &gateway, 50..500).await;
    let before = resident();
    publish(&publisher, &gateway, 500..2_500).await;
    let grown = resident().saturating_sub(before);
    // Queued, those 2,000 versions would be more than 20 MB.
    assert!(grown < 10_000_000, "2,000 versions for a client that does not read took {grown} bytes");
    // Reading again, it gets what was on the way and then the rest in one frame.
    let last = publisher.hub.read(|statistics| statistics.version().to_string()).unwrap();
    let (mut text, mut buffer) = (String::new(), vec![0; 65_536]);
    while !text.contains(&last) {
        let count = stalled.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the stream must not end");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let events = text.matches("event: patch").count();
    assert!(events < 1_000, "{events} patches for 2,450 versions are no conflation");
}
