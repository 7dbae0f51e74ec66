//! The operator's side of a household's year: a hub that is mostly honest, and in bad weeks is down, shows
//! lists that must be refused, changes its mind at every look, takes things back, or lies about the time.

use std::collections::BTreeMap;

use larder::logic::{
    hotlist::{Entry, HotList, Policy},
    infohash::Infohash,
    now::UnixSeconds,
};
use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

pub const CATALOGUE: u8 = 30;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Honest,
    Down,
    /// Every list is one that the device must not follow.
    Bad,
    /// Another list at every look.
    Churning,
    /// The time that it tells is this far off.
    Lying(i64),
}

/// What comes of a look at the list.
pub enum Look {
    Nothing,
    Unchanged,
    News(HotList, Policy, UnixSeconds),
}

pub struct Operator {
    pub mood: Mood,
    /// Whether it holds questions.
    pub holds: bool,
    list: HotList,
    interval: u32,
}

pub fn content(n: u8) -> Infohash {
    Infohash([n; 20])
}

/// 500 to 2,390.
pub fn size_of(n: u8) -> u64 {
    500 + u64::from(n) * 7919 % 1_890
}

impl Operator {
    pub fn new(now: UnixSeconds) -> Operator {
        let list =
            HotList { format: 1, epoch: 1, published_at: now, devices: None, entries: vec![] };
        Operator { mood: Mood::Honest, holds: false, list, interval: 900 }
    }

    pub fn list(&self) -> &HotList {
        &self.list
    }

    /// Some contents come, some go, some leases are renewed.
    pub fn publish(&mut self, changes: usize, now: UnixSeconds, rng: &mut SmallRng) {
        let mut entries: BTreeMap<Infohash, Entry> =
            self.list.entries.drain(..).map(|e| (e.infohash, e)).collect();
        entries.retain(|_, entry| entry.lease_end > now);
        for _ in 0..changes {
            let n = rng.random_range(0..CATALOGUE);
            match rng.random_range(0..3) {
                0 => drop(entries.remove(&content(n))),
                _ => {
                    let lease = rng.random_range(HOUR..30 * DAY);
                    let score = rng.random_range(0.0..100.0);
                    entries.insert(content(n), entry(n, score, UnixSeconds(now.0 + lease)));
                }
            }
        }
        self.replace(entries.into_values().collect(), now);
        self.interval = *[300, 1800, 3600, 3600].choose(rng).expect("some");
    }

    /// The last list of the year: all of these, for long.
    pub fn settle(&mut self, contents: &[u8], now: UnixSeconds) {
        let entry = |n: &u8| entry(*n, 1.0 + f64::from(*n), UnixSeconds(now.0 + 60 * DAY));
        self.replace(contents.iter().map(entry).collect(), now);
        self.interval = 300;
        self.mood = Mood::Honest;
    }

    fn replace(&mut self, entries: Vec<Entry>, now: UnixSeconds) {
        let epoch = self.list.epoch + 1;
        self.list = HotList { format: 1, epoch, published_at: now, devices: None, entries };
    }

    pub fn look(&mut self, held: Option<&HotList>, now: UnixSeconds, rng: &mut SmallRng) -> Look {
        match self.mood {
            Mood::Down => return Look::Nothing,
            Mood::Churning => self.publish(4, now, rng),
            Mood::Honest | Mood::Bad | Mood::Lying(_) => {}
        }
        let mut list = self.list.clone();
        if self.mood == Mood::Bad {
            list.epoch = match rng.random_range(0..3) {
                0 => list.epoch.saturating_sub(2),
                1 => list.epoch + 100_000_000,
                _ => {
                    list.published_at.0 += 1;
                    held.map_or(0, |held| held.epoch)
                }
            };
        }
        match held {
            Some(held) if *held == list => Look::Unchanged,
            // As the device's adapter does it.
            Some(held) if list.may_replace(held).is_err() => Look::Nothing,
            None if self.mood == Mood::Bad => Look::Nothing,
            _ => Look::News(list, self.policy(), UnixSeconds(now.0 + DAY)),
        }
    }

    /// The time that it would tell.
    pub fn time(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        match self.mood {
            Mood::Down => None,
            Mood::Lying(by) => Some(UnixSeconds(now.0.saturating_add_signed(by))),
            _ => Some(now),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            format: 1,
            currency: "CNY".into(),
            price_per_gb: BTreeMap::new(),
            list_interval_seconds: self.interval,
            report_interval_seconds: 3600,
            statement_keys: vec![],
            reflector: None,
            private_web_seeds: vec![],
        }
    }
}

fn entry(n: u8, score: f64, lease_end: UnixSeconds) -> Entry {
    Entry {
        infohash: content(n),
        name: format!("film-{n}.mp4"),
        size_bytes: size_of(n),
        score,
        lease_end,
        price_class: "standard".into(),
        replicas: 3,
        private: false,
        metainfo_url: "http://hub.example/x.torrent".parse().expect("a URL"),
        tracker_tiers: vec![vec!["http://hub.example/announce".parse().expect("a URL")]],
        web_seeds: vec![],
        holders: vec![],
    }
}
