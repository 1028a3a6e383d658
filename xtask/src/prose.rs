//! The line length of prose: documents, and the comments of source files.
//!
//! Tables, headings, code blocks and lines that are one long word, such as a link, are exempt.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

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
///
/// # Errors
/// There is one, or a file cannot be read.
pub(crate) fn check() -> anyhow::Result<()> {
    println!("== line length of prose");
    let root = in_checkout("");
    let mut found = 0;
    for file in files(&root)? {
        let Some(language) = Language::of(&file) else { continue };
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        for (number, length) in long_lines(&text, language) {
            let name = file.strip_prefix(&root).unwrap_or(&file).display();
            println!("{name}:{number}: {length} characters");
            found += 1;
        }
    }
    if found > 0 {
        bail!("{found} lines of prose are longer than {WIDTH} characters: wrap them");
    }
    Ok(())
}

/// Every file below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if EXCLUDED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        match entry.file_type()? {
            kind if kind.is_dir() => files.extend(self::files(&entry.path())?),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files.sort();
    Ok(files)
}

/// How a file marks prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    /// All lines outside code blocks are prose.
    Markdown,
    /// Prose starts with one of these.
    Comments(&'static [&'static str]),
}

impl Language {
    fn of(file: &Path) -> Option<Self> {
        if file.file_name().is_some_and(|name| name == "Dockerfile" || name == "justfile") {
            return Some(Self::Comments(&["#"]));
        }
        match file.extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "rs" => Some(Self::Comments(&["//"])),
            "ts" => Some(Self::Comments(&["//", "/*", "* "])),
            "sql" => Some(Self::Comments(&["--"])),
            "toml" | "yml" | "yaml" | "sh" | "py" | "example" => Some(Self::Comments(&["#"])),
            _ => None,
        }
    }
}

/// The numbers of the lines that are too long, from 1, with their lengths.
fn long_lines(text: &str, language: Language) -> Vec<(usize, usize)> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let prose = match language {
            Language::Markdown => Some(line.trim_start()),
            Language::Comments(markers) => comment(line, markers),
        };
        // A code block of a comment ends with the comment.
        let Some(prose) = prose else {
            in_code = false;
            continue;
        };
        if prose.starts_with("```") || prose.starts_with("~~~") {
            in_code = !in_code;
            continue;
        }
        let length = line.chars().count();
        let is_exempt =
            in_code || prose.starts_with('|') || prose.starts_with('#') || is_one_word(prose);
        if length > WIDTH && !is_exempt {
            found.push((number, length));
        }
    }
    found
}

/// The text of a line that is a comment.
fn comment<'a>(line: &'a str, markers: &[&str]) -> Option<&'a str> {
    let line = line.trim_start();
    let text = markers.iter().find_map(|marker| line.strip_prefix(marker))?;
    Some(text.trim_start_matches(['/', '!', '#', '-', '*']).trim_start())
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

    const RUST: Language = Language::Comments(&["//"]);

    #[test]
    fn prose_is_measured_in_documents_and_comments() {
        let long = "word ".repeat(25);
        assert_eq!(long_lines(&format!("{long}\nshort"), Language::Markdown), [(1, 125)]);
        assert_eq!(long_lines(&format!("fn f() {{}}\n    /// {long}"), RUST), [(2, 133)]);
        assert!(
            long_lines(&format!("let text = \"{long}\";"), RUST).is_empty(),
            "code is for rustfmt"
        );
        let letters = "ä".repeat(60) + " " + &"ö".repeat(39);
        assert!(long_lines(&letters, Language::Markdown).is_empty(), "characters count, not bytes");
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
            assert!(long_lines(&text, Language::Markdown).is_empty(), "{text}");
        }
        assert!(long_lines(&format!("/// ```\n/// {long}\n/// ```"), RUST).is_empty());
        assert_eq!(long_lines(&format!("/// ```\nfn f() {{}}\n// {long}"), RUST).len(), 1);
    }
}
