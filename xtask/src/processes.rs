//! Processes that this program did not start, or started in an earlier run, and the files that
//! describe them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

/// Writes a file that describes running processes. It is complete at every moment.
pub(crate) fn write_description(path: &Path, description: &impl Serialize) -> anyhow::Result<()> {
    let next = path.with_extension("json.next");
    std::fs::write(&next, serde_json::to_vec_pretty(description)?)
        .and_then(|()| std::fs::rename(&next, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn signal(process_id: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process_id).ok().and_then(Pid::from_raw) {
        let _already_ended = kill_process(process, signal);
    }
}

/// Asks a process to stop, and waits until it has. Does nothing if the process runs another
/// program.
///
/// # Errors
/// It runs on after `timeout`.
pub(crate) fn stop(process_id: u32, program: &str, timeout: Duration) -> anyhow::Result<()> {
    if !runs(process_id, program) {
        return Ok(());
    }
    // SIGINT is Postgres' fast shutdown; the services treat it as SIGTERM.
    signal(process_id, Signal::INT);
    let started = Instant::now();
    while runs(process_id, program) {
        if started.elapsed() > timeout {
            bail!(
                "{program}, process {process_id}, does not end: stop it yourself, then try again"
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Whether a process runs this program. Process ids are reused, so the id alone proves nothing.
pub(crate) fn runs(process_id: u32, program: &str) -> bool {
    command_line(process_id).is_some_and(|path| Path::new(&path).ends_with(program))
}

/// The first word of a process's command line, unless the process has ended and is a zombie.
fn command_line(process_id: u32) -> Option<String> {
    let folder = Path::new("/proc").join(process_id.to_string());
    if Path::new("/proc/self/cmdline").exists() {
        // A zombie's command line is empty.
        let words = std::fs::read(folder.join("cmdline")).ok()?;
        let first = words.split(|byte| *byte == 0).next()?;
        return Some(String::from_utf8_lossy(first).into_owned()).filter(|path| !path.is_empty());
    }
    let output = Command::new("ps")
        .args(["-o", "stat=,args=", "-p", &process_id.to_string()])
        .output()
        .ok()?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = line.split_whitespace();
    let is_zombie = words.next()?.starts_with('Z');
    words.next().filter(|_| !is_zombie).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_program() {
        let mut process = Command::new("sleep").arg("100").spawn().unwrap();
        // Linux lets spawn() return a moment before the new program's command line can be read.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !runs(process.id(), "sleep") {
            assert!(Instant::now() < deadline, "the process must be known by its program");
            std::thread::yield_now();
        }
        assert!(!runs(process.id(), "postgres"));
        stop(process.id(), "postgres", Duration::ZERO).unwrap();
        assert!(process.try_wait().unwrap().is_none(), "another program must not be stopped");
        stop(process.id(), "sleep", Duration::from_secs(30)).unwrap();
        assert!(!runs(process.id(), "sleep"), "a zombie does not run");
        process.wait().unwrap();
    }
}
