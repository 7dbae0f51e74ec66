//! One frame of the ledger's journal: what was served within a few seconds, in 4 KiB that are either
//! whole or worthless. The format only; must not know about files.

use super::{
    super::{
        infohash::Infohash,
        now::UtcHour,
        usage::{PeerClass, Usage},
    },
    dating::{BootId, BootMoment, Stamp},
};

/// A page of the page cache and a block of most filesystems: what is written at once or not at all by
/// a process that may be killed, and never shared with a frame that is safe already.
pub const FRAME_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"LrJ1";
/// Magic, ledger, sequence, boot, seconds, hour, length of the body.
const HEADER_BYTES: usize = 4 + 16 + 8 + 16 + 4 + 4 + 2;
const CHECKSUM_BYTES: usize = 16;
const CHECKSUM_AT: usize = FRAME_BYTES - CHECKSUM_BYTES;
pub const BODY_BYTES_MAX: usize = CHECKSUM_AT - HEADER_BYTES;
/// Where the hour is not known: no usage is from 1970.
const NO_HOUR: u32 = 0;

/// Which ledger a journal belongs to.
pub type LedgerId = [u8; 16];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub ledger: LedgerId,
    /// Grows by one from frame to frame, for ever.
    pub sequence: u64,
    /// When it was begun.
    pub stamp: Stamp,
    pub entries: Vec<Entry>,
}

/// Served since the frame was begun. A key stands for a content and a class; the entry that uses it
/// for the first time since the last checkpoint names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: u16,
    pub names: Option<(Infohash, PeerClass)>,
    pub usage: Usage,
}

impl Entry {
    pub fn bytes(&self) -> usize {
        let named = if self.names.is_some() { 21 } else { 0 };
        let numbers = [self.tag(), self.usage.payload_bytes, self.usage.wire_bytes];
        named + numbers.map(number_bytes).iter().sum::<usize>()
    }

    fn tag(&self) -> u64 {
        u64::from(self.key) << 1 | u64::from(self.names.is_some())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.tag());
        if let Some((infohash, class)) = self.names {
            out.extend(infohash.0);
            out.push(match class {
                PeerClass::Wan => 0,
                PeerClass::Lan => 1,
            });
        }
        put_number(out, self.usage.payload_bytes);
        put_number(out, self.usage.wire_bytes);
    }

    fn decode(from: &mut &[u8]) -> Option<Entry> {
        let tag = take_number(from)?;
        let names = match tag & 1 {
            0 => None,
            _ => {
                let infohash = Infohash(take(from)?);
                let class = match take::<1>(from)? {
                    [0] => PeerClass::Wan,
                    [1] => PeerClass::Lan,
                    _ => return None,
                };
                Some((infohash, class))
            }
        };
        let key = u16::try_from(tag >> 1).ok()?;
        let usage = Usage { payload_bytes: take_number(from)?, wire_bytes: take_number(from)? };
        Some(Entry { key, names, usage })
    }
}

impl Frame {
    /// `None` if the entries take more than [`BODY_BYTES_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(FRAME_BYTES);
        out.extend(MAGIC);
        out.extend(self.ledger);
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.stamp.moment.boot.0);
        out.extend(self.stamp.moment.seconds.to_le_bytes());
        out.extend(self.stamp.hour.map_or(NO_HOUR, |hour| hour.0).to_le_bytes());
        let body: usize = self.entries.iter().map(Entry::bytes).sum();
        out.extend(u16::try_from(body).ok().filter(|_| body <= BODY_BYTES_MAX)?.to_le_bytes());
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        out.resize(CHECKSUM_AT, 0);
        out.extend(checksum(&out));
        Some(out)
    }

    /// `None` for whatever `encode` did not write: a torn frame, an empty one, another file's bytes.
    pub fn decode(bytes: &[u8]) -> Option<Frame> {
        let (content, sum) = bytes.split_at_checked(CHECKSUM_AT)?;
        if sum != checksum(content) {
            return None;
        }
        let from = &mut &content[..];
        if take(from)? != MAGIC {
            return None;
        }
        let ledger = take(from)?;
        let sequence = u64::from_le_bytes(take(from)?);
        let boot = BootId(take(from)?);
        let seconds = u32::from_le_bytes(take(from)?);
        let hour = Some(u32::from_le_bytes(take(from)?)).filter(|hour| *hour != NO_HOUR);
        let body = usize::from(u16::from_le_bytes(take(from)?));
        let (mut body, padding) = from.split_at_checked(body)?;
        if padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let mut entries = Vec::new();
        while !body.is_empty() {
            entries.push(Entry::decode(&mut body)?);
        }
        let stamp = Stamp { moment: BootMoment { boot, seconds }, hour: hour.map(UtcHour) };
        Some(Frame { ledger, sequence, stamp, entries })
    }
}

/// The last bytes of a frame, over all bytes before them: half of a SHA-256, which is in the program
/// anyway.
pub fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

/// Seven bits a byte, the lowest first; the last byte is below 128.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Each number can be written in one way only.
fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(from)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return (byte != 0 || shift == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let names = prop::option::of((any::<[u8; 20]>(), any::<bool>()));
        (any::<u16>(), names, any::<u64>(), any::<u64>()).prop_map(|(key, names, payload, wire)| {
            let class = |lan| if lan { PeerClass::Lan } else { PeerClass::Wan };
            Entry {
                key,
                names: names.map(|(infohash, lan)| (Infohash(infohash), class(lan))),
                usage: Usage { payload_bytes: payload, wire_bytes: wire },
            }
        })
    }

    fn frame(entries: Vec<Entry>, hour: u32) -> Frame {
        let moment = BootMoment { boot: BootId([3; 16]), seconds: 99 };
        let hour = (hour > 0).then_some(UtcHour(hour));
        Frame { ledger: [9; 16], sequence: 70_000, stamp: Stamp { moment, hour }, entries }
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(entries in prop::collection::vec(entry(), 0..90), hour in any::<u32>()) {
            let frame = frame(entries, hour);
            let bytes = frame.encode().expect("fits");
            prop_assert_eq!(bytes.len(), FRAME_BYTES);
            prop_assert_eq!(Frame::decode(&bytes), Some(frame));
        }

        #[test]
        fn refuses_a_torn_frame(
            old in prop::collection::vec(entry(), 0..90),
            new in prop::collection::vec(entry(), 0..90),
            sectors in 1u8..=254,
        ) {
            let (old, new) = (frame(old, 1).encode().expect("fits"), frame(new, 2).encode().expect("fits"));
            let mut torn = old.clone();
            for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                let place = sector * 512..(sector + 1) * 512;
                torn[place.clone()].copy_from_slice(&new[place]);
            }
            prop_assert!(torn == old || torn == new || Frame::decode(&torn).is_none());
        }

        /// Behind a right checksum anything may stand.
        #[test]
        fn never_breaks_on_a_body(body in prop::collection::vec(any::<u8>(), 0..CHECKSUM_AT)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(body);
            bytes.resize(CHECKSUM_AT, 0);
            bytes.extend(checksum(&bytes));
            if let Some(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), Some(bytes));
            }
        }
    }

    #[test]
    fn refuses_what_was_never_written() {
        assert_eq!(Frame::decode(&[0; FRAME_BYTES]), None);
        assert_eq!(Frame::decode(&[]), None);
        let bytes = frame(vec![], 1).encode().expect("fits");
        assert_eq!(Frame::decode(&bytes[..FRAME_BYTES - 1]), None);
    }

    #[test]
    fn says_when_the_entries_do_not_fit() {
        let usage = Usage { payload_bytes: 1, wire_bytes: 1 };
        let entries = |n: u16| (0..n).map(|key| Entry { key, names: None, usage }).collect();
        assert!(frame(entries(1_000), 1).encode().is_some());
        assert!(frame(entries(1_100), 1).encode().is_none());
    }

    #[test]
    fn holds_four_hundred_busy_contents() {
        let usage = Usage { payload_bytes: 2_000_000, wire_bytes: 2_100_000 };
        let entries = (0..400).map(|key| Entry { key, names: None, usage }).collect();
        assert!(frame(entries, 1).encode().is_some());
    }
}
