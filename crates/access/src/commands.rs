//! What each command does and prints. Secrets go to standard output, everything else about a new
//! key to standard error.

use std::io::Write;

use access_kit::key::Key;
use access_kit::scope::{Permission, Scope};
use anyhow::{Context, ensure};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::{Command, Expiry, may_never_end};
use crate::settings::Settings;
use crate::store::{Deed, KeyLimits, KeyStore, ListedKey};

/// Executes a command.
///
/// # Errors
/// The command cannot be executed; the message says why and what to do.
pub async fn execute(command: Command, settings: &Settings) -> anyhow::Result<()> {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| "unknown".to_owned());
    let connect = async || {
        let store = KeyStore::connect(&settings.database, user.clone()).await;
        store.context("the list of keys cannot be reached: does `database` name the right server?")
    };
    match command {
        Command::Create(new) => {
            let limits =
                KeyLimits { requests_per_second: new.requests_per_second, streams: new.streams };
            let key =
                create(&connect().await?, &new.name, &new.scopes, new.expires, limits).await?;
            show(&key)
        }
        Command::Link { name, scopes, expires } => {
            let name = name.unwrap_or_else(|| {
                format!("browser-{}", OffsetDateTime::now_utc().unix_timestamp_nanos())
            });
            let scopes =
                if scopes.is_empty() { Permission::ALL.map(Scope::all).to_vec() } else { scopes };
            let limits = KeyLimits::default();
            let key = create(&connect().await?, &name, &scopes, expires, limits).await?;
            let page = settings.link.url.trim_end_matches('/');
            show_line(&format!("{page}/#{}", key.expose()))
        }
        Command::List { all } => list(&connect().await?.list(all).await?),
        Command::Roll { name, overlap } => {
            let key = Key::generate();
            let ends = connect().await?.roll(&key, &name, overlap).await?;
            note(&format!(
                "The new key of {name}, which ends {}. The old one is valid for another {}.",
                end(ends),
                humantime::format_duration(overlap)
            ));
            show(&key)
        }
        Command::Revoke { key } => {
            let ids = connect().await?.revoke(&key).await?;
            note(&format!(
                "Revoked {}: all services refuse it within two seconds.",
                ids.join(", ")
            ));
            Ok(())
        }
        Command::Who { row } => {
            for deed in connect().await?.who(row).await? {
                show_line(&describe(&deed))?;
            }
            Ok(())
        }
    }
}

async fn create(
    store: &KeyStore,
    name: &str,
    scopes: &[Scope],
    expires: Expiry,
    limits: KeyLimits,
) -> anyhow::Result<Key> {
    let lifetime = match expires {
        Expiry::After(time) => Some(time),
        Expiry::Never => {
            ensure!(
                may_never_end(scopes),
                "a key that can do more than read statistics must end some day: use --expires 365d, \
                 and `access roll {name}` in time"
            );
            None
        }
    };
    let key = Key::generate();
    let ends = store.create(&key, name, scopes, lifetime, limits).await?;
    let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
    note(&format!(
        "The key of {name} (id {}) may do {} and ends {}. It is shown only once:",
        key.id(),
        scopes.join(", "),
        end(ends)
    ));
    Ok(key)
}

fn list(keys: &[ListedKey]) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let mut text = String::new();
    for key in keys {
        let state = match (key.ended_at, key.expires_at) {
            (Some(ended), _) if ended <= now => format!("revoked {}", rfc_3339(ended)),
            (_, Some(expired)) if expired <= now => format!("expired {}", rfc_3339(expired)),
            (Some(ending), _) => format!("replaced, ends {}", rfc_3339(ending)),
            (None, ends) => format!("valid, ends {}", end(ends)),
        };
        let rate = key.limits.requests_per_second.map(|rate| format!("{rate} requests a second"));
        let streams = key.limits.streams.map(|most| format!("{most} streams"));
        let limits: Vec<_> = rate.into_iter().chain(streams).collect();
        let limits = if limits.is_empty() {
            String::new()
        } else {
            format!("; at most {}", limits.join(" and "))
        };
        let used = key.last_used_at.map_or_else(|| "never".to_owned(), rfc_3339);
        text += &format!(
            "{}  (id {}, number {})\n  {}{limits}\n  {state}; last used: {used}; made {} by {}\n",
            key.name,
            key.id,
            key.number,
            key.scopes.join(", "),
            rfc_3339(key.created_at),
            key.created_by
        );
    }
    if keys.is_empty() {
        note("There is no key. `access create --name … --scope …` makes one.");
    }
    std::io::stdout().write_all(text.as_bytes()).context("standard output is closed")
}

fn describe(deed: &Deed) -> String {
    let by = match (&deed.name, deed.number) {
        (Some(name), Some(number)) => format!("The key {name} (number {number})"),
        (None, Some(number)) => format!("A key with the number {number}"),
        (_, None) => "A writer without a key, by SQL or while access was open,".to_owned(),
    };
    let at = deed.at.map(|at| format!(" at {}", rfc_3339(at))).unwrap_or_default();
    let request = deed.request_id.as_ref();
    let request = request.map(|id| format!(", by the request {id}")).unwrap_or_default();
    format!("{by} {}{at}{request}.", deed.done)
}

/// Shows a secret.
fn show(key: &Key) -> anyhow::Result<()> {
    show_line(key.expose())
}

fn show_line(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")
}

/// A remark for people. If standard error is closed, the command has still been executed.
fn note(text: &str) {
    let _ignored = writeln!(std::io::stderr(), "{text}");
}

fn end(ends: Option<OffsetDateTime>) -> String {
    ends.map_or_else(|| "never".to_owned(), |ends| format!("at {}", rfc_3339(ends)))
}

fn rfc_3339(time: OffsetDateTime) -> String {
    seconds(time).format(&Rfc3339).unwrap_or_default()
}

fn seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}
