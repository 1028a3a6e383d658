//! Decides when producers need not notify.
//!
//! A commit that notifies holds a lock of the whole database cluster, so notifications make commits
//! run one after another. While the leader polls the log often anyway, it shuts the gate, and the
//! triggers do not notify. A network card's interrupts are turned off in the same way under load.
//!
//! Whether one transaction notifies is decided by the `IF` at the end of the trigger functions in
//! `migrations/V2__counts.sql`, such as `log_new_items`: the gate is an advisory lock, and they
//! notify if the lock is free. The [leader](crate::leader) takes and releases it as this module
//! decides. This module has no clock and no database.
//!
//! Invariant: a transaction whose trigger found the gate shut, and which commits at age t, is seen
//! within t/16 (or the shortest interval), although it does not notify. Its trigger ran before the
//! gate was opened. So at its commit the gate has been open for at most t, and polls are at most a
//! sixteenth of that time apart. If the gate was shut and opened again since, that time is even
//! shorter.

use std::time::Duration;

use crate::settings::{GateSettings, TickSettings};

/// The interval between polls is the time since the gate was opened, divided by this.
const SLOWDOWN: u32 = 16;

/// Ticks that find rows at most this many shortest intervals apart are a steady flow.
const FLOW_INTERVALS: u32 = 4;

/// Whether producers notify, and what the latest ticks found.
#[derive(Debug)]
pub(crate) struct Gate {
    shortest: Duration,
    settings: GateSettings,
    shut: bool,
    /// Ticks in a row that found rows.
    busy: u32,
    /// Ticks in a row that found no rows.
    idle: u32,
}

/// What the leader should do with the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateAction {
    /// Nothing.
    Keep,
    /// Try to take the lock: notifications come faster than they are needed.
    Shut,
    /// Release the lock: the flow has ended.
    Open,
}

impl Gate {
    /// The gate is open at first.
    pub(crate) fn new(tick: &TickSettings, gate: &GateSettings) -> Self {
        let shortest = tick.interval.get();
        Self { shortest, settings: gate.clone(), shut: false, busy: 0, idle: 0 }
    }

    /// Records whether a tick found rows, and how long after the last tick it began.
    pub(crate) fn record_tick(&mut self, found_rows: bool, since_last: Duration) {
        if found_rows {
            let flows = since_last <= self.shortest * FLOW_INTERVALS;
            self.busy = if flows { self.busy.saturating_add(1) } else { 1 };
            self.idle = 0;
        } else {
            self.busy = 0;
            self.idle = self.idle.saturating_add(1);
        }
    }

    /// What to do with the lock now.
    pub(crate) const fn next_action(&self) -> GateAction {
        match self.shut {
            false if self.busy >= self.settings.shut_after_ticks => GateAction::Shut,
            true if self.idle >= self.settings.open_after_ticks => GateAction::Open,
            _ => GateAction::Keep,
        }
    }

    /// Records whether the leader now holds the lock.
    pub(crate) const fn set_shut(&mut self, shut: bool) {
        self.shut = shut;
    }

    /// Whether the leader holds the lock, so that producers do not notify.
    pub(crate) const fn is_shut(&self) -> bool {
        self.shut
    }

    /// How long to wait for the next poll if no notification comes. `since_open` is the time since
    /// the gate was last opened.
    pub(crate) fn poll_interval(&self, since_open: Duration) -> Duration {
        if self.shut {
            return self.shortest;
        }
        (since_open / SLOWDOWN)
            .clamp(self.shortest, self.settings.max_poll_interval.get().max(self.shortest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::settings::NonZeroDuration;

    const NEXT: Duration = Duration::from_millis(6);

    fn gate() -> Gate {
        let tick = TickSettings { interval: NonZeroDuration::from_millis(5), listen: true };
        let gate = GateSettings {
            shut_after_ticks: 4,
            open_after_ticks: 20,
            max_poll_interval: NonZeroDuration::from_millis(1_000),
        };
        Gate::new(&tick, &gate)
    }

    #[test]
    fn a_flow_shuts_the_gate_and_its_end_opens_it() {
        let mut gate = gate();
        for _ in 0..3 {
            gate.record_tick(true, NEXT);
            assert_eq!(gate.next_action(), GateAction::Keep);
        }
        gate.record_tick(true, NEXT);
        assert_eq!(gate.next_action(), GateAction::Shut);
        gate.set_shut(true);
        for _ in 0..19 {
            gate.record_tick(false, NEXT);
            assert_eq!(gate.next_action(), GateAction::Keep);
        }
        gate.record_tick(false, NEXT);
        assert_eq!(gate.next_action(), GateAction::Open);
    }

    #[test]
    fn ticks_far_apart_are_no_flow() {
        let mut gate = gate();
        for _ in 0..10 {
            gate.record_tick(true, Duration::from_secs(1));
        }
        assert_eq!(gate.next_action(), GateAction::Keep);
    }

    #[test]
    fn polls_slow_down_to_the_longest_interval() {
        let gate = gate();
        let interval =
            |milliseconds| gate.poll_interval(Duration::from_millis(milliseconds)).as_millis();
        assert_eq!(
            (interval(0), interval(800), interval(16_000), interval(1_000_000)),
            (5, 50, 1_000, 1_000)
        );
    }
}
