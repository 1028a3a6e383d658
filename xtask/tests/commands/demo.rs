//! The demo: what it says that it sent is what the gateway shows.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::proxy::{Trouble, Troublemaker};
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
fn a_demo_goes_on_through_trouble_and_says_so() {
    // After the look whether there is an ingest-api, the base items and the users: with the first events.
    const TROUBLE: [(u32, Trouble); 4] =
        [(3, Trouble::Refused), (4, Trouble::Refused), (5, Trouble::Unavailable), (6, Trouble::Unanswered)];
    let place = Place::new("demo-trouble");
    place.run(&["up", "--detach"]);
    let trouble = Troublemaker::before(place.value("INGEST_PORT"), &TROUBLE);
    let said = place.run(&["demo", "--rate", "1000", "--events", "50", "--url", &trouble.url]);
    for once in ["ingest-api answers 503", "ingest-api does not answer", "colour: is grey"] {
        assert_eq!(said.matches(once).count(), 1, "{once} must be said once: {said}");
    }
    let ([items, 0, no_items], [transfers, 0, no_transfers]) = (row(&said, "items"), row(&said, "transfers"))
    else {
        panic!("{said}")
    };
    assert_eq!((items + transfers, no_items + no_transfers), (48, 2), "{said}");
    assert_eq!(trouble.requests.try_iter().count(), 55, "50 events, two of them twice, after three requests");
    place.until_counted(items, transfers);

    // Likewise an upload: what was carried out without an answer was there already when it was repeated.
    let trouble = Troublemaker::before(place.value("INGEST_PORT"), &[(1, Trouble::Unanswered)]);
    let said = place.run(&["demo", "--seed", "2", "--events", "0", "--url", &trouble.url]);
    assert_eq!((row(&said, "base-items"), row(&said, "users")), ([0, 20, 0], [200, 0, 0]), "{said}");
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
    place.until_counts("some", |(items, _)| items > 10);
    let interrupted = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    output.read_to_string(&mut said).unwrap();
    assert!(demo.wait().unwrap().success(), "{said}");
    let [items, 0, 0] = row(&said, "items") else { panic!("{said}") };
    let [transfers, 0, 0] = row(&said, "transfers") else { panic!("{said}") };
    place.until_counted(items, transfers);
}
