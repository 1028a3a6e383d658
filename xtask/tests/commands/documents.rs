//! The documents quote the tested examples, and what they refer to exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Files in the folder of examples that are not examples.
const NO_EXAMPLES: [&str; 4] =
    ["package.json", "package-lock.json", "tsconfig.json", "live-counts.check.ts"];

/// The extensions of file names in backquotes that are checked.
const FILES: [&str; 9] = ["rs", "toml", "sql", "md", "py", "ts", "sh", "json", "html"];

/// All documents with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = ["", "docs", "deploy", "deploy/kubernetes"].map(|folder| root().join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let documents =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let documents: Vec<_> =
        documents.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    assert!(documents.len() >= 2, "README.md and ARCHITECTURE.md, at the least");
    documents
}

/// The text outside fenced blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn the_documents_quote_the_examples_exactly() {
    let mut quoted: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in documents() {
        for part in text.split("<!-- quotes ").skip(1) {
            let (name, rest) = part.split_once(" -->\n").unwrap();
            let (_, block) = rest.split_once("```").unwrap();
            let (_, block) = block.split_once('\n').unwrap();
            let block = block.split("\n```").next().unwrap();
            let file = std::fs::read_to_string(path.parent().unwrap().join(name)).unwrap();
            assert_eq!(block, file.trim_end(), "{} must quote {name} exactly", path.display());
            *quoted.entry(name.to_owned()).or_default() += 1;
        }
    }
    let examples = std::fs::read_dir(root().join("docs/examples")).unwrap();
    let files = examples.map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file());
    let names = files.map(|entry| entry.file_name().into_string().unwrap());
    for name in names.filter(|name| !NO_EXAMPLES.contains(&name.as_str())) {
        assert_eq!(
            quoted.get(&format!("examples/{name}")),
            Some(&1),
            "a document must quote {name}"
        );
    }
}

#[test]
fn links_have_a_target() {
    let mut checked = 0;
    for (path, text) in documents() {
        for link in prose(&text).split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, name) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{} links to {target}, which does not exist", path.display());
            if !name.is_empty() {
                let there = prose(&std::fs::read_to_string(&file).unwrap());
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|heading| anchor(heading) == name);
                assert!(
                    found,
                    "{} links to {target}, but there is no such heading",
                    path.display()
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 0, "README.md links to ARCHITECTURE.md");
}

#[test]
fn files_that_are_mentioned_exist() {
    let crates: Vec<PathBuf> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let mut checked = 0;
    for (path, text) in documents() {
        for mentioned in prose(&text).split('`').skip(1).step_by(2) {
            let is_file = Path::new(mentioned)
                .extension()
                .is_some_and(|extension| FILES.iter().any(|known| extension == *known));
            let plain = mentioned
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            if !is_file || !plain || !mentioned.contains('/') || mentioned.starts_with('/') {
                continue;
            }
            // From the checkout, from the document, from the crates, or from within one of them.
            let mut folders =
                vec![root().to_owned(), path.parent().unwrap().to_owned(), root().join("crates")];
            folders.extend(crates.clone());
            let found = folders.iter().any(|folder| folder.join(mentioned).exists());
            assert!(found, "{} mentions {mentioned}, which does not exist", path.display());
            checked += 1;
        }
    }
    assert!(checked > 0, "ARCHITECTURE.md mentions files");
}
