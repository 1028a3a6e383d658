//! The dashboard's types of what the gateway tells are made from these.

use std::path::Path;

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboard/web/src/wire");
    let mut rewritten = Vec::new();
    for (name, text) in types {
        let (path, text) = (folder.join(name).with_extension("ts"), text.unwrap());
        if std::fs::read_to_string(&path).is_ok_and(|file| file == text) {
            continue;
        }
        if std::env::var_os("CI").is_none() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        rewritten.push(path);
    }
    assert!(
        rewritten.is_empty(),
        "out of date, and outside of CI rewritten: look at them and commit them: {rewritten:#?}"
    );
}
