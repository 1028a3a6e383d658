//! `cargo xtask import`: uploads the files of a folder to ingest-api.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_compression::tokio::bufread::GzipDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use local_stack::stack::ServiceKind;
use reqwest::Client;
use serde::Deserialize;
use tokio::io::{AsyncRead, BufReader};
use tokio_util::io::{InspectReader, ReaderStream};

use crate::keys::UploadKey;
use crate::settings::Settings;

/// The kinds of rows, each after those that it refers to.
pub(crate) const KINDS: [&str; 4] = ["base-items", "users", "items", "transfers"];

/// The size of one read from a file, in bytes.
const CHUNK_BYTES: usize = 65_536;

/// The response to an upload.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct UploadResult {
    accepted: u64,
    repeated: u64,
    pub(crate) rejected: u64,
    /// The first of the rejected lines.
    #[serde(default)]
    pub(crate) errors: Vec<BadLine>,
}

/// A rejected line.
#[derive(Debug, Deserialize)]
pub(crate) struct BadLine {
    line: u64,
    field: Option<String>,
    pub(crate) detail: String,
}

impl UploadResult {
    /// Adds the numbers of another upload.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.repeated += other.repeated;
        self.rejected += other.rejected;
    }

    /// The number of lines.
    const fn rows(&self) -> u64 {
        self.accepted + self.repeated + self.rejected
    }

    /// Prints a row of the table that [`print_header`] begins.
    pub(crate) fn print(&self, kind: &str) {
        println!("{kind:<12} {:>12} {:>12} {:>12}", self.accepted, self.repeated, self.rejected);
    }
}

pub(crate) fn print_header() {
    println!("{:<12} {:>12} {:>12} {:>12}", "", "accepted", "repeated", "rejected");
}

/// The URL of ingest-api: the given one without a final slash, or the native stack's.
pub(crate) fn ingest_url(given: Option<String>) -> anyhow::Result<String> {
    Ok(match given {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => Settings::load()?.url(ServiceKind::IngestApi),
    })
}

/// Uploads all files of `folder` to `url`, or to the stack of this machine.
pub(crate) async fn run(folder: &Path, given: Option<String>) -> anyhow::Result<()> {
    let url = ingest_url(given.clone())?;
    let files: Vec<(&'static str, PathBuf)> =
        KINDS.iter().filter_map(|kind| Some((*kind, file(folder, kind)?))).collect();
    if files.is_empty() {
        bail!(
            "{} has no base-items, users, items or transfers as .ndjson or .ndjson.gz",
            folder.display()
        );
    }
    let key = UploadKey::get(given.as_deref(), "import").await?;
    let outcome = upload(&url, key.client()?.build()?, files).await;
    key.revoke().await;
    outcome
}

async fn upload(
    url: &str,
    client: Client,
    files: Vec<(&'static str, PathBuf)>,
) -> anyhow::Result<()> {
    print_header();
    let mut total = UploadResult::default();
    let start = Instant::now();
    for (kind, file) in files {
        let answer = post(url, &client, kind, &file).await?;
        answer.print(kind);
        for BadLine { line, field, detail } in &answer.errors {
            let field = field.as_ref().map_or_else(String::new, |field| format!("{field}: "));
            println!("  {}, line {line}: {field}{detail}", file.display());
        }
        total.add(&answer);
    }
    println!("== {}", speed(total.rows(), start.elapsed()));
    if total.rejected > 0 {
        bail!(
            "{} lines were rejected, and all others are stored: correct them and import again (lines with \
             ids are stored only once)",
            total.rejected
        );
    }
    Ok(())
}

fn speed(rows: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is rounded")]
    let per_second = rows as f64 / time.as_secs_f64();
    format!("{rows} rows in {:.1} s: {per_second:.0} rows/s", time.as_secs_f64())
}

/// The number of lines that end in this part of a file.
fn lines(part: &[u8]) -> u64 {
    part.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// The file of a kind, preferably uncompressed.
fn file(folder: &Path, kind: &str) -> Option<PathBuf> {
    let names = [format!("{kind}.ndjson"), format!("{kind}.ndjson.gz")];
    names.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

async fn post(
    url: &str,
    client: &Client,
    kind: &'static str,
    path: &Path,
) -> anyhow::Result<UploadResult> {
    let file =
        tokio::fs::File::open(path).await.with_context(|| format!("opening {}", path.display()))?;
    let bar = ProgressBar::new(file.metadata().await?.len());
    let style = "{prefix:<12} {wide_bar} {bytes}/{total_bytes} {eta} {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(kind);
    let read = BufReader::new(bar.wrap_async_read(file));
    let plain: Box<dyn AsyncRead + Send + Unpin> =
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut decoder = GzipDecoder::new(read);
            // As gunzip does: concatenated files are one file.
            decoder.multiple_members(true);
            Box::new(decoder)
        } else {
            Box::new(read)
        };
    let (progress, start, mut rows) = (bar.clone(), Instant::now(), 0);
    // A part is read when the service takes it, so this is what the service has taken.
    let counted = InspectReader::new(plain, move |part| {
        rows += lines(part);
        progress.set_message(speed(rows, start.elapsed()));
    });
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(counted, CHUNK_BYTES));
    let request = client
        .post(format!("{url}/{kind}"))
        .header("content-type", "application/x-ndjson")
        .body(body);
    let failed = || {
        format!(
            "uploading {} to {url} failed: is the stack running (`cargo xtask up`), and is the file complete? \
             You can import lines with ids again",
            path.display()
        )
    };
    let response = request.send().await.with_context(failed)?;
    let status = response.status();
    let text = response.text().await.with_context(failed)?;
    bar.finish_and_clear();
    serde_json::from_str(&text).with_context(|| format!("{url}/{kind} answered {status}: {text}"))
}
