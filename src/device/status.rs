//! Puts together what the owner's page shows, from the node's decisions, the engine's counters and
//! the books. Decides nothing.

use std::{collections::VecDeque, time::Duration};

use crate::{
    api::admin::{
        CacheView, ContentState, ContentView, Earnings, HubView, PauseView, State, Status,
        StorageView,
    },
    logic::{
        governor::allowance::{Pause, Reason, Ruling},
        infohash::Infohash,
        node::{Phase, Snapshot},
        now::{Monotonic, Now, UnixSeconds},
    },
};

/// One minute, a value a second.
const HISTORY: usize = 60;

/// Wire bytes in each second of the last minute, by a counter that only grows.
#[derive(Default)]
pub struct EgressHistory {
    values: VecDeque<u64>,
    last: Option<(Monotonic, u64)>,
    /// The counter when the present second began.
    at_second: u64,
}

impl EgressHistory {
    /// Call about once a second. What came between two calls is taken to have come evenly.
    pub fn sample(&mut self, total_bytes: u64, now: Monotonic) {
        let Some((then, before)) = self.last.replace((now, total_bytes)) else {
            self.at_second = total_bytes;
            return;
        };
        let elapsed = now.saturating_since(then).as_nanos().max(1);
        let bytes = u128::from(total_bytes.saturating_sub(before));
        let total_at = |second: u64| {
            let since = Monotonic(Duration::from_secs(second)).saturating_since(then).as_nanos();
            before + (bytes * since / elapsed) as u64
        };
        let (first, last) = (then.0.as_secs() + 1, now.0.as_secs());
        let oldest = (last + 1).saturating_sub(HISTORY as u64);
        if oldest > first {
            self.at_second = total_at(oldest - 1);
        }
        for total in (first.max(oldest)..=last).map(total_at) {
            if self.values.len() == HISTORY {
                self.values.pop_front();
            }
            self.values.push_back(total.saturating_sub(self.at_second));
            self.at_second = total;
        }
    }

    pub fn current(&self) -> u64 {
        self.values.back().copied().unwrap_or_default()
    }

    pub fn values(&self) -> Vec<u64> {
        self.values.iter().copied().collect()
    }
}

/// What the store and the fill know of a content.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    pub name: String,
    pub size_bytes: u64,
    pub held_bytes: u64,
    pub wanted_bytes: u64,
    pub web_seed_bytes: u64,
    pub peer_bytes: u64,
    pub egress_bytes: u64,
    /// Why its fill does not run, by the owner's own rules.
    pub waits: Option<String>,
}

pub struct Sources<'a> {
    pub snapshot: Snapshot,
    pub now: Now,
    pub history: &'a EgressHistory,
    pub lan_egress_bytes_per_second: u64,
    pub peers_connected: u32,
    pub peers_unchoked: u32,
    pub earnings: Earnings,
    pub quota_bytes: u64,
    pub hub_url: String,
    pub last_contact: Option<UnixSeconds>,
    pub hub_problem: Option<String>,
    /// Of auto mode.
    pub line_problem: Option<String>,
    pub store_problem: Option<String>,
    pub storage: StorageView,
    pub reports_pending: u64,
    pub reported_bytes: u64,
    pub holding: &'a dyn Fn(Infohash) -> Option<Holding>,
}

pub fn status(s: Sources<'_>) -> Status {
    let contents: Vec<ContentView> = s
        .snapshot
        .contents
        .iter()
        .map(|c| {
            let held = (s.holding)(c.infohash);
            let entry = c.entry.as_ref();
            let known = held.clone().unwrap_or_default();
            ContentView {
                infohash: c.infohash,
                name: entry.map_or(known.name, |e| e.name.clone()),
                size_bytes: entry.map_or(known.size_bytes, |e| e.size_bytes),
                held_bytes: known.held_bytes,
                wanted_bytes: known.wanted_bytes,
                egress_bytes: known.egress_bytes,
                lease_end: entry.map_or(UnixSeconds(0), |e| e.lease_end),
                state: match c.phase {
                    Phase::Waiting => ContentState::Waiting,
                    Phase::Filling if known.waits.is_some() => ContentState::Waiting,
                    Phase::Filling => ContentState::Filling,
                    Phase::Serving => ContentState::Serving,
                    Phase::Leaving => ContentState::Leaving,
                },
                filled_by_web_seed_bytes: known.web_seed_bytes,
                filled_by_peer_bytes: known.peer_bytes,
                problem: c.problem.clone(),
                waits: known.waits.or_else(|| c.waits.clone()),
            }
        })
        .collect();
    let problems = problems(&s, &contents);
    let allowance = s.snapshot.allowance;
    let serves = s.peers_unchoked > 0 || s.lan_egress_bytes_per_second > 0;
    let pause = pause(allowance.pause, s.now.monotonic);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: state(&pause, !problems.is_empty(), allowance.ruling, serves, &contents),
        problem: problems.first().cloned(),
        problems,
        pause,
        egress_bytes_per_second: s.history.current(),
        egress_bytes_per_second_max: allowance.egress_bytes_per_second_max,
        egress_bytes_per_second_allowed: allowance.ruling.egress_bytes_per_second,
        allowance_reason: allowance.ruling.reason,
        line_bytes_per_second: allowance.line_bytes_per_second,
        egress_history: s.history.values(),
        lan_egress_bytes_per_second: s.lan_egress_bytes_per_second,
        peers_connected: s.peers_connected,
        earnings: s.earnings,
        cache: CacheView {
            quota_bytes: s.quota_bytes,
            used_bytes: contents.iter().map(|c| c.held_bytes).sum(),
            contents,
        },
        storage: s.storage,
        hub: HubView {
            url: s.hub_url,
            enrolled: s.snapshot.enrolled,
            list_epoch: s.snapshot.list_epoch,
            last_contact: s.last_contact,
            reports_pending: s.reports_pending,
            reported_bytes: s.reported_bytes,
            problem: s.hub_problem,
        },
    }
}

/// What someone should do something about.
fn problems(s: &Sources<'_>, contents: &[ContentView]) -> Vec<String> {
    let first = [&s.store_problem, &s.hub_problem, &s.line_problem];
    let of_contents =
        contents.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.problem.as_ref()?)));
    first.into_iter().flatten().cloned().chain(of_contents).collect()
}

fn state(
    pause: &PauseView,
    problem: bool,
    ruling: Ruling,
    serves: bool,
    contents: &[ContentView],
) -> State {
    let any = |state| contents.iter().any(|c| c.state == state);
    let stopped = ruling.egress_bytes_per_second == 0;
    match pause {
        PauseView::Off if problem => State::Attention,
        PauseView::Off if ruling.reason == Reason::Throttled => State::Attention,
        PauseView::Off if stopped => State::Resting,
        PauseView::Off if serves => State::Serving,
        PauseView::Off if any(ContentState::Filling) => State::Filling,
        PauseView::Off if any(ContentState::Serving) => State::Idle,
        PauseView::Off => State::Empty,
        _ => State::Paused,
    }
}

fn pause(pause: Pause, now: Monotonic) -> PauseView {
    match pause {
        Pause::Off => PauseView::Off,
        Pause::UntilResumed => PauseView::UntilResumed,
        Pause::Until(end) => {
            let left = end.saturating_since(now) + Duration::from_millis(999);
            PauseView::For { seconds_left: u32::try_from(left.as_secs()).unwrap_or(u32::MAX) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_value_for_each_second_however_often_it_is_called() {
        let at = |ms| Monotonic(Duration::from_millis(ms));
        let mut history = EgressHistory::default();
        for n in 0..=50 {
            history.sample(n * 900, at(n * 900));
        }
        assert_eq!(history.values(), vec![1000; 45]);
        history.sample(45_000 + 6000, at(48_000));
        assert_eq!(history.values()[44..], [1000, 2000, 2000, 2000]);
        history.sample(51_000 + 8000, at(128_000));
        assert_eq!(history.values(), vec![100; 60]);
        history.sample(59_000, at(1_000_000));
        assert_eq!(history.values(), vec![0; 60]);
    }
}
