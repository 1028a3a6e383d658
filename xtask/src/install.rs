//! Installs Debian packages, and says so first.
//!
//! Invariant: nothing is installed on the machine outside the checkout without a line that names
//! it, and nothing at all with `--no-install`. Python and npm packages are no installation in this
//! sense: they stay below `target/` and `node_modules/`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use local_stack::path::find_program;

const APT_GET: &str = "/usr/bin/apt-get";

/// Decides whether a package may start its service (Debian's invoke-rc.d).
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// The init scripts of packages. update-rc.d turns those off, and their units of systemd too. It
/// fails for a package that has only a unit.
const INIT_SCRIPTS: &str = "/etc/init.d";

/// Installs a package, and turns its service off. Its arguments are [`SERVICE_POLICY`],
/// [`INIT_SCRIPTS`], the package and the service. While it runs, the policy refuses to start
/// services, which is Debian's way to keep packages from it. A policy of the machine's own stays,
/// and serves as well. One command, so that the policy is removed however the installation ends;
/// after SIGKILL, by the next one.
const INSTALL_WITHOUT_SERVICE: &str = r##"
    policy=$0 scripts=$1 package=$2 service=$3
    if ! test -e "$policy" || grep -q 'cargo xtask' "$policy"; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\n# While cargo xtask installs a package.\nexit 101\n' > "$policy" &&
            chmod 755 "$policy" || exit
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package" || exit
    if test -e "$scripts/$service"; then
        update-rc.d "$service" disable
    elif command -v systemctl > /dev/null; then
        systemctl disable "$service.service"
    fi
"##;

/// Installs what is missing on this machine, unless the developer refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installer {
    /// Whether `--no-install` was given.
    pub(crate) is_refused: bool,
}

impl Installer {
    /// Fails if the developer refuses installations.
    ///
    /// # Errors
    /// `--no-install` was given; the message names what is missing.
    pub(crate) fn check_allowed(self, what: &str) -> anyhow::Result<()> {
        if self.is_refused {
            bail!(
                "{what} is missing, and --no-install is set: install it yourself, then try again"
            );
        }
        Ok(())
    }

    /// Installs packages with apt-get. Elsewhere than on Debian and Ubuntu it only names what is
    /// missing.
    pub(crate) fn packages(self, packages: &[&str]) -> anyhow::Result<()> {
        let names = packages.join(" ");
        if !Path::new(APT_GET).exists() {
            bail!("{names} is missing: install it yourself, then try again");
        }
        self.check_allowed(&names)?;
        announce(&names);
        as_root(&["apt-get", "update", "-q"])?;
        let environment = ["env", "DEBIAN_FRONTEND=noninteractive"];
        let install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"];
        as_root(&[&environment, &install[..], packages].concat())
    }

    /// Installs a package with a server that tests start themselves. The package's own service does
    /// not start, now or with the machine.
    pub(crate) fn package_without_service(
        self,
        package: &str,
        service: &str,
    ) -> anyhow::Result<()> {
        self.check_allowed(package)?;
        if !Path::new(APT_GET).exists() {
            return self.packages(&[package]);
        }
        announce(package);
        as_root(&["apt-get", "update", "-q"])?;
        let words = [INSTALL_WITHOUT_SERVICE, SERVICE_POLICY, INIT_SCRIPTS, package, service];
        as_root(&[&["sh", "-c"], &words[..]].concat())
    }

    /// Installs the package of each program that is not on PATH.
    pub(crate) fn programs(self, needed: &[(&str, &'static str)]) -> anyhow::Result<()> {
        let missing = needed.iter().filter(|(program, _)| find_program(program).is_none());
        let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
        if missing.is_empty() { Ok(()) } else { self.packages(&missing) }
    }
}

fn announce(names: &str) {
    println!("== installing Debian packages: {names} (refuse with --no-install)");
}

/// Runs a command as root: with sudo, unless this process is root already.
pub(crate) fn as_root(words: &[&str]) -> anyhow::Result<()> {
    let sudo: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["sudo"] };
    let words = [sudo, words].concat();
    run(Command::new(words[0]).args(&words[1..]))
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    let words = words.join(" ");
    let status = command.status().with_context(|| format!("`{words}` could not be run"))?;
    if !status.success() {
        bail!("`{words}` failed; see above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use local_stack::path;

    use super::*;

    /// Stand-ins for Debian's programs. `apt-get` keeps a copy of the policy that it sees.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(apt_get: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            let commands = [
                ("apt-get", format!("cp $POLICY $POLICY.seen; {apt_get}")),
                ("update-rc.d", "test $1 = nginx && touch $POLICY.disabled".to_owned()),
                ("systemctl", "test $2 = caddy.service && touch $POLICY.disabled".to_owned()),
            ];
            for (name, command) in commands {
                let program = machine.path(name);
                fs::write(&program, format!("#!/bin/sh\n{command}\n")).unwrap();
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::create_dir(machine.path("init.d")).unwrap();
            fs::write(machine.path("init.d/nginx"), "").unwrap();
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Installs a package. Returns whether that succeeded.
        fn install(&self, package: &str, service: &str) -> bool {
            let folders = std::iter::once(self.0.path().to_owned()).chain(path::folders());
            let policy = self.path("policy");
            let mut install = Command::new("sh");
            install.args(["-c", INSTALL_WITHOUT_SERVICE]).arg(&policy);
            install.arg(self.path("init.d")).args([package, service]);
            install.env("PATH", std::env::join_paths(folders).unwrap()).env("POLICY", &policy);
            install.status().unwrap().success()
        }

        fn has(&self, name: &str) -> bool {
            self.path(name).exists()
        }
    }

    #[test]
    fn the_policy_against_services_exists_only_during_the_installation() {
        let machine = Machine::new("true");
        assert!(machine.install("nginx-light", "nginx"));
        assert!(fs::read_to_string(machine.path("policy.seen")).unwrap().ends_with("exit 101\n"));
        assert!(!machine.has("policy"));
        assert!(machine.has("policy.disabled"));
        // What a killed installation has left is removed.
        fs::copy(machine.path("policy.seen"), machine.path("policy")).unwrap();
        assert!(machine.install("nginx-light", "nginx"));
        assert!(!machine.has("policy"));
    }

    #[test]
    fn the_policy_is_removed_after_a_failure_and_after_an_interrupt() {
        // The parent of apt-get is the shell that installs.
        for end in ["exit 100", "kill -TERM $PPID"] {
            let machine = Machine::new(end);
            assert!(!machine.install("nginx-light", "nginx"), "{end}");
            assert!(machine.has("policy.seen"), "{end}");
            assert!(!machine.has("policy"), "{end}");
            assert!(!machine.has("policy.disabled"), "{end}");
        }
    }

    #[test]
    fn a_service_that_only_systemd_knows_is_turned_off() {
        let machine = Machine::new("true");
        assert!(machine.install("caddy", "caddy"));
        assert!(machine.has("policy.disabled"));
    }

    #[test]
    fn a_policy_of_the_machine_stays() {
        let machine = Machine::new("true");
        fs::write(machine.path("policy"), "of the machine").unwrap();
        assert!(machine.install("nginx-light", "nginx"));
        assert_eq!(fs::read_to_string(machine.path("policy")).unwrap(), "of the machine");
    }
}
