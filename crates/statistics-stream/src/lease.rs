//! For how long a client may follow a stream.

use crate::status::StreamAccess;

/// Says how long a client may follow its stream.
///
/// A stream looks once for each heartbeat for gateways, which wakes it up anyway: no client has a
/// timer of its own, and no delivery costs more.
pub trait Lease: Send {
    /// The access at this moment; `None` if it has no end.
    fn access(&self) -> Option<StreamAccess>;
}

/// Access without an end.
#[derive(Debug, Clone, Copy)]
pub struct Endless;

impl Lease for Endless {
    fn access(&self) -> Option<StreamAccess> {
        None
    }
}
