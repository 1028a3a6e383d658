//! The dashboards of `deploy/grafana`.
//!
//! Grafana itself does not run in the tests, so they check what it would otherwise show as an empty
//! panel or not at all: the source of the data, the grid, and the ids.

use std::collections::BTreeSet;

use serde_json::Value;

use super::deploy;

/// Metrics that no panel shows, in order, because others say the same.
pub(super) const NOT_SHOWN: [&str; 0] = [];

/// The columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// All dashboards, by the names of their files.
fn dashboards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(deploy("grafana/dashboards")).unwrap();
    let mut found: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            let text = std::fs::read_to_string(file.path()).unwrap();
            (file.file_name().into_string().unwrap(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// The panels of a dashboard that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Each expression, with the place where it is.
pub(super) fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{file}, {}", panel["title"]);
                found.push((place, target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    found
}

/// The metrics that no panel uses, without those that Prometheus makes itself.
pub(super) fn unused<'a>(metrics: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let expressions: String = expressions().into_iter().map(|(_, text)| text + "\n").collect();
    let series = |name: &'a str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
    };
    let names: BTreeSet<&str> = metrics.map(series).collect();
    let own = names.into_iter().filter(|name| *name != "up" && !name.starts_with("scrape_"));
    own.filter(|name| !expressions.contains(name)).collect()
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit_and_what_to_do() {
    let source = std::fs::read_to_string(deploy("grafana/provisioning/datasources/prometheus.yml"));
    assert!(source.unwrap().contains("\n    uid: prometheus\n"));
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}");
        assert!(panels(&dashboard).count() > 5, "{file}");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {}", panel["id"]);
        }
        for panel in panels(&dashboard) {
            let what = format!("{file}, {}", panel["title"]);
            let text = |pointer: &str| panel.pointer(pointer).and_then(Value::as_str).unwrap_or("");
            assert!(!text("/title").is_empty(), "{what}");
            assert!(text("/description").len() > 40, "{what}: a description says what to do");
            assert!(!text("/fieldConfig/defaults/unit").is_empty(), "{what} has no unit");
            assert_eq!(text("/datasource/type"), "prometheus", "{what}");
            assert_eq!(text("/datasource/uid"), "prometheus", "{what}");
            let targets = panel["targets"].as_array().unwrap();
            let references: BTreeSet<_> =
                targets.iter().map(|target| &target["refId"]).map(Value::as_str).collect();
            assert_eq!(references.len(), targets.len(), "{what}: each query needs a refId");
        }
    }
}

#[test]
fn no_panel_covers_another_one() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let [x, y, width, height] =
                ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
            assert!(x + width <= COLUMNS && width > 0 && height > 0, "{file}: {}", panel["title"]);
            for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{file}: {} is on another panel", panel["title"]);
            }
        }
    }
}
