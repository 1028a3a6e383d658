//! The stack in containers, as a user runs it: start, the tour, a cut network, a killed container,
//! stop. It has a project, ports and volumes of its own, which are removed at the end.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use local_stack::test_database::presenting;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::process::Command;

use super::COMPOSE_FILES;
use crate::command::{in_checkout, step};

/// The longest time for a condition, such as a count that arrives or a container that is healthy.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Whose exit code after a stop is not ours to decide.
const OF_OTHERS: [&str; 2] = ["prometheus", "grafana"];

/// Starts the stack, uses and hurts it, and removes it, also after a failure.
pub(super) async fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let trial = Trial::new()?;
    let outcome = tokio::select! {
        outcome = trial.steps() => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if outcome.is_err() {
        let _shown = trial.compose("the logs", &["logs", "--tail", "50"]).await;
    }
    let removed = trial.compose("removing everything", &["down", "--volumes"]).await;
    outcome.and(removed)?;
    println!("== Compose: passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// A project of Compose.
struct Trial {
    project: String,
    variables: BTreeMap<&'static str, String>,
}

impl Trial {
    fn new() -> anyhow::Result<Self> {
        let project = format!("newcycle-trial-{:08x}", rand::random::<u32>());
        let mut variables = BTreeMap::from([
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("COMPOSE_FILE", COMPOSE_FILES.join(":")),
            ("PUBLISH_ADDRESS", "127.0.0.1".to_owned()),
        ]);
        // Open together, so that no two are the same.
        let mut listeners = Vec::new();
        for variable in ["INGEST_PORT", "GATEWAY_PORT", "DASHBOARD_PORT", "GRAFANA_PORT"] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
            variables.insert(variable, listener.local_addr()?.port().to_string());
            listeners.push(listener);
        }
        Ok(Self { project, variables })
    }

    async fn steps(&self) -> anyhow::Result<()> {
        self.compose("start", &["up", "--build", "--wait"]).await?;
        let client = self.client().await?;
        self.tour(&client).await?;
        self.cut_network(&client).await?;
        self.kill_leader(&client).await?;
        self.compose("stop", &["stop"]).await?;
        self.check_exit_codes().await
    }

    /// The README's tour: a key, a base item, an item, its count, and the page. Grafana answers,
    /// too.
    async fn tour(&self, client: &Client) -> anyhow::Result<()> {
        println!("== Compose: the tour");
        let mut stream = self.stream(client).await?;
        until_event(&mut stream, "event: snapshot").await?;
        self.create_item(client).await?;
        until_event(&mut stream, "event: patch").await?;
        self.until_counted(client, 1).await?;
        let page = self.get(client, "DASHBOARD_PORT", "/").await?.text().await?;
        ensure!(page.contains("<title>"), "dashboard must serve the page: {page}");
        self.get(client, "GRAFANA_PORT", "/api/health").await?;
        Ok(())
    }

    /// Between the gateway and stats-notifier. The gateway must say so, and recover by itself.
    async fn cut_network(&self, client: &Client) -> anyhow::Result<()> {
        println!("== Compose: a cut network");
        let network = format!("{}_counts", self.project);
        let gateway = format!("{}-sse-gateway-1", self.project);
        let mut stream = self.stream(client).await?;
        until_event(&mut stream, "\"upstream\":\"live\"").await?;
        docker(&["network", "disconnect", &network, &gateway]).await?;
        self.create_item(client).await?;
        until_event(&mut stream, "\"upstream\":\"stale\"").await?;
        docker(&["network", "connect", &network, &gateway]).await?;
        until_event(&mut stream, "\"upstream\":\"live\"").await?;
        self.until_counted(client, 2).await
    }

    /// Events are accepted meanwhile, and counted afterwards.
    async fn kill_leader(&self, client: &Client) -> anyhow::Result<()> {
        self.compose("a killed stats-notifier", &["kill", "stats-notifier"]).await?;
        self.create_item(client).await?;
        // A container that was killed by a command is not restarted by the engine.
        self.compose("its restart", &["up", "--wait"]).await?;
        self.until_counted(client, 3).await
    }

    /// All programs that were stopped must have exited with 0.
    async fn check_exit_codes(&self) -> anyhow::Result<()> {
        let listed = self.command(&["ps", "--all", "--format", "json"]).output().await?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let containers = containers(&listed)?;
        ensure!(containers.len() > OF_OTHERS.len(), "no containers: {listed}");
        for (service, exit_code) in containers {
            let is_ours = !OF_OTHERS.contains(&service.as_str());
            ensure!(!is_ours || exit_code == 0, "{service} exited with {exit_code}");
        }
        Ok(())
    }

    /// A client that presents a new key.
    async fn client(&self) -> anyhow::Result<Client> {
        let create = ["run", "--rm", "--no-TTY", "access", "create", "--name", "trial"];
        let scope = ["--scope", "ingest:write,statistics:read"];
        let output = self.command(&[&create[..], &scope].concat()).output().await?;
        ensure!(output.status.success(), "no key: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        let key = printed.lines().last().context("access prints a key")?.trim().to_owned();
        Ok(presenting(Client::builder(), &key)?.build()?)
    }

    async fn create_item(&self, client: &Client) -> anyhow::Result<()> {
        let base = self.post(client, "/base-items", json!({"description": "a bicycle"})).await?;
        let item = json!({"base_item_id": base["id"]});
        self.post(client, "/items", item).await.map(drop)
    }

    async fn post(&self, client: &Client, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = client.post(self.url("INGEST_PORT", path));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await?.error_for_status()?.text().await?;
        Ok(serde_json::from_str(&answer)?)
    }

    async fn get(&self, client: &Client, port: &str, path: &str) -> anyhow::Result<Response> {
        let request = client.get(self.url(port, path)).header("accept", "application/json, */*");
        Ok(request.send().await?.error_for_status()?)
    }

    async fn stream(&self, client: &Client) -> anyhow::Result<Response> {
        let url = self.url("GATEWAY_PORT", "/statistics/item-creation/minute?heartbeat=1");
        let request = client.get(url).header("accept", "text/event-stream");
        Ok(request.send().await?.error_for_status()?)
    }

    /// Waits until the gateway shows this number of items in all years.
    async fn until_counted(&self, client: &Client, items: u64) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let answer = self.get(client, "GATEWAY_PORT", "/statistics/item-creation/year").await?;
            let answer: Value = serde_json::from_str(&answer.text().await?)?;
            let buckets = answer["buckets"].as_array().context("a window has buckets")?;
            let count: u64 = buckets.iter().filter_map(|bucket| bucket["count"].as_u64()).sum();
            if count == items {
                return Ok(());
            }
            ensure!(started.elapsed() < TIMEOUT, "{items} items must be counted, not {count}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn url(&self, port: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.variables[port])
    }

    async fn compose(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        step(&format!("Compose: {name}"), self.command(arguments)).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("compose").args(arguments).envs(&self.variables);
        command.current_dir(in_checkout("")).kill_on_drop(true);
        command
    }
}

/// Waits for a text in a stream.
async fn until_event(stream: &mut Response, text: &str) -> anyhow::Result<()> {
    let mut received = String::new();
    let found = async {
        while let Some(part) = stream.chunk().await? {
            received.push_str(&String::from_utf8_lossy(&part));
            if received.contains(text) {
                return Ok(());
            }
        }
        bail!("the stream has ended")
    };
    let found = tokio::time::timeout(TIMEOUT, found).await;
    found.context("timeout").flatten().with_context(|| format!("the stream must have {text}"))
}

async fn docker(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments);
    step(&format!("docker {}", arguments.join(" ")), command).await
}

/// The service and the exit code of each container that `docker compose ps --format json` lists:
/// one array, or since Compose 2.21 an object on each line.
fn containers(listed: &str) -> anyhow::Result<Vec<(String, i64)>> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).context("reading the list");
    let objects = match listed.trim_start().strip_prefix('[') {
        Some(_) => parse(listed)?.as_array().cloned().unwrap_or_default(),
        None => listed.lines().map(parse).collect::<Result<_, _>>()?,
    };
    let container = |object: &Value| {
        let service = object["Service"].as_str().context("a container has a service")?;
        let exit_code = object["ExitCode"].as_i64().context("a container has an exit code")?;
        Ok((service.to_owned(), exit_code))
    };
    objects.iter().map(container).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_the_list_are_read() {
        let lines = r#"{"Service":"postgres","ExitCode":0,"Name":"a"}
{"Service":"sse-gateway","ExitCode":137,"Name":"b"}
"#;
        let array = format!("[{}]", lines.trim().replace('\n', ","));
        let expected = [("postgres".to_owned(), 0), ("sse-gateway".to_owned(), 137)];
        for listed in [lines, &array] {
            assert_eq!(containers(listed).unwrap(), expected);
        }
        assert!(containers("{\"Service\":\"postgres\"}\n").is_err());
        assert!(containers("").unwrap().is_empty());
    }
}
