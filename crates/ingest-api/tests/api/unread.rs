//! Clients that do not read their answers, and others meanwhile.

use std::num::NonZeroU32;

use local_stack::test_database::TEST_KEY;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::owned_items::create_history;
use crate::support::Api;

/// Far more than the operating system buffers.
const PAGE_ROWS: u32 = 10_000;

/// Requests a path with the smallest possible receive buffer, and reads only the status.
async fn stall(api: &Api, path: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let address = api.url.trim_start_matches("http://").parse().unwrap();
    let mut stalled = socket.connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TEST_KEY}\r\n\r\n"
    );
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stalled.read_exact(&mut head).await.unwrap();
    (stalled, String::from_utf8(head.to_vec()).unwrap())
}

#[tokio::test]
async fn what_was_stored_is_reported_even_if_there_is_no_room_for_large_answers() {
    let api = Api::start_with(|settings| {
        settings.http.max_unsent_bytes = 1;
        settings.limits.max_page_rows = NonZeroU32::new(PAGE_ROWS).unwrap();
    })
    .await;
    let (user, _) = create_history(&api, PAGE_ROWS, 1).await;
    let page = format!("/users/{user}/items?limit={PAGE_ROWS}");
    let (stalled, status) = stall(&api, &page).await;
    assert_eq!(status, "HTTP/1.1 200");
    assert_eq!(api.get(&page).await.status, 503);

    let bad = format!("{{\"{}\":1}}\n", "x".repeat(500));
    let before = api.rows().await[1];
    let answer = api.upload("/users", &format!("{{}}\n{}", bad.repeat(100))).await;
    assert!(answer.body.to_string().len() > 16_384, "{}", answer.body);
    assert_eq!((answer.status, answer.counts()), (422, [1, 0, 100]));
    assert_eq!(api.rows().await[1], before + 1);
    drop(stalled);
}
