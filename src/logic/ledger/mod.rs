//! What goes into a report, and how reports hang together: the lines that were recorded but not yet
//! reported, and the hash chain over the reports' exact texts. Must not know about storage or signing.

pub mod chain;
pub mod dating;
pub mod frame;
pub mod journal;

use super::{
    infohash::Infohash,
    now::UtcHour,
    usage::{PeerClass, Usage, UsageLine},
};

/// `previous_hash` of report 1.
pub const NO_PREVIOUS_HASH: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// One row of the ledger: sums that only ever grow, and how much of each is in a report already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub infohash: Infohash,
    pub hour: UtcHour,
    pub class: PeerClass,
    pub recorded: Usage,
    pub reported: Usage,
}

impl LedgerRow {
    /// What a report still has to say about this row.
    pub fn unreported(&self) -> Option<UsageLine> {
        let usage = Usage {
            payload_bytes: self.recorded.payload_bytes.saturating_sub(self.reported.payload_bytes),
            wire_bytes: self.recorded.wire_bytes.saturating_sub(self.reported.wire_bytes),
        };
        (!usage.is_zero()).then_some(UsageLine {
            infohash: self.infohash,
            hour: self.hour,
            class: self.class,
            usage,
        })
    }
}

/// The lines of the next report, oldest hour first, at most `lines_max` of them; the rest waits for
/// the report after it. Empty when there is nothing to say.
pub fn lines_to_report(
    rows: impl IntoIterator<Item = LedgerRow>,
    lines_max: usize,
) -> Vec<UsageLine> {
    let mut lines: Vec<UsageLine> = rows.into_iter().filter_map(|row| row.unreported()).collect();
    lines.sort_unstable_by_key(|line| (line.hour, line.infohash, line.class));
    lines.truncate(lines_max);
    lines
}

/// Where the next report belongs in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub number: u64,
    pub previous_hash: String,
}

impl Link {
    pub fn first() -> Link {
        Link { number: 1, previous_hash: NO_PREVIOUS_HASH.to_owned() }
    }

    pub fn after(last_number: u64, last_payload_hash: &str) -> Link {
        Link { number: last_number + 1, previous_hash: last_payload_hash.to_owned() }
    }
}

/// SHA-256 of a report's exact text, as the next one names it: 64 lower-case hex digits.
pub fn payload_hash(payload: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, payload.as_bytes());
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(hour: u32, recorded: u64, reported: u64) -> LedgerRow {
        LedgerRow {
            infohash: Infohash([1; 20]),
            hour: UtcHour(hour),
            class: PeerClass::Wan,
            recorded: Usage { payload_bytes: recorded, wire_bytes: recorded + recorded / 10 },
            reported: Usage { payload_bytes: reported, wire_bytes: reported + reported / 10 },
        }
    }

    #[test]
    fn reports_only_what_is_new_and_oldest_first() {
        let lines = lines_to_report([row(9, 50, 20), row(7, 10, 10), row(8, 5, 0)], 10);
        let told: Vec<_> = lines.iter().map(|l| (l.hour.0, l.usage.payload_bytes)).collect();
        assert_eq!(told, [(8, 5), (9, 30)]);
    }

    #[test]
    fn leaves_what_does_not_fit_for_the_next_report() {
        let lines = lines_to_report((0..10).map(|h| row(h, 1, 0)), 4);
        assert_eq!(lines.iter().map(|l| l.hour.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn chains_by_hash_of_the_exact_text() {
        assert_eq!(Link::first().previous_hash.len(), payload_hash("{}").len());
        let link = Link::after(1, &payload_hash("{}"));
        assert_eq!(link.number, 2);
        assert_eq!(
            link.previous_hash,
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_ne!(payload_hash("{}"), payload_hash("{} "));
    }

    proptest! {
        /// However usage arrives and however small the reports are, the sum of all reports is the
        /// sum of all usage: nothing is lost, nothing is told twice.
        #[test]
        fn all_reports_together_say_every_byte_once(
            steps in prop::collection::vec((0u32..5, 0u64..1000, any::<bool>()), 0..60),
            lines_max in 1usize..4,
        ) {
            let mut ledger: std::collections::BTreeMap<u32, LedgerRow> = Default::default();
            let mut told = 0;
            let report = |ledger: &mut std::collections::BTreeMap<u32, LedgerRow>| {
                let lines = lines_to_report(ledger.values().copied(), lines_max);
                for line in &lines {
                    ledger.get_mut(&line.hour.0).expect("from the ledger").reported.add(line.usage);
                }
                lines.iter().map(|l| l.usage.payload_bytes).sum::<u64>()
            };
            for (hour, bytes, report_now) in &steps {
                let entry = ledger.entry(*hour).or_insert(row(*hour, 0, 0));
                entry.recorded.add(Usage { payload_bytes: *bytes, wire_bytes: *bytes });
                if *report_now {
                    told += report(&mut ledger);
                }
            }
            for _ in 0..5 {
                told += report(&mut ledger);
            }
            prop_assert_eq!(told, steps.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
            prop_assert_eq!(report(&mut ledger), 0);
        }
    }
}
