//! The line length of prose: documents, and the comments of source files.
//!
//! Tables, headings, code blocks and lines that are one long word, such as a link, are exempt.

use std::path::Path;

use anyhow::{Context, bail};
use walkdir::{DirEntry, WalkDir};

use crate::command::in_checkout;

/// The longest line, in characters.
const WIDTH: usize = 100;

/// Folders that are not prose of ours.
const EXCLUDED: [&str; 10] = [
    "target",
    "node_modules",
    "dist",
    ".git",
    ".newcycle",
    "corpus",
    "artifacts",
    "coverage",
    "data",
    // Generated from docs/openapi.
    "wire",
];

/// Reports every line that is too long.
pub(crate) fn check() -> anyhow::Result<()> {
    println!("== line length of prose");
    let root = in_checkout("");
    let entries = WalkDir::new(&root).min_depth(1).sort_by_file_name().into_iter();
    let is_ours = |entry: &DirEntry| !EXCLUDED.iter().any(|name| entry.file_name() == *name);
    let mut found = 0;
    for entry in entries.filter_entry(is_ours) {
        let entry = entry?;
        let path = entry.path();
        let markers = markers_for_path(path).filter(|_| entry.file_type().is_file());
        let Some(markers) = markers else { continue };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        for (number, length) in long_lines(&text, markers) {
            let name = path.strip_prefix(&root).unwrap_or(path).display();
            println!("{name}:{number}: {length} characters");
            found += 1;
        }
    }
    if found > 0 {
        bail!("{found} lines of prose are longer than {WIDTH} characters: wrap them");
    }
    Ok(())
}

/// What prose in a file begins with, the longest first, or `None` if there is no prose. In Markdown
/// every line is prose.
fn markers_for_path(file: &Path) -> Option<&'static [&'static str]> {
    const HASH: &[&str] = &["#"];
    if file.file_name().is_some_and(|name| name == "Dockerfile" || name == "justfile") {
        return Some(HASH);
    }
    match file.extension()?.to_str()? {
        "md" => Some(&[""]),
        "rs" => Some(&["///", "//!", "//"]),
        "ts" => Some(&["//", "/**", "/*", "* "]),
        "sql" => Some(&["--"]),
        "toml" | "yml" | "yaml" | "sh" | "py" | "example" => Some(HASH),
        _ => None,
    }
}

/// The numbers of the lines that are too long, from 1, with their lengths.
fn long_lines(text: &str, markers: &[&str]) -> Vec<(usize, usize)> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let prose = markers.iter().find_map(|marker| line.trim_start().strip_prefix(marker));
        // A code block of a comment ends with the comment.
        let Some(prose) = prose.map(str::trim_start) else {
            in_code = false;
            continue;
        };
        if prose.starts_with("```") || prose.starts_with("~~~") {
            in_code = !in_code;
            continue;
        }
        let length = line.chars().count();
        let is_exempt = in_code || prose.starts_with(['|', '#']) || is_one_word(prose);
        if length > WIDTH && !is_exempt {
            found.push((number, length));
        }
    }
    found
}

/// Whether a line cannot be wrapped: it is a link or an image, after its list marker.
fn is_one_word(prose: &str) -> bool {
    let text = prose.trim_start_matches(['-', '*', '>', ' ']);
    let is_link_target = text.starts_with('[') && text.contains("]: https://");
    !text.contains(' ')
        || is_link_target
        || (text.starts_with("![") && text.ends_with(')'))
        || text.starts_with("<!--")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: &[&str] = &[""];
    const RUST: &[&str] = &["///", "//!", "//"];

    #[test]
    fn prose_is_measured_in_documents_and_comments() {
        let long = "word ".repeat(25);
        assert_eq!(long_lines(&format!("{long}\nshort"), MARKDOWN), [(1, 125)]);
        assert_eq!(long_lines(&format!("fn f() {{}}\n    /// {long}"), RUST), [(2, 133)]);
        assert!(
            long_lines(&format!("let text = \"{long}\";"), RUST).is_empty(),
            "code is for rustfmt"
        );
        let letters = "ä".repeat(60) + " " + &"ö".repeat(39);
        assert!(long_lines(&letters, MARKDOWN).is_empty(), "characters count, not bytes");
    }

    #[test]
    fn tables_headings_code_and_links_are_exempt() {
        let long = "word ".repeat(25);
        for text in [
            format!("| {long} |"),
            format!("## {long}"),
            format!("```sh\n{long}\n```"),
            format!("- https://example.org/{}", "a".repeat(100)),
            format!("![{long}](image.png)"),
            format!("[name]: https://example.org/{}", "a".repeat(100)),
        ] {
            assert!(long_lines(&text, MARKDOWN).is_empty(), "{text}");
        }
        assert!(long_lines(&format!("/// ```\n/// {long}\n/// ```"), RUST).is_empty());
        assert_eq!(long_lines(&format!("/// ```\nfn f() {{}}\n// {long}"), RUST).len(), 1);
    }
}
