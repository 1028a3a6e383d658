//! The secrets of a native stack: made once, readable by their owner only, and in no log or
//! argument.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{TestStack, output};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The link that `up` prints.
fn link(stack: &TestStack, text: &str) -> String {
    let page = format!("{}/#nc_", stack.url("DASHBOARD_PORT"));
    let start = text.find(&page).unwrap_or_else(|| panic!("there must be a link: {text}"));
    text[start..].split_whitespace().next().unwrap().to_owned()
}

/// What a key may do, as a service says.
fn access(stack: &TestStack, key: &str, port: &str) -> Value {
    let header = stack.folder.join("other-header");
    std::fs::write(&header, format!("authorization: Bearer {key}\n")).unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-H", &format!("@{}", header.display())]);
    let (_, text) = output(curl.arg(format!("{}/access", stack.url(port))));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_stack_makes_its_secrets_once_and_shows_them_to_its_owner_only() {
    let stack = TestStack::new("secrets");
    let text = stack.run(&["up", "--detach"]);
    let first = link(&stack, &text);
    let secrets = stack.folder.join("secrets");
    assert_eq!(mode(&secrets), 0o700);
    let mut values = Vec::new();
    for name in ["superuser", "ingest", "notifier", "access", "browser-key"] {
        let path = secrets.join(name);
        assert_eq!(mode(&path), 0o600, "{name}");
        values.push(std::fs::read_to_string(path).unwrap());
    }
    assert!(first.ends_with(&values[4]));
    for file in ["stack.log", "stack.json"] {
        let text = std::fs::read_to_string(stack.folder.join(file)).unwrap();
        let found = values.iter().find(|value| text.contains(value.as_str()));
        assert_eq!(found, None, "{file} must have no secret");
    }
    let key = first.split_once('#').unwrap().1;
    for port in ["INGEST_PORT", "GATEWAY_PORT"] {
        assert_eq!(access(&stack, key, port)["scopes"].as_array().unwrap().len(), 4);
    }

    stack.run(&["down"]);
    assert_eq!(link(&stack, &stack.run(&["up", "--detach"])), first, "its key is still valid");
    // A key that is not valid any more is replaced.
    stack.run(&["down"]);
    let other = values[4].replacen("nc_", "nc_0", 1);
    std::fs::write(secrets.join("browser-key"), other).unwrap();
    let second = link(&stack, &stack.run(&["up", "--detach"]));
    assert_ne!(second, first);
    let key = second.split_once('#').unwrap().1;
    assert_eq!(access(&stack, key, "GATEWAY_PORT")["scopes"].as_array().unwrap().len(), 4);

    stack.run(&["down"]);
    stack.run(&["reset"]);
    assert!(!secrets.exists());
}

#[test]
fn a_browser_is_opened_by_a_file_and_not_by_an_argument_with_a_key() {
    let mut stack = TestStack::new("open");
    let programs = stack.folder.join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let log = stack.folder.join("opened");
    for name in ["xdg-open", "open"] {
        let opener = programs.join(name);
        std::fs::write(&opener, format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\n", log.display()))
            .unwrap();
        std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)));
    stack.variables.push(("PATH", path.unwrap().into_string().unwrap()));
    let text = stack.run(&["up", "--detach", "--open"]);
    let opened = std::fs::read_to_string(log).unwrap();
    let page = Path::new(opened.trim());
    assert_eq!((page, mode(page)), (stack.folder.join("secrets/open.html").as_path(), 0o600));
    assert!(std::fs::read_to_string(page).unwrap().contains(&link(&stack, &text)));
}

#[test]
fn a_key_is_printed_alone_and_does_what_was_asked_for() {
    let stack = TestStack::new("key");
    let text = stack.refused(&["key"]);
    assert!(text.contains("cargo xtask up"), "{text}");
    stack.run(&["up", "--detach"]);
    let options = ["key", "--scope", "statistics:read:transfers/*,ingest:read", "--name", "wall"];
    let made = stack.command(&options).output().unwrap();
    let printed = String::from_utf8(made.stdout).unwrap();
    let (last, before) = printed
        .trim_end()
        .rsplit_once('\n')
        .map_or_else(|| (printed.trim_end(), ""), |(before, last)| (last, before));
    assert!(made.status.success() && before.is_empty() && last.starts_with("nc_"), "{printed}");
    for port in ["INGEST_PORT", "GATEWAY_PORT"] {
        let access = access(&stack, last, port);
        assert_eq!(access["name"], "wall", "{access}");
        let scopes = json!(["statistics:read:transfers/*", "ingest:read"]);
        assert_eq!(access["scopes"], scopes, "{access}");
    }
    let text = stack.refused(&options);
    assert!(text.contains("there is a key named wall already"), "{text}");
    let text = stack.refused(&["key", "--scope", "ingest:all"]);
    assert!(text.contains("unknown scope"), "{text}");
}

#[test]
fn a_database_whose_password_is_not_known_is_named() {
    let stack = TestStack::new("earlier");
    std::fs::create_dir_all(stack.folder.join("postgres/data")).unwrap();
    let text = stack.refused(&["up", "--detach"]);
    assert!(text.contains("set PGPASSWORD"), "{text}");
}
