//! The commands of the README's tour work.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use local_stack::stack::built_programs;

use crate::support::{TestStack, output, root};

#[test]
fn the_tour_of_the_readme_works() {
    let stack = TestStack::new("tour");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, tour) = readme.split_once("## A tour").unwrap();
    let tour = tour.split("\n## ").next().unwrap();
    let blocks = tour.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<String> = blocks.map(|block| with_ports(&stack, block)).collect();
    let [key, follow, post, look, import, history] = blocks.as_slice() else {
        panic!("the tour has changed: {blocks:#?}")
    };

    stack.run(&["up", "--detach"]);
    let (succeeded, text) = output(&mut shell(&stack, key));
    assert!(succeeded, "{text}");
    let header = std::fs::metadata(stack.folder.join("header")).unwrap();
    assert_eq!(header.permissions().mode() & 0o777, 0o600);
    let mut following =
        shell(&stack, &format!("exec {follow}")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "event: snapshot"), "the stream must begin with a snapshot");
    let (succeeded, answer) = output(&mut shell(&stack, post));
    assert!(succeeded, "{answer}");
    assert!(lines.any(|line| line == "event: patch"), "the stream must go on with a patch");
    assert!(lines.any(|line| line.contains("\"count\":1")), "the patch must have the count");
    following.kill().unwrap();
    following.wait().unwrap();
    let (succeeded, table) = output(&mut shell(&stack, look));
    assert!(succeeded && table.trim_end().ends_with(",1"), "{table}");
    // The files are in the checkout.
    let (succeeded, table) = output(shell(&stack, import).current_dir(root()));
    assert!(succeeded && table.contains("transfers"), "{table}");
    let (succeeded, months) = output(&mut shell(&stack, history));
    assert!(succeeded && months.contains("transfers/month,2001-01-01T00:00:00Z,6937"), "{months}");
    // The commands of the guide for clients work too, and the quoted history is what they print.
    let guide = std::fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let commands: Vec<&str> = guide.lines().filter(|line| line.starts_with("curl -s ")).collect();
    assert_eq!(commands.len(), 3, "{commands:#?}");
    for command in commands {
        let (succeeded, answer) = output(&mut shell(&stack, &with_ports(&stack, command)));
        assert!(succeeded && answer.contains("transfers/"), "{command}: {answer}");
        assert!(
            !command.contains("from=") || guide.contains(&format!("\n{answer}\n")),
            "{command}: {answer}"
        );
    }
}

#[test]
fn the_commands_of_the_guide_for_keys_work() {
    let stack = TestStack::started("guide");
    let guide = std::fs::read_to_string(root().join("docs/access.md")).unwrap();
    let blocks = guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<String> = blocks.map(|block| with_ports(&stack, block)).collect();
    let [using, screen, rest, inside] = blocks.as_slice() else {
        panic!("the guide has changed: {blocks:#?}")
    };
    let run = |script: &str| {
        let path = std::env::var_os("PATH").unwrap();
        let programs = std::iter::once(built_programs().unwrap());
        let path = std::env::join_paths(programs.chain(std::env::split_paths(&path))).unwrap();
        let password = std::fs::read_to_string(stack.folder.join("secrets/access")).unwrap();
        let mut command = shell(&stack, script);
        command.env("PATH", path).env("NEWCYCLE__DATABASE__PASSWORD", password);
        let (succeeded, text) = output(command.env("PGHOST", "127.0.0.1"));
        assert!(succeeded, "{script}: {text}");
        text
    };
    assert!(run(using).contains("\"ingest:write\""));
    assert!(run(screen).contains("http://127.0.0.1:8082/#nc_"));
    let text = run(&format!("access create --name billing --scope ingest:write\n{rest}"));
    assert!(text.contains("screen-lobby") && text.contains("Revoked"), "{text}");
    assert!(run(inside).contains("http_server_requests_total"));
}

/// A command of the README with the ports, the data folder and the programs of this test.
fn with_ports(stack: &TestStack, block: &str) -> String {
    block
        .replace(":8080", &format!(":{}", stack.value("INGEST_PORT")))
        .replace(":8081", &format!(":{}", stack.value("GATEWAY_PORT")))
        .replace(":9081", &format!(":{}", stack.value("GATEWAY_INTERNAL_PORT")))
        .replace(".newcycle/", &format!("{}/", stack.folder.display()))
        .replace("cargo xtask", env!("CARGO_BIN_EXE_xtask"))
}

fn shell(stack: &TestStack, script: &str) -> Command {
    let mut command = Command::new("bash");
    let variables = stack.variables.iter().map(|(name, value)| (name, value));
    command.args(["-euo", "pipefail", "-c", script]).current_dir(&stack.folder).envs(variables);
    command
}
