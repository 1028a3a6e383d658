//! What `pg_test_fsync` says of the disk.

use anyhow::bail;
use serde::Serialize;
use tokio::process::Command;

use super::{Bench, load};

/// A way to write to the disk.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FsyncMethod {
    pub(super) method: String,
    pub(super) operations_per_second: f64,
}

/// Measures the ways to make one block durable, each for a second.
pub(super) async fn test_fsync(bench: &Bench<'_>) -> anyhow::Result<Vec<FsyncMethod>> {
    println!("== pg_test_fsync");
    let mut test = Command::from(bench.installation.program("pg_test_fsync", bench.settings)?);
    test.args(["--secs-per-test", "1", "--filename"])
        .arg(bench.settings.folder.join("fsync-test"))
        .kill_on_drop(true);
    let report = load::output(test, "pg_test_fsync").await?;
    let methods = parse_fsync(&report);
    if methods.is_empty() {
        bail!("pg_test_fsync printed:\n{report}");
    }
    Ok(methods)
}

/// The methods of the first section, which writes one block of 8 kB, as a small commit does.
fn parse_fsync(report: &str) -> Vec<FsyncMethod> {
    let lines = report.lines().skip_while(|line| !line.contains("using one 8kB write"));
    let section = lines.take_while(|line| !line.contains("using two 8kB writes"));
    section
        .filter_map(|line| {
            let (line, _) = line.split_once("ops/sec")?;
            let (method, rate) = line.trim().split_once(char::is_whitespace)?;
            let operations_per_second = rate.trim().parse().ok()?;
            Some(FsyncMethod { method: method.to_owned(), operations_per_second })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_section_of_pg_test_fsync_is_read() {
        let report = "\
Compare file sync methods using one 8kB write:
        open_datasync                      1000.500 ops/sec     999 usecs/op
        fsync_writethrough                              n/a

Compare file sync methods using two 8kB writes:
        open_datasync                       500.000 ops/sec    1999 usecs/op
";
        let method = "open_datasync".to_owned();
        assert_eq!(parse_fsync(report), [FsyncMethod { method, operations_per_second: 1000.5 }]);
    }
}
