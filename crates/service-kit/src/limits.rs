//! Limits that the operating system sets for a process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit of open files as far as it may, and returns the limit, or `None` if
/// there is none. Each client is an open file, and the initial limit of many systems is 1,024.
///
/// If the limit cannot be raised, this logs a warning and keeps it.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return maximum;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(error = %error, limit.open_files = current, "cannot raise the limit of open files");
            current
        }
    }
}

/// The limit of open files of this process, or `None` if there is none.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_maximum() {
        let allowed = raise_open_files();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((allowed, now.current), (now.maximum, now.maximum));
    }
}
