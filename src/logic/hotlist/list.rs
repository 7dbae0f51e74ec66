//! The hot list: what the operator wants held, until when, and where to get it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{NESTING_MAX, nests_too_deep};
use crate::logic::{infohash::Infohash, now::UnixSeconds};

/// A device keeps the whole list in memory; 4 MiB is about ten thousand entries.
pub const MAX_LIST_BYTES: u64 = 4 * 1024 * 1024;
pub const MAX_ENTRIES: usize = 10_000;
/// Above this, an entry is a mistake: no home disk that we serve from holds it.
const MAX_CONTENT_BYTES: u64 = 16 << 40;
const MAX_NAME_BYTES: usize = 255;
const MAX_URLS: usize = 16;
/// An operator that publishes once a second for a year stays below this; a larger step is a sign
/// of a damaged or stolen publisher, and would lock the fleet out of every honest epoch after it.
const MAX_EPOCH_STEP: u64 = 50_000_000;

/// Relative; a few times what the last digit of a number is worth.
const SCORE_SLACK: f64 = 4.0 * f64::EPSILON;

/// Target `hotlist.json`, UTF-8 JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotList {
    /// Version of this shape: 1.
    pub format: u32,
    /// Grows with every publication; a device never goes back.
    pub epoch: u64,
    pub published_at: UnixSeconds,
    /// How many devices follow this list, so that each can tell whether it is among an entry's
    /// replicas. Absent in lists from before there was such a rule: everyone is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
    pub entries: Vec<Entry>,
}

/// One content that the operator wants held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub infohash: Infohash,
    /// For people; never a path.
    pub name: String,
    pub size_bytes: u64,
    /// Demand as the operator sees it; larger is wanted more.
    pub score: f64,
    /// The lease: after this moment the content is no longer served.
    pub lease_end: UnixSeconds,
    /// Key into the policy's price table.
    pub price_class: String,
    /// How many devices should hold it.
    pub replicas: u32,
    /// Only the operator's tracker may hand out peers (BEP 27).
    #[serde(default)]
    pub private: bool,
    /// `.torrent` file (BEP 3).
    pub metainfo_url: Url,
    /// BEP 12 tiers.
    pub tracker_tiers: Vec<Vec<Url>>,
    /// BEP 19.
    pub web_seeds: Vec<Url>,
    /// Which devices hold which part, if the operator says it: for each of as many equal parts as
    /// there are, the tags of its holders. Empty: `replicas` of the fleet hold the whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Vec<u32>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("the hot list is {found} bytes, more than the limit of {MAX_LIST_BYTES}")]
    TooLarge { found: u64 },
    #[error("the hot list nests deeper than {NESTING_MAX} levels")]
    TooDeep,
    #[error("the hot list is not in the expected form: {0}")]
    Malformed(String),
    #[error("the hot list has format {0}; this version of Larder reads format 1")]
    UnknownFormat(u32),
    #[error("the hot list has {0} entries, more than the limit of {MAX_ENTRIES}")]
    TooManyEntries(usize),
    #[error("the hot list names {0} twice")]
    Duplicate(Infohash),
    #[error("the hot list's entry {infohash}: {problem}")]
    Entry { infohash: Infohash, problem: &'static str },
    #[error(
        "the hot list has epoch {offered}, older than epoch {held} that this device already follows"
    )]
    OlderEpoch { held: u64, offered: u64 },
    #[error("the hot list jumps from epoch {held} to {offered}, more than is plausible")]
    EpochJump { held: u64, offered: u64 },
    #[error("the hot list has epoch {0} again, but with other content")]
    SameEpochDiffers(u64),
}

impl HotList {
    /// Parses and checks a list that the signature check has already let through.
    pub fn parse(bytes: &[u8]) -> Result<HotList, ListError> {
        if bytes.len() as u64 > MAX_LIST_BYTES {
            return Err(ListError::TooLarge { found: bytes.len() as u64 });
        }
        if nests_too_deep(bytes) {
            return Err(ListError::TooDeep);
        }
        let list: HotList =
            serde_json::from_slice(bytes).map_err(|e| ListError::Malformed(e.to_string()))?;
        list.check()?;
        Ok(list)
    }

    fn check(&self) -> Result<(), ListError> {
        if self.format != 1 {
            return Err(ListError::UnknownFormat(self.format));
        }
        if self.entries.len() > MAX_ENTRIES {
            return Err(ListError::TooManyEntries(self.entries.len()));
        }
        let mut seen = BTreeSet::new();
        for entry in &self.entries {
            if !seen.insert(entry.infohash) {
                return Err(ListError::Duplicate(entry.infohash));
            }
            entry
                .check()
                .map_err(|problem| ListError::Entry { infohash: entry.infohash, problem })?;
        }
        Ok(())
    }

    /// Whether `self` may replace `held`. The same epoch is fine when nothing changed.
    pub fn may_replace(&self, held: &HotList) -> Result<(), ListError> {
        let (held_epoch, offered) = (held.epoch, self.epoch);
        if offered < held_epoch {
            return Err(ListError::OlderEpoch { held: held_epoch, offered });
        }
        if offered - held_epoch > MAX_EPOCH_STEP {
            return Err(ListError::EpochJump { held: held_epoch, offered });
        }
        if offered == held_epoch && !self.says_the_same_as(held) {
            return Err(ListError::SameEpochDiffers(offered));
        }
        Ok(())
    }

    /// One of the two may have been kept over a restart, and `serde_json` reads three scores in a hundred
    /// as a neighbour of the number that it wrote.
    fn says_the_same_as(&self, held: &HotList) -> bool {
        let mut held = held.clone();
        for (theirs, ours) in held.entries.iter_mut().zip(&self.entries) {
            if (theirs.score - ours.score).abs() <= ours.score * SCORE_SLACK {
                theirs.score = ours.score;
            }
        }
        *self == held
    }

    pub fn entry(&self, infohash: Infohash) -> Option<&Entry> {
        self.entries.iter().find(|e| e.infohash == infohash)
    }
}

impl Entry {
    fn check(&self) -> Result<(), &'static str> {
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err("the name must have 1 to 255 bytes");
        }
        if self.name.chars().any(char::is_control) {
            return Err("the name has control characters");
        }
        if self.size_bytes == 0 || self.size_bytes > MAX_CONTENT_BYTES {
            return Err("the size is zero or implausible");
        }
        if !self.score.is_finite() || self.score < 0.0 {
            return Err("the score must be a number of zero or more");
        }
        let urls = self.tracker_tiers.iter().flatten().chain(&self.web_seeds);
        if urls.clone().count() > MAX_URLS {
            return Err("too many trackers and web seeds");
        }
        let web = |u: &Url| matches!(u.scheme(), "http" | "https");
        if !web(&self.metainfo_url) || !self.web_seeds.iter().all(web) {
            return Err("metainfo and web seeds must be http or https");
        }
        if !self.tracker_tiers.iter().flatten().all(|u| web(u) || u.scheme() == "udp") {
            return Err("trackers must be http, https or udp");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> Entry {
        Entry {
            infohash: Infohash([n; 20]),
            name: format!("film-{n}.mp4"),
            size_bytes: 1000,
            score: 1.0,
            lease_end: UnixSeconds(2_000_000_000),
            price_class: "standard".into(),
            replicas: 1,
            private: false,
            metainfo_url: "http://hub.example/metainfo/x.torrent".parse().expect("a URL"),
            tracker_tiers: vec![],
            web_seeds: vec![],
            holders: vec![],
        }
    }

    fn list(epoch: u64, entries: Vec<Entry>) -> HotList {
        HotList {
            format: 1,
            epoch,
            published_at: UnixSeconds(1_790_000_000),
            devices: None,
            entries,
        }
    }

    fn parse(list: &HotList) -> Result<HotList, ListError> {
        HotList::parse(&serde_json::to_vec(list).expect("serialises"))
    }

    #[test]
    fn reads_back_what_the_hub_writes() {
        let good = list(3, vec![entry(1), entry(2)]);
        assert_eq!(parse(&good), Ok(good));
    }

    #[test]
    fn refuses_hot_list_with_older_epoch() {
        let held = list(5, vec![]);
        assert_eq!(
            list(4, vec![]).may_replace(&held),
            Err(ListError::OlderEpoch { held: 5, offered: 4 })
        );
        assert_eq!(list(5, vec![]).may_replace(&held), Ok(()));
        assert_eq!(list(5, vec![entry(1)]).may_replace(&held), Err(ListError::SameEpochDiffers(5)));
        assert!(matches!(
            list(u64::MAX, vec![]).may_replace(&held),
            Err(ListError::EpochJump { .. })
        ));
    }

    #[test]
    fn knows_a_list_again_that_was_kept_over_a_restart() {
        // It comes back from JSON as 8.924506963505709e-8.
        let published = list(5, vec![Entry { score: 8.924506963505708e-8, ..entry(1) }]);
        let fetched = parse(&published).expect("fine");
        let kept = parse(&fetched).expect("fine");
        assert_eq!(fetched.may_replace(&kept), Ok(()));
        let other = list(5, vec![Entry { score: 8.924507e-8, ..entry(1) }]);
        assert_eq!(other.may_replace(&kept), Err(ListError::SameEpochDiffers(5)));
    }

    #[test]
    fn refuses_entries_that_cannot_be_meant() {
        assert_eq!(
            parse(&list(1, vec![entry(1), entry(1)])),
            Err(ListError::Duplicate(Infohash([1; 20])))
        );
        let bad: [fn(&mut Entry); 6] = [
            |e| e.name.clear(),
            |e| e.name = "a\nb".into(),
            |e| e.size_bytes = 0,
            |e| e.score = -1.0,
            |e| e.metainfo_url = "file:///etc/passwd".parse().expect("a URL"),
            |e| e.web_seeds = vec!["ftp://x.example/".parse().expect("a URL")],
        ];
        for spoil in bad {
            let mut e = entry(1);
            spoil(&mut e);
            assert!(matches!(parse(&list(1, vec![e])), Err(ListError::Entry { .. })));
        }
        assert_eq!(
            parse(&HotList { format: 2, ..list(1, vec![]) }),
            Err(ListError::UnknownFormat(2))
        );
        assert!(matches!(HotList::parse(b"{"), Err(ListError::Malformed(_))));
    }
}
