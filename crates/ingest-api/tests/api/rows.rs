//! Rows that are stored, read back, listed and deleted.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Api;

#[tokio::test]
async fn an_item_passes_through_every_path_from_creation_to_deletion() {
    let api = Api::start().await;
    let (base_item, user, item) = api.parents().await;
    let stored = api.get(&format!("/items/{item}")).await;
    let expected = json!({ "id": item, "base_item_id": base_item, "created_at": "2026-11-23T09:37:00.123456Z" });
    assert_eq!((stored.status, &stored.body), (200, &expected));
    assert_eq!(api.get(&format!("/base-items/{base_item}")).await.body["description"], "a thing");
    assert_eq!(api.get(&format!("/users/{user}")).await.body, json!({ "id": user }));
    let owner = api.get(&format!("/items/{item}/owner")).await;
    let no_owner = json!({ "item_id": item, "owner_id": null, "transfer_id": null, "since": null });
    assert_eq!((owner.status, owner.body), (200, no_owner));

    let put = |to: &str| {
        let path = format!("/items/{item}/ownership");
        api.request("PUT", &path)
            .header("content-type", "application/json")
            .body(json!({ "to": to }).to_string())
    };
    assert_eq!(api.send(put(&user)).await.status, 204);
    assert_eq!(api.send(put(&user)).await.status, 204, "every PUT is a transfer");
    let other = api.post("/users", &json!({})).await.body["id"].as_str().unwrap().to_owned();
    let back_dated =
        json!({ "item_id": item, "owner_id": other, "timestamp": "2020-01-01T00:00:00+01:00" });
    let transfer = api.post("/transfers", &back_dated).await;
    assert_eq!(transfer.status, 201);
    let location = transfer.headers["location"].to_str().unwrap();
    assert_eq!(api.get(location).await.body, transfer.body);
    assert_eq!(transfer.body["timestamp"], "2019-12-31T23:00:00Z");

    let owner = api.get(&format!("/items/{item}/owner")).await.body;
    assert_eq!(owner["owner_id"], user.as_str(), "the latest transfer by time, not by arrival");
    let history = api.get(&format!("/items/{item}/transfers")).await.body;
    assert_eq!(history["data"].as_array().unwrap().len(), 3);
    assert_eq!(history["data"][0], transfer.body, "transfers are in the order of their times");
    let owned = async |user: &str| api.get(&format!("/users/{user}/items")).await.body;
    assert_eq!(owned(&user).await, json!({ "data": [expected], "next": null }));
    assert_eq!(owned(&other).await, json!({ "data": [], "next": null }));

    let delete = |path: String| api.send(api.request("DELETE", &path));
    let refused = delete(format!("/items/{item}")).await;
    assert_eq!((refused.status, &refused.body["type"]), (409, &json!("/problems/has-transfers")));
    for transfer in history["data"].as_array().unwrap() {
        let path = format!("/transfers/{}", transfer["id"].as_str().unwrap());
        assert_eq!(delete(path).await.status, 204);
    }
    assert_eq!(delete(format!("/items/{item}")).await.status, 204);
    assert_eq!(delete(format!("/items/{item}")).await.status, 404);
    assert_eq!(api.rows().await, [1, 2, 0, 0]);
}

#[tokio::test]
async fn a_repeated_row_is_200_and_a_conflicting_row_is_409() {
    let api = Api::start().await;
    let (base_item, user, item) = api.parents().await;
    let id = Uuid::now_v7();
    let given = json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": "2026-01-02T03:04:05.1234567Z" });
    let first = api.post("/transfers", &given).await;
    assert_eq!(first.status, 201);
    let same = json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": "2026-01-02T04:04:05.123456+01:00" });
    let without_time = json!({ "id": id, "item_id": item, "owner_id": user });
    for again in [&given, &same, &without_time] {
        let answer = api.post("/transfers", again).await;
        assert_eq!((answer.status, &answer.body), (200, &first.body), "{again}");
    }
    let other =
        json!({ "id": id, "item_id": item, "owner_id": user, "timestamp": "2026-01-02T03:04:06Z" });
    let answer = api.post("/transfers", &other).await;
    assert_eq!((answer.status, &answer.body["field"]), (409, &json!("id")));
    // The key becomes the id of a row without one.
    let key = Uuid::now_v7();
    let keyed = |body: Value| {
        let request = api.request("POST", "/items").header("content-type", "application/json");
        api.send(request.header("idempotency-key", key.to_string()).body(body.to_string()))
    };
    let first = keyed(json!({ "base_item_id": base_item })).await;
    assert_eq!((first.status, &first.body["id"]), (201, &json!(key.to_string())));
    assert_eq!(keyed(json!({ "base_item_id": base_item })).await.status, 200);
    assert_eq!(api.rows().await, [1, 1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_requests_with_the_same_id_exactly_one_creates_the_row() {
    let api = Api::start().await;
    let (base_item, ..) = api.parents().await;
    let body = json!({ "id": Uuid::now_v7(), "base_item_id": base_item });
    let answers = futures_util::future::join_all((0..30).map(|_| api.post("/items", &body))).await;
    let mut statuses = BTreeMap::new();
    for answer in answers {
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 29), (201, 1)]));
}

#[tokio::test]
async fn a_page_starts_where_the_page_before_it_ended() {
    let api = Api::start().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(api.post("/users", &json!({})).await.body["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    let (mut seen, mut path) = (Vec::new(), "/users?limit=3".to_owned());
    loop {
        let page = api.get(&path).await.body;
        let rows = page["data"].as_array().unwrap().iter();
        seen.extend(rows.map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/users?limit=3&after={next}");
    }
    assert_eq!(seen, ids);
}
