//! The commands `stats-notifier rebuild` and `stats-notifier verify`, and their output.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use service_kit::settings::ProgramSettings;

use crate::rebuild::{RebuildReport, take_over_and_rebuild};
use crate::settings::Settings;
use crate::store::Progress;
use crate::verify::{Verifier, VerifyMode, VerifyReport};

/// The exit code of a verification that found a wrong count.
const DIFFERENT: u8 = 1;
/// The exit code of a verification that failed.
const FAILED: u8 = 2;

/// Counts all events again.
///
/// # Errors
/// Postgres fails, or the leader keeps the lead. Then the counts are as before.
pub async fn rebuild(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let bar = progress_bar(json)?;
    let report = take_over_and_rebuild(settings, &mut |progress| update(&bar, progress)).await;
    bar.finish_and_clear();
    let report =
        report.context("the events were not counted again, and the counts are as before")?;
    let mut output = std::io::stdout();
    if json {
        writeln!(output, "{}", serde_json::to_string(&report)?)?;
    } else {
        let RebuildReport { events, days, .. } = report;
        let seconds = started.elapsed().as_secs_f64();
        writeln!(output, "counted {events} events on {days} days again in {seconds:.1} s")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares all counts with the events. The exit code is 0 if they are equal, 1 if a count is
/// wrong, and 2 if the caller learns nothing about them: the settings cannot be read, the
/// verification failed, or its result could not be printed.
pub async fn verify(json: bool) -> ExitCode {
    match print_verification(json).await {
        Ok(report) if report.mismatches == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERENT),
        Err(error) => {
            let error = error.context("the counts could not be verified");
            service_kit::failure::print(error.as_ref());
            ExitCode::from(FAILED)
        }
    }
}

async fn print_verification(json: bool) -> anyhow::Result<VerifyReport> {
    let bar = progress_bar(json)?;
    let verified = async {
        let Settings { database, leader, .. } = Settings::load()?;
        let verifier = Verifier::connect(&database, leader.address_check_interval.get()).await?;
        let update = &mut |progress| update(&bar, progress);
        anyhow::Ok(verifier.verify(VerifyMode::OneSnapshot, update).await?)
    };
    let verified = verified.await;
    bar.finish_and_clear();
    let report = verified?;
    let text = if json { serde_json::to_string(&report)? + "\n" } else { describe(&report) };
    std::io::stdout().write_all(text.as_bytes()).context("printing the result")?;
    Ok(report)
}

fn describe(report: &VerifyReport) -> String {
    let VerifyReport { events, days, buckets, mismatches, first_mismatches } = report;
    if *mismatches == 0 {
        return format!(
            "all counts match the events: {events} events, {days} days, {buckets} buckets\n"
        );
    }
    let mut text = format!("{mismatches} of {buckets} buckets are wrong:\n");
    for wrong in first_mismatches {
        text += &format!(
            "  {} at {}: counted {}, expected {}\n",
            wrong.topic, wrong.time, wrong.counted, wrong.expected
        );
    }
    if *mismatches > first_mismatches.len() as u64 {
        text += "  …\n";
    }
    text + "run `stats-notifier rebuild` to count all events again\n"
}

/// A bar on standard error, if that is a terminal and the output is text.
fn progress_bar(json: bool) -> anyhow::Result<ProgressBar> {
    if json {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{prefix:<14} {wide_bar} {msg}")?);
    Ok(bar)
}

fn update(bar: &ProgressBar, progress: Progress) {
    let days = |from: domain::BucketTime, to: domain::BucketTime| {
        u64::try_from((to.unix_milliseconds() - from.unix_milliseconds()) / 86_400_000).unwrap_or(0)
    };
    bar.set_prefix(progress.metric.as_str());
    bar.set_length(days(progress.first_day, progress.last_day));
    bar.set_position(days(progress.first_day, progress.day));
    let day = progress.day.to_string();
    bar.set_message(format!("{}, {} events", day.get(..10).unwrap_or(&day), progress.events));
}
