//! What the page and the tracker are told of the ledger, kept in memory so that nobody has to ask
//! the database each second. The truth stays in the store; this is its echo.

use crate::{
    api::hub::Statement,
    logic::{
        earnings::{MonthBooks, Sums},
        hotlist::{HotList, Policy},
        now::{UnixSeconds, UtcMonth},
        units::Micros,
        usage::UsageLine,
    },
};

#[derive(Default)]
pub struct Books {
    month: Option<UtcMonth>,
    lines: MonthBooks,
    pub reported_bytes: u64,
    pub reports_pending: u64,
}

impl Books {
    /// `lines` are the ledger's for the month of `now`.
    pub fn open(now: UnixSeconds, lines: &[UsageLine]) -> Books {
        let mut books = Books { month: Some(now.hour().day().month()), ..Books::default() };
        lines.iter().for_each(|line| books.lines.add(line));
        books
    }

    /// Lines that the ledger has just taken.
    pub fn add(&mut self, saved: &[UsageLine]) {
        for line in saved {
            let month = line.hour.day().month();
            if self.month.is_none_or(|held| month > held) {
                self.month = Some(month);
                self.lines = MonthBooks::default();
            }
            self.lines.add(line);
        }
    }

    /// All lines anew, because some have moved.
    pub fn replace(&mut self, lines: &[UsageLine]) {
        self.lines.forget_ledger();
        self.add(lines);
    }

    pub fn settle(&mut self, statement: &Statement) {
        self.lines.settle(
            statement.lines.iter().map(|l| (l.infohash, l.hour, l.payload_bytes, l.amount)),
        );
    }

    /// Today's and this month's sums.
    pub fn sums(
        &self,
        now: UnixSeconds,
        list: Option<&HotList>,
        policy: Option<&Policy>,
    ) -> (Sums, Sums) {
        let price = |infohash| match (list.and_then(|l| l.entry(infohash)), policy) {
            (Some(entry), Some(policy)) => policy.price(&entry.price_class),
            _ => Micros(0),
        };
        let day = now.hour().day();
        (self.lines.day(day, price), self.lines.month(day.month(), price))
    }
}
