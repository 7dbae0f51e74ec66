//! What the device earned: the operator's signed statement where there is one, our own ledger at
//! the policy's price for the rest. Books only; how money is rounded is `rating`'s.

use std::collections::BTreeMap;

use super::{
    infohash::Infohash,
    now::{UtcDay, UtcHour, UtcMonth},
    rating,
    units::Micros,
    usage::{PeerClass, UsageLine},
};

/// A month of one device, line by line.
#[derive(Clone, Debug, Default)]
pub struct MonthBooks {
    /// Payload to WAN peers by our ledger.
    ledger: BTreeMap<(Infohash, UtcHour), u64>,
    /// Bytes and amount by the statement.
    settled: BTreeMap<(Infohash, UtcHour), (u64, Micros)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub settled: Micros,
    pub pending: Micros,
    pub bytes: u64,
}

impl MonthBooks {
    pub fn add(&mut self, line: &UsageLine) {
        if line.class == PeerClass::Wan {
            let bytes = self.ledger.entry((line.infohash, line.hour)).or_default();
            *bytes = bytes.saturating_add(line.usage.payload_bytes);
        }
    }

    /// What the statements say stays.
    pub fn forget_ledger(&mut self) {
        self.ledger.clear();
    }

    /// Replaces what earlier statements said.
    pub fn settle(&mut self, lines: impl IntoIterator<Item = (Infohash, UtcHour, u64, Micros)>) {
        self.settled =
            lines.into_iter().map(|(i, hour, bytes, sum)| ((i, hour), (bytes, sum))).collect();
    }

    pub fn month(&self, month: UtcMonth, price: impl Fn(Infohash) -> Micros) -> Sums {
        self.sums(|hour| hour.day().month() == month, price)
    }

    pub fn day(&self, day: UtcDay, price: impl Fn(Infohash) -> Micros) -> Sums {
        self.sums(|hour| hour.day() == day, price)
    }

    fn sums(&self, within: impl Fn(UtcHour) -> bool, price: impl Fn(Infohash) -> Micros) -> Sums {
        let mut sums = Sums::default();
        for ((_, hour), (_, amount)) in &self.settled {
            if within(*hour) {
                sums.settled = sums.settled.saturating_add(*amount);
            }
        }
        for ((infohash, hour), bytes) in &self.ledger {
            if within(*hour) {
                let settled = self.settled.get(&(*infohash, *hour)).map_or(0, |(b, _)| *b);
                let rest = rating::per_gb(bytes.saturating_sub(settled), price(*infohash));
                sums.pending = sums.pending.saturating_add(rest);
                sums.bytes = sums.bytes.saturating_add(*bytes);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::{units::GB, usage::Usage};

    fn line(hour: u32, class: PeerClass, payload_bytes: u64) -> UsageLine {
        let usage = Usage { payload_bytes, wire_bytes: payload_bytes };
        UsageLine { infohash: Infohash([1; 20]), hour: UtcHour(hour), class, usage }
    }

    #[test]
    fn shows_as_pending_only_what_the_statement_does_not_cover() {
        let mut books = MonthBooks::default();
        books.add(&line(24, PeerClass::Wan, 3 * GB));
        books.add(&line(0, PeerClass::Wan, GB));
        books.add(&line(24, PeerClass::Lan, 50 * GB));
        books.settle([(Infohash([1; 20]), UtcHour(24), 2 * GB, Micros(200))]);
        let price = |_| Micros(100);
        let day = books.day(UtcDay(1), price);
        assert_eq!(day, Sums { settled: Micros(200), pending: Micros(100), bytes: 3 * GB });
        let month = books.month(UtcDay(1).month(), price);
        assert_eq!(month, Sums { settled: Micros(200), pending: Micros(200), bytes: 4 * GB });
        let other = books.month(UtcMonth { year: 1971, month: 1 }, price);
        assert_eq!(other, Sums::default());
    }
}
