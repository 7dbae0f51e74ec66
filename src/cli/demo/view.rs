//! What a person sees of the demo: one line for each step, then one line that stays live.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal, Write},
};

use super::stage::Stage;
use crate::{
    api::admin::{ContentState, State, Status},
    logic::units::HumanBytes,
};

/// Writes to stdout, or nothing at all when a machine is reading.
pub struct View {
    silent: bool,
    terminal: bool,
    epoch: Cell<Option<u64>>,
    last: RefCell<String>,
}

impl View {
    pub fn new(silent: bool) -> View {
        View {
            silent,
            terminal: io::stdout().is_terminal(),
            epoch: Cell::new(None),
            last: RefCell::default(),
        }
    }

    pub fn started_hub(&self, stage: &Stage) {
        self.step(&format!("hub started at {}", stage.hub_url()));
    }

    pub fn started_device(&self, stage: &Stage) {
        self.step(&format!("device started, BitTorrent port {}", stage.peer()));
    }

    pub fn published(&self, stage: &Stage) {
        for item in stage.published() {
            self.step(&format!(
                "published {} ({}) as {}",
                item.name,
                HumanBytes(item.size_bytes),
                item.infohash
            ));
        }
    }

    /// Everything a person needs to try it with a client of their own.
    pub fn serving(&self, stage: &Stage) {
        if self.silent {
            return;
        }
        self.clear();
        println!();
        for item in stage.published() {
            println!("  {}", item.name);
            println!("    torrent   {}", item.torrent.display());
            println!("    magnet    {}", item.magnet);
        }
        println!("  device      {}", stage.peer());
        match stage.setup_code() {
            Some(code) => {
                println!("  owner       {}#setup={code}", stage.admin_url());
                println!("    first visit: set a password; the one-time code is {code}");
            }
            None => {
                println!("  owner       {}", stage.admin_url());
                println!("    log in with the password that you set in an earlier run");
            }
        }
        println!();
        println!(
            "Point any BitTorrent client at the torrent or the magnet link. Ctrl-C stops everything."
        );
        println!();
    }

    /// The device's state in one line, and a step for each epoch of the hot list.
    pub fn live(&self, status: &Status) {
        if status.hub.list_epoch != self.epoch.get()
            && let Some(epoch) = status.hub.list_epoch
        {
            self.epoch.set(Some(epoch));
            self.step(&format!(
                "hot list epoch {epoch} verified: signatures, versions and expiry are good"
            ));
        }
        self.line(&live_line(status));
    }

    fn step(&self, text: &str) {
        if !self.silent {
            self.clear();
            println!("* {text}");
        }
    }

    /// Overwrites itself on a terminal; elsewhere printed only when it changed.
    fn line(&self, text: &str) {
        if self.silent || *self.last.borrow() == text {
            return;
        }
        match self.terminal {
            true => print!("\r\x1b[K  {text}"),
            false => println!("  {text}"),
        }
        // A closed pipe is noticed by the next println.
        let _ = io::stdout().flush();
        text.clone_into(&mut self.last.borrow_mut());
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
        self.last.borrow_mut().clear();
    }
}

fn live_line(status: &Status) -> String {
    if let Some(content) = status.cache.contents.iter().find(|c| c.state == ContentState::Filling) {
        return format!(
            "filling {}: {} of {} verified (web seed {}, peers {})",
            content.name,
            HumanBytes(content.held_bytes),
            HumanBytes(content.size_bytes),
            HumanBytes(content.filled_by_web_seed_bytes),
            HumanBytes(content.filled_by_peer_bytes),
        );
    }
    let earned = &status.earnings;
    let served: u64 = status.cache.contents.iter().map(|c| c.egress_bytes).sum();
    let word = match status.state {
        State::Serving => "serving",
        State::Idle => "waiting for peers",
        State::Filling => "filling",
        State::Empty => "nothing to serve yet",
        State::Paused => "paused",
        State::Resting => return status.allowance_reason.to_string(),
        State::Attention => {
            let reason = || status.allowance_reason.to_string();
            return status.problem.clone().unwrap_or_else(reason);
        }
    };
    format!(
        "{word}: {} peers, {}/s of {}/s, served {}, earned today {} {} settled + {} pending",
        status.peers_connected,
        HumanBytes(status.egress_bytes_per_second),
        HumanBytes(status.egress_bytes_per_second_max),
        HumanBytes(served),
        earned.today_settled,
        earned.currency,
        earned.today_pending,
    )
}
