//! Statements about the events of one metric read only the table of that metric.

use serde_json::Value;
use stats_notifier::store::EVENT_STATEMENTS;

use crate::support::{Fixture, plan};

/// Adds the tables that a plan has read, to `tables`.
fn add_read_tables(node: &Value, tables: &mut Vec<String>) {
    if node["Actual Loops"].as_f64().unwrap() > 0.0
        && let Some(table) = node["Relation Name"].as_str()
    {
        tables.push(table.to_owned());
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        add_read_tables(child, tables);
    }
}

/// The pool keeps prepared statements, which Postgres may plan without the values of
/// their parameters. Such a plan has both tables of the view `events`, and skips one of them.
#[tokio::test]
async fn a_generic_plan_reads_the_events_of_one_metric_from_one_table() {
    let fixture = Fixture::create().await;
    fixture.execute(&fixture.insert_items("'2024-02-29Z'", "1, 100")).await;
    fixture.execute(&fixture.insert_transfers("'2024-02-29Z'", "1, 100")).await;
    fixture.execute("SET plan_cache_mode = force_generic_plan").await;
    for (number, (statement, parameters)) in EVENT_STATEMENTS.into_iter().enumerate() {
        fixture.execute(&format!("PREPARE statement_{number} AS {statement}")).await;
        for (metric, own, other) in
            [("item-creation", "items", "transfers"), ("transfers", "transfers", "items")]
        {
            let execute = format!("EXECUTE statement_{number} ('{metric}'{parameters})");
            let plan = plan(&fixture.producer, &execute).await;
            let mut tables = Vec::new();
            add_read_tables(&plan, &mut tables);
            assert!(tables.iter().any(|table| table == own), "{metric}: {statement}: {plan:#}");
            assert!(tables.iter().all(|table| table != other), "{metric}: {statement}: {plan:#}");
        }
    }
}
