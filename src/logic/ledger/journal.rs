//! The ledger's journal: which frames say what was served since the last checkpoint, and what frames
//! that were found again say. Must not know about files; `device/store/journal.rs` writes them.

use std::collections::BTreeMap;

use super::{
    super::{
        infohash::Infohash,
        usage::{PeerClass, Usage, UsageDelta},
    },
    dating::{Stamp, When},
    frame::{BODY_BYTES_MAX, Entry, Frame, LedgerId},
};

/// Usage by the line of the ledger to which it belongs.
pub type Sums = BTreeMap<(When, Infohash, PeerClass), Usage>;

/// Contents and classes that one checkpoint may be behind with; keys are 16 bits.
pub const KEYS_MAX: usize = 50_000;

/// Puts usage into frames. The newest frame is open: it is written again with more in it, until it is
/// sealed or full, or the hour ends.
#[derive(Clone, Debug)]
pub struct Writer {
    ledger: LedgerId,
    keys: BTreeMap<(Infohash, PeerClass), u16>,
    /// Of the newest frame.
    sequence: u64,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    stamp: Stamp,
    entries: BTreeMap<u16, Entry>,
    body_bytes: usize,
}

impl Writer {
    /// `sequence` is the last one that was used.
    pub fn new(ledger: LedgerId, sequence: u64) -> Writer {
        Writer { ledger, keys: BTreeMap::new(), sequence, open: None }
    }

    /// Of the newest frame.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The frames that have to be written now; all but the last are sealed by that.
    pub fn add(&mut self, stamp: Stamp, deltas: &[UsageDelta]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for delta in deltas {
            if !self.put(stamp, delta) {
                frames.extend(self.open_frame());
                self.seal();
                let fits = self.put(stamp, delta);
                debug_assert!(fits, "an entry is far smaller than a frame");
            }
        }
        frames.extend(self.open_frame());
        frames
    }

    /// The open frame is safe: what comes next goes into another one.
    pub fn seal(&mut self) {
        self.open = None;
    }

    /// Everything so far is in a checkpoint.
    pub fn restart(&mut self) {
        self.seal();
        self.keys.clear();
    }

    /// False, and nothing is changed, if the open frame is full.
    fn put(&mut self, stamp: Stamp, delta: &UsageDelta) -> bool {
        if self.open.as_ref().is_none_or(|open| open.stamp.when() != stamp.when()) {
            self.sequence += 1;
            self.open = Some(Open { stamp, entries: BTreeMap::new(), body_bytes: 0 });
        }
        let open = self.open.as_mut().expect("just begun");
        let names = (delta.infohash, delta.class);
        let known = self.keys.get(&names).copied();
        let key = known.unwrap_or(self.keys.len() as u16);
        let before = open.entries.get(&key).copied();
        let mut entry = before.unwrap_or(Entry {
            key,
            names: known.is_none().then_some(names),
            usage: Usage::default(),
        });
        entry.usage.add(delta.usage);
        let body_bytes = open.body_bytes + entry.bytes() - before.map_or(0, |e| e.bytes());
        if body_bytes > BODY_BYTES_MAX {
            return false;
        }
        open.body_bytes = body_bytes;
        open.entries.insert(key, entry);
        self.keys.insert(names, key);
        true
    }

    fn open_frame(&self) -> Option<Frame> {
        let open = self.open.as_ref()?;
        Some(Frame {
            ledger: self.ledger,
            sequence: self.sequence,
            stamp: open.stamp,
            entries: open.entries.values().copied().collect(),
        })
    }
}

/// What was found in the journal and is not in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub sums: Sums,
    /// The highest number that was found, or `applied`.
    pub sequence: u64,
    /// Bytes of payload whose content was named in a frame that is damaged.
    pub nameless_bytes: u64,
}

/// `frames` in any order, those of other ledgers and those that are in the database already among
/// them. Frames that a power cut took leave gaps; what stands behind one counts all the same.
pub fn replay(frames: impl IntoIterator<Item = Frame>, ledger: LedgerId, applied: u64) -> Replayed {
    let ours = frames.into_iter().filter(|f| f.ledger == ledger && f.sequence > applied);
    let ours: BTreeMap<u64, Frame> = ours.map(|frame| (frame.sequence, frame)).collect();
    let mut found = Replayed { sequence: applied, ..Replayed::default() };
    let mut names = BTreeMap::new();
    for (sequence, frame) in ours {
        found.sequence = sequence;
        for entry in frame.entries {
            names.extend(entry.names.map(|named| (entry.key, named)));
            match names.get(&entry.key) {
                Some((infohash, class)) => found
                    .sums
                    .entry((frame.stamp.when(), *infohash, *class))
                    .or_default()
                    .add(entry.usage),
                None => {
                    let bytes = entry.usage.payload_bytes;
                    found.nameless_bytes = found.nameless_bytes.saturating_add(bytes);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logic::{
        ledger::dating::{BootId, BootMoment},
        now::UtcHour,
    };

    const OURS: LedgerId = [1; 16];

    fn stamp(hour: u32, seconds: u32) -> Stamp {
        let moment = BootMoment { boot: BootId([7; 16]), seconds };
        Stamp { moment, hour: (hour > 0).then_some(UtcHour(hour)) }
    }

    fn delta(content: u16, lan: bool, bytes: u64) -> UsageDelta {
        let mut infohash = [0; 20];
        infohash[..2].copy_from_slice(&content.to_be_bytes());
        UsageDelta {
            infohash: Infohash(infohash),
            class: if lan { PeerClass::Lan } else { PeerClass::Wan },
            usage: Usage { payload_bytes: bytes, wire_bytes: bytes + 66 },
        }
    }

    /// What a disk would hold: the last version of each frame.
    fn write(disk: &mut BTreeMap<u64, Frame>, frames: Vec<Frame>) {
        for frame in frames {
            let bytes = frame.encode().expect("a writer's frames fit");
            disk.insert(frame.sequence, Frame::decode(&bytes).expect("whole"));
        }
    }

    #[test]
    fn writes_one_frame_again_until_it_is_sealed() {
        let mut writer = Writer::new(OURS, 4);
        let first = writer.add(stamp(9, 0), &[delta(1, false, 10)]);
        let second = writer.add(stamp(9, 1), &[delta(1, false, 5), delta(2, true, 1)]);
        assert_eq!((first[0].sequence, second[0].sequence), (5, 5));
        assert_eq!(second[0].entries[0].usage.payload_bytes, 15);
        writer.seal();
        let third = writer.add(stamp(9, 6), &[delta(1, false, 7)]);
        assert_eq!(third[0].sequence, 6);
        let entry = third[0].entries[0];
        assert_eq!((entry.names, entry.usage.payload_bytes), (None, 7));
        let next_hour = writer.add(stamp(10, 7), &[delta(1, false, 1)]);
        assert_eq!(next_hour[0].sequence, 7);
        writer.restart();
        assert!(writer.add(stamp(10, 8), &[delta(1, false, 1)])[0].entries[0].names.is_some());
    }

    #[test]
    fn counts_what_it_cannot_name() {
        let mut writer = Writer::new(OURS, 0);
        let lost = writer.add(stamp(9, 0), &[delta(1, false, 10)]);
        writer.seal();
        let kept = writer.add(stamp(9, 5), &[delta(1, false, 7), delta(2, false, 3)]);
        assert_eq!(lost.len() + kept.len(), 2);
        let found = replay(kept, OURS, 0);
        assert_eq!((found.sequence, found.nameless_bytes), (2, 7));
        assert_eq!(found.sums.values().map(|u| u.payload_bytes).sum::<u64>(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever is added in whatever portions: the frames after the last checkpoint say what was
        /// added after it, by hour, content and class, and nothing twice.
        #[test]
        fn the_frames_say_what_was_added(
            steps in prop::collection::vec((
                prop::collection::vec((0u16..700, any::<bool>(), 1u64..5_000_000), 0..300),
                0u32..3, 0u8..4,
            ), 1..20),
        ) {
            let (mut writer, mut disk) = (Writer::new(OURS, 0), BTreeMap::new());
            let (mut expected, mut applied) = (Sums::new(), 0);
            for (second, (served, hour, then)) in steps.into_iter().enumerate() {
                let stamp = stamp(hour, second as u32 * 40);
                let deltas: Vec<_> = served.iter().map(|(c, lan, bytes)| delta(*c, *lan, *bytes)).collect();
                for d in &deltas {
                    expected.entry((stamp.when(), d.infohash, d.class)).or_default().add(d.usage);
                }
                write(&mut disk, writer.add(stamp, &deltas));
                match then {
                    0 => writer.seal(),
                    1 => {
                        applied = writer.sequence();
                        writer.restart();
                        expected.clear();
                    }
                    _ => {}
                }
                let found = replay(disk.values().cloned(), OURS, applied);
                prop_assert_eq!(&found.sums, &expected);
                prop_assert_eq!(found.nameless_bytes, 0);
                prop_assert_eq!(found.sequence, writer.sequence());
                prop_assert_eq!(replay(disk.values().cloned(), [2; 16], applied).sums, Sums::new());
            }
        }
    }
}
