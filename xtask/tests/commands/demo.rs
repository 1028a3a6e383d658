//! The demo: the gateway shows exactly what it reports as sent.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::proxy::{Trouble, Troublemaker};
use crate::support::Place;

/// The accepted, repeated and rejected rows of a kind, from the table at the end of the output.
fn row(text: &str, kind: &str) -> [u64; 3] {
    let line = text
        .lines()
        .find(|line| line.starts_with(kind))
        .unwrap_or_else(|| panic!("no {kind}: {text}"));
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn the_gateway_shows_what_the_demo_sent() {
    let place = Place::new("demo");
    place.run(&["up", "--detach"]);
    let past = ["demo", "--backfill", "2d", "--backfill-rate", "0.02", "--events", "0"];
    let text = place.run(&past);
    let [items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [transfers, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert!(items > 500 && transfers > 1_000, "{text}");
    assert_eq!((row(&text, "base-items"), row(&text, "users")), ([20, 0, 0], [200, 0, 0]));
    place.until_counted(items, transfers);

    // The same past again adds what has happened since, and live events come on top. After midnight
    // the first day is another one.
    let present = [
        "demo",
        "--backfill",
        "2d",
        "--backfill-rate",
        "0.02",
        "--rate",
        "1000",
        "--events",
        "200",
    ];
    let text = place.run(&present);
    let [more_items, repeated_items, 0] = row(&text, "items") else { panic!("{text}") };
    let [more_transfers, repeated_transfers, 0] = row(&text, "transfers") else { panic!("{text}") };
    assert!(repeated_items > items / 4 && repeated_transfers > transfers / 4, "{text}");
    let sent = more_items + more_transfers;
    assert!(
        (200..220).contains(&sent),
        "200 events, and those of the past since the first run: {text}"
    );
    place.until_counted(items + more_items, transfers + more_transfers);
}

#[test]
fn a_demo_continues_through_errors_and_prints_each_kind_once() {
    // The first three requests look for ingest-api and upload base items and users.
    const TROUBLE: [(u32, Trouble); 4] = [
        (3, Trouble::Refused),
        (4, Trouble::Refused),
        (5, Trouble::Unavailable),
        (6, Trouble::Unanswered),
    ];
    let place = Place::new("demo-trouble");
    place.run(&["up", "--detach"]);
    let trouble = Troublemaker::before(place.value("INGEST_PORT"), &TROUBLE);
    let text = place.run(&["demo", "--rate", "1000", "--events", "50", "--url", &trouble.url]);
    for once in ["ingest-api answers 503", "ingest-api does not answer", "colour: is grey"] {
        assert_eq!(text.matches(once).count(), 1, "{once} must be printed once: {text}");
    }
    let ([items, 0, no_items], [transfers, 0, no_transfers]) =
        (row(&text, "items"), row(&text, "transfers"))
    else {
        panic!("{text}")
    };
    assert_eq!((items + transfers, no_items + no_transfers), (48, 2), "{text}");
    assert_eq!(
        trouble.requests.try_iter().count(),
        55,
        "50 events, two of them twice, after three requests"
    );
    place.until_counted(items, transfers);

    // Likewise an upload: rows that were stored without an answer are repeated ones the second
    // time.
    let trouble = Troublemaker::before(place.value("INGEST_PORT"), &[(1, Trouble::Unanswered)]);
    let text = place.run(&["demo", "--seed", "2", "--events", "0", "--url", &trouble.url]);
    assert_eq!(
        (row(&text, "base-items"), row(&text, "users")),
        ([0, 20, 0], [200, 0, 0]),
        "{text}"
    );
}

#[test]
fn an_interrupted_demo_prints_what_it_sent() {
    let place = Place::new("demo-interrupted");
    let text = place.refused(&["demo"]);
    assert!(text.contains("cargo xtask up") && text.contains(place.value("INGEST_PORT")), "{text}");
    place.run(&["up", "--detach"]);
    let text = place.refused(&["demo", "--url", &place.url("GATEWAY_PORT")]);
    assert!(text.contains("404") && text.contains("is that an ingest-api?"), "{text}");

    let mut demo =
        place.command(&["demo", "--rate", "500"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(demo.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("sending about 500 events a second") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "the demo has ended: {text}");
    }
    place.until_counts("some", |(items, _)| items > 10);
    let interrupted = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    output.read_to_string(&mut text).unwrap();
    assert!(demo.wait().unwrap().success(), "{text}");
    let [items, 0, 0] = row(&text, "items") else { panic!("{text}") };
    let [transfers, 0, 0] = row(&text, "transfers") else { panic!("{text}") };
    place.until_counted(items, transfers);
}
