//! The loop of auto mode's thread: probe, hear, let the controller decide, tell the serving engine. It
//! sleeps without a timeout while nobody is served.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Destinations, Order, Served, Serving, Settings, View,
    choice::Target,
    network::{InterfaceCounters, Routes},
    prober::{Finding, Prober},
    search::{Outcome, Search},
};
use crate::logic::{
    governor::{
        Allowance,
        delay::{DelayController, LineCounts, PROBE_INTERVAL, Sample},
    },
    now::Monotonic,
};

const WAKER: Token = Token(0);
const EVENTS_AT_ONCE: usize = 64;
/// A SYN makes work for the other side's server: a tenth of a second is quick enough for a last resort.
const SYN_INTERVAL: Duration = Duration::from_millis(100);
/// Between two peers it goes on measuring for so long.
const LINGER: Duration = Duration::from_secs(2);
/// A target that answers nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often the default route is looked at.
const ROUTES_INTERVAL: Duration = Duration::from_secs(5);
/// When nobody answered, it searches again after this long, and twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LONGEST: Duration = Duration::from_secs(600);
/// While blind on a line that was measured before, this part of it, in percent: half is seldom a queue.
const UNMEASURED_PERCENT: u64 = 50;
/// A change of less than this is not worth telling, in parts of a thousand.
const WORTH_TELLING: u64 = 10;

pub(super) struct Watch<S> {
    poll: Poll,
    orders: Receiver<Order>,
    serving: S,
    view: Arc<Mutex<View>>,
    started: Instant,
    settings: Settings,
    destinations: Destinations,
    ceiling: Allowance,
    told: Option<Allowance>,
    controller: DelayController,
    phase: Phase,
    prober: Option<Prober>,
    /// Whom it found last, and by which routes.
    target: Option<(Target, Routes)>,
    routes: Routes,
    routes_at: Option<Instant>,
    wan: Option<InterfaceCounters>,
    served_at: Option<Instant>,
    retry_wait: Duration,
}

enum Phase {
    /// Nobody is served, or nothing may leave.
    Idle,
    Search(Box<Search>),
    Measure(Measure),
    Blind {
        retry_at: Instant,
        /// `None` when nothing leaves the home anyway.
        problem: Option<String>,
    },
}

struct Measure {
    target: Target,
    next_at: Instant,
    /// When the newest probe that has come back was sent: an older one tells of the past.
    answered_sent: Option<Instant>,
    answered_at: Instant,
}

impl<S: Serving> Watch<S> {
    pub fn new(
        settings: Settings,
        serving: S,
        orders: Receiver<Order>,
        view: Arc<Mutex<View>>,
    ) -> io::Result<(Watch<S>, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let watch = Watch {
            poll,
            orders,
            serving,
            view,
            started: Instant::now(),
            settings,
            destinations: Destinations::default(),
            ceiling: Allowance::Paused,
            told: None,
            controller: DelayController::new(0, Monotonic::START),
            phase: Phase::Idle,
            prober: None,
            target: None,
            routes: Routes::default(),
            routes_at: None,
            wan: None,
            served_at: None,
            retry_wait: RETRY_FIRST,
        };
        Ok((watch, waker))
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        let mut wake_at = None;
        loop {
            let timeout = wake_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "auto mode stops: the system cannot wait for sockets");
                    return;
                }
            }
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Ceiling(ceiling) => self.set_ceiling(ceiling),
                    Order::Destinations(destinations) => self.set_destinations(destinations),
                    Order::Stop => return,
                }
            }
            let findings = self.prober.as_mut().map(Prober::receive).unwrap_or_default();
            for finding in findings {
                self.handle(finding);
            }
            wake_at = self.step(Instant::now());
            self.tell();
        }
    }

    fn set_ceiling(&mut self, ceiling: Allowance) {
        self.ceiling = ceiling;
        self.controller.handle_rate_max(bytes_per_second(ceiling));
    }

    fn set_destinations(&mut self, destinations: Destinations) {
        if destinations == self.destinations {
            return;
        }
        self.destinations = destinations;
        // There is somebody new to ask.
        if let Phase::Blind { retry_at, .. } = &mut self.phase {
            *retry_at = Instant::now();
        }
    }

    fn handle(&mut self, finding: Finding) {
        match (&mut self.phase, finding) {
            (Phase::Search(search), finding) => search.handle(finding),
            (Phase::Measure(measure), Finding::Returned { target, rtt, sent })
                if target == measure.target =>
            {
                let overtaken = measure.answered_sent.is_some_and(|newest| sent < newest);
                measure.answered_at = Instant::now();
                if overtaken {
                    return;
                }
                measure.answered_sent = Some(sent);
                let served = self.serving.served();
                let sample = Sample {
                    rtt,
                    acknowledged_bytes_total: served.acknowledged_bytes_total,
                    acknowledged_at: self.monotonic(served.measured_at),
                    peers_want_more: served.peers_want_more,
                };
                let before = self.controller.snapshot().state;
                // As the kernel saw it come, however late we are.
                self.controller.handle_sample(sample, self.monotonic(sent + rtt));
                let after = self.controller.snapshot();
                if after.state != before {
                    tracing::trace!(?rtt, ?after, "auto mode was in {before:?}");
                }
            }
            _ => {}
        }
    }

    /// Does what is due; answers when it wants to be called again at the latest.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        let served = self.serving.served();
        let active = served.peers_unchoked > 0 && !self.ceiling.is_paused();
        if active {
            self.served_at = Some(now);
        }
        let lingers_until = self.served_at.map(|at| at + LINGER).filter(|end| *end > now);
        if !active && (lingers_until.is_none() || self.ceiling.is_paused()) {
            self.rest();
            return None;
        }
        self.look_at_routes(now);
        let at = self.monotonic(now);
        self.controller.handle_timeout(at);
        let controller_at = self.controller.poll_timeout().map(|at| self.started + at.0);
        let next = match &mut self.phase {
            Phase::Idle => {
                self.begin(&served, now);
                Some(now)
            }
            Phase::Blind { retry_at, .. } if *retry_at <= now => {
                self.search(&served, now);
                Some(now)
            }
            Phase::Blind { retry_at, .. } => Some(*retry_at),
            Phase::Search(_) => Some(self.step_search(now)),
            Phase::Measure(_) => Some(self.step_measure(&served, now)),
        };
        let measuring = matches!(self.phase, Phase::Measure(_));
        [next, controller_at.filter(|_| measuring), lingers_until.filter(|_| !active)]
            .into_iter()
            .flatten()
            .min()
    }

    /// No sockets, no timers: an idle device does not wake up.
    fn rest(&mut self) {
        if !matches!(self.phase, Phase::Idle) {
            tracing::debug!("auto mode rests: nobody is served");
        }
        self.phase = Phase::Idle;
        self.prober = None;
        self.routes_at = None;
        self.wan = None;
    }

    fn begin(&mut self, served: &Served, now: Instant) {
        match self.target.clone() {
            Some((target, routes)) if routes == self.routes => {
                self.open_prober();
                self.controller.handle_resume(self.monotonic(now));
                self.measure(target, now);
            }
            _ => self.search(served, now),
        }
    }

    fn look_at_routes(&mut self, now: Instant) {
        if self.routes_at.is_some_and(|at| now < at + ROUTES_INTERVAL) {
            return;
        }
        self.routes_at = Some(now);
        let routes = Routes::read();
        let changed = routes != self.routes;
        self.routes = routes;
        if self.wan.is_none() || changed {
            self.wan = self.settings.wan_interface.open_by(&self.routes);
        }
        if changed && matches!(self.phase, Phase::Measure(_)) {
            tracing::info!("the default route has changed: auto mode searches anew");
            self.target = None;
            self.phase = Phase::Idle;
        }
    }

    fn search(&mut self, served: &Served, now: Instant) {
        let is_outside =
            |address: &IpAddr| !address.is_loopback() && self.routes.towards(*address).is_some();
        let destinations = Destinations {
            towards: self.destinations.towards.filter(is_outside),
            reflector: self.destinations.reflector.filter(|a| is_outside(&a.ip())),
            tcp: self.destinations.tcp.filter(|a| is_outside(&a.ip())),
        };
        let towards = destinations.towards.or(served.peer.filter(is_outside));
        if towards.is_none() && served.peer.is_some() {
            // Whoever is served is in the home, or on this machine.
            self.be_blind(None, now);
            return;
        }
        let is_router = self.wan.is_some();
        self.open_prober();
        let prober = self.prober.as_mut().expect("just opened");
        let search = Search::begin(towards, destinations, is_router, prober, now);
        self.phase = Phase::Search(Box::new(search));
    }

    fn open_prober(&mut self) {
        if self.prober.is_some() {
            return;
        }
        match self.poll.registry().try_clone() {
            Ok(registry) => {
                let rng = StdRng::from_rng(&mut rand::rng());
                self.prober = Some(Prober::new(registry, Box::new(rng)));
            }
            Err(error) => tracing::error!(%error, "auto mode cannot open sockets"),
        }
    }

    fn step_search(&mut self, now: Instant) -> Instant {
        let (Phase::Search(search), Some(prober)) = (&mut self.phase, &mut self.prober) else {
            return now;
        };
        match search.step(prober, now) {
            Outcome::Again(at) => at,
            Outcome::Found(target) => {
                let changed = self.target.as_ref().is_none_or(|(last, _)| *last != target);
                if changed {
                    tracing::info!("auto mode measures the line by {target}");
                    self.controller.handle_path_change(self.monotonic(now));
                }
                self.target = Some((target, self.routes.clone()));
                self.retry_wait = RETRY_FIRST;
                self.measure(target, now);
                now
            }
            Outcome::Nobody => {
                let refused = search.refused.take();
                let problem = self.problem(refused);
                tracing::warn!("{problem}");
                self.be_blind(Some(problem), now)
            }
        }
    }

    fn be_blind(&mut self, problem: Option<String>, now: Instant) -> Instant {
        let retry_at = now + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_LONGEST);
        self.target = None;
        self.prober = None;
        self.phase = Phase::Blind { retry_at, problem };
        retry_at
    }

    fn problem(&self, refused: Option<String>) -> String {
        let icmp = refused.unwrap_or_else(|| "no router beyond the home's answers".into());
        let hub = match self.destinations {
            Destinations { reflector: None, tcp: None, .. } => "there is no hub to ask",
            Destinations { reflector: None, .. } => {
                "the hub names no reflector and does not answer"
            }
            _ => "the hub's reflector does not answer",
        };
        format!(
            "auto mode cannot measure the line: {icmp}, and {hub}. Until then the fixed limit of {} \
             bytes per second holds; give larderd CAP_NET_RAW, or set serve.mode = \"fixed\"",
            bytes_per_second(self.unmeasured())
        )
    }

    fn measure(&mut self, target: Target, now: Instant) {
        let measure = Measure { target, next_at: now, answered_sent: None, answered_at: now };
        self.phase = Phase::Measure(measure);
    }

    fn step_measure(&mut self, served: &Served, now: Instant) -> Instant {
        let at = self.monotonic(now);
        let (Phase::Measure(measure), Some(prober)) = (&mut self.phase, &mut self.prober) else {
            return now;
        };
        if now.saturating_duration_since(measure.answered_at) > SILENCE_MAX {
            tracing::info!("{} has gone silent: auto mode searches anew", measure.target);
            self.search(served, now);
            return now;
        }
        if now < measure.next_at {
            return measure.next_at;
        }
        let interval = match measure.target {
            Target::Tcp(_) => SYN_INTERVAL,
            Target::Hop(_) | Target::Reflector(_) => PROBE_INTERVAL,
        };
        // Missed turns are not made up for: two probes at once would see one queue.
        measure.next_at = (measure.next_at + interval).max(now + interval / 2);
        // What cannot be sent stays out, which the controller hears as silence.
        let _ = prober.probe(measure.target);
        let next_at = measure.next_at;
        if let Some(counters) = &self.wan
            && let Ok(bytes) = counters.read()
        {
            let counts = LineCounts {
                line_sent_bytes_total: bytes.sent,
                own_sent_bytes_total: served.sent_bytes_total,
            };
            self.controller.handle_line(counts, at);
        }
        next_at
    }

    /// What holds while nothing can be measured.
    fn unmeasured(&self) -> Allowance {
        let known = self.controller.snapshot().line_bytes_per_second;
        let part = known.map_or(u64::MAX, |line| line / 100 * UNMEASURED_PERCENT);
        let limit = self.settings.unmeasured_bytes_per_second.min(part);
        Allowance::BytesPerSecond(limit.min(bytes_per_second(self.ceiling)))
    }

    fn tell(&mut self) {
        let snapshot = self.controller.snapshot();
        let _ = self.controller.poll_rate();
        let blind = matches!(self.phase, Phase::Blind { .. });
        let wanted = match self.ceiling.is_paused() {
            true => Allowance::Paused,
            false if blind => self.unmeasured(),
            false => Allowance::BytesPerSecond(snapshot.bytes_per_second),
        };
        if self.told.is_none_or(|told| is_worth_telling(told, wanted)) {
            self.told = Some(wanted);
            self.serving.set_allowance(wanted);
        }
        let mut view = match &self.phase {
            Phase::Blind { problem, .. } => View { problem: problem.clone(), ..View::default() },
            _ => View::from(snapshot),
        };
        view.target = self.target.as_ref().map(|(target, _)| target.to_string());
        *self.view.lock() = view;
    }

    fn monotonic(&self, at: Instant) -> Monotonic {
        Monotonic(at.saturating_duration_since(self.started))
    }
}

/// Small steps are noise to the engine, but both ends are to be reached.
fn is_worth_telling(told: Allowance, wanted: Allowance) -> bool {
    match (told, wanted) {
        (Allowance::BytesPerSecond(told), Allowance::BytesPerSecond(wanted)) => {
            told.abs_diff(wanted) > told / (1000 / WORTH_TELLING) || (wanted == 0) != (told == 0)
        }
        (told, wanted) => told != wanted,
    }
}

fn bytes_per_second(allowance: Allowance) -> u64 {
    match allowance {
        Allowance::Paused => 0,
        Allowance::BytesPerSecond(rate) => rate,
        Allowance::Unlimited => u64::MAX,
    }
}
