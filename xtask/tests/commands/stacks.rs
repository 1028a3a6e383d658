//! Stacks beside each other, in each other's way, killed, and begun anew.

use std::process::Command;
use std::thread;

use crate::support::{Place, said};

/// Real input, and an upload of it in which one line is bad.
const FLIGHTS: &str = "testing/local-stack/tests/data/flights";

#[test]
fn two_stacks_run_side_by_side() {
    let (one, other) = (Place::new("one"), Place::new("other"));
    thread::scope(|both| {
        for place in [&one, &other] {
            both.spawn(|| {
                let said = place.run(&["up", "--detach"]);
                assert!(said.contains("ready") && said.contains(place.value("INGEST_PORT")), "{said}");
            });
        }
    });
    for place in [&one, &other] {
        let status = place.status();
        assert_eq!((&status["running"], &status["ready"]), (&true.into(), &true.into()), "{status}");
        let url = format!("http://127.0.0.1:{}", place.value("GATEWAY_PORT"));
        assert_eq!(status["urls"]["sse_gateway"], url.as_str());
        assert_eq!(status["data_folder"], place.folder.to_str().unwrap());
        assert_eq!(status["processes"].as_array().unwrap().len(), 5, "{status}");
        assert!(place.run(&["status"]).contains(&format!("{url}   ready")));
    }
    let said = one.refused(&["up"]);
    assert!(said.contains("already runs") && said.contains("NEWCYCLE_DATA_DIR"), "{said}");
    let said = one.refused(&["reset"]);
    assert!(said.contains("cargo xtask down"), "{said}");

    let said = one.run(&["import", FLIGHTS]);
    let transfers = said.lines().find(|line| line.starts_with("transfers")).unwrap();
    let counts: Vec<&str> = transfers.split_whitespace().collect();
    assert!(counts[1].parse::<u64>().unwrap() > 1_000, "{said}");
    assert_eq!(counts[2..], ["0", "0"], "{said}");
    let said = one.run(&["import", FLIGHTS]);
    let again: Vec<&str> =
        said.lines().find(|line| line.starts_with("transfers")).unwrap().split_whitespace().collect();
    assert_eq!(again[1..], ["0", counts[1], "0"], "{said}");

    assert!(one.run(&["down"]).contains("stats-notifier"));
    assert_eq!(one.status()["running"], false);
    assert_eq!(other.status()["ready"], true, "the other stack must not be touched");
    assert!(one.run(&["down"]).contains("nothing runs"));
    assert!(one.folder.join("postgres/data").exists(), "the data must stay");
    assert!(one.run(&["reset"]).contains("deleted"));
    assert!(!one.folder.join("postgres").exists());
}

#[test]
fn a_taken_port_is_named_with_what_to_set() {
    let place = Place::new("taken");
    let _taken = std::net::TcpListener::bind(format!("127.0.0.1:{}", place.value("GATEWAY_PORT"))).unwrap();
    let said = place.refused(&["up"]);
    assert!(said.contains(&format!("port {} is taken", place.value("GATEWAY_PORT"))), "{said}");
    assert!(said.contains("GATEWAY_PORT"), "{said}");
    assert_eq!(place.status()["running"], false);
    let said = self::said(&place.command(&["up"]).env("GATEWAY_PORT", "eighty").output().unwrap()).1;
    assert!(said.contains("GATEWAY_PORT=eighty is not a port"), "{said}");
    let said =
        self::said(&place.command(&["up"]).env("GATEWAY_PORT", place.value("PGPORT")).output().unwrap()).1;
    assert!(said.contains("is taken: set GATEWAY_PORT"), "{said}");
}

#[test]
fn what_a_killed_stack_leaves_behind_is_stopped() {
    let place = Place::new("killed");
    place.run(&["up", "--detach"]);
    let before = place.status();
    kill(&before["process_id"]);
    // Its services and its Postgres are still there, and hold the ports.
    let said = place.run(&["up", "--detach"]);
    assert!(said.contains("postgres, which was left behind"), "{said}");
    let after = place.status();
    assert_eq!(after["ready"], true);
    kill(&after["process_id"]);
    assert!(place.run(&["down"]).contains("left behind"));
    assert_eq!(place.status()["running"], false);
}

/// One service dies: the stack says so, and stops as a whole.
#[test]
fn a_dead_service_ends_the_stack() {
    let place = Place::new("dead");
    place.run(&["up", "--detach"]);
    let status = place.status();
    let gateway =
        status["processes"].as_array().unwrap().iter().find(|process| process["name"] == "sse-gateway");
    kill(&gateway.unwrap()["process_id"]);
    let started = std::time::Instant::now();
    while place.status()["running"] == true {
        assert!(started.elapsed().as_secs() < 60, "the stack must end");
    }
    // Its last words come after it has let go of the folder.
    let log = || std::fs::read_to_string(place.folder.join("stack.log")).unwrap();
    while !log().contains("sse-gateway has ended (signal: 9") {
        assert!(started.elapsed().as_secs() < 60, "it must say why it ended: {}", log());
    }
}

#[test]
fn an_import_says_what_is_wrong() {
    let place = Place::new("import");
    let said = place.refused(&["import", place.folder.to_str().unwrap()]);
    assert!(said.contains("base-items, users, items or transfers"), "{said}");
    std::fs::create_dir_all(&place.folder).unwrap();
    std::fs::write(place.folder.join("users.ndjson"), "{}\n{\"name\":1}\n").unwrap();
    let said = place.refused(&["import", place.folder.to_str().unwrap()]);
    assert!(said.contains("cargo xtask up"), "{said}");
    place.run(&["up", "--detach"]);
    let said = place.refused(&["import", place.folder.to_str().unwrap()]);
    assert!(said.contains("users.ndjson, line 2") && said.contains("1 lines were rejected"), "{said}");
}

fn kill(process_id: &serde_json::Value) {
    assert!(Command::new("kill").args(["-9", &process_id.to_string()]).status().unwrap().success());
}
