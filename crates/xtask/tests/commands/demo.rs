//! The demo: what it says that it sent is what the gateway shows.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::support::Place;

/// Accepted, repeated and rejected rows of a kind, of the table that ends what the demo says.
fn row(said: &str, kind: &str) -> [u64; 3] {
    let line =
        said.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}: {said}"));
    let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn the_gateway_shows_what_the_demo_sent() {
    let place = Place::new("demo");
    place.run(&["up", "--detach"]);
    let past = ["demo", "--backfill", "2d", "--backfill-rate", "0.02", "--events", "0"];
    let said = place.run(&past);
    let [items, 0, 0] = row(&said, "items") else { panic!("{said}") };
    let [transfers, 0, 0] = row(&said, "transfers") else { panic!("{said}") };
    assert!(items > 500 && transfers > 1_000, "{said}");
    assert_eq!((row(&said, "base-items"), row(&said, "users")), ([20, 0, 0], [200, 0, 0]));
    place.until_counted(items, transfers);

    // The same past again adds what happened since, if anything; the present adds to it. Past midnight the first day
    // is another.
    let present =
        ["demo", "--backfill", "2d", "--backfill-rate", "0.02", "--rate", "1000", "--events", "200"];
    let said = place.run(&present);
    let [more_items, repeated_items, 0] = row(&said, "items") else { panic!("{said}") };
    let [more_transfers, repeated_transfers, 0] = row(&said, "transfers") else { panic!("{said}") };
    assert!(repeated_items > items / 4 && repeated_transfers > transfers / 4, "{said}");
    let sent = more_items + more_transfers;
    assert!((200..220).contains(&sent), "200 events, and what happened meanwhile: {said}");
    place.until_counted(items + more_items, transfers + more_transfers);
}

#[test]
fn an_interrupted_demo_ends_with_what_it_sent() {
    let place = Place::new("demo-interrupted");
    let said = place.refused(&["demo"]);
    assert!(said.contains("cargo xtask up") && said.contains(place.value("INGEST_PORT")), "{said}");
    place.run(&["up", "--detach"]);
    let said = place.refused(&["demo", "--url", &place.url("GATEWAY_PORT")]);
    assert!(said.contains("404") && said.contains("is that an ingest-api?"), "{said}");

    let mut demo = place.command(&["demo", "--rate", "500"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(demo.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("sending about 500 events a second") {
        assert_ne!(output.read_line(&mut said).unwrap(), 0, "the demo has ended: {said}");
    }
    while place.counts() < (10, 0) {}
    let interrupted = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    output.read_to_string(&mut said).unwrap();
    assert!(demo.wait().unwrap().success(), "{said}");
    let [items, 0, 0] = row(&said, "items") else { panic!("{said}") };
    let [transfers, 0, 0] = row(&said, "transfers") else { panic!("{said}") };
    place.until_counted(items, transfers);
}
