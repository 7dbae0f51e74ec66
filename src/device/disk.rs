//! How the disk is. What goes wrong anywhere makes it be tried, again and again until it is well, so that
//! its owner reads one sentence and nobody has to restart anything. Settings that it did not take wait
//! here. Part of the event loop: nothing here waits.

use std::time::Duration;

use super::{
    daemon::Daemon,
    message::Message,
    store::{DiskTrouble, Store, StoreError},
};
use crate::logic::{node::Event, now::Monotonic};

/// Each try writes a few KiB, and only while there is trouble.
const TRY_INTERVAL: Duration = Duration::from_secs(3);
/// A write or a read that takes longer tells of trouble.
const SLOW: Duration = Duration::from_secs(2);

/// By name, as JSON.
pub type Settings = Vec<(&'static str, String)>;

#[derive(Default)]
pub struct Disk {
    /// Something went wrong that may be the disk's fault.
    suspected: bool,
    /// What the last try, or the one under way, has shown.
    writing: Option<DiskTrouble>,
    /// What the keeper says.
    reading: Option<DiskTrouble>,
    trying_since: Option<Monotonic>,
    tried_at: Option<Monotonic>,
    /// Still to be written.
    settings: Settings,
}

impl Disk {
    pub fn problem(&self) -> Option<String> {
        self.writing.or(self.reading).map(|trouble| trouble.to_string())
    }

    pub fn suspect(&mut self) {
        self.suspected = true;
    }

    fn log_change(&self, before: Option<String>) {
        match (before, self.problem()) {
            (before, Some(now)) if before.as_ref() != Some(&now) => tracing::error!("{now}"),
            (Some(_), None) => tracing::info!("the disk is well again"),
            _ => {}
        }
    }
}

impl Daemon {
    /// To be written off this thread, and again until it works.
    pub(super) fn write_setting<T: serde::Serialize>(&mut self, name: &'static str, value: &T) {
        match serde_json::to_string(value) {
            Ok(text) => {
                self.disk.settings.retain(|(of, _)| *of != name);
                self.disk.settings.push((name, text));
            }
            Err(error) => tracing::error!("cannot keep {name} for the next start: {error}"),
        }
        if self.disk.writing.is_none() {
            self.try_disk(false);
        }
    }

    /// Whoever wants it waits for the disk, unless that has trouble.
    pub(super) fn write_wish<T: serde::Serialize>(&mut self, name: &'static str, value: &T) {
        if self.disk.writing.is_some() || self.context.store.set_setting(name, value).is_err() {
            self.disk.suspect();
            self.write_setting(name, value);
        }
    }

    /// At each tick.
    pub(super) fn look_after_disk(&mut self) {
        let now = self.clock.now().monotonic;
        let before = self.disk.problem();
        let busy = self.context.keeper.busy_for().is_some_and(|busy| busy >= SLOW);
        let waits = |since: Option<Monotonic>| {
            since.is_some_and(|since| now.saturating_since(since) >= SLOW)
        };
        if busy || waits(self.disk.trying_since) || waits(self.bookkeeping.writing_since()) {
            self.disk.writing = self.disk.writing.or(Some(DiskTrouble::Slow));
        }
        self.disk.log_change(before);
        let has_trouble = self.disk.suspected
            || self.disk.writing.is_some()
            || self.bookkeeping.problem().is_some();
        let lately = self.disk.tried_at.is_some_and(|at| now.saturating_since(at) < TRY_INTERVAL);
        if has_trouble && !lately {
            self.try_disk(true);
        }
    }

    pub(super) fn handle_disk_tried(
        &mut self,
        unwritten: Settings,
        result: Result<(), DiskTrouble>,
    ) {
        // What was said meanwhile is newer.
        for (name, text) in unwritten {
            if self.disk.settings.iter().all(|(newer, _)| *newer != name) {
                self.disk.settings.push((name, text));
            }
        }
        let before = self.disk.problem();
        let now = self.clock.now().monotonic;
        let since = self.disk.trying_since.take();
        let slow = since.is_some_and(|since| now.saturating_since(since) >= SLOW);
        self.disk.writing = match result {
            Err(trouble) => Some(trouble),
            Ok(()) => slow.then_some(DiskTrouble::Slow),
        };
        self.disk.suspected = false;
        self.disk.log_change(before.clone());
        if self.disk.writing.is_none() && !self.disk.settings.is_empty() {
            self.try_disk(false);
        }
        if before.is_some() && self.disk.problem().is_none() {
            self.node.handle_event(Event::DiskWell, self.clock.now());
        }
    }

    pub(super) fn handle_reading(&mut self, trouble: Option<DiskTrouble>) {
        let before = self.disk.problem();
        self.disk.reading = trouble;
        self.disk.log_change(before);
    }

    /// Writes what waits, and with `check` something else besides. One at a time.
    fn try_disk(&mut self, check: bool) {
        if self.disk.trying_since.is_some() {
            return;
        }
        let now = self.clock.now().monotonic;
        (self.disk.trying_since, self.disk.tried_at) = (Some(now), Some(now));
        let settings = std::mem::take(&mut self.disk.settings);
        let context = self.context.clone();
        tokio::spawn(async move {
            let store = context.store.clone();
            let tried = tokio::task::spawn_blocking(move || write(&store, settings, check)).await;
            if let Ok((unwritten, result)) = tried {
                context.tell(Message::DiskTried { unwritten, result }).await;
            }
        });
    }
}

/// Answers with what could not be written.
fn write(
    store: &Store,
    mut settings: Settings,
    check: bool,
) -> (Settings, Result<(), DiskTrouble>) {
    let mut written = || -> Result<(), StoreError> {
        if check {
            store.try_disk()?;
        }
        while let Some((name, text)) = settings.first() {
            store.set_setting_text(name, text)?;
            settings.remove(0);
        }
        Ok(())
    };
    let result = written().map_err(|e| e.disk_trouble().unwrap_or(DiskTrouble::Failing));
    (settings, result)
}
