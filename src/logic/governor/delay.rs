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
//! | yield | halves every 30 ms while there is a queue, then climbs | 93 % of the estimate: cruise |

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use crate::logic::now::Monotonic;

/// How often the shell should probe: 50 times a second is 6 KB/s with 64-byte echoes.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Paced flows meet by chance: a queue of up to so many packets is our own noise, and so is what
/// round trips vary by while all is well.
const NOISE_PACKETS: u32 = 4;
const PACKET_BYTES: u64 = 1500;
/// Above the noise by this much, somebody waits.
const QUEUE_MARGIN: Duration = Duration::from_millis(1);
/// How slowly the usual noise is learnt (a part of so many, each sample), and the most of it that is
/// believed: beyond that it is no noise, whatever it is.
const NOISE_MEMORY: u32 = 64;
const NOISE_MAX: Duration = Duration::from_millis(4);
/// A shorter busy period tells no rate: a block more or less at its ends would move it by a tenth.
const BUSY_MIN: Duration = Duration::from_millis(60);
/// A queue that stays for longer than this though we make room is the household's.
const BUSY_OURS: Duration = Duration::from_secs(1);

/// Parts of a thousand.
const CRUISE: u64 = 930;
const PROBE: u64 = 1060;
const PROBE_STEP: u64 = 1050;
const DRAIN: u64 = 800;
const DRAIN_AFTER_START: u64 = 700;
const START_STEP: u64 = 1350;
const CLIMB_STEP: u64 = 1600;
/// One busy period may not cut the estimate by more: a burst of the household's is in it.
const ESTIMATE_FALL: u64 = 250;
/// A busy period that tells less than this tells of another line; above it, it is one with gaps, and
/// the estimate moves by a step.
const ANOTHER_LINE: u64 = 800;
const ESTIMATE_STEP_DOWN: u64 = 960;
const ESTIMATE_AFTER_PROBE: u64 = 900;

/// Round trips that differ by no more than this for so long, while we send next to nothing, are those
/// of another path.
const STEADY: Duration = Duration::from_millis(4);
const STEADY_TIME: Duration = Duration::from_secs(60);

/// Several probes in a row have not come back.
const SILENCE: Duration = Duration::from_millis(300);

const START_INTERVAL: Duration = Duration::from_millis(100);
/// A probe is long enough to be noticed: 6 % above the line need 17 times as long as the queue that
/// they make, and the answer comes a round trip later.
const PROBE_TIME: Duration = Duration::from_millis(60);
const PROBE_TIMES_QUEUE: u32 = 20;
const PROBE_GAP_FIRST: Duration = Duration::from_millis(500);
/// A probe disturbs for some 100 ms: every 10 s it is about the 99th percentile.
const PROBE_GAP_LONGEST: Duration = Duration::from_secs(10);
/// A drain takes as long as the queue was, by what is left free of the line, and a round trip.
const DRAIN_TIME: Duration = Duration::from_millis(80);
const DRAIN_TIMES_QUEUE: u32 = 6;
const HALVE_INTERVAL: Duration = Duration::from_millis(30);
const CLIMB_INTERVAL: Duration = Duration::from_millis(250);
/// What the delivered rate is averaged over.
const DELIVERY_WINDOW: Duration = Duration::from_millis(250);
/// Two in a row: one late echo is nobody's upload.
const QUEUES_SEEN: u32 = 2;

/// 1 Mbit/s: under what any uplink worth serving from carries.
const RATE_START: u64 = 125_000;
/// Enough to keep connections alive and to notice when the line is free again; 0.75 % of 20 Mbit/s.
const RATE_MIN: u64 = 18_750;

/// A probe that came back, and the counts at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub rtt: Duration,
    /// By all peers, as wire bytes, since the start; only grows.
    pub acknowledged_bytes_total: u64,
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
    last_rtts: VecDeque<Duration>,
    added: Duration,
    /// Added delay as it usually is in `Cruise`.
    noise: Duration,
    drain_time: Duration,
    queues_seen: u32,
    deliveries: VecDeque<(Monotonic, u64)>,
    busy: BusyPeriod,
    other_path: OtherPath,
    probe_gap: Duration,
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
            queues_seen: 0,
            deliveries: VecDeque::new(),
            busy: BusyPeriod::default(),
            other_path: OtherPath::default(),
            probe_gap: PROBE_GAP_FIRST,
        }
    }

    /// The other rules changed their mind.
    pub fn handle_rate_max(&mut self, rate_max: u64) {
        self.rate_max = rate_max;
        self.rate = match self.state {
            State::Cruise => permille(self.estimate, CRUISE).max(RATE_MIN),
            _ => self.rate,
        };
        self.rate = self.rate.min(rate_max);
    }

    /// Call for each probe that comes back, [`PROBE_INTERVAL`] apart.
    pub fn handle_sample(&mut self, sample: Sample, now: Monotonic) {
        self.measure(sample, now);
        let elapsed = now.saturating_since(self.since);
        let queue = self.queues_seen >= QUEUES_SEEN;
        match self.state {
            State::Start => self.start(queue, elapsed, sample.peers_want_more, now),
            State::Drain if self.added <= self.no_queue() => self.cruise(now),
            State::Drain if elapsed > self.drain_time => self.give_way(now),
            State::Drain => {}
            State::Cruise if queue => self.give_way(now),
            State::Cruise if self.rate == self.rate_max => {}
            State::Cruise if elapsed > self.probe_gap && sample.peers_want_more => {
                self.enter(State::Probe, permille(self.estimate, PROBE), now);
            }
            State::Cruise => {}
            State::Probe => self.probe(queue, elapsed, now),
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
        }
    }

    fn measure(&mut self, sample: Sample, now: Monotonic) {
        self.seen_at = now;
        self.base = self.base.min(sample.rtt);
        if let Some(base) = self.other_path.handle(self.rate <= RATE_MIN, sample.rtt, now) {
            self.base = base;
        }
        if self.last_rtts.len() == 3 {
            self.last_rtts.pop_front();
        }
        self.last_rtts.push_back(sample.rtt);
        let mut sorted: Vec<Duration> = self.last_rtts.iter().copied().collect();
        sorted.sort_unstable();
        self.added = sorted[sorted.len() / 2].saturating_sub(self.base);
        self.queues_seen = if self.added > self.queue() { self.queues_seen + 1 } else { 0 };
        if self.state == State::Cruise {
            let memory = self.noise * (NOISE_MEMORY - 1);
            self.noise = ((memory + self.added) / NOISE_MEMORY).min(NOISE_MAX);
        }
        let acknowledged = (now, sample.acknowledged_bytes_total);
        self.deliveries.push_back(acknowledged);
        while self.deliveries.len() > 1
            && now.saturating_since(self.deliveries[0].0) > DELIVERY_WINDOW
        {
            self.deliveries.pop_front();
        }
        let added = sample.rtt.saturating_sub(self.base);
        self.busy.handle(added > self.no_queue(), acknowledged);
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
        self.enter(State::Cruise, permille(self.estimate, CRUISE), now);
    }

    fn probe(&mut self, queue: bool, elapsed: Duration, now: Monotonic) {
        if queue {
            self.probe_gap = (self.probe_gap * 2).min(PROBE_GAP_LONGEST);
            self.drain(DRAIN, now);
        } else if elapsed > PROBE_TIME + self.queue() * PROBE_TIMES_QUEUE {
            // What was not sent proves nothing.
            if self.delivered() < permille(self.estimate, CRUISE) {
                return self.cruise(now);
            }
            self.probe_gap = PROBE_GAP_FIRST;
            self.estimate = permille(self.estimate, PROBE_STEP);
            self.enter(State::Probe, permille(self.estimate, PROBE), now);
        }
    }

    fn give_way(&mut self, now: Monotonic) {
        self.enter(State::Yield, self.rate / 2, now);
    }

    /// The household first: fall fast, come back step by step.
    fn give_way_or_climb(&mut self, elapsed: Duration, now: Monotonic) {
        if self.added > self.queue() {
            if elapsed > HALVE_INTERVAL {
                self.give_way(now);
            }
            return;
        }
        if let Some(line) = self.busy.take_rate() {
            // The queue went as soon as we made room: it was ours, and it told what the line carries.
            self.learn(line, ESTIMATE_STEP_DOWN);
            self.probe_gap = PROBE_GAP_FIRST;
            return self.enter(State::Yield, self.rate.max(self.estimate / 2), now);
        }
        if elapsed > CLIMB_INTERVAL {
            let climbed = permille(self.rate, CLIMB_STEP);
            let target = permille(self.estimate, CRUISE).min(self.rate_max);
            match climbed < target {
                true => self.enter(State::Yield, climbed, now),
                false => self.cruise(now),
            }
        }
    }

    fn learn(&mut self, line: u64, step_down: u64) {
        let floor = match line < permille(self.estimate, ANOTHER_LINE) {
            true => ESTIMATE_FALL,
            false => step_down,
        };
        let ceiling = permille(self.estimate, PROBE_STEP);
        self.estimate = line.max(permille(self.estimate, floor)).min(ceiling);
    }

    fn enter(&mut self, state: State, rate: u64, now: Monotonic) {
        self.state = state;
        self.rate = rate.max(RATE_MIN).min(self.rate_max);
        self.since = now;
        self.queues_seen = 0;
    }

    fn delivered(&self) -> u64 {
        match (self.deliveries.front(), self.deliveries.back()) {
            (Some(first), Some(last)) => rate_between(*first, *last).unwrap_or(0),
            _ => 0,
        }
    }
}

/// A stretch in which every round trip saw a queue.
#[derive(Clone, Debug, Default)]
struct BusyPeriod {
    first: Option<(Monotonic, u64)>,
    last: (Monotonic, u64),
    /// One quiet echo between two busy ones is jitter.
    quiet: u32,
    rate: Option<u64>,
}

impl BusyPeriod {
    fn handle(&mut self, busy: bool, acknowledged: (Monotonic, u64)) {
        if busy {
            self.first.get_or_insert(acknowledged);
            self.last = acknowledged;
            self.quiet = 0;
            return;
        }
        self.quiet += 1;
        if self.quiet < 2 {
            return;
        }
        let Some(first) = self.first.take() else { return };
        let length = self.last.0.saturating_since(first.0);
        if (BUSY_MIN..=BUSY_OURS).contains(&length) {
            self.rate = rate_between(first, self.last);
        }
    }

    /// What the last busy period told, once.
    fn take_rate(&mut self) -> Option<u64> {
        self.rate.take()
    }
}

/// Notices that round trips have become longer for good. A household's upload swings by tens of
/// milliseconds as its window does; a longer way to the same place is steady.
#[derive(Clone, Debug, Default)]
struct OtherPath {
    /// Since when we send next to nothing, and the shortest and longest round trip from then on.
    steady: Option<(Monotonic, Duration, Duration)>,
}

impl OtherPath {
    /// The new base, when there is one.
    fn handle(&mut self, silent: bool, rtt: Duration, now: Monotonic) -> Option<Duration> {
        let (since, shortest, longest) = self.steady.filter(|_| silent).unwrap_or((now, rtt, rtt));
        let (shortest, longest) = (shortest.min(rtt), longest.max(rtt));
        let is_steady = silent && longest - shortest <= STEADY;
        self.steady = is_steady.then_some((since, shortest, longest));
        (is_steady && now.saturating_since(since) >= STEADY_TIME).then_some(shortest)
    }
}

fn rate_between(first: (Monotonic, u64), last: (Monotonic, u64)) -> Option<u64> {
    let micros = last.0.saturating_since(first.0).as_micros();
    let bytes = u128::from(last.1.saturating_sub(first.1));
    (bytes * 1_000_000).checked_div(micros).map(|rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

fn permille(rate: u64, part: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(part) / 1000).unwrap_or(u64::MAX)
}
