//! The audit of a server that a failover has replaced, and what of it was lost.
//!
//! A node that was killed does not run, and one that was cut off does not answer on the network. So
//! a server writes its audit to a file of its node: a copy of the data in single-user mode, or the
//! demoted server itself through its socket.

use std::collections::HashSet;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use super::namespace::{Unprivileged, run};
use super::node::Node;
use super::settings::{ClusterSettings, SUPERUSER};
use crate::checker::Change;
use crate::history::Table;
use crate::wait::until;

/// How long a server that was cut off may take until it is a standby that can be read.
const DEMOTION_TIMEOUT: Duration = Duration::from_secs(120);

/// A row of the audit.
#[derive(Debug, Clone)]
pub(super) struct AuditRow {
    table: Table,
    id: Uuid,
    change: Change,
}

impl AuditRow {
    /// What tells the rows of both servers apart. Transaction ids and places do not, because the
    /// new server uses those of lost rows again.
    fn key(&self) -> (Uuid, i64, SystemTime) {
        (self.id, self.change.delta, self.change.made)
    }
}

/// The changes of the old server, and the rows whose last change the new one does not have.
pub(super) fn compare(
    old: Vec<AuditRow>,
    new: &[AuditRow],
) -> (Vec<Change>, HashSet<(Table, Uuid)>) {
    let kept: HashSet<_> = new.iter().map(AuditRow::key).collect();
    let lost = old.iter().filter(|row| !kept.contains(&row.key()));
    let lost = lost.map(|row| (row.table, row.id)).collect();
    (old.into_iter().map(|row| row.change).collect(), lost)
}

/// The statement that copies the audit from a place on.
fn copy(after: i64, target: &str) -> String {
    let micros = |column: &str| format!("(extract(epoch FROM {column}) * 1000000)::bigint");
    let (made, time) = (micros("made"), micros("time"));
    format!(
        "COPY (SELECT xact_id, {made}, metric, id, {time}, delta FROM audit WHERE place > {after} ORDER BY place) \
         TO {target} (FORMAT csv)"
    )
}

/// The audit of the server that this client is connected to.
pub(super) async fn of(client: &Client, after: i64) -> anyhow::Result<Vec<AuditRow>> {
    let chunks = client.copy_out(&copy(after, "STDOUT")).await?;
    let text: Vec<_> = chunks.try_collect().await?;
    parse(&String::from_utf8(text.concat())?)
}

/// The audit of a node that does not run.
pub(super) fn of_killed(
    node: &Node,
    settings: &ClusterSettings,
    user: &Unprivileged,
    database: &str,
    after: i64,
) -> anyhow::Result<Vec<AuditRow>> {
    let data = node.folder().join("copy-of-data");
    let target = file(node)?;
    let (from, to) = (node.data().display().to_string(), data.display().to_string());
    run("cp", &["-a", &from, &to])?;
    for name in ["standby.signal", "postmaster.pid"] {
        // Only a standby has the first.
        let _none = std::fs::remove_file(data.join(name));
    }
    let mut server = user.command(settings.programs().join("postgres"));
    server.arg("--single").arg("-D").arg(&data).args(["-c", "log_min_messages=fatal", database]);
    let log = std::fs::File::create(node.log("single-user"))?;
    let server = server.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn();
    let mut server = server.context("running postgres --single")?;
    let mut input = server.stdin.take().context("postgres has no input")?;
    writeln!(input, "{}", copy(after, &format!("'{}'", target.display())))?;
    drop(input);
    ensure!(server.wait()?.success(), "postgres --single failed; see its log");
    std::fs::remove_dir_all(&data)?;
    parse(&std::fs::read_to_string(&target).context("reading the audit of a killed node")?)
}

/// The audit of a node that was cut off, as soon as its server no longer takes writes.
pub(super) async fn of_cut(
    node: &Node,
    database: &str,
    after: i64,
) -> anyhow::Result<Vec<AuditRow>> {
    let mut config = Config::new();
    config.host_path(node.sockets()).dbname(database).user(SUPERUSER);
    let mut client = None;
    let demoted = until(DEMOTION_TIMEOUT, async || {
        let Ok((connected, connection)) = config.connect(NoTls).await else { return Ok(false) };
        tokio::spawn(connection);
        let demoted = connected.query_one("SELECT pg_is_in_recovery()", &[]).await;
        client = Some(connected);
        Ok(demoted.is_ok_and(|row| row.get(0)))
    });
    ensure!(demoted.await?, "Patroni did not demote the server of a node that was cut off");
    of(client.as_ref().context("the server was connected to")?, after).await
}

/// The file that a server writes its audit to.
fn file(node: &Node) -> anyhow::Result<std::path::PathBuf> {
    let file = node.folder().join("audit.csv");
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(file),
    }
}

fn parse(csv: &str) -> anyhow::Result<Vec<AuditRow>> {
    csv.lines().map(|line| row(line).with_context(|| format!("an audit row: {line}"))).collect()
}

fn row(line: &str) -> anyhow::Result<AuditRow> {
    let columns: Vec<_> = line.split(',').collect();
    let &[transaction, made, metric, id, time, delta] = columns.as_slice() else {
        anyhow::bail!("it has {} columns", columns.len());
    };
    let moment = |micros: &str| -> anyhow::Result<OffsetDateTime> {
        Ok(OffsetDateTime::from_unix_timestamp_nanos(micros.parse::<i128>()? * 1_000)?)
    };
    let change = Change {
        transaction: transaction.parse()?,
        made: moment(made)?.into(),
        metric: metric.parse()?,
        time: moment(time)?.try_into()?,
        delta: delta.parse()?,
    };
    let table = match change.metric {
        domain::Metric::ItemCreation => Table::Items,
        domain::Metric::Transfers => Table::Transfers,
    };
    Ok(AuditRow { table, id: id.parse()?, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An audit row of a transfer.
    fn row(transaction: u64, id: Uuid, made: u64, delta: i64) -> AuditRow {
        let line = format!("{transaction},{made},transfers,{id},1709078400000000,{delta}");
        super::row(&line).unwrap()
    }

    #[test]
    fn only_what_the_new_server_does_not_have_was_lost() {
        let [kept, lost, deleted] = [(); 3].map(|()| Uuid::now_v7());
        let before = [row(7, kept, 1, 1), row(8, deleted, 2, 1)];
        let old = [&before[..], &[row(9, lost, 3, 1), row(10, deleted, 4, -1)]].concat();
        // The new server gives the transaction ids of the lost rows to another one.
        let new = [&before[..], &[row(9, Uuid::now_v7(), 5, 1)]].concat();
        let (changes, rows) = compare(old, &new);
        assert_eq!(changes.len(), 4);
        assert_eq!(rows, [(Table::Transfers, lost), (Table::Transfers, deleted)].into());
    }

    #[test]
    fn a_malformed_row_is_an_error() {
        assert!(parse("7,1,transfers\n").is_err());
    }
}
