//! The choice between containers and a native stack, and the commands that follow it. The Docker of
//! these tests is the script `fake/docker`.

use std::process::Command;

use crate::support::{Place, root, text_of};

/// A place with the fake Docker in one of its states.
struct Docker<'a> {
    place: &'a Place,
    finds: &'static str,
}

impl Docker<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(&self.place.folder).unwrap();
        let mut folders = vec![root().join("xtask/tests/commands/fake")];
        folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut command = self.place.command(arguments);
        command
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("FAKE_DOCKER", self.finds)
            .env("FAKE_DOCKER_LOG", self.place.folder.join("docker.log"));
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = text_of(&self.command(arguments).output().unwrap());
        assert!(succeeded, "{arguments:?} failed: {text}");
        text
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = text_of(&self.command(arguments).output().unwrap());
        assert!(!succeeded, "{arguments:?} must fail, but says: {text}");
        text
    }

    /// The commands that it received since the last call, without the checks whether it runs.
    fn asked(&self) -> Vec<String> {
        let log = self.place.folder.join("docker.log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _missing = std::fs::remove_file(log);
        let asked = text
            .lines()
            .filter(|line| !line.starts_with("info") && !line.starts_with("compose version"));
        asked.map(str::to_owned).collect()
    }
}

#[test]
fn containers_are_used_if_docker_is_running() {
    let place = Place::new("engine");
    let docker = Docker { place: &place, finds: "engine" };
    let text = docker.run(&["up", "--with", "auto"]);
    assert!(text.contains("starting in containers") && text.contains("--with native"), "{text}");
    assert_eq!(docker.asked(), ["compose up --build"]);
    docker.run(&["up", "--with", "compose", "--detach"]);
    assert_eq!(docker.asked(), ["compose up --build --wait"]);
}

#[test]
fn without_docker_the_stack_is_native() {
    let place = Place::new("no-engine");
    let docker = Docker { place: &place, finds: "no engine" };
    let text = docker.run(&["up", "--with", "auto", "--detach"]);
    assert!(text.contains("starting on this machine (no Docker engine answers"), "{text}");
    assert!(text.contains("Cannot connect") && text.contains("--with compose"), "{text}");
    assert_eq!(place.status()["ready"], true);
    let text = Docker { place: &place, finds: "engine" }.refused(&["up", "--with", "compose"]);
    assert!(
        text.contains("a stack runs on this machine") && text.contains("cargo xtask down"),
        "{text}"
    );
    assert!(docker.run(&["down", "--with", "auto"]).contains("stopped"));
    assert_eq!(docker.asked(), [""; 0]);
    assert_eq!(place.status()["running"], false);
}

#[test]
fn the_missing_part_of_docker_is_named() {
    let place = Place::new("missing");
    for (finds, message) in [
        ("no engine", "no Docker engine answers"),
        ("silent engine", "has not answered for 3 s"),
        ("no Compose", "there is no Docker Compose"),
    ] {
        let docker = Docker { place: &place, finds };
        let text = docker.refused(&["up", "--with", "compose"]);
        assert!(text.contains(message), "{finds}: {text}");
        assert_eq!(docker.asked(), [""; 0]);
    }
    let text = text_of(
        &place.command(&["up", "--with", "compose"]).env("PATH", "/nowhere").output().unwrap(),
    )
    .1;
    assert!(text.contains("cannot be run"), "{text}");
}

#[test]
fn the_other_commands_follow_the_containers() {
    let place = Place::new("containers");
    let docker = Docker { place: &place, finds: "containers" };
    assert!(docker.run(&["status", "--with", "auto"]).contains("newcycle-ingest-api-1"));
    docker.asked();
    let text = docker.refused(&["reset", "--with", "auto"]);
    assert!(text.contains("cargo xtask down --with compose"), "{text}");
    assert_eq!(docker.asked(), ["compose ps --quiet"], "nothing may be deleted");
    let text = docker.run(&["down", "--with", "auto"]);
    assert!(!text.contains("nothing runs"), "{text}");
    assert_eq!(docker.asked().last().unwrap(), "compose down");
    // Without an option they apply to the native stack only.
    assert!(docker.run(&["down"]).contains("nothing runs"));
    assert!(docker.run(&["status"]).contains("nothing runs"));
    assert_eq!(docker.asked(), [""; 0]);

    let docker = Docker { place: &place, finds: "engine" };
    assert!(docker.run(&["down", "--with", "auto"]).contains("nothing runs"));
    assert!(docker.run(&["status", "--with", "auto"]).contains("nothing runs"));
    assert_eq!(docker.asked(), ["compose ps --all --quiet"; 2]);
    docker.run(&["reset", "--with", "auto"]);
    assert_eq!(docker.asked(), ["compose ps --quiet", "compose down --volumes"]);
}
