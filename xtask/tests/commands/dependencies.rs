//! What each program links, as `deploy/Dockerfile` builds it, and which crate may use which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::root;

/// Programs, and the crates that they must not link: only the services that own a table have a
/// Postgres client, and only those with a public API have Swagger UI.
const NOT_LINKED: [(&str, &[&str]); 3] = [
    ("sse-gateway", &["tokio-postgres", "deadpool-postgres", "postgres-kit", "refinery"]),
    (
        "dashboard",
        &["tokio-postgres", "deadpool-postgres", "postgres-kit", "refinery", "utoipa-swagger-ui"],
    ),
    ("stats-notifier", &["utoipa-swagger-ui", "openapi-kit", "refinery"]),
];

/// The most crates that the tests of `domain` may build, without itself.
const MAX_CRATES_OF_DOMAIN: usize = 40;

/// Libraries of `crates/`, lowest first. A library may use those before it.
const LIBRARIES: [&str; 6] =
    ["domain", "service-kit", "access-kit", "postgres-kit", "openapi-kit", "statistics-stream"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The crates that cargo builds for these packages and kinds of dependencies, with their features,
/// such as "serde v1.0.229 default,std".
fn tree(packages: &[&str], kinds: &str) -> BTreeSet<String> {
    let arguments =
        ["tree", "--locked", "--edges", kinds, "--prefix", "none", "--format", "{p} {f}"];
    let tree = cargo(&[&arguments, packages].concat());
    tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// The names of the crates that a package builds for these kinds of dependencies, itself included.
fn names(package: &str, kinds: &str) -> BTreeSet<String> {
    let tree = tree(&["--package", package], kinds);
    tree.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The packages that the Dockerfile builds.
fn shipped() -> BTreeSet<String> {
    let dockerfile = std::fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    let (_, build) = dockerfile.split_once("RUN cargo build --release").unwrap();
    let command = build.split("\n\n").next().unwrap();
    let words: Vec<&str> = command.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == "--package").map(|pair| pair[1].to_owned()).collect()
}

/// The packages of the workspace, with their folders and what they depend on: in this workspace, in
/// tests or not.
fn workspace() -> BTreeMap<String, (String, Vec<String>)> {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let manifest = text(&package["manifest_path"]);
        let folder = Path::new(&manifest).strip_prefix(root().canonicalize().unwrap()).unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let own = dependencies.filter(|dependency| dependency["path"].is_string());
        let names = own.map(|dependency| text(&dependency["name"])).collect();
        (text(&package["name"]), (folder.to_str().unwrap().to_owned(), names))
    });
    packages.collect()
}

#[test]
fn programs_link_only_what_they_may() {
    let shipped = shipped();
    for (program, excluded) in NOT_LINKED {
        assert!(shipped.contains(program), "deploy/Dockerfile must build {program}: {shipped:?}");
        let linked = names(program, "normal");
        assert!(linked.contains("actix-web"), "{program}: {linked:?}");
        for name in excluded {
            assert!(!linked.contains(*name), "{program} must not link {name}");
        }
    }
}

#[test]
fn nothing_that_ships_depends_on_tests_or_tools() {
    let workspace = workspace();
    let folder = |name: &String| workspace[name].0.as_str();
    for program in shipped() {
        for linked in names(&program, "normal,build") {
            let ships =
                workspace.get(&linked).is_none_or(|(folder, _)| folder.starts_with("crates/"));
            assert!(ships, "{program} must not link {linked}");
        }
    }
    for (name, (_, dependencies)) in &workspace {
        for dependency in dependencies {
            assert_ne!(folder(dependency), "xtask/Cargo.toml", "{name} must not depend on xtask");
        }
    }
}

#[test]
fn a_library_uses_only_lower_ones() {
    let workspace = workspace();
    for (place, name) in LIBRARIES.iter().enumerate() {
        let (_, dependencies) = &workspace[*name];
        let in_crates =
            dependencies.iter().filter(|name| workspace[*name].0.starts_with("crates/"));
        for dependency in in_crates {
            assert!(
                LIBRARIES[..place].contains(&dependency.as_str()),
                "{name} must not use {dependency}"
            );
        }
    }
    let (_, dependencies) = &workspace["domain"];
    assert!(
        dependencies.is_empty(),
        "not even the tests of domain use another crate: {dependencies:?}"
    );
}

#[test]
fn the_tests_of_domain_build_few_crates() {
    let mut built = names("domain", "normal,build,dev");
    assert!(built.remove("domain"));
    assert!(built.len() <= MAX_CRATES_OF_DOMAIN, "{} crates: {built:?}", built.len());
}

/// `cargo xtask up` builds the services, `cargo xtask test` the tests; both select the whole
/// workspace. A feature that only a dev-dependency enables would make them build a dependency
/// twice.
#[test]
fn services_and_tests_build_the_same_dependencies() {
    let services = tree(&["--workspace"], "normal,build,no-proc-macro");
    let tests = tree(&["--workspace"], "normal,build,dev,no-proc-macro");
    let different: Vec<&String> = services.difference(&tests).collect();
    assert!(different.is_empty(), "tests build these with other features: {different:#?}");
}

/// Otherwise `cargo test -p ingest-api` would first build most dependencies again.
#[test]
fn tests_of_one_package_use_the_build_of_the_workspace() {
    let tests = tree(&["--workspace"], "normal,build,dev,no-proc-macro");
    for package in ["ingest-api", "migrate", "sse-gateway", "stats-notifier"] {
        let one = tree(&["--package", package], "normal,build,dev,no-proc-macro");
        let different: Vec<&String> = one.difference(&tests).collect();
        let hint = "enable the missing features in testing/local-stack/Cargo.toml";
        assert!(
            different.is_empty(),
            "{package} builds these with other features: {different:#?}: {hint}"
        );
    }
}
