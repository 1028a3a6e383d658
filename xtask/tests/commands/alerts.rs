//! Each alert has a test and a paragraph about what to do.

use std::collections::BTreeSet;

use crate::support::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let is_metric = |word: &&str| {
        ["http_server_", "access_", "ingest_", "notifier_", "gateway_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_metric).collect()
}

/// The expressions of rules, one after another.
fn expressions(rules: &str) -> String {
    let mut in_expression = false;
    let lines = rules.lines().filter(|line| {
        let line = line.trim_start();
        if line.starts_with("expr:") {
            in_expression = true;
        } else if line.starts_with("for:") || line.starts_with("labels:") {
            in_expression = false;
        }
        in_expression
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A test that a real Prometheus evaluates the alerts is in `testing/local-stack`.
#[test]
fn the_tests_of_the_alerts_have_only_metrics_of_alerts() {
    let rules = read("deploy/prometheus/newcycle.rules.yml");
    let expressions = expressions(&rules);
    let used = metrics(&expressions);
    assert!(used.len() > 5, "{used:?}");
    let tested = read("deploy/prometheus/newcycle.test.yml");
    let untested: Vec<_> =
        metrics(&tested).into_iter().filter(|name| !used.contains(name)).collect();
    assert!(untested.is_empty(), "no alert uses these metrics of the tests: {untested:?}");
}

#[test]
fn every_alert_is_tested_and_explained() {
    let rules = read("deploy/prometheus/newcycle.rules.yml");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    let (tests, documented) =
        (read("deploy/prometheus/newcycle.test.yml"), read("docs/operations.md"));
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "no test shows that {alert} fires");
        let quiet = format!("alertname: {alert} }}");
        assert!(tests.contains(&quiet), "no test shows when {alert} does not fire");
        let paragraph = format!("- **{alert}**");
        assert!(documented.contains(&paragraph), "docs/operations.md does not explain {alert}");
    }
}
