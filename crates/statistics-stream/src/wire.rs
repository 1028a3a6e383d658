//! The dashboard's types of what the gateway tells are made from these.

use ts_rs::{Config, TS};

use crate::{Status, Upstream, history::Page};

#[test]
fn the_types_of_the_dashboard_are_these() {
    // Counts stay far below 2^53, up to which a JavaScript number is exact.
    let config = Config::new().with_large_int("number");
    let types = [
        ("Status", Status::export_to_string(&config)),
        ("Upstream", Upstream::export_to_string(&config)),
        ("Page", Page::export_to_string(&config)),
    ];
    for (name, text) in types {
        expect_test::expect_file![format!("../../dashboard/web/src/wire/{name}.ts")]
            .assert_eq(&text.unwrap());
    }
}
