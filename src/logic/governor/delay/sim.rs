//! A home uplink in virtual time, packet by packet: a FIFO before a slow line, the device's paced
//! flows, a household that uploads with TCP, and probes. A simulation: it knows nothing of kernels,
//! delayed acknowledgements or Wi-Fi.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{DelayController, LineCounts, PROBE_INTERVAL, Sample};
use crate::logic::{
    choke::slots_for,
    governor::{Allowance, Tempo},
    now::Monotonic,
};

const PACKET_BYTES: u64 = 1500;
const PROBE_BYTES: u64 = 84;
/// Linux sends two segments at a time at these rates.
const PACING_QUANTUM_PACKETS: u64 = 2;
const BASE_RTT_MICROS: u64 = 20_000;
/// 300 ms at 20 Mbit/s.
const FIFO_BYTES: f64 = 750_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    FlowSends(usize),
    DeviceAcked,
    HouseholdAcked,
    HouseholdLost(u64),
    ProbeSends,
    ProbeReturns(u64),
}

struct Household {
    uploading: bool,
    window_packets: f64,
    slow_start: bool,
    in_flight: u64,
    cut_at: u64,
    acked_bytes: u64,
}

pub struct Uplink {
    pub micros: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    rng: SmallRng,
    bytes_per_second: f64,
    queue_bytes: f64,
    queue_at: u64,
    jitter_micros: u64,
    pub base_rtt_micros: u64,
    peers: u32,
    /// Flow by flow: no second event while one is due.
    scheduled: Vec<bool>,
    acked_bytes: u64,
    household: Household,
    pub controller: DelayController,
    rate: u64,
    pub peers_want_more: bool,
    /// The device is the home's router: it knows what the line sends.
    pub is_router: bool,
    sent_by_device_bytes: u64,
    sent_in_all_bytes: u64,
    /// Added delay as a household's ping would see it, each millisecond, since last taken.
    pings: Vec<Duration>,
    ping_at: u64,
    /// (when, rate), after each change.
    rates: Vec<(u64, u64)>,
}

impl Uplink {
    /// `peers` are connected; of those the choker serves as many as suit the rate.
    pub fn new(mbit: u64, peers: u32, jitter_micros: u64, seed: u64) -> Uplink {
        Uplink::limited(u64::MAX, mbit, peers, jitter_micros, seed)
    }

    /// With a limit in bytes per second by other rules.
    pub fn limited(rate_max: u64, mbit: u64, peers: u32, jitter_micros: u64, seed: u64) -> Uplink {
        let mut controller = DelayController::new(rate_max, Monotonic::START);
        let rate = controller.poll_rate().expect("the first rate");
        let mut uplink = Uplink {
            micros: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            rng: SmallRng::seed_from_u64(seed),
            bytes_per_second: mbit as f64 * 125_000.0,
            queue_bytes: 0.0,
            queue_at: 0,
            jitter_micros,
            base_rtt_micros: BASE_RTT_MICROS,
            peers,
            scheduled: vec![false; peers as usize],
            acked_bytes: 0,
            household: Household {
                uploading: false,
                window_packets: 10.0,
                slow_start: true,
                in_flight: 0,
                cut_at: 0,
                acked_bytes: 0,
            },
            controller,
            rate,
            peers_want_more: true,
            is_router: false,
            sent_by_device_bytes: 0,
            sent_in_all_bytes: 0,
            pings: vec![],
            ping_at: 0,
            rates: vec![],
        };
        uplink.at(0, Event::ProbeSends);
        uplink.wake_flows();
        uplink
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.micros + time.as_micros() as u64;
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.ping_until(at);
            self.micros = at;
            self.handle(event);
        }
        self.ping_until(end);
        self.micros = end;
    }

    /// By other rules.
    pub fn set_rate_max(&mut self, rate_max: u64) {
        self.controller.handle_rate_max(rate_max);
        self.take_rate();
    }

    pub fn set_mbit(&mut self, mbit: u64) {
        self.settle_queue(self.micros);
        self.bytes_per_second = mbit as f64 * 125_000.0;
    }

    pub fn start_upload(&mut self) {
        let household = &mut self.household;
        (household.uploading, household.slow_start) = (true, true);
        household.window_packets = 10.0;
        self.household_sends();
    }

    pub fn household_bytes(&self) -> u64 {
        self.household.acked_bytes
    }

    pub fn stop_upload(&mut self) {
        self.household.uploading = false;
    }

    /// Wire bytes per second that reach the peers, over this time.
    pub fn served(&mut self, time: Duration) -> u64 {
        let before = self.acked_bytes;
        self.run(time);
        (self.acked_bytes - before) * 1000 / time.as_millis() as u64
    }

    /// When the rate first was as `wanted`, counted from `since`.
    pub fn time_until(&self, since: u64, wanted: impl Fn(u64) -> bool) -> Option<Duration> {
        let mut later = self.rates.iter().filter(|(at, _)| *at >= since);
        let (at, _) = later.find(|(_, rate)| wanted(*rate))?;
        Some(Duration::from_micros(at - since))
    }

    /// 50th, 95th and 99th percentile of what the household's pings felt since the last call.
    pub fn take_pings(&mut self) -> [Duration; 3] {
        let mut pings = std::mem::take(&mut self.pings);
        pings.sort_unstable();
        [50, 95, 99].map(|p| pings[(pings.len() * p / 100).min(pings.len() - 1)])
    }

    fn at(&mut self, micros: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((micros, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::FlowSends(flow) => self.flow_sends(flow),
            Event::DeviceAcked => self.acked_bytes += PACKET_BYTES,
            Event::HouseholdAcked => self.household_acked(),
            Event::HouseholdLost(sent_at) => self.household_lost(sent_at),
            Event::ProbeSends => {
                let sent = self.micros;
                if let Some(departs) = self.enqueue(PROBE_BYTES) {
                    let jitter = self.rng.random_range(0..=2 * self.jitter_micros);
                    let returns = departs + self.base_rtt_micros + jitter;
                    self.at(returns, Event::ProbeReturns(sent));
                }
                self.at(sent + PROBE_INTERVAL.as_micros() as u64, Event::ProbeSends);
                if self.is_router {
                    self.count_line();
                }
            }
            Event::ProbeReturns(sent) => self.probe_returns(sent),
        }
    }

    fn probe_returns(&mut self, sent: u64) {
        let sample = Sample {
            rtt: Duration::from_micros(self.micros - sent),
            acknowledged_bytes_total: self.acked_bytes,
            acknowledged_at: Monotonic(Duration::from_micros(self.micros)),
            peers_want_more: self.peers_want_more,
        };
        let now = Monotonic(Duration::from_micros(self.micros));
        self.controller.handle_sample(sample, now);
        self.take_rate();
    }

    /// As usual, the slow line is not the router's interface but the modem's behind it, and so is the
    /// queue.
    fn count_line(&mut self) {
        let counts = LineCounts {
            line_sent_bytes_total: self.sent_in_all_bytes,
            own_sent_bytes_total: self.sent_by_device_bytes,
        };
        self.controller.handle_line(counts, Monotonic(Duration::from_micros(self.micros)));
        self.take_rate();
    }

    fn take_rate(&mut self) {
        if let Some(rate) = self.controller.poll_rate() {
            self.rate = rate;
            self.rates.push((self.micros, rate));
            self.wake_flows();
        }
    }

    /// Peers that take turns are one flow, whosever block it is.
    fn active_flows(&self) -> u32 {
        let senders = self.peers.min(slots_for(Allowance::BytesPerSecond(self.rate)));
        match Tempo::at(self.rate) {
            Tempo::Turns => senders.min(1),
            Tempo::Shares => senders,
        }
    }

    fn wake_flows(&mut self) {
        for flow in 0..self.active_flows() as usize {
            if !self.scheduled[flow] {
                self.scheduled[flow] = true;
                let phase = self.rng.random_range(0..=self.flow_interval());
                self.at(self.micros + phase, Event::FlowSends(flow));
            }
        }
    }

    fn flow_interval(&self) -> u64 {
        let share = self.rate / u64::from(self.active_flows().max(1));
        PACING_QUANTUM_PACKETS * PACKET_BYTES * 1_000_000 / share.max(1)
    }

    fn flow_sends(&mut self, flow: usize) {
        if flow >= self.active_flows() as usize || !self.peers_want_more {
            self.scheduled[flow] = false;
            return;
        }
        for _ in 0..PACING_QUANTUM_PACKETS {
            if let Some(departs) = self.enqueue(PACKET_BYTES) {
                self.sent_by_device_bytes += PACKET_BYTES;
                self.at(departs + self.base_rtt_micros, Event::DeviceAcked);
            }
        }
        // Timers are not exact, which keeps flows from marching in step.
        let interval = self.flow_interval();
        let wobble = self.rng.random_range(0..=interval / 10);
        self.at(self.micros + interval - interval / 20 + wobble, Event::FlowSends(flow));
    }

    fn household_sends(&mut self) {
        while self.household.uploading
            && (self.household.in_flight as f64) < self.household.window_packets
        {
            self.household.in_flight += 1;
            let sent = self.micros;
            match self.enqueue(PACKET_BYTES) {
                Some(departs) => self.at(departs + self.base_rtt_micros, Event::HouseholdAcked),
                None => {
                    let full = (FIFO_BYTES / self.bytes_per_second * 1e6) as u64;
                    self.at(sent + full + self.base_rtt_micros, Event::HouseholdLost(sent));
                }
            }
        }
    }

    fn household_acked(&mut self) {
        let household = &mut self.household;
        household.acked_bytes += PACKET_BYTES;
        household.in_flight -= 1;
        household.window_packets +=
            if household.slow_start { 1.0 } else { 1.0 / household.window_packets };
        self.household_sends();
    }

    fn household_lost(&mut self, sent_at: u64) {
        let household = &mut self.household;
        household.in_flight -= 1;
        if sent_at >= household.cut_at {
            // CUBIC's factor.
            household.window_packets = (household.window_packets * 0.7).max(2.0);
            household.slow_start = false;
            household.cut_at = self.micros;
        }
        self.household_sends();
    }

    fn settle_queue(&mut self, at: u64) {
        let gone = (at - self.queue_at) as f64 * self.bytes_per_second / 1e6;
        self.queue_bytes = (self.queue_bytes - gone).max(0.0);
        self.queue_at = at;
    }

    /// When the packet has left the line, or `None` when the FIFO is full. (When the line's rate
    /// changes, what is queued keeps the time that it was told.)
    fn enqueue(&mut self, bytes: u64) -> Option<u64> {
        self.settle_queue(self.micros);
        if self.queue_bytes + bytes as f64 > FIFO_BYTES {
            return None;
        }
        self.queue_bytes += bytes as f64;
        self.sent_in_all_bytes += bytes;
        Some(self.micros + (self.queue_bytes / self.bytes_per_second * 1e6) as u64)
    }

    fn ping_until(&mut self, end: u64) {
        while self.ping_at < end {
            let gone = (self.ping_at.max(self.queue_at) - self.queue_at) as f64
                * self.bytes_per_second
                / 1e6;
            let left = (self.queue_bytes - gone).max(0.0);
            self.pings.push(Duration::from_micros((left / self.bytes_per_second * 1e6) as u64));
            self.ping_at += 1000;
        }
    }
}
