//! The settings of a program as Markdown, from the comments in its defaults.

use std::fmt::Write as _;

use super::Defaults;

struct Section {
    name: String,
    description: String,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    default: String,
    description: String,
}

impl Defaults {
    /// Every setting with its default and its description, as Markdown.
    #[must_use]
    pub fn reference(&self) -> String {
        let mut text = String::new();
        for section in self.sections() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let description = match section.description.as_str() {
                "" => String::new(),
                description => format!("{description}\n\n"),
            };
            // Writing to a string cannot fail.
            let _infallible = write!(
                text,
                "{gap}### `{}`\n\n{description}| setting | default | meaning |\n|---|---|---|\n",
                section.name
            );
            for Entry { name, default, description } in section.entries {
                let key = format!("{}.{name}", section.name);
                let libpq = self.libpq.iter().find(|(_, of)| *of == key);
                let libpq = libpq.map_or_else(String::new, |(variable, _)| {
                    format!(" `{variable}` sets it, too.")
                });
                let description = description.replace('|', "\\|");
                let _infallible =
                    writeln!(text, "| `{key}` | `{default}` | {description}{libpq} |");
            }
        }
        text
    }

    /// The program's sections, each with the shared entries first.
    fn sections(&self) -> Vec<Section> {
        let mut sections = parse("", self.own);
        for section in &mut sections {
            let shared = self.shared.iter().find(|(name, _)| *name == section.name);
            let Some(shared) = shared.and_then(|(name, text)| parse(name, text).pop()) else {
                continue;
            };
            let mut entries = shared.entries;
            for own in std::mem::take(&mut section.entries) {
                match entries.iter_mut().find(|entry| entry.name == own.name) {
                    Some(entry) if own.description.is_empty() => entry.default = own.default,
                    Some(entry) => *entry = own,
                    None => entries.push(own),
                }
            }
            section.entries = entries;
        }
        sections
    }
}

/// The sections of a text, in which each value is on one line. Entries before the first header
/// belong to the section `name`. A comment describes what follows it, unless a blank line is in
/// between.
fn parse(name: &str, text: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut comment = Vec::new();
    if !name.is_empty() {
        sections.push(Section {
            name: name.to_owned(),
            description: String::new(),
            entries: Vec::new(),
        });
    }
    for line in text.lines() {
        if line.is_empty() {
            comment.clear();
        } else if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']').to_owned();
            let description = std::mem::take(&mut comment).join("\n");
            sections.push(Section { name, description, entries: Vec::new() });
        } else if let Some((name, default)) = line.split_once(" = ")
            && let Some(section) = sections.last_mut()
        {
            let description = std::mem::take(&mut comment).join(" ");
            section.entries.push(Entry {
                name: name.to_owned(),
                default: default.to_owned(),
                description,
            });
        }
    }
    sections
}
