//! What a fault did, and what no fault may do.

use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::history::WriteHistory;
use crate::wait::until;

/// How long a fault may take to have its effect.
pub(super) const EFFECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no producer may have a write in progress. They write all the time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The effect of a fault. A fault without an effect does not count.
#[derive(Debug)]
pub(crate) struct FaultEffect {
    /// The effect, in words.
    pub(crate) what: String,
    /// The effect of the fault in the background, in words, if there was one.
    pub(crate) meanwhile: Option<String>,
    /// How long it took until a frozen leader was replaced.
    pub(crate) takeover: Option<Duration>,
}

impl From<String> for FaultEffect {
    fn from(what: String) -> Self {
        Self { what, meanwhile: None, takeover: None }
    }
}

/// Something that must never happen, whatever the fault. A run reports it, instead of failing
/// itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) String);

pub(super) async fn until_in_flight(history: &WriteHistory) -> anyhow::Result<()> {
    let in_flight = until(WRITE_TIMEOUT, async || Ok(history.in_flight() > 0)).await?;
    ensure!(in_flight, "no producer has written anything for a minute");
    Ok(())
}

/// Lets a fault last for a random time.
pub(super) async fn linger(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, bail};

    use super::*;

    #[test]
    fn a_violation_keeps_its_type_as_an_error_and_as_a_context() {
        let raised = || -> anyhow::Result<()> { bail!(Violation("wrong".to_owned())) };
        assert!(raised().unwrap_err().downcast::<Violation>().is_ok());
        let ensured = |right: bool| -> anyhow::Result<()> {
            ensure!(right, Violation("wrong".to_owned()));
            Ok(())
        };
        assert!(ensured(false).unwrap_err().downcast::<Violation>().is_ok());
        let missing = None::<()>.context(Violation("wrong".to_owned()));
        assert!(missing.unwrap_err().downcast::<Violation>().is_ok());
    }
}
