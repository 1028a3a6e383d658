//! The demo: the gateway shows exactly what it reports as sent.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::proxy::{Fault, FaultyProxy};
use crate::support::{TestStack, row, signal};

#[test]
fn the_gateway_shows_what_the_demo_sent() {
    let stack = TestStack::started("demo");
    let text = stack.run(&["demo", "--backfill", "2d", "--events", "0"]);
    let [items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [transfers, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert!(items > 500 && transfers > 1_000, "{text}");
    assert_eq!((row(&text, "base-items"), row(&text, "users")), ([10, 0, 0], [200, 0, 0]));
    stack.until_counted(items, transfers);

    let text = stack.run(&["demo", "--rate", "1000", "--events", "200"]);
    let [more_items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [more_transfers, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert_eq!(more_items + more_transfers, 200, "{text}");
    assert_eq!((row(&text, "base-items"), row(&text, "users")), ([0, 10, 0], [0, 200, 0]));
    stack.until_counted(items + more_items, transfers + more_transfers);
}

#[test]
fn a_demo_repeats_an_upload_until_it_is_answered_and_prints_the_reason_once() {
    // Requests: the first looks for ingest-api, and then come base items, users, items, transfers.
    const FAULTS: [(u32, Fault); 4] = [
        (1, Fault::Unanswered),
        (4, Fault::Unavailable),
        (5, Fault::Unavailable),
        (7, Fault::Unanswered),
    ];
    let mut stack = TestStack::started("demo-faults");
    stack.variables.push(("NEWCYCLE_KEY", stack.key().to_owned()));
    let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), &FAULTS);
    let text = stack.run(&["demo", "--rate", "1000", "--events", "50", "--url", &proxy.url]);
    assert_eq!(text.matches("ingest-api answers 503").count(), 1, "{text}");
    assert_eq!(text.matches("ingest-api does not answer").count(), 2, "{text}");
    let bodies: Vec<_> = proxy.requests.try_iter().map(|(_, body)| body).collect();
    for (repeated, first) in [(2, 1), (5, 4), (6, 4), (8, 7)] {
        assert_eq!(bodies[repeated], bodies[first], "request {repeated}: {text}");
    }
    // Rows that were stored without an answer are repeated ones the second time.
    assert_eq!((row(&text, "base-items"), row(&text, "users")), ([0, 10, 0], [200, 0, 0]));
    let [items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [transfers, repeated_transfers, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert!(repeated_transfers > 0, "{text}");
    assert_eq!(items + transfers + repeated_transfers, 50, "{text}");
    stack.until_counted(items, transfers + repeated_transfers);
}

#[test]
fn a_demo_counts_rejected_rows_and_prints_the_first_of_each_kind() {
    // Two days are 17,280 events on average, so two uploads of items and two of transfers.
    const FAULTS: [(u32, Fault); 7] = [
        (0, Fault::Unavailable),
        (1, Fault::Rejected),
        (2, Fault::Rejected),
        (3, Fault::Rejected),
        (4, Fault::Rejected),
        (5, Fault::Rejected),
        (6, Fault::Rejected),
    ];
    let mut stack = TestStack::new("demo-rejected");
    stack.variables.push(("NEWCYCLE_KEY", "unread".to_owned()));
    let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), &FAULTS);
    let text = stack.run(&["demo", "--backfill", "2d", "--events", "0", "--url", &proxy.url]);
    for (kind, uploads) in [("base-items", 1), ("users", 1), ("items", 2), ("transfers", 2)] {
        let message = format!("a row of {kind} was rejected: is grey");
        assert_eq!(text.matches(&message).count(), 1, "{text}");
        assert_eq!(row(&text, kind), [uploads, 0, uploads], "{text}");
    }
}

#[test]
fn a_demo_can_be_interrupted_while_an_upload_hangs() {
    const FAULTS: [(u32, Fault); 2] = [(0, Fault::Unavailable), (1, Fault::Hanging)];
    let mut stack = TestStack::new("demo-hanging");
    stack.variables.push(("NEWCYCLE_KEY", "unread".to_owned()));
    let proxy = FaultyProxy::before(stack.value("INGEST_PORT"), &FAULTS);
    let mut command = stack.command(&["demo", "--url", &proxy.url]);
    let demo = command.stdout(Stdio::piped()).spawn().unwrap();
    for request in ["the search for ingest-api", "the upload of base items"] {
        proxy.requests.recv().expect(request);
    }
    signal("-INT", &demo.id().into());
    let output = demo.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("it may be stored or not"), "{text}");
    assert!(!text.contains("trying again"), "an interrupt must not wait for the timeout: {text}");
    assert_eq!(row(&text, "base-items"), [0, 0, 0]);
}

#[test]
fn an_interrupted_demo_prints_what_it_sent() {
    let mut stack = TestStack::new("demo-interrupted");
    let text = stack.refused(&["demo"]);
    assert!(text.contains("cargo xtask up") && text.contains(stack.value("INGEST_PORT")), "{text}");
    stack.run(&["up", "--detach"]);
    let text = stack.refused(&["demo", "--url", &stack.url("GATEWAY_PORT")]);
    assert!(text.contains("NEWCYCLE_KEY"), "the stack's keys are for its own services: {text}");
    stack.variables.push(("NEWCYCLE_KEY", stack.key().to_owned()));
    let text = stack.refused(&["demo", "--url", &stack.url("GATEWAY_PORT")]);
    assert!(text.contains("404") && text.contains("is that an ingest-api?"), "{text}");

    let mut demo =
        stack.command(&["demo", "--rate", "500"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(demo.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("sending about 500 events a second") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "the demo has ended: {text}");
    }
    stack.until_counts("some", |(items, _)| items > 10);
    signal("-INT", &demo.id().into());
    output.read_to_string(&mut text).unwrap();
    assert!(demo.wait().unwrap().success(), "{text}");
    let [items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [transfers, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    stack.until_counted(items, transfers);
}
