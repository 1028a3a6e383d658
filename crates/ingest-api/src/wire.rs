//! The dashboard's types of what ingest-api answers are made from these.

use ts_rs::{Config, TS};

use crate::model::{BaseItem, Item, Owner, Transfer, User};

#[test]
fn the_types_of_the_dashboard_are_these() {
    // Counts stay far below 2^53, up to which a JavaScript number is exact.
    let config = Config::new().with_large_int("number");
    let types = [
        ("BaseItem", BaseItem::export_to_string(&config)),
        ("Item", Item::export_to_string(&config)),
        ("Owner", Owner::export_to_string(&config)),
        ("Transfer", Transfer::export_to_string(&config)),
        ("User", User::export_to_string(&config)),
    ];
    for (name, text) in types {
        expect_test::expect_file![format!("../../dashboard/web/src/wire/{name}.ts")]
            .assert_eq(&text.unwrap());
    }
}
