//! One allowance out of all of the owner's rules, and the reason for it: the rule that allows least.
//! Must never allow more than any single rule does, and has no way to ask for a download.
//!
//! While the time is not known, each rule that needs it takes the careful side: the schedule its most
//! careful hour, the caps the newest day that the ledger knows, with everything undated on top.

mod caps;
mod reason;
mod schedule;
#[cfg(test)]
mod tests;
mod throttling;
mod traffic;

use std::time::Duration;

pub use caps::{Asymmetry, COUNT_INTERVAL, Caps, FREE_EGRESS_BYTES_PER_DAY};
pub use reason::Reason;
pub use schedule::{DAY_NAMES, NotADay, Schedule, Share, UTC_OFFSET_MINUTES};
pub use throttling::PEERS_WAITING_MIN;
pub use traffic::{Flow, HOURS_KEPT, Traffic};

use self::throttling::{Seen, Throttling};
use super::Allowance;
use crate::logic::now::{Monotonic, Now};

/// Whether the owner has paused serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Off,
    Until(Monotonic),
    UntilResumed,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub egress_bytes_per_second_max: u64,
    pub pause: Pause,
    pub schedule: Schedule,
    pub caps: Caps,
    /// Of what we move ourselves.
    pub asymmetry: Asymmetry,
    /// Of the whole line, as its provider sees it; where its counters are known.
    pub line_asymmetry: Asymmetry,
}

impl Settings {
    /// A limit and nothing else.
    pub fn with_limit(egress_bytes_per_second_max: u64) -> Settings {
        Settings {
            egress_bytes_per_second_max,
            pause: Pause::Off,
            schedule: Schedule::default(),
            caps: Caps::default(),
            asymmetry: Asymmetry::default(),
            line_asymmetry: Asymmetry::default(),
        }
    }
}

/// Totals since the start of the process; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// On the wire, to the WAN.
    pub egress_bytes_total: u64,
    /// Filled.
    pub ingress_bytes_total: u64,
    /// Right now: peers that have asked for blocks which they do not have yet.
    pub peers_waiting: u32,
    /// What the home's router has sent and received on the line, whoever's it is. It starts anew with the
    /// router.
    pub line: Option<Flow>,
    /// Right now: what auto mode says, where it is on and can measure.
    pub auto: Option<Auto>,
}

/// Auto mode's word. It is obeyed elsewhere, 50 times a second; here it is one rule among others, for
/// people and for the rules that judge what was possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auto {
    pub egress_bytes_per_second: u64,
    /// What the line is believed to carry.
    pub line_bytes_per_second: Option<u64>,
    /// It makes room for the household.
    pub gives_way: bool,
}

/// What holds, and which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Zero when nothing may leave.
    pub egress_bytes_per_second: u64,
    pub reason: Reason,
}

impl Ruling {
    pub fn allowance(self) -> Allowance {
        match self.egress_bytes_per_second {
            0 => Allowance::Paused,
            rate => Allowance::BytesPerSecond(rate),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub egress_bytes_per_second_max: u64,
    pub pause: Pause,
    /// Of all rules, auto mode's included.
    pub ruling: Ruling,
    pub line_bytes_per_second: Option<u64>,
}

/// See the module's first lines.
#[derive(Clone, Debug)]
pub struct Governor {
    settings: Settings,
    traffic: Traffic,
    line: Traffic,
    throttling: Throttling,
    counters: Counters,
    /// Of all rules but auto mode's, which moves below it.
    ceiling: Ruling,
    /// The ceiling has changed since it was polled.
    changed: bool,
}

impl Governor {
    /// `traffic` is what the ledger knows of the last [`HOURS_KEPT`] hours.
    pub fn new(settings: Settings, traffic: Traffic, now: Now) -> Governor {
        let ceiling = Ruling { egress_bytes_per_second: 0, reason: Reason::Limit };
        let mut governor = Governor {
            settings,
            traffic,
            line: Traffic::default(),
            throttling: Throttling::new(),
            counters: Counters::default(),
            ceiling,
            changed: true,
        };
        governor.rule(now);
        governor
    }

    /// What the line carried before the restart.
    pub fn with_line(mut self, line: Traffic, now: Now) -> Governor {
        self.line = line;
        self.rule(now);
        self
    }

    /// What this device sent and filled.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What the line carried, by the hour: to be kept for the next start.
    pub fn line(&self) -> &Traffic {
        &self.line
    }

    /// The owner moved the slider.
    pub fn handle_limit(&mut self, egress_bytes_per_second_max: u64, now: Now) {
        self.settings.egress_bytes_per_second_max = egress_bytes_per_second_max;
        self.rule(now);
    }

    pub fn handle_pause(&mut self, pause: Pause, now: Now) {
        self.settings.pause = pause;
        self.rule(now);
    }

    /// Every [`COUNT_INTERVAL`]: the caps hold as well as this is on time.
    pub fn handle_counters(&mut self, counters: Counters, now: Now) {
        let before = std::mem::replace(&mut self.counters, counters);
        let flow = Flow {
            egress_bytes: counters.egress_bytes_total.saturating_sub(before.egress_bytes_total),
            ingress_bytes: counters.ingress_bytes_total.saturating_sub(before.ingress_bytes_total),
        };
        self.traffic.add(flow, now.wall);
        if let (Some(before), Some(line)) = (before.line, counters.line) {
            self.line.add(line.since(before), now.wall);
        }
        let seen = Seen {
            egress_bytes: flow.egress_bytes,
            peers_waiting: counters.peers_waiting,
            allowed: self.possible(),
        };
        self.throttling.handle_seen(seen, now.monotonic);
        self.rule(now);
    }

    /// What all rules but auto mode's allow, once after each change.
    pub fn poll_allowance(&mut self) -> Option<Allowance> {
        std::mem::take(&mut self.changed).then(|| self.ceiling.allowance())
    }

    /// When a rule says something else without anything happening: the end of a pause or of a stop,
    /// the next hour of the schedule, of the caps and of the ratio's windows.
    pub fn poll_timeout(&self, now: Now) -> Option<Monotonic> {
        let pause_end = match self.settings.pause {
            Pause::Until(end) => Some(end),
            Pause::Off | Pause::UntilResumed => None,
        };
        let in_seconds = |seconds| now.monotonic + Duration::from_secs(seconds);
        let wall = now.wall.synced();
        let Settings { schedule, caps, asymmetry, line_asymmetry, .. } = &self.settings;
        let counts_hours =
            !caps.is_trivial() || !asymmetry.is_trivial() || !line_asymmetry.is_trivial();
        let local_hour = wall
            .filter(|_| !schedule.is_trivial())
            .map(|wall| in_seconds(schedule.seconds_to_next_hour(wall)));
        let utc_hour = wall.filter(|_| counts_hours).map(|wall| in_seconds(3600 - wall.0 % 3600));
        let ends = [pause_end, self.throttling.poll_timeout(), local_hour, utc_hour];
        ends.into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        self.throttling.handle_timeout(now.monotonic);
        self.rule(now);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            egress_bytes_per_second_max: self.settings.egress_bytes_per_second_max,
            pause: self.settings.pause,
            ruling: self.ruling(),
            line_bytes_per_second: self.counters.auto.and_then(|auto| auto.line_bytes_per_second),
        }
    }

    fn ruling(&self) -> Ruling {
        let Some(auto) = self.counters.auto else { return self.ceiling };
        if auto.egress_bytes_per_second >= self.ceiling.egress_bytes_per_second {
            return self.ceiling;
        }
        let reason = if auto.gives_way { Reason::AutoHousehold } else { Reason::AutoLine };
        Ruling { egress_bytes_per_second: auto.egress_bytes_per_second, reason }
    }

    /// What could have left if peers and line had wanted. What we leave to the household could not;
    /// what auto mode takes for a slow line could, if the line were what it was.
    fn possible(&self) -> u64 {
        match self.counters.auto {
            Some(auto) if auto.gives_way => self.ruling().egress_bytes_per_second,
            _ => self.ceiling.egress_bytes_per_second,
        }
    }

    /// The minimum of all rules. Of two that allow the same the first is named: what the owner can
    /// do something about comes before what time will mend.
    fn rule(&mut self, now: Now) {
        if matches!(self.settings.pause, Pause::Until(end) if end <= now.monotonic) {
            self.settings.pause = Pause::Off;
        }
        let limit = self.settings.egress_bytes_per_second_max;
        let mut ruling = Ruling { egress_bytes_per_second: limit, reason: Reason::Limit };
        let mut at_most = |(egress_bytes_per_second, reason)| {
            if egress_bytes_per_second < ruling.egress_bytes_per_second {
                ruling = Ruling { egress_bytes_per_second, reason };
            }
        };
        if self.settings.pause != Pause::Off {
            at_most((0, Reason::Paused));
        }
        at_most(self.scheduled(limit, now));
        self.settings.caps.rates(&self.traffic, now.wall).for_each(&mut at_most);
        let own = self.settings.asymmetry.rate(limit, &self.traffic, now.wall);
        let line = self.settings.line_asymmetry.rate(limit, &self.line, now.wall);
        own.into_iter().chain(line).for_each(&mut at_most);
        if self.throttling.is_stopped() {
            at_most((0, Reason::Throttled));
        }
        self.changed |= ruling.allowance() != self.ceiling.allowance();
        self.ceiling = ruling;
    }

    fn scheduled(&self, limit: u64, now: Now) -> (u64, Reason) {
        let share = self.settings.schedule.share(now.wall);
        let reason = match (now.wall.synced(), share.is_off()) {
            (None, _) => Reason::ClockUnset,
            (Some(_), true) => Reason::ScheduleOff,
            (Some(_), false) => Reason::ScheduleReduced,
        };
        (share.of(limit), reason)
    }
}
