//! One content as the node sees it: what is known of it, how far it is, and what is due. Decides only
//! what follows from that alone; what to hold is `placement`'s business.

use std::time::Duration;

use super::{
    AnnounceEvent, Command, FILL_RETRY, Phase, Stored,
    placing::{Seen, bytes_of},
};
use crate::logic::{
    backoff::Backoff,
    hotlist::Entry,
    infohash::Infohash,
    now::{Monotonic, WallTime},
    placement::{Held, Part},
};

#[derive(Clone, Debug)]
pub(super) struct Content {
    pub entry: Option<Entry>,
    pub size_bytes: u64,
    pub phase: Phase,
    /// It takes up room on disk.
    pub stored: bool,
    /// Of `part`.
    pub complete: bool,
    pub part: Part,
    pub pinned: bool,
    pub linked: bool,
    pub problem: Option<String>,
    /// What peers here took of it, since this process has served it.
    pub seen: Option<Seen>,
    pub retry: Backoff,
    pub retry_at: Option<Monotonic>,
    /// As the tracker said.
    pub announce_interval: Option<Duration>,
    pub announce_failures: u32,
    pub announce_at: Option<Monotonic>,
    pub announced_before: bool,
    pub completed_here: bool,
}

impl Content {
    pub fn stored(s: &Stored) -> Content {
        let mut content = Content {
            stored: true,
            complete: s.complete,
            part: s.part,
            pinned: s.pinned,
            linked: s.linked,
            ..Content::new(None, s.size_bytes)
        };
        if s.pinned && !s.complete {
            content.damaged();
        }
        content
    }

    pub fn wanted(entry: &Entry) -> Content {
        Content::new(Some(entry.clone()), entry.size_bytes)
    }

    fn new(entry: Option<Entry>, size_bytes: u64) -> Content {
        Content {
            entry,
            size_bytes,
            phase: Phase::Waiting,
            stored: false,
            complete: false,
            part: Part::whole(),
            pinned: false,
            linked: false,
            problem: None,
            seen: None,
            retry: Backoff::new(FILL_RETRY.0, FILL_RETRY.1),
            retry_at: None,
            announce_interval: None,
            announce_failures: 0,
            announce_at: None,
            announced_before: false,
            completed_here: false,
        }
    }

    /// The plan wants this part of it. What is held grows, and goes on being served meanwhile.
    pub fn want(&mut self, part: Part, entry: &Entry) {
        if self.part == part || self.phase == Phase::Filling {
            return;
        }
        self.part = part;
        self.size_bytes = bytes_of(part, entry.size_bytes);
        self.complete = false;
        if self.phase == Phase::Serving {
            self.phase = Phase::Waiting;
        }
    }

    pub fn held(&self, infohash: Infohash, at: Monotonic) -> Held {
        Held {
            infohash,
            size_bytes: self.size_bytes,
            part: self.part,
            complete: self.complete,
            pinned: self.pinned,
            egress_bytes_per_second: self.seen.and_then(|seen| seen.bytes_per_second(at)),
        }
    }

    /// What is pinned stays when its lease ends, but from then on without the operator.
    pub fn may_follow(&self, entry: &Entry, now: WallTime) -> bool {
        !self.pinned || now.synced().is_some_and(|now| now < entry.lease_end)
    }

    /// The operator's word on it changes. What is served already, because it is pinned, is
    /// announced soon after it is listed, and no longer than it is.
    pub fn follow(&mut self, entry: Option<&Entry>, announce_at: Monotonic) -> Option<Command> {
        if self.entry.as_ref() == entry {
            return None;
        }
        let before = std::mem::replace(&mut self.entry, entry.cloned());
        if self.phase != Phase::Serving {
            return None;
        }
        match (before, entry) {
            (None, Some(_)) => self.announce_at = Some(announce_at),
            (Some(entry), None) => {
                self.announce_at = None;
                let announced = std::mem::take(&mut self.announced_before);
                return announced
                    .then_some(Command::Announce { entry, event: AnnounceEvent::Stopped });
            }
            _ => {}
        }
        None
    }

    pub fn completed(&mut self) {
        self.complete = true;
        // To a tracker only the whole is complete (BEP 3).
        self.completed_here = self.part.is_whole();
        self.problem = None;
        self.retry.succeeded();
        if self.phase == Phase::Filling {
            self.phase = Phase::Serving;
        }
    }

    /// It is served as far as it is held, and mended if there is a source to mend it from.
    pub fn damaged(&mut self) {
        self.complete = false;
        if self.pinned && !self.is_mendable() {
            let what = if self.linked { "your file is" } else { "some of it is" };
            self.problem = Some(format!(
                "{what} damaged, and those parts are not served; mend or restore it, then preload it again"
            ));
        }
    }

    /// Parts of it are missing, and there is somebody to have them from.
    pub fn is_mendable(&self) -> bool {
        !self.complete && !self.linked && self.entry.is_some()
    }

    /// What is being served already may have lost some of its pieces.
    pub fn may_be_filled(&self) -> bool {
        !self.complete && !self.linked && matches!(self.phase, Phase::Waiting | Phase::Serving)
    }

    pub fn announce(&self) -> Option<Command> {
        let entry = self.entry.clone()?;
        let event = match (self.announced_before, self.completed_here) {
            (true, _) => AnnounceEvent::None,
            (false, true) => AnnounceEvent::Completed,
            (false, false) => AnnounceEvent::Started,
        };
        Some(Command::Announce { entry, event })
    }
}
