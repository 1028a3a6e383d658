//! Load generators that are not ours: wrk for REST, pgbench for SQL.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use local_stack::postgres::{ClusterSettings, Installation};
use local_stack::test_database::TEST_KEY;
use serde::Deserialize;
use tokio::process::Command;

use crate::ephemeral_stack;
use crate::secrets::write_private;

/// What a load generator measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Requests that were answered with 2xx, or transactions that were committed.
    pub(super) answers: f64,
    /// The same by second.
    pub(super) rate: f64,
    /// Half of the answers took at most this long, in µs, as wrk corrects latencies.
    pub(super) p50_us: f64,
    /// 99 of 100 answers took at most this long, in µs, as wrk corrects latencies.
    pub(super) p99_us: f64,
}

/// The line that our script makes wrk print.
#[derive(Deserialize)]
struct WrkSummary {
    requests: f64,
    duration_us: f64,
    errors: u64,
    p50_us: f64,
    p99_us: f64,
}

/// The part of a script that makes wrk print a [`WrkSummary`].
const DONE: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
"#;

/// Writes the script that makes wrk post items of [`ephemeral_stack::BASE_ITEM`] with a valid key.
pub(super) fn write_script(path: &Path) -> anyhow::Result<()> {
    write_private(path, &format!("{}{}", authorization(), post_items()))
}

/// As [`write_script`], without a key.
pub(super) fn write_open_script(path: &Path) -> anyhow::Result<()> {
    write_private(path, &post_items())
}

/// The part of a script that makes wrk present a valid key.
fn authorization() -> String {
    format!("wrk.headers[\"authorization\"] = \"Bearer {TEST_KEY}\"\n")
}

fn post_items() -> String {
    format!(
        r#"wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{{"base_item_id":"{}"}}'
{DONE}"#,
        ephemeral_stack::BASE_ITEM
    )
}

/// The part of a script that makes each connection wait this long before each request, so that
/// loads have the same rate although the answers take different times.
fn delay(milliseconds: u32) -> String {
    format!("function delay() return {milliseconds} end\n")
}

/// Writes the script that makes wrk request a path with a valid key, with a pause before each
/// request.
pub(super) fn write_missing_script(path: &Path, pause: u32) -> anyhow::Result<()> {
    write_private(path, &format!("{}{}{DONE}", authorization(), delay(pause)))
}

/// Writes the script that makes wrk present the keys of a list, one after another, with a pause
/// before each request.
pub(super) fn write_wrong_keys_script(path: &Path, list: &Path, pause: u32) -> anyhow::Result<()> {
    let delay = delay(pause);
    let script = format!(
        r#"local keys = {{}}
for key in io.lines("{}") do keys[#keys + 1] = "Bearer " .. key end
local last = 0
function request()
  last = last % #keys + 1
  return wrk.format("GET", nil, {{ authorization = keys[last] }})
end
{delay}{DONE}"#,
        list.display()
    );
    write_private(path, &script)
}

/// Posts items for a while.
///
/// # Errors
/// Not every request was answered with 2xx.
pub(super) async fn wrk(
    script: &Path,
    url: &str,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<Load> {
    let report = run_wrk(script, &format!("{url}/items"), connections, seconds).await?;
    parse_wrk(&report).with_context(|| format!("wrk printed:\n{report}"))
}

/// Sends requests that are refused for a while, and returns how many.
///
/// # Errors
/// One was answered with 2xx, or not at all.
pub(super) async fn flood(
    script: &Path,
    url: &str,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<u64> {
    let report = run_wrk(script, url, connections, seconds).await?;
    let WrkSummary { requests, errors, .. } = summary(&report)?;
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    let refused = errors as f64;
    ensure!((requests - refused).abs() < 0.5, "not every request was refused:\n{report}");
    Ok(errors)
}

async fn run_wrk(
    script: &Path,
    url: &str,
    connections: u32,
    seconds: u32,
) -> anyhow::Result<String> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--latency", "--threads", "1", "--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .arg(url)
        .kill_on_drop(true);
    output(wrk, "wrk").await
}

fn summary(report: &str) -> anyhow::Result<WrkSummary> {
    let line = report.lines().rfind(|line| line.starts_with('{')).context("no summary")?;
    Ok(serde_json::from_str(line)?)
}

fn parse_wrk(report: &str) -> anyhow::Result<Load> {
    let summary = summary(report)?;
    ensure!(summary.errors == 0, "not every request was answered with 2xx");
    ensure!(summary.requests > 0.0, "no request was answered");
    Ok(Load {
        answers: summary.requests,
        rate: summary.requests * 1e6 / summary.duration_us,
        p50_us: summary.p50_us,
        p99_us: summary.p99_us,
    })
}

/// Runs a statement again and again, each time as a transaction, prepared once by connection.
pub(super) async fn pgbench(
    installation: &Installation,
    cluster: &ClusterSettings,
    database: &str,
    statement: &str,
    clients: u32,
    seconds: u32,
) -> anyhow::Result<Load> {
    let time = (seconds + login_seconds(clients)).to_string();
    let prefix = cluster.folder.join(PGBENCH_LOG).display().to_string();
    let amount = ["--log", "--log-prefix", &prefix, "--time", &time];
    let report = run_pgbench(installation, cluster, database, statement, clients, &amount).await?;
    let mut latencies = Vec::new();
    for log in pgbench_logs(&cluster.folder)? {
        latencies.extend(parse_pgbench_log(&std::fs::read_to_string(&log)?)?);
        std::fs::remove_file(&log)?;
    }
    parse_pgbench(&report, clients, latencies)
        .with_context(|| format!("pgbench printed:\n{report}"))
}

/// Runs a statement once with each client: what [`pgbench`] does before its load is steady.
pub(super) async fn pgbench_once(
    installation: &Installation,
    cluster: &ClusterSettings,
    database: &str,
    statement: &str,
    clients: u32,
) -> anyhow::Result<()> {
    let amount = ["--transactions", "1"];
    run_pgbench(installation, cluster, database, statement, clients, &amount).await.map(drop)
}

async fn run_pgbench(
    installation: &Installation,
    cluster: &ClusterSettings,
    database: &str,
    statement: &str,
    clients: u32,
    amount: &[&str],
) -> anyhow::Result<String> {
    let script = cluster.folder.join("pgbench.sql");
    std::fs::write(&script, statement).with_context(|| format!("writing {}", script.display()))?;
    let mut pgbench = Command::from(installation.program("pgbench", cluster)?);
    pgbench
        .args(["--no-vacuum", "--protocol", "prepared"])
        .args(["--client", &clients.to_string(), "--jobs", &clients.min(2).to_string()])
        .args(amount)
        .arg("--file")
        .arg(&script)
        .arg(database)
        .kill_on_drop(true);
    output(pgbench, "pgbench").await
}

/// How much longer [`pgbench`] runs, because its time begins before its clients have connected. On
/// a busy machine 16 clients can do so in a second. The rate that it prints leaves that time out.
pub(super) const fn login_seconds(clients: u32) -> u32 {
    clients / 16
}

/// The beginning of the names of pgbench's logs.
const PGBENCH_LOG: &str = "pgbench-log";

/// Each thread of pgbench has its own log.
fn pgbench_logs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PGBENCH_LOG) {
            logs.push(entry.path());
        }
    }
    Ok(logs)
}

/// The duration of each transaction, in µs: the third field of each line.
fn parse_pgbench_log(log: &str) -> anyhow::Result<Vec<f64>> {
    let duration = |line: &str| line.split(' ').nth(2)?.parse().ok();
    log.lines()
        .map(|line| duration(line).with_context(|| format!("a line of pgbench's log: {line}")))
        .collect()
}

fn parse_pgbench(report: &str, clients: u32, mut latencies: Vec<f64>) -> anyhow::Result<Load> {
    let value = |name: &str| -> Option<f64> {
        let line = report.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let failed = value("number of failed transactions:").context("no number of failures")?;
    ensure!(failed == 0.0, "transactions failed");
    let answers = value("number of transactions actually processed:").context("no number")?;
    let rate = value("tps =").context("no rate")?;
    let by_client = (answers / f64::from(clients)).floor();
    if by_client > 0.0 {
        correct(&mut latencies, (answers / rate * 1e6 / by_client).floor());
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Load {
        answers,
        rate,
        p50_us: percentile(&latencies, 50).context("the log is empty")?,
        p99_us: percentile(&latencies, 99).context("the log is empty")?,
    })
}

/// Adds the latencies that wrk adds to its own before it prints percentiles, so that those of both
/// can be compared. A client that waits for an answer sends nothing meanwhile. wrk assumes that it
/// would have sent a request in each mean `interval` (in µs), which would have waited for the rest
/// of that time. This is `stats_correct` of wrk 4.1.0.
///
/// <https://github.com/wg/wrk/blob/4.1.0/src/stats.c>
fn correct(latencies: &mut Vec<f64>, interval: f64) {
    let interval = interval.max(1.0);
    for measured in 0..latencies.len() {
        let latency = latencies[measured];
        if latency < 2.0 * interval {
            continue;
        }
        let mut rest = latency - interval;
        while rest > interval {
            latencies.push(rest);
            rest -= interval;
        }
    }
}

/// The least value that is not below `percent` of the sorted values.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

/// What a command that must succeed prints.
pub(super) async fn output(mut command: Command, name: &str) -> anyhow::Result<String> {
    let output = command.output().await.with_context(|| format!("running {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} failed:\n{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "\
Running 2s test @ http://127.0.0.1:8080/items
  10 requests in 2.00s, 1MB read
Requests/sec:      5.00
";

    fn wrk_report(requests: u32, errors: u32) -> String {
        format!(
            "{WRK}{{\"requests\":{requests},\"duration_us\":2000000,\"errors\":{errors},\
             \"p50_us\":300,\"p99_us\":900}}\n"
        )
    }

    #[test]
    fn a_report_of_wrk_is_read() {
        let load = parse_wrk(&wrk_report(10, 0)).expect("a load");
        assert_eq!(load, Load { answers: 10.0, rate: 5.0, p50_us: 300.0, p99_us: 900.0 });
    }

    #[test]
    fn a_report_of_wrk_with_errors_is_refused() {
        assert!(parse_wrk(&wrk_report(10, 1)).is_err());
        assert!(parse_wrk(&wrk_report(0, 0)).is_err());
        assert!(parse_wrk(WRK).is_err());
    }

    const PGBENCH: &str = "\
number of clients: 1
number of transactions actually processed: 4
number of failed transactions: 0 (0.000%)
latency average = 0.400 ms
initial connection time = 3.000 ms
tps = 2500.5 (without initial connection time)
";

    #[test]
    fn a_report_and_a_log_of_pgbench_are_read() {
        let log = "0 1 400 0 1700000000 5\n0 2 100 0 1700000000 6\n1 1 300 0 1700000000 7\n";
        let latencies = parse_pgbench_log(log).expect("latencies");
        let load = parse_pgbench(PGBENCH, 1, latencies).expect("a load");
        assert_eq!(load, Load { answers: 4.0, rate: 2500.5, p50_us: 300.0, p99_us: 400.0 });
        assert!(parse_pgbench_log("0 1 skipped 0 1700000000 5\n").is_err());
    }

    #[test]
    fn a_report_of_pgbench_with_failures_is_refused() {
        let report = PGBENCH.replace("transactions: 0", "transactions: 1");
        assert!(parse_pgbench(&report, 1, vec![1.0]).is_err());
    }

    /// `stats_correct` of wrk gives 1000 with an interval of 300 two more latencies: 700 and 400.
    #[test]
    fn latencies_are_corrected_as_wrk_does() {
        let mut latencies = vec![1000.0, 599.0, 600.0];
        correct(&mut latencies, 300.0);
        assert_eq!(latencies, [1000.0, 599.0, 600.0, 700.0, 400.0]);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&[], 99), None);
    }
}
