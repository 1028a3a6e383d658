//! The notification channels.

/// The channel on which the listener notifies itself.
pub(crate) const SELF_CHECK_CHANNEL: &str = "newcycle_self_check";

/// The triggers notify the first two channels (`migrations/V2__counts.sql`).
pub(crate) const LISTEN: &str = "
    LISTEN item_creation;
    LISTEN item_transfer;
    LISTEN newcycle_self_check";

pub(crate) const NOTIFY_SELF: &str = "NOTIFY newcycle_self_check";
