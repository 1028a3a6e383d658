//! When the log is read, and whether producers need to notify.
//!
//! A notification makes commits serial, so while the log is polled anyway producers are told not to: the gate is
//! shut. It works as a network card's interrupts do. This is the decision alone, without a clock or a database;
//! the [leader](crate::leader) holds the lock that shuts the gate.
//!
//! Invariant: a transaction whose trigger found the gate shut, and which commits at age t, is seen within t/16
//! (or the shortest interval), although nobody is notified of it. Its trigger ran before the gate was opened, so
//! whenever it commits, the time since the opening is at most t, and polls are at most a sixteenth of that time
//! apart. Where the gate was shut and opened again since, the time is shorter still.

use std::time::Duration;

use crate::settings::{GateSettings, TickSettings};

/// How polls slow down: the time between two is this part of the time since the gate was opened.
const SLOWDOWN: u32 = 16;

/// Whether producers notify, and what the latest ticks found.
#[derive(Debug, Clone)]
pub struct Gate {
    shortest: Duration,
    floor: Duration,
    shut_after_ticks: u32,
    open_after_ticks: u32,
    shut: bool,
    /// Ticks in a row that found something.
    busy: u32,
    /// Ticks in a row that found nothing.
    idle: u32,
}

/// What the leader should do with the lock before it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Leave it as it is.
    Stay,
    /// Try to take it: notifications come faster than they are needed.
    Shut,
    /// Give it back: the flow has ebbed.
    Open,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new(tick: &TickSettings, gate: &GateSettings) -> Self {
        Self {
            shortest: tick.interval.get(),
            floor: gate.floor.get(),
            shut_after_ticks: gate.shut_after_ticks,
            open_after_ticks: gate.open_after_ticks,
            shut: false,
            busy: 0,
            idle: 0,
        }
    }

    /// Takes note of what a tick found, and how long it came after the one before: ticks far apart are no flow.
    pub fn ticked(&mut self, found_something: bool, since_last: Duration) {
        if found_something {
            let flows = since_last <= self.shortest * 4;
            self.busy = if flows { self.busy.saturating_add(1) } else { 1 };
            self.idle = 0;
        } else {
            self.busy = 0;
            self.idle = self.idle.saturating_add(1);
        }
    }

    /// What to do with the lock now.
    #[must_use]
    pub const fn next_move(&self) -> Move {
        match self.shut {
            false if self.busy >= self.shut_after_ticks => Move::Shut,
            true if self.idle >= self.open_after_ticks => Move::Open,
            _ => Move::Stay,
        }
    }

    /// The lock was taken, or given back.
    pub const fn moved(&mut self, shut: bool) {
        self.shut = shut;
    }

    /// Whether producers are told not to notify.
    #[must_use]
    pub const fn is_shut(&self) -> bool {
        self.shut
    }

    /// When to poll next, where nobody notifies: `since_open` is the time since the gate was last opened.
    #[must_use]
    pub fn poll_interval(&self, since_open: Duration) -> Duration {
        if self.shut {
            return self.shortest;
        }
        (since_open / SLOWDOWN).clamp(self.shortest, self.floor.max(self.shortest))
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
            floor: NonZeroDuration::from_millis(1_000),
        };
        Gate::new(&tick, &gate)
    }

    #[test]
    fn shuts_under_a_flow_and_opens_when_it_ebbs() {
        let mut gate = gate();
        for _ in 0..3 {
            gate.ticked(true, NEXT);
            assert_eq!(gate.next_move(), Move::Stay);
        }
        gate.ticked(true, NEXT);
        assert_eq!(gate.next_move(), Move::Shut);
        gate.moved(true);
        for _ in 0..19 {
            gate.ticked(false, NEXT);
            assert_eq!(gate.next_move(), Move::Stay);
        }
        gate.ticked(false, NEXT);
        assert_eq!(gate.next_move(), Move::Open);
    }

    #[test]
    fn ticks_far_apart_are_no_flow() {
        let mut gate = gate();
        for _ in 0..10 {
            gate.ticked(true, Duration::from_secs(1));
        }
        assert_eq!(gate.next_move(), Move::Stay);
    }

    #[test]
    fn polls_slow_down_to_the_floor() {
        let gate = gate();
        let interval = |milliseconds| gate.poll_interval(Duration::from_millis(milliseconds)).as_millis();
        assert_eq!(
            (interval(0), interval(800), interval(16_000), interval(1_000_000)),
            (5, 50, 1_000, 1_000)
        );
    }
}
