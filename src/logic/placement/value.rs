//! What a content is worth on this device for each byte that it takes, of disk and of writing.

use std::collections::BTreeMap;

use super::Held;
use crate::logic::{hotlist::Entry, now::UnixSeconds, units::Micros};

/// What is already held must be beaten by this much per byte before it is evicted: a fill costs
/// ingress and flash wear, so a slightly better content is not worth one.
const HOLDER_ADVANTAGE: f64 = 1.25;
/// A fill takes its time to earn: with less than this left of its lease, a content is worth less.
const LEASE_SECONDS_FULL: f64 = 86_400.0;
/// What peers here took, beside what they took of the other contents, changes a value this much at
/// most: the operator sees the whole fleet, this device only its own corner of it.
const SEEN_HERE: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// A class that earns nothing is still of use to the operator.
const UNPAID: f64 = 0.1;

pub struct Scale<'a> {
    prices: Option<&'a BTreeMap<String, Micros>>,
    best_price: u64,
    /// Of all contents whose egress here is known: bytes a second for each byte held.
    mean_seen: Option<f64>,
}

impl<'a> Scale<'a> {
    pub fn new<'h>(
        prices: Option<&'a BTreeMap<String, Micros>>,
        held: impl Iterator<Item = &'h Held>,
    ) -> Scale<'a> {
        let known = held.filter_map(|h| Some((h.egress_bytes_per_second?, h.size_bytes as f64)));
        let (egress, bytes) =
            known.fold((0.0, 0.0), |(e, b), (egress, bytes)| (e + egress, b + bytes));
        let best_price = prices.and_then(|p| p.values().max()).map_or(0, |price| price.0);
        Scale { prices, best_price, mean_seen: (egress > 0.0).then(|| egress / bytes) }
    }

    pub fn value(&self, entry: &Entry, held: Option<&Held>, now: UnixSeconds) -> f64 {
        let per_byte = entry.score / entry.size_bytes.max(1) as f64 * self.price(entry);
        let Some(held) = held else {
            let left = entry.lease_end.0.saturating_sub(now.0) as f64;
            return per_byte * (left / LEASE_SECONDS_FULL).min(1.0);
        };
        per_byte * HOLDER_ADVANTAGE * self.seen(held)
    }

    fn price(&self, entry: &Entry) -> f64 {
        let Some(prices) = self.prices.filter(|_| self.best_price > 0) else { return 1.0 };
        let price = prices.get(&entry.price_class).map_or(0, |price| price.0);
        (price as f64 / self.best_price as f64).max(UNPAID)
    }

    fn seen(&self, held: &Held) -> f64 {
        let Some((mean, egress)) = self.mean_seen.zip(held.egress_bytes_per_second) else {
            return 1.0;
        };
        let ratio = egress / held.size_bytes.max(1) as f64 / mean;
        ratio.sqrt().clamp(*SEEN_HERE.start(), *SEEN_HERE.end())
    }
}
