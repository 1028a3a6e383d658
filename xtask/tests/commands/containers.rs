//! In containers or on this machine: which is chosen, and that the other commands follow. The Docker of these tests is
//! the script `fake/docker`.

use std::process::Command;

use crate::support::{Place, root, said};

/// A place that finds a Docker of a kind that the script knows.
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
        let (ended_well, said) = said(&self.command(arguments).output().unwrap());
        assert!(ended_well, "{arguments:?} failed: {said}");
        said
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let (ended_well, said) = said(&self.command(arguments).output().unwrap());
        assert!(!ended_well, "{arguments:?} must fail, but says: {said}");
        said
    }

    /// What the commands since the last time asked of it, beside whether it is there.
    fn asked(&self) -> Vec<String> {
        let log = self.place.folder.join("docker.log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _missing = std::fs::remove_file(log);
        let asked =
            text.lines().filter(|line| !line.starts_with("info") && !line.starts_with("compose version"));
        asked.map(str::to_owned).collect()
    }
}

#[test]
fn containers_are_used_where_an_engine_answers() {
    let place = Place::new("engine");
    let docker = Docker { place: &place, finds: "engine" };
    let said = docker.run(&["up", "--with", "auto"]);
    assert!(said.contains("starting in containers") && said.contains("--with native"), "{said}");
    assert_eq!(docker.asked(), ["compose up --build"]);
    docker.run(&["up", "--with", "compose", "--detach"]);
    assert_eq!(docker.asked(), ["compose up --build --wait"]);
}

#[test]
fn without_an_engine_the_stack_runs_on_this_machine() {
    let place = Place::new("no-engine");
    let docker = Docker { place: &place, finds: "no engine" };
    let said = docker.run(&["up", "--with", "auto", "--detach"]);
    assert!(said.contains("starting on this machine (no Docker engine answers"), "{said}");
    assert!(said.contains("Cannot connect") && said.contains("--with compose"), "{said}");
    assert_eq!(place.status()["ready"], true);
    let said = Docker { place: &place, finds: "engine" }.refused(&["up", "--with", "compose"]);
    assert!(said.contains("a stack runs on this machine") && said.contains("cargo xtask down"), "{said}");
    assert!(docker.run(&["down", "--with", "auto"]).contains("stopped"));
    assert_eq!(docker.asked(), [""; 0]);
    assert_eq!(place.status()["running"], false);
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new("missing");
    for (finds, message) in [
        ("no engine", "no Docker engine answers"),
        ("silent engine", "has not answered for 3 s"),
        ("no Compose", "there is no Docker Compose"),
    ] {
        let docker = Docker { place: &place, finds };
        let said = docker.refused(&["up", "--with", "compose"]);
        assert!(said.contains(message), "{finds}: {said}");
        assert_eq!(docker.asked(), [""; 0]);
    }
    let said = said(&place.command(&["up", "--with", "compose"]).env("PATH", "/nowhere").output().unwrap()).1;
    assert!(said.contains("cannot be run"), "{said}");
}

#[test]
fn the_other_commands_follow_the_containers() {
    let place = Place::new("containers");
    let docker = Docker { place: &place, finds: "containers" };
    assert!(docker.run(&["status", "--with", "auto"]).contains("newcycle-ingest-api-1"));
    docker.asked();
    let said = docker.refused(&["reset", "--with", "auto"]);
    assert!(said.contains("cargo xtask down --with compose"), "{said}");
    assert_eq!(docker.asked(), ["compose ps --quiet"], "nothing may be deleted");
    let said = docker.run(&["down", "--with", "auto"]);
    assert!(!said.contains("nothing runs"), "{said}");
    assert_eq!(docker.asked().last().unwrap(), "compose down");
    // By themselves they are for this machine alone.
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
