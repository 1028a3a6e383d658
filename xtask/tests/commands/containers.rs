//! The choice between containers and a native stack, and the commands that follow it. The Docker of
//! these tests is the script `fake/docker`.

use crate::support::{TestStack, output, root};

/// A stack with the fake Docker.
fn stack_with_docker(name: &str) -> TestStack {
    let mut stack = TestStack::new(name);
    std::fs::create_dir_all(&stack.folder).unwrap();
    let mut folders = vec![root().join("xtask/tests/commands/fake")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let path = std::env::join_paths(folders).unwrap();
    let log = stack.folder.join("docker.log");
    stack.variables.push(("PATH", path.into_string().unwrap()));
    stack.variables.push(("FAKE_DOCKER_LOG", log.to_str().unwrap().to_owned()));
    stack
}

/// Sets the state of the fake Docker for the commands that follow.
fn set_docker_state(stack: &mut TestStack, state: &str) {
    stack.variables.push(("FAKE_DOCKER", state.to_owned()));
}

/// The commands that Docker received since the last call, without the checks whether it runs.
fn received(stack: &TestStack) -> Vec<String> {
    let log = stack.folder.join("docker.log");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let _missing = std::fs::remove_file(log);
    let commands = text
        .lines()
        .filter(|line| !line.starts_with("info") && !line.starts_with("compose version"));
    commands.map(str::to_owned).collect()
}

#[test]
fn containers_are_used_if_docker_is_running() {
    let mut stack = stack_with_docker("engine");
    set_docker_state(&mut stack, "engine");
    let text = stack.run(&["up", "--with", "auto"]);
    assert!(text.contains("starting in containers") && text.contains("--with native"), "{text}");
    assert_eq!(received(&stack), ["compose up --build"]);
    stack.run(&["up", "--with", "compose", "--detach"]);
    assert_eq!(received(&stack), ["compose up --build --wait"]);
}

#[test]
fn without_docker_the_stack_is_native() {
    let mut stack = stack_with_docker("no-engine");
    set_docker_state(&mut stack, "no engine");
    let text = stack.run(&["up", "--with", "auto", "--detach"]);
    assert!(text.contains("starting on this machine (no Docker engine answers"), "{text}");
    assert!(text.contains("Cannot connect") && text.contains("--with compose"), "{text}");
    assert_eq!(stack.status()["ready"], true);
    set_docker_state(&mut stack, "engine");
    let text = stack.refused(&["up", "--with", "compose"]);
    assert!(
        text.contains("a stack runs on this machine") && text.contains("cargo xtask down"),
        "{text}"
    );
    set_docker_state(&mut stack, "no engine");
    assert!(stack.run(&["down", "--with", "auto"]).contains("stopped"));
    assert_eq!(received(&stack), [""; 0]);
    assert_eq!(stack.status()["running"], false);
}

#[test]
fn the_missing_part_of_docker_is_named() {
    let mut stack = stack_with_docker("missing");
    for (state, message) in [
        ("no engine", "no Docker engine answers"),
        ("silent engine", "has not answered for 3 s"),
        ("no Compose", "there is no Docker Compose"),
    ] {
        set_docker_state(&mut stack, state);
        let text = stack.refused(&["up", "--with", "compose"]);
        assert!(text.contains(message), "{state}: {text}");
        assert_eq!(received(&stack), [""; 0]);
    }
    let mut command = stack.command(&["up", "--with", "compose"]);
    let (_, text) = output(command.env("PATH", "/nowhere"));
    assert!(text.contains("cannot be run"), "{text}");
}

/// The files are checked all the same.
#[test]
fn without_docker_a_trial_of_the_containers_is_reported_as_not_run() {
    let mut stack = stack_with_docker("no-trial");
    for (state, why) in
        [("no engine", "no Docker engine answers"), ("no Compose", "there is no Docker Compose")]
    {
        set_docker_state(&mut stack, state);
        let text = stack.run(&["containers"]);
        let line = format!("\n== Compose: not run, because {why}");
        assert!(text.contains(&line) && !text.contains("passed"), "{text}");
        assert!(text.contains("the files of Compose: done"), "{text}");
        assert_eq!(received(&stack), [""; 0]);
    }
}

#[test]
fn the_other_commands_follow_the_containers() {
    let mut stack = stack_with_docker("containers");
    set_docker_state(&mut stack, "containers");
    assert!(stack.run(&["status", "--with", "auto"]).contains("newcycle-ingest-api-1"));
    received(&stack);
    let text = stack.refused(&["reset", "--with", "auto"]);
    assert!(text.contains("cargo xtask down --with compose"), "{text}");
    assert_eq!(received(&stack), ["compose ps --quiet"], "nothing may be deleted");
    let text = stack.run(&["down", "--with", "auto"]);
    assert!(!text.contains("nothing runs"), "{text}");
    assert_eq!(received(&stack).last().unwrap(), "compose down");
    // Without an option they apply to the native stack only.
    assert!(stack.run(&["down"]).contains("nothing runs"));
    assert!(stack.run(&["status"]).contains("nothing runs"));
    assert_eq!(received(&stack), [""; 0]);

    set_docker_state(&mut stack, "engine");
    assert!(stack.run(&["down", "--with", "auto"]).contains("nothing runs"));
    assert!(stack.run(&["status", "--with", "auto"]).contains("nothing runs"));
    assert_eq!(received(&stack), ["compose ps --all --quiet"; 2]);
    stack.run(&["reset", "--with", "auto"]);
    assert_eq!(received(&stack), ["compose ps --quiet", "compose down --volumes"]);
}
