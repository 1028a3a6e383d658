//! The project's own commands: `cargo xtask …`.

#![expect(clippy::print_stdout, reason = "a command line tool prints its results")]

mod alerts;
mod bench;
mod browser;
mod chaos;
mod check;
mod ci;
mod clients;
mod command;
mod compose;
mod containers;
mod contract;
mod db;
mod demo;
mod doctor;
mod ephemeral_stack;
mod fuzz;
mod ha;
mod import;
mod install;
mod interrupts;
mod keys;
mod kubernetes;
mod lockfile;
mod node;
mod page;
mod postgres;
mod processes;
mod programs;
mod prose;
mod python;
mod release;
mod second_postgres;
mod secrets;
mod settings;
mod status;
mod test;
mod up;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compose::Backend;
use crate::install::Installer;

/// Newcycle's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    /// Install nothing on this machine; fail and name what is missing instead.
    ///
    /// Without it, Debian packages are installed with apt-get, and announced before. Python and npm
    /// packages are always installed below target/ and node_modules/.
    #[arg(long, global = true, env = "NEWCYCLE_NO_INSTALL", value_parser = clap::builder::FalseyValueParser::new())]
    no_install: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the whole stack, until Ctrl-C.
    Up {
        /// Where to run it.
        #[arg(long, value_enum, default_value_t = Backend::Native)]
        with: Backend,
        #[command(flatten)]
        options: up::Options,
    },
    /// Make a key for the stack that runs, and print it alone on the last line.
    Key(keys::Options),
    /// Stop the stack, and keep its data.
    Down {
        /// Where it runs; auto: stop both.
        #[arg(long, value_enum, default_value_t = Backend::Native)]
        with: Backend,
    },
    /// Delete the data of the stack, which must not run.
    Reset {
        /// Where its data are; auto: delete both.
        #[arg(long, value_enum, default_value_t = Backend::Native)]
        with: Backend,
    },
    /// Show what runs, and where.
    Status {
        /// Where it runs; auto: the native stack if it runs, else the containers.
        #[arg(long, value_enum, default_value_t = Backend::Native)]
        with: Backend,
        /// Print JSON; for containers, the JSON of Compose.
        #[arg(long)]
        json: bool,
    },
    /// Upload a folder of base-items, users, items and transfers, as .ndjson or .ndjson.gz.
    Import {
        /// The folder.
        folder: PathBuf,
        /// The URL of ingest-api, with a key in `NEWCYCLE_KEY`. [default: the native stack's, with
        /// a key for this command]
        #[arg(long)]
        url: Option<String>,
    },
    /// Simulate a small company that sends events to ingest-api, until Ctrl-C.
    Demo(demo::Options),
    /// Check what needs no database: formatting, spelling, lints, migrations, unit tests.
    Check,
    /// Run everything that a change needs: checks, documentation, and all tests on a throwaway
    /// Postgres.
    Test {
        /// Run only the tests that `cargo test` selects by these arguments, such as a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run everything that continuous integration runs: `test`, dependencies, manifests, a second
    /// Postgres, the API contract, the page in browsers, short benches, faults, planted errors and
    /// failovers.
    Ci(ci::Options),
    /// Start a Postgres for tests that stays, so that `cargo test -p ingest-api` works by itself.
    Db {
        /// Stop it, and delete its data.
        #[arg(long)]
        stop: bool,
    },
    /// Measure, as ratios within one run.
    #[command(subcommand)]
    Bench(bench::Measure),
    /// Inject faults while producers write and subscribers follow, and check that nothing is lost
    /// and nothing counts twice. `--help` lists the options.
    #[command(disable_help_flag = true)]
    Chaos {
        /// Options of chaos, such as --seed 7 --faults 200.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run three nodes with Patroni and etcd, with and without HAProxy, kill them and cut them off,
    /// and check that the services follow. Prints a table of the gaps. `--help` lists the options.
    #[command(disable_help_flag = true)]
    Ha {
        /// Options of ha, such as --short or --only cut.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run for some minutes while clients come and go, leaders change and old counts are deleted,
    /// and check that neither memory nor descriptors nor tables grow. `--help` lists the options.
    #[command(disable_help_flag = true)]
    Soak {
        /// Options of the soak, such as --seconds 600 or --long-transactions.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Upgrade the whole stack from an older release under load, one process after another, go
    /// back, and check that no request failed and no count was wrong.
    Upgrade {
        /// The older release: a tag or a commit. [default: the last release; before the first one,
        /// the last commit without the newest migration]
        #[arg(long)]
        from: Option<String>,
    },
    /// Run the fuzz targets (needs a nightly toolchain).
    Fuzz(fuzz::Options),
    /// Test ingest-api and sse-gateway against their OpenAPI descriptions, on a throwaway Postgres.
    Contract {
        /// The minimum number of requests, in rounds of a few thousand, each with another seed.
        #[arg(long, default_value_t = 10_000)]
        cases: u64,
    },
    /// Test the dashboard's page in Chromium, and in a short form in two other browsers, against
    /// services of its own.
    Browsers {
        /// Run only the files of `crates/dashboard/web/e2e` whose names have one of these words,
        /// such as outage.
        files: Vec<String>,
    },
    /// Check whether the manifests of deploy/kubernetes are valid, permit what the design needs and
    /// nothing else, and fit the programs. No cluster is needed.
    Kubernetes,
    /// List what is missing on this machine, which commands need it, and how to get it.
    Doctor,
    /// Check the alerts of deploy/prometheus, and test when they fire.
    Alerts,
    /// Check the files of the containers. If a Docker engine answers, also run the stack in
    /// containers, cut it, kill a part of it, and stop it.
    Containers,
    /// Build the programs as they ship: without symbols, which become files of their own. Fails if
    /// one is larger than 16 MB.
    Release,
}

#[tokio::main]
async fn main() -> ExitCode {
    service_kit::failure::exit_code(run(Arguments::parse()).await)
}

async fn run(Arguments { no_install, command }: Arguments) -> anyhow::Result<()> {
    let installer = Installer { is_refused: no_install };
    match command {
        Command::Up { with, options } => {
            if compose::choose(with).await? {
                compose::up(&options)
            } else {
                up::run(&options, installer).await
            }
        }
        Command::Key(options) => keys::command(options).await,
        Command::Down { with } => status::down(with).await,
        Command::Reset { with } => status::reset(with).await,
        Command::Status { with, json } => status::status(with, json).await,
        Command::Import { folder, url } => import::run(&folder, url).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Check => check::run(installer).await,
        Command::Test { arguments } => test::run(&arguments, installer).await,
        Command::Ci(options) => ci::run(options, installer).await,
        Command::Db { stop: false } => db::start(installer).await,
        Command::Db { stop: true } => db::stop(),
        Command::Bench(measure) => bench::run(measure, installer).await,
        Command::Chaos { arguments } => chaos::run("chaos", &arguments, installer).await,
        Command::Ha { arguments } => ha::run(&arguments, installer).await,
        Command::Soak { arguments } => chaos::run("soak", &arguments, installer).await,
        Command::Upgrade { from } => upgrade::run(from.as_deref(), installer).await,
        Command::Fuzz(options) => fuzz::run(options, installer).await,
        Command::Contract { cases } => contract::command(cases, installer).await,
        Command::Browsers { files } => browser::command(&files, installer).await,
        Command::Kubernetes => kubernetes::run(installer).await,
        Command::Doctor => doctor::run(),
        Command::Alerts => alerts::run(installer).await,
        Command::Containers => containers::run(installer).await.map(drop),
        Command::Release => release::run(installer).await,
    }
}
