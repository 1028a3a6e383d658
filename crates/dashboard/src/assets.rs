//! The files of the page, as `npm run build` in `web/` made them, embedded in this program.
//!
//! Invariant: each file exists once, and once compressed, however many clients receive it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

/// Every file of `web/dist`; none if the page was not built before this program.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Files;

/// The page itself.
pub(crate) const PAGE: &str = "index.html";

/// All files, by their paths without a leading slash, such as `assets/index-C0ffee12.js`.
#[derive(Debug)]
pub struct Assets(HashMap<String, Asset>);

/// One file.
#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) plain: Content,
    /// Compressed by gzip, if that makes it much smaller.
    pub(crate) gzip: Option<Content>,
    pub(crate) media_type: &'static str,
    /// Whether its name contains a hash of its content, so that the content behind the name never
    /// changes.
    pub(crate) immutable: bool,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    /// A hash of the file, and how it is compressed.
    pub(crate) tag: String,
}

impl Assets {
    /// Compresses the files.
    #[must_use]
    pub fn load() -> Self {
        let assets = Files::iter().filter_map(|path| Some((path.to_string(), Asset::load(&path)?)));
        Self(assets.collect())
    }

    pub(crate) fn find(&self, path: &str) -> Option<&Asset> {
        self.0.get(path)
    }

    /// Whether the page was built before this program.
    #[must_use]
    pub fn are_built(&self) -> bool {
        self.0.contains_key(PAGE)
    }
}

impl Asset {
    fn load(path: &str) -> Option<Self> {
        let file = Files::get(path)?;
        let hash = file.metadata.sha256_hash();
        let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let gzip = gzip(&file.data).map(|bytes| Content { bytes, tag: format!("{tag}-gzip") });
        let bytes = match file.data {
            Cow::Borrowed(embedded) => Bytes::from_static(embedded),
            // A debug build reads the folder.
            Cow::Owned(read) => Bytes::from(read),
        };
        Some(Self {
            plain: Content { bytes, tag },
            gzip,
            media_type: media_type(path),
            immutable: path.starts_with("assets/"),
        })
    }
}

/// `None` if this saves less than a tenth, as with images.
fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    let compressed = encoder.finish().ok()?;
    (compressed.len() < plain.len() / 10 * 9).then(|| Bytes::from(compressed))
}

/// The media type by extension, for the files that the build emits.
fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
