//! Native stacks: two at once, port conflicts, killed ones, and restarts.

use std::thread;

use crate::support::{TestStack, output, row, signal};

/// Real events.
const FLIGHTS: &str = "testing/local-stack/tests/data/flights";

#[test]
fn two_stacks_run_side_by_side() {
    let (one, other) = (TestStack::new("one"), TestStack::new("other"));
    thread::scope(|both| {
        for stack in [&one, &other] {
            both.spawn(|| {
                let text = stack.run(&["up", "--detach"]);
                assert!(
                    text.contains("ready") && text.contains(stack.value("INGEST_PORT")),
                    "{text}"
                );
            });
        }
    });
    for stack in [&one, &other] {
        let status = stack.status();
        assert_eq!(
            (&status["running"], &status["ready"]),
            (&true.into(), &true.into()),
            "{status}"
        );
        let url = stack.url("GATEWAY_PORT");
        assert_eq!(status["urls"]["sse_gateway"], url.as_str());
        assert_eq!(status["data_folder"], stack.folder.to_str().unwrap());
        assert_eq!(status["processes"].as_array().unwrap().len(), 5, "{status}");
        assert!(stack.run(&["status"]).contains(&format!("{url}   ready")));
    }
    let text = one.refused(&["up"]);
    assert!(text.contains("already runs") && text.contains("NEWCYCLE_DATA_DIR"), "{text}");
    let text = one.refused(&["reset"]);
    assert!(text.contains("cargo xtask down"), "{text}");

    let text = one.run(&["import", FLIGHTS]);
    let [accepted, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert!(accepted > 1_000, "{text}");
    let text = one.run(&["import", FLIGHTS]);
    assert_eq!(row(&text, "transfers"), [0, accepted, 0], "{text}");

    assert!(one.run(&["down"]).contains("stats-notifier"));
    assert_eq!(one.status()["running"], false);
    assert_eq!(other.status()["ready"], true, "the other stack must not be touched");
    assert!(one.run(&["down"]).contains("nothing runs"));
    assert!(one.folder.join("postgres/data").exists(), "the data must stay");
    assert!(one.run(&["reset"]).contains("deleted"));
    assert!(!one.folder.join("postgres").exists());
}

#[test]
fn a_port_in_use_is_named_with_the_variable_to_set() {
    let stack = TestStack::new("taken");
    let _taken =
        std::net::TcpListener::bind(format!("127.0.0.1:{}", stack.value("GATEWAY_PORT"))).unwrap();
    let text = stack.refused(&["up"]);
    assert!(text.contains(&format!("port {} is taken", stack.value("GATEWAY_PORT"))), "{text}");
    assert!(text.contains("GATEWAY_PORT"), "{text}");
    assert_eq!(stack.status()["running"], false);
    let mut command = stack.command(&["up"]);
    let (_, text) = output(command.env("GATEWAY_PORT", "eighty").env("RUST_BACKTRACE", "1"));
    assert!(text.contains("error: GATEWAY_PORT=eighty is not a port"), "{text}");
    assert!(!text.contains("backtrace"), "{text}");
    let (_, text) = output(command.env("GATEWAY_PORT", stack.value("PGPORT")));
    assert!(text.contains("is taken: set GATEWAY_PORT"), "{text}");
}

#[test]
fn the_next_stack_stops_what_a_killed_one_left_behind() {
    let stack = TestStack::started("killed");
    stack.kill();
    // Its services and its Postgres still run, and occupy the ports.
    let text = stack.run(&["up", "--detach"]);
    assert!(text.contains("postgres, which was left behind"), "{text}");
    assert_eq!(stack.status()["ready"], true);
    stack.kill();
    assert!(stack.run(&["down"]).contains("left behind"));
    assert_eq!(stack.status()["running"], false);
}

#[test]
fn a_stack_stops_and_prints_the_reason_when_a_service_dies() {
    let stack = TestStack::started("dead");
    signal("-KILL", &stack.process_id("sse-gateway"));
    let started = std::time::Instant::now();
    while stack.status()["running"] == true {
        assert!(started.elapsed().as_secs() < 60, "the stack must end");
    }
    // It prints the reason after it has released the folder.
    let log = || std::fs::read_to_string(stack.folder.join("stack.log")).unwrap();
    while !log().contains("sse-gateway has ended (signal: 9") {
        assert!(started.elapsed().as_secs() < 60, "it must print the reason: {}", log());
    }
}

#[test]
fn an_import_names_what_is_wrong() {
    let stack = TestStack::new("import");
    let text = stack.refused(&["import", stack.folder.to_str().unwrap()]);
    assert!(text.contains("base-items, users, items or transfers"), "{text}");
    std::fs::create_dir_all(&stack.folder).unwrap();
    std::fs::write(stack.folder.join("users.ndjson"), "{}\n{\"name\":1}\n").unwrap();
    let text = stack.refused(&["import", stack.folder.to_str().unwrap()]);
    assert!(text.contains("cargo xtask up"), "{text}");
    stack.run(&["up", "--detach"]);
    let text = stack.refused(&["import", stack.folder.to_str().unwrap()]);
    assert!(
        text.contains("users.ndjson, line 2") && text.contains("1 lines were rejected"),
        "{text}"
    );
}

/// `.env` above the checkout, or where a command happens to be run, belongs to something else.
#[test]
fn a_file_env_outside_of_the_checkout_is_not_read() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join(".env"), "GATEWAY_PORT=eighty\n").unwrap();
    let folder = outside.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for folder in [outside.path(), &folder] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["status", "--json"]).env_remove("GATEWAY_PORT").current_dir(folder);
        let (succeeded, text) = output(&mut command);
        assert!(succeeded, "{text}");
    }
}
