//! Usage reports: what the hub believes. A report counts once, in its turn, or not at all; nothing
//! in here trusts a number that a device could have made up beyond what a line can carry.

use std::collections::BTreeMap;

use crate::{
    api::hub::{MAX_REPORT_LINES, Report, ReportReceipt},
    hub::{
        keys::sha256_hex,
        store::{LastReport, NewReport, ReportSaved, Store, StoreError},
    },
    logic::{
        hotlist::Policy,
        infohash::Infohash,
        now::{UnixSeconds, UtcHour},
        units::Micros,
        usage::UsageLine,
    },
};

/// The previous hash of a device's first report.
pub const NO_REPORT_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A device's clock may be a little ahead of ours.
const FUTURE_SECONDS: u64 = 3600;
/// A device that was off for a year may still report what it served before.
const OLDEST_SECONDS: u64 = 400 * 24 * 3600;
/// 10 Gbit/s for an hour, to one content: no home uplink, and far from overflowing the books.
const MAX_LINE_BYTES: u64 = 5_000_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("reports have format 1, not {0}; update larderd or the hub")]
    UnknownFormat(u32),
    #[error(
        "a report has at most {MAX_REPORT_LINES} lines, not {0}; send the rest in the next one"
    )]
    TooManyLines(usize),
    #[error("report {found} came, but report {expected} is next; send that first")]
    Gap { expected: u64, found: u64 },
    #[error("report {number} was received before with other content; continue with {expected}")]
    Conflict { number: u64, expected: u64 },
    #[error("report {number} does not follow the report that the hub has as its predecessor")]
    BrokenChain { number: u64 },
    #[error("a line is for hour {}, which is in the future or too long ago", .0.0)]
    ImplausibleHour(UtcHour),
    #[error("a line counts {0} bytes, more than one device can serve in an hour")]
    ImplausibleBytes(u64),
    #[error("content {0} was never published here")]
    UnknownContent(Infohash),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes a report into the books. `payload` is the signed text; its signature and its device have
/// been checked.
pub fn accept(
    store: &Store,
    policy: &Policy,
    report: &Report,
    payload: &str,
    now: UnixSeconds,
) -> Result<ReportReceipt, ReportError> {
    let payload_hash = sha256_hex(payload.as_bytes());
    let receipt = |repeated| ReportReceipt { number: report.number, repeated, server_time: now };
    let last = store.last_report(&report.device)?;
    if is_repeated(store, report, &payload_hash, last.as_ref())? {
        return Ok(receipt(true));
    }
    check_turn(report, last.as_ref())?;
    check_lines(report, now)?;
    let prices = prices(store, policy, &report.lines)?;
    let lines: Vec<(UsageLine, Micros)> =
        report.lines.iter().map(|line| (*line, prices[&line.infohash])).collect();
    let saved = store.save_report(&NewReport {
        device: &report.device,
        number: report.number,
        payload_hash: &payload_hash,
        received_at: now,
        lines: &lines,
    })?;
    match saved {
        ReportSaved::Saved => Ok(receipt(false)),
        // Its twin was faster; by now it is the last report.
        ReportSaved::NumberTaken => {
            let last = store.last_report(&report.device)?;
            match is_repeated(store, report, &payload_hash, last.as_ref())? {
                true => Ok(receipt(true)),
                false => {
                    Err(ReportError::Gap { expected: next(last.as_ref()), found: report.number })
                }
            }
        }
    }
}

fn next(last: Option<&LastReport>) -> u64 {
    last.map_or(1, |last| last.number + 1)
}

fn is_repeated(
    store: &Store,
    report: &Report,
    payload_hash: &str,
    last: Option<&LastReport>,
) -> Result<bool, ReportError> {
    if report.number >= next(last) {
        return Ok(false);
    }
    match store.report_hash(&report.device, report.number)? {
        Some(known) if known == payload_hash => Ok(true),
        _ => Err(ReportError::Conflict { number: report.number, expected: next(last) }),
    }
}

fn check_turn(report: &Report, last: Option<&LastReport>) -> Result<(), ReportError> {
    if report.number != next(last) {
        return Err(ReportError::Gap { expected: next(last), found: report.number });
    }
    let previous = last.map_or(NO_REPORT_HASH, |last| &last.payload_hash);
    if report.previous_hash != previous {
        return Err(ReportError::BrokenChain { number: report.number });
    }
    Ok(())
}

fn check_lines(report: &Report, now: UnixSeconds) -> Result<(), ReportError> {
    if report.format != 1 {
        return Err(ReportError::UnknownFormat(report.format));
    }
    if report.lines.len() > MAX_REPORT_LINES {
        return Err(ReportError::TooManyLines(report.lines.len()));
    }
    let latest = UnixSeconds(now.0.saturating_add(FUTURE_SECONDS)).hour();
    let oldest = UnixSeconds(now.0.saturating_sub(OLDEST_SECONDS)).hour();
    for line in &report.lines {
        if line.hour < oldest || line.hour > latest {
            return Err(ReportError::ImplausibleHour(line.hour));
        }
        let most = line.usage.payload_bytes.max(line.usage.wire_bytes);
        if most > MAX_LINE_BYTES {
            return Err(ReportError::ImplausibleBytes(most));
        }
    }
    Ok(())
}

/// The price in force for each content, by its price class.
fn prices(
    store: &Store,
    policy: &Policy,
    lines: &[UsageLine],
) -> Result<BTreeMap<Infohash, Micros>, ReportError> {
    let mut prices = BTreeMap::new();
    for line in lines {
        if prices.contains_key(&line.infohash) {
            continue;
        }
        let content =
            store.content(line.infohash)?.ok_or(ReportError::UnknownContent(line.infohash))?;
        prices.insert(line.infohash, policy.price(&content.price_class));
    }
    Ok(prices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::hub::{NewUpload, PublishRequest},
        hub::store::{Device, EnrolOutcome, NewContent},
        logic::usage::{PeerClass, Usage},
    };

    const NOW: UnixSeconds = UnixSeconds(1_795_219_200);
    const FILM: Infohash = Infohash([1; 20]);

    fn store() -> Store {
        let store = Store::in_memory();
        let device = Device {
            id: "d".into(),
            public_key: "k".into(),
            peer_id: "p".into(),
            enrolled_at: NOW,
        };
        store.add_claim_codes(&["h".into()], NOW).expect("writes");
        assert_eq!(store.enrol(&device, "h").expect("writes"), EnrolOutcome::Enrolled);
        let layout = NewUpload {
            name: "film".into(),
            directory: false,
            files: vec![],
            fingerprint: String::new(),
        };
        let request = PublishRequest {
            lease_seconds: 1,
            replicas: 1,
            price_class: "standard".into(),
            score: 0.0,
            private: false,
        };
        let (infohash, size_bytes) = (FILM, 1);
        let content = NewContent {
            infohash,
            layout: &layout,
            size_bytes,
            request: &request,
            published_at: NOW,
        };
        store.publish(&content).expect("writes");
        store
    }

    fn policy() -> Policy {
        Policy {
            format: 1,
            currency: "CNY".into(),
            price_per_gb: [("standard".to_owned(), Micros(100_000))].into(),
            list_interval_seconds: 60,
            report_interval_seconds: 900,
            statement_keys: vec![],
            reflector: None,
            private_web_seeds: vec![],
        }
    }

    /// Reports 1, 2, … as an honest device would chain them; the n-th counts 2^n bytes, so that
    /// the books say which ones they hold.
    fn chain(length: u64) -> Vec<(Report, String)> {
        let mut previous_hash = NO_REPORT_HASH.to_owned();
        (1..=length)
            .map(|number| {
                let usage = Usage { payload_bytes: 1 << number, wire_bytes: 1 << number };
                let line =
                    UsageLine { infohash: FILM, hour: NOW.hour(), class: PeerClass::Wan, usage };
                let report = Report {
                    format: 1,
                    device: "d".into(),
                    number,
                    previous_hash: previous_hash.clone(),
                    created_at: NOW,
                    ledger: None,
                    lines: vec![line],
                };
                let payload = serde_json::to_string(&report).expect("serialises");
                previous_hash = sha256_hex(payload.as_bytes());
                (report, payload)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn books_hold_each_report_once_in_whatever_order_they_come(
            sends in prop::collection::vec((0usize..8, any::<bool>()), 0..60)
        ) {
            let (store, policy, chain) = (store(), policy(), chain(8));
            let mut taken = 0u64;
            for (which, tamper) in sends {
                let (mut report, mut payload) = chain[which].clone();
                if tamper {
                    report.lines[0].usage.payload_bytes += 1;
                    payload.push(' ');
                }
                let known = report.number <= taken;
                let next = report.number == taken + 1;
                match accept(&store, &policy, &report, &payload, NOW) {
                    Ok(receipt) => {
                        prop_assert_eq!(receipt.repeated, known);
                        prop_assert!(known && !tamper || next);
                        // A changed report in its turn is simply that device's report; what
                        // follows the original then no longer fits.
                        if next && tamper { return Ok(()); }
                        taken = taken.max(report.number);
                    }
                    Err(ReportError::Conflict { expected, .. }) => {
                        prop_assert!(known && tamper);
                        prop_assert_eq!(expected, taken + 1);
                    }
                    Err(ReportError::Gap { expected, .. }) => {
                        prop_assert!(!known && !next);
                        prop_assert_eq!(expected, taken + 1);
                    }
                    Err(other) => prop_assert!(false, "{other}"),
                }
                let month = NOW.hour().day().month();
                let rows = store.book_rows(month.hours()).expect("reads");
                let bytes: u64 = rows.iter().map(|row| row.usage.payload_bytes).sum();
                prop_assert_eq!(bytes, (1..=taken).map(|n| 1 << n).sum::<u64>());
            }
        }
    }
}
