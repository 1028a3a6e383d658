//! The command line.

use std::str::FromStr;
use std::time::Duration;

use access_kit::scope::{Permission, Scope};
use clap::{Parser, Subcommand};
use domain::{Metric, TimeUnit};
use service_kit::command::{EXIT_CODES, version};
use uuid::Uuid;

/// Makes, lists, replaces and revokes the keys that clients present.
#[derive(Debug, Parser)]
#[command(version = version(None), after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub program: Program,
}

/// What to do, with the keys or without them.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// Something with the keys.
    #[command(flatten)]
    Keys(Command),
    /// Prints the settings in effect and the origin of each. Passwords are redacted.
    PrintSettings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a key, and prints it alone on standard output. It is not shown again.
    Create(NewKey),
    /// Makes a key for a browser, and prints the link that logs it in.
    Link {
        /// The name of the key, such as the name of a screen. By default, a new name.
        name: Option<String>,
        /// What the key may do, separated by commas. By default, everything.
        #[arg(long = "scope", value_delimiter = ',', value_parser = parse_scope)]
        scopes: Vec<Scope>,
        /// When it ends by itself: a time such as 90d or 8h, or never.
        #[arg(long, default_value = "365d")]
        expires: Expiry,
    },
    /// Lists the valid keys.
    List {
        /// Also those that have ended.
        #[arg(long)]
        all: bool,
    },
    /// Replaces a key, and prints the new one. Both are valid for some time.
    Roll {
        /// The name of the key.
        name: String,
        /// How long the old key stays valid.
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Ends a key at once. All services refuse it within two seconds.
    Revoke {
        /// The name of the key, or its id.
        key: String,
    },
    /// Says which key wrote a row, and which one deleted it.
    Who {
        /// The id of the row.
        row: Uuid,
    },
}

/// A key to make.
#[derive(Debug, clap::Args)]
pub struct NewKey {
    /// A name that no other valid key has, such as the name of the service that will use it.
    #[arg(long)]
    pub name: String,
    /// What it may do, separated by commas: ingest:write, ingest:delete, ingest:read,
    /// statistics:read, or only some counts, as statistics:read:transfers/*.
    #[arg(long = "scope", required = true, value_delimiter = ',', value_parser = parse_scope)]
    pub scopes: Vec<Scope>,
    /// When it ends by itself: a time such as 90d or 8h, or never. Only a key that can do nothing
    /// but read statistics may never end.
    #[arg(long, default_value = "365d")]
    pub expires: Expiry,
    /// How many requests it may send to each service in a second. By default, that is not limited.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    pub requests_per_second: Option<i32>,
    /// How many streams it may hold at each gateway. By default, a quarter of those that the
    /// gateway serves.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    pub streams: Option<i32>,
}

/// When a key ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// After this time.
    After(Duration),
    /// Not at all.
    Never,
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        match humantime::parse_duration(text) {
            Ok(time) if time.as_secs() > 0 => Ok(Self::After(time)),
            _ => Err("a time of at least a second, such as 90d or 8h, or never".to_owned()),
        }
    }
}

/// A scope whose metric and unit exist: one that permits nothing would be a mistake.
fn parse_scope(text: &str) -> Result<Scope, String> {
    let scope: Scope =
        text.parse().map_err(|error: access_kit::scope::UnknownScope| error.to_string())?;
    if let Some(topics) = scope.topics() {
        if topics.metric() != "*" {
            topics.metric().parse::<Metric>().map_err(|error| error.to_string())?;
        }
        if topics.unit() != "*" {
            topics.unit().parse::<TimeUnit>().map_err(|error| error.to_string())?;
        }
    }
    Ok(scope)
}

/// Whether a key may have no end: it can do nothing but read statistics.
pub(crate) fn may_never_end(scopes: &[Scope]) -> bool {
    scopes.iter().all(|scope| scope.permission() == Permission::StatisticsRead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_without_a_topic_is_refused() {
        for scope in ["ingest:write", "statistics:read:transfers/*", "statistics:read:*/day"] {
            parse_scope(scope).unwrap();
        }
        for scope in ["statistics:read:transfer/*", "statistics:read:*/days", "ingest:wrote"] {
            parse_scope(scope).unwrap_err();
        }
    }

    #[test]
    fn an_expiry_is_a_time_or_never() {
        assert_eq!("never".parse(), Ok(Expiry::Never));
        assert_eq!("90d".parse(), Ok(Expiry::After(Duration::from_secs(90 * 86_400))));
        for refused in ["", "0s", "1ms", "90", "Never", "-1d"] {
            refused.parse::<Expiry>().unwrap_err();
        }
    }
}
