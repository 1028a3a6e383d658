//! The alerts and dashboards of `deploy/` in a real Prometheus that scrapes a real stack.

mod dashboards;
mod promql;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use local_stack::internal;
use local_stack::prometheus::Prometheus;
use local_stack::stack::{Replicas, ServiceKind, Stack};
use local_stack::test_database::{TestDatabase, client};
use serde_json::{Map, Value, json};

use self::promql::Exposed;
use crate::flights;
use crate::support::{settings, start_with, until};

/// The events of [`flights`].
const EVENTS: &str = "22977";

/// The metrics of the daily verification, which does not run in this test, with their labels. A
/// test of it is in [`crate::operations`].
pub(crate) const OF_VERIFICATION: [(&str, &[(&str, &str)]); 4] = [
    ("notifier_verify_runs_total", &[("result", "equal")]),
    ("notifier_verify_mismatched_buckets", &[]),
    ("notifier_verify_compared_buckets", &[]),
    ("notifier_verify_last_success_timestamp_seconds", &[]),
];

/// A file or folder of `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

/// What Prometheus answers to a request of its API; `None` while it does not listen.
async fn api(prometheus: &Prometheus, path: &str, query: &[(&str, &str)]) -> Option<Value> {
    let mut url: reqwest::Url = format!("{}/api/v1/{path}", prometheus.url()).parse().unwrap();
    url.query_pairs_mut().extend_pairs(query);
    let answer = reqwest::get(url).await.ok()?.text().await.ok()?;
    let mut answer: Value = serde_json::from_str(&answer).ok()?;
    assert_eq!(answer["status"], "success", "{query:?}: {answer}");
    Some(answer["data"].take())
}

/// The result of an expression now.
async fn query(prometheus: &Prometheus, expression: &str) -> Vec<Value> {
    let expression = expression.replace("$__rate_interval", "1m");
    let data = api(prometheus, "query", &[("query", &expression)]).await.unwrap();
    data["result"].as_array().unwrap().clone()
}

/// Uses the services such that each metric has a value.
async fn use_everything(stack: &Stack) {
    flights::post(stack).await;
    for service in [ServiceKind::IngestApi, ServiceKind::SseGateway] {
        let refused = reqwest::get(format!("{}/access", stack.url(service))).await.unwrap();
        assert_eq!(refused.status(), 401, "{service} needs a key");
    }
    let gateway = stack.url(ServiceKind::SseGateway);
    let history = format!("{gateway}/statistics/transfers/day?to=2002-01-01T00:00:00Z");
    assert_eq!(client().get(history).send().await.unwrap().status(), 200);
    let page = format!("{}/config.json", stack.url(ServiceKind::Dashboard));
    assert_eq!(client().get(page).send().await.unwrap().status(), 200);
}

/// Everything that the services expose, with the labels that Prometheus adds.
async fn exposed(prometheus: &Prometheus) -> Exposed {
    let mut exposed = Exposed::default();
    let all = api(prometheus, "series", &[("match[]", "{job=\"newcycle\"}")]).await.unwrap();
    let mut added = Map::new();
    for series in all.as_array().unwrap() {
        let series = series.as_object().unwrap();
        if series["__name__"] == "notifier_leading" {
            added.clone_from(series);
        }
        exposed.add(series);
    }
    for (name, labels) in OF_VERIFICATION {
        let mut series = added.clone();
        series.insert("__name__".to_owned(), json!(name));
        series.extend(labels.iter().map(|(label, value)| ((*label).to_owned(), json!(value))));
        exposed.add(&series);
    }
    exposed
}

/// The expression of each alert, by its name.
async fn rules(prometheus: &Prometheus) -> BTreeMap<String, Value> {
    let data = api(prometheus, "rules", &[]).await.unwrap();
    let groups = data["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (rule["name"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_the_stack_and_understands_every_alert_and_panel() {
    let database = TestDatabase::create().await;
    let wanted = Replicas { dashboard: 1, ..Replicas::ONE };
    let mut stack = start_with(settings(database.superuser(), wanted)).await;
    let prometheus =
        Prometheus::start(&stack, &deploy("prometheus"), &internal::secret_file()).unwrap();
    let said = std::fmt::from_fn(|message| {
        write!(message, "all services must be scraped: {}", prometheus.log().unwrap())
    });
    until(said, async || {
        let data = api(&prometheus, "targets", &[("state", "active")]).await?;
        let targets = data["activeTargets"].as_array()?;
        let is_up = |target: &Value| target["health"] == "up" && target["lastError"] == "";
        (targets.len() == ServiceKind::ALL.len() && targets.iter().all(is_up)).then_some(())
    })
    .await;

    use_everything(&stack).await;
    let counted =
        "sum(ingest_rows_total{table=~\"public.(items|transfers)\", outcome=\"created\"})";
    until("Prometheus must have the number of events", async || {
        let result = query(&prometheus, counted).await;
        (result.first()?["value"][1] == EVENTS).then_some(())
    })
    .await;

    // No alert stays active in a healthy stack, and each can be evaluated. One that was pending for
    // a moment, on a busy machine, is inactive again.
    let expected = std::fs::read_to_string(deploy("prometheus/newcycle.rules.yml")).unwrap();
    let rules = until("each alert must be evaluated, and inactive", async || {
        let rules = rules(&prometheus).await;
        let well = |rule: &Value| rule["health"] == "ok" && rule["state"] == "inactive";
        rules.values().all(well).then_some(rules)
    })
    .await;
    assert_eq!(rules.len(), expected.matches("- alert: ").count());
    for (name, rule) in &rules {
        assert_eq!(rule.get("lastError"), None, "{name}");
    }

    let expressions: Vec<(String, String)> = dashboards::expressions()
        .into_iter()
        .chain(
            rules.iter().map(|(name, rule)| (name.clone(), rule["query"].as_str().unwrap().into())),
        )
        .collect();
    // Each service is scraped at a moment of its own.
    let refusal = RefCell::new(String::new());
    let said = std::fmt::from_fn(|message| message.write_str(&refusal.borrow()));
    let exposed = until(said, async || {
        let exposed = exposed(&prometheus).await;
        let mut refusals = expressions.iter().filter_map(|(place, expression)| {
            let error = exposed.check(expression).err()?;
            Some(format!("{place} must be understood: {expression}: {error}"))
        });
        *refusal.borrow_mut() = refusals.next().unwrap_or_default();
        refusal.borrow().is_empty().then_some(exposed)
    })
    .await;
    for (place, expression) in expressions {
        // An alert has no result while all is well.
        let is_empty_now = rules.contains_key(&place)
            || OF_VERIFICATION.iter().any(|(metric, _)| expression.contains(metric));
        until(format!("{place} must have a result: {expression}"), async || {
            (!query(&prometheus, &expression).await.is_empty() || is_empty_now).then_some(())
        })
        .await;
    }
    let unused = dashboards::unused(exposed.metrics());
    assert_eq!(unused, dashboards::NOT_SHOWN, "metrics that no panel shows");

    stack.kill(ServiceKind::Dashboard).await;
    until("an alert must notice that a service is down", async || {
        let data = api(&prometheus, "alerts", &[]).await?;
        let alerts = data["alerts"].as_array()?;
        let labels = |alert: &Value| {
            (alert["labels"]["alertname"].clone(), alert["labels"]["service"].clone())
        };
        let found = alerts.iter().map(labels).collect::<Vec<_>>();
        (found == [(json!("NewcycleServiceDown"), json!("dashboard"))]).then_some(())
    })
    .await;
}
