//! A search for somebody to probe: asks who is one hop away, two, and so on; then tries who may be
//! beyond the home's router, all at once, and takes the best. Decides when to send what; `choice`
//! judges the answers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Destinations,
    choice::{self, HOPS_MAX, Hop, Target, Trial},
    prober::{Finding, Prober},
};
use crate::logic::governor::delay::PROBE_INTERVAL;

/// A router may be slow to say that a datagram has died.
const HOPS_WAIT: Duration = Duration::from_millis(600);
/// Each is asked twice: one loss is no reason to look elsewhere.
const ASKED_PER_HOP: usize = 2;
/// In a trial; enough to see who limits what he answers.
const ROUNDS: usize = 12;
/// A SYN costs the other side more.
const ROUNDS_PER_SYN: usize = 4;
/// For the last answers of a trial.
const TRIAL_WAIT: Duration = Duration::from_millis(400);

pub struct Search {
    is_router: bool,
    towards: Option<IpAddr>,
    destinations: Destinations,
    began: Instant,
    hops: BTreeMap<u8, Hop>,
    trial: Option<TrialRun>,
    /// Why probes could not be sent.
    pub refused: Option<String>,
}

struct TrialRun {
    trials: Vec<Trial>,
    rounds: usize,
    next_at: Instant,
}

pub enum Outcome {
    Again(Instant),
    Found(Target),
    Nobody,
}

impl Search {
    pub fn begin(
        towards: Option<IpAddr>,
        destinations: Destinations,
        is_router: bool,
        prober: &mut Prober,
        now: Instant,
    ) -> Search {
        let mut search = Search {
            is_router,
            towards,
            destinations,
            began: now,
            hops: BTreeMap::new(),
            trial: None,
            refused: None,
        };
        for hops in (1..=HOPS_MAX).flat_map(|hops| [hops; ASKED_PER_HOP]) {
            let Some(towards) = towards else { break };
            if let Err(error) = prober.probe_hop(towards, hops) {
                search.refused = Some(format!("ICMP cannot be sent ({error})"));
                break;
            }
        }
        search
    }

    pub fn handle(&mut self, finding: Finding) {
        match finding {
            Finding::Hop { hops, hop } => {
                self.hops.entry(hops).or_insert(hop);
            }
            Finding::Returned { target, rtt, .. } => {
                let trials = self.trial.iter_mut().flat_map(|run| &mut run.trials);
                trials.filter(|trial| trial.target == target).for_each(|t| t.round_trips.push(rtt));
            }
        }
    }

    pub fn step(&mut self, prober: &mut Prober, now: Instant) -> Outcome {
        let Some(run) = &mut self.trial else {
            let hops_end = self.began + HOPS_WAIT;
            if now < hops_end && !self.all_hops_known() && self.refused.is_none() {
                return Outcome::Again(hops_end);
            }
            let Destinations { reflector, tcp, .. } = self.destinations;
            let targets =
                choice::candidates(&self.up_to_destination(), self.is_router, reflector, tcp);
            let trial = |target| Trial { target, asked: 0, round_trips: vec![] };
            let trials = targets.into_iter().map(trial).collect();
            self.trial = Some(TrialRun { trials, rounds: 0, next_at: now });
            return Outcome::Again(now);
        };
        let all_back = run.trials.iter().all(|t| t.round_trips.len() >= t.asked);
        match run.rounds {
            ROUNDS if all_back || now >= run.next_at => match choice::choose(&run.trials) {
                Some(target) => return Outcome::Found(target),
                None => return Outcome::Nobody,
            },
            ROUNDS => {}
            _ if now >= run.next_at => {
                send_round(run, prober);
                run.rounds += 1;
                run.next_at = now + if run.rounds == ROUNDS { TRIAL_WAIT } else { PROBE_INTERVAL };
            }
            _ => {}
        }
        Outcome::Again(run.next_at)
    }

    /// Up to the destination, or as far as we look.
    fn all_hops_known(&self) -> bool {
        let end = self.hops.iter().find(|(_, hop)| hop.is_destination).map(|(hops, _)| *hops);
        let end = end.unwrap_or(HOPS_MAX);
        self.towards.is_none() || (1..=end).all(|hops| self.hops.contains_key(&hops))
    }

    /// Every longer way ends there too.
    fn up_to_destination(&self) -> BTreeMap<u8, Hop> {
        let end = self.hops.iter().find(|(_, hop)| hop.is_destination).map_or(u8::MAX, |(n, _)| *n);
        self.hops.range(..=end).map(|(n, hop)| (*n, *hop)).collect()
    }
}

fn send_round(run: &mut TrialRun, prober: &mut Prober) {
    for trial in &mut run.trials {
        let is_due =
            !matches!(trial.target, Target::Tcp(_)) || run.rounds.is_multiple_of(ROUNDS_PER_SYN);
        if is_due {
            trial.asked += 1;
            // Not sent is not answered, and judged so.
            let _ = prober.probe(trial.target);
        }
    }
}
