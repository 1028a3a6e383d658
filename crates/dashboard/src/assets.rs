//! The files of the page, as `npm run build` in `web/` made them, embedded in this program.

use std::borrow::Cow;

use rust_embed::RustEmbed;

/// Every file of `web/dist`; none if the page was not built before this program.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Files;

/// The page itself.
pub(crate) const PAGE: &str = "index.html";

/// One file.
pub(crate) struct Asset {
    pub(crate) content: Cow<'static, [u8]>,
    pub(crate) media_type: &'static str,
    /// A hash of the content.
    pub(crate) tag: String,
    /// Whether its name contains a hash of its content, so that the content behind the name never
    /// changes.
    pub(crate) immutable: bool,
}

/// Finds the file of a path without its leading slash, such as `assets/index-C0ffee12.js`.
pub(crate) fn find(path: &str) -> Option<Asset> {
    let file = Files::get(path)?;
    let hash = file.metadata.sha256_hash();
    let tag = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Some(Asset {
        content: file.data,
        media_type: media_type(path),
        tag,
        immutable: path.starts_with("assets/"),
    })
}

/// Whether the page was built before this program.
pub fn are_built() -> bool {
    Files::get(PAGE).is_some()
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
