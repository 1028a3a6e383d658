//! `cargo xtask db`: a Postgres for tests that outlives the command, and nothing else.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use local_stack::test_server::TestServer;

use crate::support::{output, root};

/// A copy of xtask in a target folder of its own, so that the developer's server is not touched.
struct XtaskCopy {
    target: PathBuf,
}

impl XtaskCopy {
    fn new() -> Self {
        let name = format!("newcycle-db-command-{:016x}", rand::random::<u64>());
        let target = std::env::temp_dir().join(name);
        std::fs::create_dir_all(target.join("debug")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_xtask"), target.join("debug/xtask")).unwrap();
        Self { target }
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.target.join("debug/xtask"));
        let (succeeded, text) = output(command.args(arguments).current_dir(root()));
        assert!(succeeded, "{arguments:?} failed: {text}");
        text
    }

    fn server(&self) -> Option<TestServer> {
        TestServer::read(&self.target).unwrap()
    }
}

impl Drop for XtaskCopy {
    fn drop(&mut self) {
        let _stopped =
            Command::new(self.target.join("debug/xtask")).args(["db", "--stop"]).output();
        let _missing = std::fs::remove_dir_all(&self.target);
    }
}

#[test]
fn the_database_for_tests_stays_until_it_is_stopped() {
    let copy = XtaskCopy::new();
    assert!(copy.run(&["db", "--stop"]).contains("does not run"));
    assert!(copy.run(&["db"]).contains("cargo xtask db --stop"));
    let server = copy.server().unwrap();
    let folder = server.folder.clone();
    assert!(folder.join("data/PG_VERSION").exists());

    copy.run(&["db"]);
    assert_eq!(copy.server().unwrap(), server, "a current server must not be replaced");

    // After a change of the migrations only the template is made again.
    let outdated = TestServer { template: server.template.wrapping_add(1), ..server.clone() };
    std::fs::write(TestServer::path(&copy.target), serde_json::to_vec(&outdated).unwrap()).unwrap();
    assert!(copy.run(&["db"]).contains("migrations/ has changed"));
    assert_eq!(copy.server().unwrap(), server);

    assert!(copy.run(&["db", "--stop"]).contains("stopped"));
    assert!(copy.server().is_none() && !folder.exists());
    let port = server.connection.split(' ').find_map(|word| word.strip_prefix("port=")).unwrap();
    let connection = TcpStream::connect(("127.0.0.1", port.parse().unwrap()));
    assert!(connection.is_err(), "the server must have ended");
}
