//! `docs/configuration.md` is generated from the services' default settings.

use std::fmt::Write;

use service_kit::settings::Layers;

const HEAD: &str = "# Configuration

Each service reads its settings from four places; each overrides those before it:

1. its embedded defaults, listed below: every setting has one;
2. the TOML file that the variable `NEWCYCLE_CONFIG` names, where it is set;
3. the short variables below, which the services share where they mean the same;
4. `NEWCYCLE__SECTION__KEY`, which reaches every setting: `NEWCYCLE__HTTP__WORKERS=4` sets `http.workers`.

Whatever else a file or a variable names is refused at the start, with what may be meant. `print-settings`, as in
`sse-gateway print-settings`, prints what is in effect and the source of each; passwords are not shown.

Every queue, pool, body, window and wait is bounded, and each bound is a setting here, named with its unit.
This page is made from the defaults, and a test compares the two.
";

#[test]
fn the_reference_of_settings_is_that_of_the_defaults() {
    let services: [(&str, Layers); 5] = [
        ("ingest-api", ingest_api::settings::LAYERS),
        ("stats-notifier", stats_notifier::settings::LAYERS),
        ("sse-gateway", sse_gateway::settings::LAYERS),
        ("dashboard", dashboard::settings::LAYERS),
        ("migrate", migrate::settings::LAYERS),
    ];
    let mut text = HEAD.to_owned();
    for (name, layers) in services {
        write!(text, "\n## {name}\n\n{}", layers.reference()).unwrap();
    }
    let unexplained: Vec<&str> = text.lines().filter(|line| line.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "settings without a comment above them: {unexplained:#?}");
    expect_test::expect_file!["../../../../docs/configuration.md"].assert_eq(&text);
}
