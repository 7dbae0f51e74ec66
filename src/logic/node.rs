//! The device as one machine: events in, commands out. It decides when to look at the list, what to
//! fill and evict, what is served under which allowance, when to announce and when to report. It
//! moves no bytes and keeps no books; the shell (`device`) carries out its commands and tells it
//! what came of them.

mod content;
mod placing;
mod revocation;
mod rhythm;
mod task;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::Rng;

pub use self::placing::{Placing, UNWANTED_MAX};
use self::{content::Content, task::Task};
use super::{
    governor::{
        Allowance,
        allowance::{self, Counters, Governor, Pause, Traffic},
    },
    hotlist::{Entry, HotList, Policy},
    infohash::Infohash,
    now::{Monotonic, Now, UnixSeconds, WallTime},
    placement::{self, Held, Here, Part, Refusal},
};

/// First wait and longest wait after a failed fill. Waits are drawn at random below the bound.
const FILL_RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(900));

/// What came of a command, or what the owner wants.
#[derive(Debug)]
pub enum Event {
    Enrolled,
    EnrolFailed,
    /// The hub says that it does not know this device.
    NotEnrolled,
    /// Whether whoever answers for the list holds the question until there is news (RFC 7240, `wait`).
    /// Comes before what the answer was, of those that tell.
    ListHeld(bool),
    /// A verified list and policy, valid until the moment at which the signed timestamp expires.
    ListVerified {
        list: HotList,
        policy: Policy,
        valid_until: UnixSeconds,
    },
    ListUnchanged,
    ListFailed,
    FillCompleted(Infohash),
    /// All that the owner's budgets left for it is there; the rest waits.
    FillPaused(Infohash),
    FillFailed {
        infohash: Infohash,
        problem: String,
        retryable: bool,
    },
    Evicted(Infohash),
    /// Some of what was held of it turned out bad. The rest goes on being served.
    Damaged(Infohash),
    /// After trouble: what failed because of it can be tried again at once.
    DiskWell,
    Announced {
        infohash: Infohash,
        interval: Duration,
    },
    AnnounceFailed(Infohash),
    ReportsDelivered,
    ReportsFailed,
    LimitSet {
        egress_bytes_per_second_max: u64,
    },
    PauseSet(Pause),
    /// The owner takes a content off this device, or lets it come back.
    Removal {
        infohash: Infohash,
        removed: bool,
    },
    /// Payload that peers took since the last time.
    Served(Vec<(Infohash, u64)>),
    /// Once a second: what has left and what has come.
    Counted(Counters),
}

/// What the shell is to do. Each that can fail comes back as an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Enrol,
    FetchList,
    /// Fill this part of it, and serve what is verified meanwhile.
    Fill {
        entry: Entry,
        part: Part,
        /// What the owner's budgets leave for it; the rest waits.
        bytes_max: u64,
    },
    Serve(Infohash),
    /// Stop filling and serving it, then delete it.
    Evict(Infohash),
    SetAllowance(Allowance),
    Announce {
        entry: Entry,
        event: AnnounceEvent,
    },
    /// Build a report of what is not yet reported, send all that wait, fetch the statement.
    Report,
}

/// BEP 3 `event`; `None` is the regular announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    Started,
    Completed,
    None,
    Stopped,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// There is a hub to ask; without one only pinned content is served.
    pub has_operator: bool,
    pub quota_bytes: u64,
    pub enrolled: bool,
    pub allowance: allowance::Settings,
    /// What the line carried before the restart.
    pub line_traffic: Traffic,
    pub placing: Placing,
}

/// A content as the store found it at start.
#[derive(Clone, Debug)]
pub struct Stored {
    pub infohash: Infohash,
    pub size_bytes: u64,
    /// Every piece of `part` is there and verified.
    pub complete: bool,
    /// What of it is wanted here.
    pub part: Part,
    /// The owner wants it here: it is served without a list or a clock, and stays.
    pub pinned: bool,
    /// The owner's own file, which nothing is ever written to.
    pub linked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Wanted, and next in line (or waiting to try again).
    Waiting,
    Filling,
    Serving,
    Leaving,
}

/// See the module's first lines.
pub struct Node<R> {
    quota_bytes: u64,
    placing: Placing,
    enrolled: bool,
    rng: R,
    list: Option<HotList>,
    /// Not known before there was an answer that tells.
    list_is_held: Option<bool>,
    policy: Option<Policy>,
    valid_until: Option<UnixSeconds>,
    contents: BTreeMap<Infohash, Content>,
    refused: BTreeMap<Infohash, Refusal>,
    commands: VecDeque<Command>,
    enrol: Task,
    fetch: Task,
    report: Task,
    fill_running: Option<Infohash>,
    governor: Governor,
}

/// What the page shows of a content, beside what the store knows.
#[derive(Clone, Debug, PartialEq)]
pub struct ContentSnapshot {
    pub infohash: Infohash,
    pub entry: Option<Entry>,
    pub phase: Phase,
    pub problem: Option<String>,
    /// Why it is not filled, by the owner's own rules.
    pub waits: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub enrolled: bool,
    pub list_epoch: Option<u64>,
    pub contents: Vec<ContentSnapshot>,
    pub allowance: allowance::Snapshot,
}

impl<R: Rng> Node<R> {
    /// `followed` is the list and policy that were verified before the restart, `traffic` what the
    /// ledger knows of the line.
    pub fn new(
        settings: Settings,
        traffic: Traffic,
        stored: Vec<Stored>,
        followed: Option<(HotList, Policy, UnixSeconds)>,
        rng: R,
        now: Now,
    ) -> Node<R> {
        let start = now.monotonic;
        let mut node = Node {
            list: None,
            list_is_held: None,
            policy: None,
            valid_until: None,
            contents: stored.into_iter().map(|s| (s.infohash, Content::stored(&s))).collect(),
            refused: BTreeMap::new(),
            commands: VecDeque::new(),
            enrol: Task::due_at(start),
            fetch: Task::due_at(start),
            report: Task::due_at(start),
            fill_running: None,
            governor: Governor::new(settings.allowance, traffic, now)
                .with_line(settings.line_traffic, now),
            quota_bytes: settings.quota_bytes,
            placing: settings.placing,
            enrolled: settings.enrolled,
            rng,
        };
        if node.enrolled {
            node.enrol.due = None;
        }
        if !settings.has_operator {
            for task in [&mut node.enrol, &mut node.fetch, &mut node.report] {
                task.due = None;
            }
        }
        if let Some((list, policy, valid_until)) = followed {
            node.list = Some(list);
            node.policy = Some(policy);
            node.valid_until = Some(valid_until);
            node.begin_among_many(start);
        }
        node.push_allowance();
        node.replan(now);
        node
    }

    pub fn handle_event(&mut self, event: Event, now: Now) {
        let at = now.monotonic;
        match event {
            Event::Enrolled => {
                self.enrolled = true;
                self.enrol.due = None;
                self.report.due = Some(at);
            }
            Event::EnrolFailed => self.enrol_failed(at),
            Event::NotEnrolled => self.forgotten(at),
            Event::ListHeld(held) => self.list_is_held = Some(held),
            Event::ListVerified { list, policy, valid_until } => {
                self.list = Some(list);
                self.policy = Some(policy);
                self.valid_until = Some(valid_until);
                self.look_after_news(at);
                self.replan(now);
            }
            Event::ListUnchanged => {
                self.look_again(at);
                self.replan(now);
            }
            Event::ListFailed => self.list_failed(at),
            Event::FillCompleted(infohash) => {
                self.fill_running.take_if(|filling| *filling == infohash);
                if let Some(content) = self.contents.get_mut(&infohash) {
                    content.completed();
                    content.announce_at = Some(at);
                }
                self.replan(now);
            }
            Event::FillPaused(infohash) => self.fill_paused(infohash, now),
            Event::FillFailed { infohash, problem, retryable } => {
                self.fill_failed(infohash, problem, retryable, at);
                self.replan(now);
            }
            Event::Evicted(infohash) => {
                self.contents.remove(&infohash);
                self.replan(now);
            }
            Event::Damaged(infohash) => {
                if let Some(content) = self.contents.get_mut(&infohash) {
                    content.damaged();
                }
                self.replan(now);
            }
            Event::DiskWell => {
                self.contents.values_mut().for_each(|content| content.retry_at = None);
                self.replan(now);
            }
            Event::Announced { infohash, interval } => self.announced(infohash, interval, at),
            Event::AnnounceFailed(infohash) => self.announce_failed(infohash, at),
            Event::ReportsDelivered => self.reported(true, at),
            Event::ReportsFailed => self.reported(false, at),
            Event::LimitSet { egress_bytes_per_second_max } => {
                self.governor.handle_limit(egress_bytes_per_second_max, now);
            }
            Event::PauseSet(pause) => self.governor.handle_pause(pause, now),
            Event::Removal { infohash, removed } => self.remove(infohash, removed, now),
            Event::Served(egress) => self.served(&egress, at),
            Event::Counted(counters) => {
                self.governor.handle_counters(counters, now);
                if self.placing.may_go_on(self.governor.traffic(), now.wall) {
                    self.replan(now);
                }
            }
        }
        self.push_allowance();
    }

    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Node::handle_timeout`] wants to be called at the latest.
    pub fn poll_timeout(&self, now: Now) -> Option<Monotonic> {
        let contents = self.contents.values().flat_map(|c| [c.retry_at, c.announce_at]);
        let tasks = [self.enrol.due, self.fetch.due, self.report_due()];
        tasks
            .into_iter()
            .chain(contents)
            .chain([self.governor.poll_timeout(now), self.next_lease_end(now)])
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        let at = now.monotonic;
        self.governor.handle_timeout(now);
        self.push_allowance();
        if self.enrol.take_due(at) {
            self.commands.push_back(Command::Enrol);
        }
        if self.fetch.take_due(at) {
            self.commands.push_back(Command::FetchList);
        }
        if self.may_report() && self.report.take_due(at) {
            self.commands.push_back(Command::Report);
        }
        for content in self.contents.values_mut() {
            content.retry_at = content.retry_at.filter(|due| *due > at);
            if content.announce_at.is_some_and(|due| due <= at) {
                content.announce_at = None;
                self.commands.extend(content.announce());
            }
        }
        self.replan(now);
    }

    /// Shows people where things stand.
    pub fn snapshot(&self) -> Snapshot {
        let held = self.contents.iter().map(|(infohash, c)| ContentSnapshot {
            infohash: *infohash,
            entry: c.entry.clone(),
            phase: c.phase,
            problem: c.problem.clone(),
            waits: self.placing.waits_for(c),
        });
        let refused = self.refused.iter().filter(|(i, _)| !self.contents.contains_key(i)).map(
            |(infohash, refusal)| ContentSnapshot {
                infohash: *infohash,
                entry: self.list.as_ref().and_then(|l| l.entry(*infohash)).cloned(),
                phase: Phase::Waiting,
                problem: refusal.is_problem().then(|| refusal.to_string()),
                waits: (!refusal.is_problem()).then(|| refusal.to_string()),
            },
        );
        Snapshot {
            enrolled: self.enrolled,
            list_epoch: self.list.as_ref().map(|l| l.epoch),
            contents: held.chain(refused).collect(),
            allowance: self.governor.snapshot(),
        }
    }

    pub fn line_traffic(&self) -> &Traffic {
        self.governor.line()
    }

    pub fn list(&self) -> Option<&HotList> {
        self.list.as_ref()
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// The tracker should hear that we leave.
    pub fn goodbyes(&self) -> Vec<Entry> {
        let serving = self.contents.values().filter(|c| c.announced_before);
        serving.filter_map(|c| c.entry.clone()).collect()
    }

    /// The answer to a report is a statement, which only the policy's keys can open.
    fn may_report(&self) -> bool {
        self.enrolled && self.policy.is_some()
    }

    fn report_due(&self) -> Option<Monotonic> {
        self.report.due.filter(|_| self.may_report())
    }

    fn push_allowance(&mut self) {
        let changed = self.governor.poll_allowance();
        self.commands.extend(changed.map(Command::SetAllowance));
    }

    /// Brings what is held in line with the list. Without a clock that can be trusted no lease can
    /// be judged: nothing new is served, filled or evicted.
    fn replan(&mut self, now: Now) {
        self.serve_what_is_pinned();
        self.leave_what_is_revoked(now.wall);
        // Out of the way, so that its entries need not be copied.
        let Some(list) = self.list.take() else { return };
        self.follow(&list, now);
        self.list = Some(list);
    }

    fn follow(&mut self, list: &HotList, now: Now) {
        let staying = self.contents.iter().filter(|(_, c)| c.stored && c.phase != Phase::Leaving);
        let held: Vec<Held> = staying.map(|(i, c)| c.held(*i, now.monotonic)).collect();
        let leaving = self.contents.values().filter(|c| c.phase == Phase::Leaving);
        // What is on its way out still takes up room.
        let leaving_bytes = leaving.map(|c| c.size_bytes).sum();
        let here = Here {
            tag: self.placing.tag,
            quota_bytes: self.quota_bytes.saturating_sub(leaving_bytes),
            prices: self.policy.as_ref().map(|policy| &policy.price_per_gb),
            unwanted: Some(&self.placing.unwanted),
        };
        let plan = placement::plan(list, &held, &here, now.wall);
        let entries: BTreeMap<Infohash, &Entry> =
            list.entries.iter().map(|e| (e.infohash, e)).collect();
        // A list names thousands of contents that are for others.
        let concerns = plan.refused.iter().filter(|(_, why)| *why != Refusal::Elsewhere);
        self.refused = concerns.copied().collect();
        for infohash in &plan.evict {
            self.leave(*infohash);
        }
        self.contents.retain(|infohash, c| c.stored || plan.fills(*infohash).is_some());
        for placement::Fill { infohash, part } in &plan.fill {
            let Some(entry) = entries.get(infohash) else { continue };
            let wanted = || Content::wanted(entry);
            self.contents.entry(*infohash).or_insert_with(wanted).want(*part, entry);
        }
        let announce_at = self.first_announce(now.monotonic);
        for (infohash, content) in &mut self.contents {
            if content.phase != Phase::Leaving {
                let entry = entries.get(infohash).copied();
                let entry = entry.filter(|e| content.may_follow(e, now.wall));
                self.commands.extend(content.follow(entry, announce_at));
            }
        }
        if let Some(wall) = now.wall.synced() {
            self.serve_what_is_complete(announce_at);
            let mending = self.contents.iter().filter(|(_, c)| c.pinned && c.is_mendable());
            let order: Vec<_> =
                mending.map(|(i, _)| *i).chain(plan.fill.iter().map(|f| f.infohash)).collect();
            self.start_next_fill(&order, wall, now.monotonic);
        }
    }

    fn leave(&mut self, infohash: Infohash) {
        let Some(content) = self.contents.get_mut(&infohash) else { return };
        content.phase = Phase::Leaving;
        content.announce_at = None;
        content.retry_at = None;
        if content.announced_before
            && let Some(entry) = content.entry.clone()
        {
            self.commands.push_back(Command::Announce { entry, event: AnnounceEvent::Stopped });
        }
        if self.fill_running == Some(infohash) {
            self.fill_running = None;
        }
        self.commands.push_back(Command::Evict(infohash));
    }

    fn serve_what_is_pinned(&mut self) {
        for (infohash, content) in &mut self.contents {
            if content.pinned && content.phase == Phase::Waiting {
                content.phase = Phase::Serving;
                self.commands.push_back(Command::Serve(*infohash));
            }
        }
    }

    fn serve_what_is_complete(&mut self, announce_at: Monotonic) {
        for (infohash, content) in &mut self.contents {
            if content.complete && content.phase == Phase::Waiting && content.entry.is_some() {
                content.phase = Phase::Serving;
                content.announce_at = content.announce_at.or(Some(announce_at));
                self.commands.push_back(Command::Serve(*infohash));
            }
        }
    }

    /// One fill at a time, in the plan's order: a home line finishes one sooner than two.
    fn start_next_fill(&mut self, order: &[Infohash], wall: UnixSeconds, at: Monotonic) {
        let list_is_fresh = self.valid_until.is_some_and(|end| wall < end);
        if self.fill_running.is_some() || !list_is_fresh || order.is_empty() {
            return;
        }
        let traffic = self.governor.traffic();
        let bytes_max = self.placing.fill_bytes_left(traffic, WallTime::Synced(wall));
        if bytes_max == 0 {
            return;
        }
        // What the plan gives up takes up room until it is gone.
        let taken: u64 = self.contents.values().filter(|c| c.stored).map(|c| c.size_bytes).sum();
        for infohash in order {
            let Some(content) = self.contents.get_mut(infohash) else { continue };
            let waiting = content.retry_at.is_some_and(|due| due > at);
            let fits = content.stored || taken + content.size_bytes <= self.quota_bytes;
            if !content.may_be_filled() || waiting || !fits {
                continue;
            }
            let Some(entry) = content.entry.clone() else { continue };
            content.phase = Phase::Filling;
            content.stored = true;
            content.retry_at = None;
            self.fill_running = Some(*infohash);
            self.commands.push_back(Command::Fill { entry, part: content.part, bytes_max });
            return;
        }
    }

    fn fill_failed(&mut self, infohash: Infohash, problem: String, retryable: bool, at: Monotonic) {
        if self.fill_running == Some(infohash) {
            self.fill_running = None;
        }
        let Some(content) = self.contents.get_mut(&infohash) else { return };
        if content.phase == Phase::Leaving {
            return;
        }
        content.phase = Phase::Waiting;
        content.problem = Some(problem);
        let wait = content.retry.failed(&mut self.rng);
        // Even what looks hopeless is tried again now and then: an operator may have mended it.
        content.retry_at = Some(at + if retryable { wait } else { FILL_RETRY.1 });
    }

    fn next_lease_end(&self, now: Now) -> Option<Monotonic> {
        let wall = now.wall.synced()?;
        let ends = self
            .contents
            .values()
            .filter(|c| c.phase != Phase::Leaving)
            .filter_map(|c| c.entry.as_ref())
            .map(|e| e.lease_end.0.saturating_sub(wall.0));
        ends.min().map(|seconds| now.monotonic + Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests;
