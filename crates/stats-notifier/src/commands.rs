//! `stats-notifier rebuild` and `stats-notifier verify`: what an operator asks for, and what is shown of it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::days::Progress;
use crate::rebuild::take_over_and_rebuild;
use crate::settings::Settings;
use crate::verify::{Verified, Verifier, Way};

/// The exit code of a check that found a wrong count.
const DIFFERENT: u8 = 1;
/// The exit code of a check that could not be carried out.
const TROUBLE: u8 = 2;

/// Recounts all events.
///
/// # Errors
/// Postgres fails, or the lead is not given up; nothing was then changed.
pub async fn rebuild(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let bar = bar(json)?;
    let rebuilt = take_over_and_rebuild(settings, &mut |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let rebuilt = rebuilt.context("the events were not counted anew, and the counts are as before")?;
    let mut output = std::io::stdout();
    if json {
        writeln!(output, "{}", serde_json::to_string(&rebuilt)?)?;
    } else {
        let (events, days, seconds) = (rebuilt.events, rebuilt.days, started.elapsed().as_secs_f64());
        writeln!(output, "counted {events} events on {days} days anew in {seconds:.1} s")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares what is counted with the events: exits 0 where all is right, 1 where a count is wrong, 2 where it could not
/// be told.
///
/// # Errors
/// Standard output is closed.
pub async fn verify(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let bar = bar(json)?;
    let verified = async {
        let Settings { database, leader, .. } = settings;
        let interval = leader.address_check_interval.get();
        let mut report = |progress| show(&bar, progress);
        Verifier::connect(database)
            .await?
            .verify_here(Way::OneSnapshot, database, interval, &mut report)
            .await
    };
    let verified = verified.await;
    bar.finish_and_clear();
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => {
            writeln!(std::io::stderr(), "Error: the counts could not be verified: {error}")?;
            return Ok(ExitCode::from(TROUBLE));
        }
    };
    let mut output = std::io::stdout();
    if json {
        writeln!(output, "{}", serde_json::to_string(&verified)?)?;
    } else {
        write!(output, "{}", in_words(&verified))?;
    }
    Ok(if verified.mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn in_words(verified: &Verified) -> String {
    let Verified { events, days, buckets, mismatches, first_mismatches } = verified;
    if *mismatches == 0 {
        return format!(
            "every count is that of the events: {events} events, {days} days, {buckets} buckets\n"
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
    text + "`stats-notifier rebuild` counts all events anew\n"
}

/// Shown on standard error, where that is a terminal; never beside JSON.
fn bar(json: bool) -> anyhow::Result<ProgressBar> {
    if json {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{prefix:<14} {wide_bar} {msg}")?);
    Ok(bar)
}

/// Moves the bar to the day just counted.
fn show(bar: &ProgressBar, progress: Progress) {
    let days = |from: domain::BucketTime, to: domain::BucketTime| {
        u64::try_from((to.unix_milliseconds() - from.unix_milliseconds()) / 86_400_000).unwrap_or(0)
    };
    bar.set_prefix(progress.metric.as_str());
    bar.set_length(days(progress.first_day, progress.last_day));
    bar.set_position(days(progress.first_day, progress.day));
    let day = progress.day.to_string();
    bar.set_message(format!("{}, {} events", day.get(..10).unwrap_or(&day), progress.events));
}
