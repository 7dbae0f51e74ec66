//! Auto mode's controller: finds the uplink's rate by itself, paces a little under it, and gives way
//! as soon as delay says that somebody else wants the line. Sees round trips and counts, never a
//! socket or a probe.
//!
//! Hunting on delay alone costs the household 11–13 ms; pacing at a known rate about 1 ms. So delay
//! is only the brake. The rate comes from *busy periods*: while there is a queue the line delivers at
//! its full rate, so the bytes acknowledged between two round trips that both saw the queue, over the
//! time between them, are the line's rate (if we are alone on it), whatever we were sending.
//!
//! | state | does | until |
//! | --- | --- | --- |
//! | start | grows by a third every 100 ms | a queue |
//! | drain | sends less than the line carries | the queue is gone: cruise; it does not go: yield |
//! | cruise | 93 % of the estimate | a queue: yield; now and then: probe |
//! | probe | 6 % above the estimate, some 150 ms | a queue: drain; none: believes in 5 % more |
//! | yield | to a half, then a quarter every 30 ms while there is a queue, then climbs | 93 % of the estimate: cruise |

mod signs;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use self::signs::{BusyPeriod, OtherPath, permille, rate_between};
use super::household::Household;
pub use super::household::LineCounts;
use crate::logic::now::Monotonic;

/// How often the shell should probe: 50 times a second is 6 KB/s with 64-byte echoes.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Paced flows meet by chance: a queue of up to so many packets is our own noise, and so is what
/// round trips vary by while all is well.
const NOISE_PACKETS: u32 = 4;
const PACKET_BYTES: u64 = 1500;
/// Above the noise by this much, somebody waits.
const QUEUE_MARGIN: Duration = Duration::from_millis(1);
const NOISE_PACKETS_PROBING: u32 = 2;
const QUEUE_MARGIN_PROBING: Duration = Duration::from_micros(500);
const ECHOES_PROBING: usize = 2;
/// How slowly the usual noise is learnt (a part of so many, each sample), and the most of it that is
/// believed: beyond that it is no noise, whatever it is.
const NOISE_MEMORY: u32 = 64;
const NOISE_MAX: Duration = Duration::from_millis(4);

/// Parts of a thousand.
const CRUISE: u64 = 930;
/// One after the other, as long as no queue comes: a line that is far faster is found in seconds.
const PROBES: [u64; 4] = [1060, 1120, 1250, 1350];
/// What a probe without a queue has shown, of what it sent.
const PROBE_SHOWS: u64 = 990;
const ESTIMATE_STEP_UP: u64 = 1050;
const DRAIN: u64 = 800;
const DRAIN_AFTER_START: u64 = 700;
/// After a rest; a few steps later it is at full rate again.
const RESUME: u64 = 250;
/// Of the line: below it, the difference of two counters is no upload.
const TRICKLE: u64 = 50;
/// What it sends now and a little more, because an upload that starts grows.
const HOUSEHOLD_GROWS: u64 = 1250;
const START_STEP: u64 = 1350;
const CLIMB_STEP: u64 = 1600;
/// While little is sent, a step too far makes little of a queue.
const CLIMB_STEP_LOW: u64 = 2000;
const LOW: u64 = 250;
/// One busy period may not cut the estimate by more: a burst of the household's is in it.
const ESTIMATE_FALL: u64 = 250;
/// A busy period that tells less than this tells of another line; above it, it is one with gaps, and
/// the estimate moves by a step.
const ANOTHER_LINE: u64 = 800;
const ESTIMATE_STEP_DOWN: u64 = 960;
const ESTIMATE_AFTER_PROBE: u64 = 900;
const ESTIMATE_SAME: u64 = 970;
const ESTIMATE_AFTER_CLIMB: u64 = 600;

/// Several probes in a row have not come back.
const SILENCE: Duration = Duration::from_millis(300);

const START_INTERVAL: Duration = Duration::from_millis(100);
/// A probe is long enough to be noticed: 6 % above the line need 17 times as long as the queue that
/// they make, and the answer comes a round trip later. In percent of that.
const PROBE_TIME: Duration = Duration::from_millis(60);
const PROBE_TIMES_QUEUE: u32 = 120;
const PROBE_GAP_FIRST: Duration = Duration::from_millis(500);
/// A probe disturbs for some 100 ms: every 10 s it is about the 99th percentile.
const PROBE_GAP_LONGEST: Duration = Duration::from_secs(10);
/// A drain takes as long as the queue was, by what is left free of the line, and a round trip.
const DRAIN_TIME: Duration = Duration::from_millis(80);
const DRAIN_TIMES_QUEUE: u32 = 6;
const LOWER_INTERVAL: Duration = Duration::from_millis(30);
/// A queue that went as soon as we made room and stays away for this long was ours. A household that
/// begins to send leaves the line free for a moment, until its own window has grown.
const OURS_TIME: Duration = Duration::from_millis(150);
const CLIMB_INTERVAL: Duration = Duration::from_millis(250);
/// Each time that climbing has met a queue, the next attempt waits twice as long, up to this.
const CLIMB_WAIT_LONGEST: Duration = Duration::from_secs(2);
/// An alarm whose queue is gone after one step and stays gone for this long was a false one.
const FALSE_ALARM: Duration = Duration::from_millis(80);
/// At most one of them in so long: a household that begins looks like several.
const FALSE_ALARM_GAP: Duration = Duration::from_secs(1);
/// What the delivered rate is averaged over.
const DELIVERY_WINDOW: Duration = Duration::from_millis(250);
/// So many round trips in a row have to see a queue.
const ECHOES: usize = 3;
/// In at least this time: echoes that were held up together and come at once saw a machine that
/// stood still, not a line.
const ECHOES_TIME: Duration = Duration::from_millis(30);

/// 1 Mbit/s: under what any uplink worth serving from carries.
const RATE_START: u64 = 125_000;
/// Enough to keep connections alive and to notice when the line is free again; 0.4 % of 20 Mbit/s.
const RATE_MIN: u64 = 10_000;

/// A probe that came back, and the counts at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub rtt: Duration,
    /// By all peers, as wire bytes, since the start; only grows.
    pub acknowledged_bytes_total: u64,
    /// When those were counted, a little before the probe came back.
    pub acknowledged_at: Monotonic,
    /// Peers have asked for more than has been sent. Without it, silence is no sign of a slow line.
    pub peers_want_more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Start,
    Drain,
    Cruise,
    Probe,
    Yield,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub state: State,
    pub bytes_per_second: u64,
    /// What the line is believed to carry.
    pub line_bytes_per_second: Option<u64>,
    pub added_delay: Duration,
    /// The household wants the line, or did a moment ago.
    pub gives_way: bool,
}

#[derive(Clone, Debug)]
pub struct DelayController {
    rate_max: u64,
    rate: u64,
    polled_rate: Option<u64>,
    state: State,
    /// Since the state began or took its last step.
    since: Monotonic,
    /// The last probe that came back.
    seen_at: Monotonic,
    estimate: u64,
    estimated: bool,
    base: Duration,
    last_rtts: VecDeque<(Monotonic, Duration)>,
    added: Duration,
    /// Added delay as it usually is in `Cruise`.
    noise: Duration,
    drain_time: Duration,
    deliveries: VecDeque<(Monotonic, u64)>,
    busy: BusyPeriod,
    other_path: OtherPath,
    probe_gap: Duration,
    /// Which of [`PROBES`] is next.
    probe: usize,
    /// The estimate is from while we still grew: it may be far too low.
    estimate_is_guess: bool,
    climb_wait: Duration,
    /// It has climbed since it last gave way.
    climbed: bool,
    /// Steps down since the alarm, and the alarm that was false.
    lowered: u32,
    false_alarm_at: Option<Monotonic>,
    household: Household,
}

impl DelayController {
    /// `rate_max` is the allowance by all other rules, in bytes on the wire per second.
    pub fn new(rate_max: u64, now: Monotonic) -> DelayController {
        DelayController {
            rate_max,
            rate: RATE_START.min(rate_max),
            polled_rate: None,
            state: State::Start,
            since: now,
            seen_at: now,
            estimate: RATE_START,
            estimated: false,
            base: Duration::MAX,
            last_rtts: VecDeque::new(),
            added: Duration::ZERO,
            noise: Duration::ZERO,
            drain_time: DRAIN_TIME,
            deliveries: VecDeque::new(),
            busy: BusyPeriod::default(),
            other_path: OtherPath::default(),
            probe_gap: PROBE_GAP_FIRST,
            probe: 0,
            estimate_is_guess: false,
            climb_wait: CLIMB_INTERVAL,
            climbed: false,
            lowered: 0,
            false_alarm_at: None,
            household: Household::default(),
        }
    }

    /// The other rules changed their mind.
    pub fn handle_rate_max(&mut self, rate_max: u64) {
        self.rate_max = rate_max;
        self.rate = match self.state {
            State::Cruise => self.cruising(),
            // Also when nothing was allowed until now.
            State::Start => self.rate.max(RATE_START),
            _ => self.rate.max(RATE_MIN),
        };
        self.rate = self.rate.min(rate_max);
    }

    /// On a router, each [`PROBE_INTERVAL`]: what the household sends is made room for before there is
    /// any queue.
    pub fn handle_line(&mut self, counts: LineCounts, now: Monotonic) {
        self.household.handle_counts(counts, now);
        let room = self.cruising();
        if self.estimated && self.used_by_household() > 0 && self.rate > room {
            let state = if self.state == State::Cruise { State::Cruise } else { State::Yield };
            self.enter(state, room, now);
        }
    }

    /// Nobody was served for a while: what the line does now is not known.
    pub fn handle_resume(&mut self, now: Monotonic) {
        self.forget_samples(now);
        match self.state {
            State::Start => self.enter(State::Start, RATE_START, now),
            _ => self.enter(State::Yield, permille(self.estimate, RESUME).max(RATE_START), now),
        }
    }

    /// Probes go to somebody else, whose round trips are of another length.
    pub fn handle_path_change(&mut self, now: Monotonic) {
        self.base = Duration::MAX;
        self.handle_resume(now);
    }

    /// Call for each probe that comes back, [`PROBE_INTERVAL`] apart.
    pub fn handle_sample(&mut self, sample: Sample, now: Monotonic) {
        self.measure(sample, now);
        let elapsed = now.saturating_since(self.since);
        let queue = self.sees_queue();
        match self.state {
            State::Start => self.start(queue, elapsed, sample.peers_want_more, now),
            State::Drain if self.added <= self.no_queue() => self.cruise(now),
            State::Drain if elapsed > self.drain_time => self.give_way(now),
            State::Drain => {}
            State::Cruise if queue => self.give_way(now),
            State::Cruise if self.rate == self.rate_max => {}
            State::Cruise if elapsed > self.probe_gap && sample.peers_want_more => {
                // What else was seen of queues is of other times.
                self.busy = BusyPeriod::default();
                self.probe = 0;
                self.begin_probe(now);
            }
            State::Cruise => {}
            State::Probe => self.probe(self.sees_own_queue(), elapsed, now),
            State::Yield => self.give_way_or_climb(elapsed, now),
        }
    }

    /// When [`DelayController::handle_timeout`] wants to be called if no probe comes back before.
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        (self.rate > RATE_MIN).then(|| self.since.max(self.seen_at) + SILENCE)
    }

    /// Probes that do not come back may lie in a queue, or have found it full.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.give_way(now);
        }
    }

    /// The pacing rate in bytes on the wire per second, once after each change.
    pub fn poll_rate(&mut self) -> Option<u64> {
        (self.polled_rate.replace(self.rate) != Some(self.rate)).then_some(self.rate)
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            bytes_per_second: self.rate,
            line_bytes_per_second: self.estimated.then_some(self.estimate),
            added_delay: self.added,
            gives_way: self.state == State::Yield || self.used_by_household() > 0,
        }
    }

    fn forget_samples(&mut self, now: Monotonic) {
        self.seen_at = now;
        self.last_rtts.clear();
        self.deliveries.clear();
        self.busy = BusyPeriod::default();
        self.other_path = OtherPath::default();
        self.household.forget();
    }

    /// A trickle is none, and may be our own packets counted a little late.
    fn used_by_household(&self) -> u64 {
        let used = self.household.bytes_per_second();
        if used > permille(self.estimate, TRICKLE) { used } else { 0 }
    }

    /// What is left for us of what we would take if we were alone.
    fn cruising(&self) -> u64 {
        let used = permille(self.used_by_household(), HOUSEHOLD_GROWS);
        permille(self.estimate, CRUISE).saturating_sub(used).max(RATE_MIN).min(self.rate_max)
    }

    fn measure(&mut self, sample: Sample, now: Monotonic) {
        self.seen_at = now;
        self.base = self.base.min(sample.rtt);
        if let Some(base) = self.other_path.handle(self.rate <= RATE_MIN, sample.rtt, now) {
            self.base = base;
        }
        if self.last_rtts.len() == ECHOES {
            self.last_rtts.pop_front();
        }
        self.last_rtts.push_back((now, sample.rtt));
        // What all of the last few saw: a queue stays for a while, and a late echo is nobody's upload.
        let shortest = self.last_rtts.iter().map(|(_, rtt)| *rtt).min().unwrap_or_default();
        self.added = shortest.saturating_sub(self.base);
        if self.state == State::Cruise {
            let memory = self.noise * (NOISE_MEMORY - 1);
            self.noise = ((memory + self.added) / NOISE_MEMORY).min(NOISE_MAX);
        }
        // What the household sends over the line tells its rate as ours does.
        let delivered = sample.acknowledged_bytes_total + self.household.sent_bytes_total();
        let acknowledged = (sample.acknowledged_at, delivered);
        self.deliveries.push_back(acknowledged);
        while self.deliveries.len() > 1
            && acknowledged.0.saturating_since(self.deliveries[0].0) > DELIVERY_WINDOW
        {
            self.deliveries.pop_front();
        }
        let added = sample.rtt.saturating_sub(self.base);
        self.busy.handle(added > self.queue(), acknowledged);
    }

    fn sees_queue(&self) -> bool {
        let (Some((first, _)), Some((last, _))) = (self.last_rtts.front(), self.last_rtts.back())
        else {
            return false;
        };
        self.last_rtts.len() == ECHOES
            && self.added > self.queue()
            && last.saturating_since(*first) >= ECHOES_TIME
    }

    /// While we probe for it: sooner, since a false alarm ends a probe early and costs nothing else.
    fn sees_own_queue(&self) -> bool {
        let newest = self.last_rtts.iter().rev().take(ECHOES_PROBING).map(|(_, rtt)| *rtt).min();
        let added = newest.unwrap_or_default().saturating_sub(self.base);
        self.last_rtts.len() == ECHOES
            && added > self.noise + QUEUE_MARGIN_PROBING + self.packets(NOISE_PACKETS_PROBING)
    }

    /// Above this much added delay somebody waits.
    fn queue(&self) -> Duration {
        self.noise + QUEUE_MARGIN + self.packets(NOISE_PACKETS)
    }

    /// Up to this much, nobody does.
    fn no_queue(&self) -> Duration {
        self.noise + self.packets(NOISE_PACKETS / 2)
    }

    /// How long the line takes for so many.
    fn packets(&self, packets: u32) -> Duration {
        let rate = self.estimate.max(self.rate).max(1);
        Duration::from_nanos(u64::from(packets) * PACKET_BYTES * 1_000_000_000 / rate)
    }

    fn start(&mut self, queue: bool, elapsed: Duration, wanted: bool, now: Monotonic) {
        if queue {
            self.estimate = self.delivered().max(RATE_START);
            self.estimated = true;
            self.estimate_is_guess = true;
            self.drain(DRAIN_AFTER_START, now);
        } else if self.rate == self.rate_max {
            // The owner's limit is below the line's: there is nothing to find out for now.
            let enough = u128::from(self.rate_max) * 1000 / u128::from(CRUISE) + 2;
            self.estimate = u64::try_from(enough).unwrap_or(u64::MAX).max(RATE_START);
            self.cruise(now);
        } else if elapsed > START_INTERVAL && wanted {
            self.enter(State::Start, permille(self.rate, START_STEP), now);
        }
    }

    fn drain(&mut self, part: u64, now: Monotonic) {
        self.drain_time = DRAIN_TIME + self.added * DRAIN_TIMES_QUEUE;
        self.enter(State::Drain, permille(self.estimate, part), now);
    }

    /// The queue is gone.
    fn cruise(&mut self, now: Monotonic) {
        if let Some(line) = self.busy.take_rate() {
            // Our own queue, made on purpose: it tells the rate to the packet.
            self.learn(line, ESTIMATE_AFTER_PROBE);
        }
        self.enter(State::Cruise, self.cruising(), now);
    }

    fn begin_probe(&mut self, now: Monotonic) {
        let used = self.used_by_household();
        let rate = permille(self.estimate, PROBES[self.probe]).saturating_sub(used);
        self.enter(State::Probe, rate, now);
    }

    fn probe(&mut self, queue: bool, elapsed: Duration, now: Monotonic) {
        let excess = u32::try_from(PROBES[self.probe] - 1000).unwrap_or(u32::MAX);
        if queue {
            self.probe_gap = (self.probe_gap * 2).min(PROBE_GAP_LONGEST);
            self.drain(DRAIN, now);
        } else if elapsed > PROBE_TIME + self.queue() * PROBE_TIMES_QUEUE * 10 / excess {
            // What was not sent proves nothing.
            if self.delivered() < permille(self.estimate, CRUISE) {
                return self.cruise(now);
            }
            self.probe_gap = PROBE_GAP_FIRST;
            self.estimate = permille(permille(self.estimate, PROBES[self.probe]), PROBE_SHOWS);
            self.probe = (self.probe + 1).min(PROBES.len() - 1);
            self.begin_probe(now);
        }
    }

    fn give_way(&mut self, now: Monotonic) {
        self.lowered = if self.state == State::Yield { self.lowered + 1 } else { 1 };
        self.climbed = false;
        // A queue that is still there after the first step is no accident.
        let part = if self.lowered == 1 { 2 } else { 4 };
        self.enter(State::Yield, self.rate / part, now);
    }

    /// The household first: fall fast, come back step by step.
    fn give_way_or_climb(&mut self, elapsed: Duration, now: Monotonic) {
        if self.sees_queue() {
            if elapsed > LOWER_INTERVAL {
                if self.climbed {
                    self.climbed_too_far();
                }
                self.give_way(now);
            }
            return;
        }
        if self.is_false_alarm(elapsed, now) {
            self.false_alarm_at = Some(now);
            return self.cruise(now);
        }
        if elapsed > OURS_TIME
            && let Some(line) = self.busy.take_rate()
        {
            // The queue went as soon as we made room: it was ours, and it told what the line carries.
            self.learn(line, ESTIMATE_STEP_DOWN);
            self.probe_gap = PROBE_GAP_FIRST;
            return self.enter(State::Yield, self.rate.max(self.estimate / 2), now);
        }
        if elapsed > if self.climbed { CLIMB_INTERVAL } else { self.climb_wait } {
            self.climb(now);
        }
    }

    fn climb(&mut self, now: Monotonic) {
        if !self.estimated {
            return self.enter(State::Start, RATE_START, now);
        }
        self.climbed = true;
        let is_low = self.rate < permille(self.estimate, LOW);
        let climbed = permille(self.rate, if is_low { CLIMB_STEP_LOW } else { CLIMB_STEP });
        if climbed < self.cruising() {
            return self.enter(State::Yield, climbed, now);
        }
        self.climb_wait = CLIMB_INTERVAL;
        self.cruise(now);
    }

    /// High up: the line carries less than it did. Low down: the household has it.
    fn climbed_too_far(&mut self) {
        if self.rate > permille(self.estimate, LOW) {
            self.estimate =
                self.rate.max(permille(self.estimate, ESTIMATE_AFTER_CLIMB)).min(self.estimate);
        } else {
            self.climb_wait = (self.climb_wait * 2).min(CLIMB_WAIT_LONGEST);
        }
    }

    fn is_false_alarm(&self, elapsed: Duration, now: Monotonic) -> bool {
        let recently = |at: Monotonic| now.saturating_since(at) < FALSE_ALARM_GAP;
        self.estimated
            && self.lowered == 1
            && !self.climbed
            && elapsed > FALSE_ALARM
            && self.added <= self.no_queue()
            && !self.false_alarm_at.is_some_and(recently)
    }

    fn learn(&mut self, line: u64, step_down: u64) {
        let floor = match line < permille(self.estimate, ANOTHER_LINE) {
            true => ESTIMATE_FALL,
            false => step_down,
        };
        if std::mem::take(&mut self.estimate_is_guess) {
            self.estimate = line.max(self.estimate);
            return;
        }
        let ceiling = permille(self.estimate, ESTIMATE_STEP_UP);
        let learnt = line.max(permille(self.estimate, floor)).min(ceiling);
        // What is nearly the same is the same, a packet more or less.
        let same = learnt > permille(self.estimate, ESTIMATE_SAME);
        self.estimate = if same { u64::midpoint(self.estimate, learnt) } else { learnt };
    }

    fn enter(&mut self, state: State, rate: u64, now: Monotonic) {
        self.state = state;
        self.rate = rate.max(RATE_MIN).min(self.rate_max);
        self.since = now;
    }

    fn delivered(&self) -> u64 {
        match (self.deliveries.front(), self.deliveries.back()) {
            (Some(first), Some(last)) => rate_between(*first, *last).unwrap_or(0),
            _ => 0,
        }
    }
}
