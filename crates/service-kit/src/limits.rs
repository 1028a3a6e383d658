//! What the operating system allows a process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files that this process may have open to the most that it may raise it to, and returns that;
/// `None` where there is no limit. Each client is an open file, and many systems allow 1,024 until asked.
///
/// Where it cannot be raised, it stays as it is, which is logged.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return maximum;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(error = %error, limit.open_files = current, "the limit of open files cannot be raised");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_may_be() {
        let allowed = raise_open_files();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((allowed, now.current), (now.maximum, now.maximum));
    }
}
